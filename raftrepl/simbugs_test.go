//go:build seededbugs

package raftrepl

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/x/embedlog/internal/seed"
)

// simBug is how a seeded bug is looked for: which fault happens more often, at which level, and within
// how many seeds it must be caught.
type simBug struct {
	more, level string
	seeds       int
	short       bool   // messages are short
	says        string // what the failure must say, as a regular expression
}

var simBugs = map[string]simBug{
	seed.ReplicaNoFsync:   {seeds: 100},
	seed.LeaderAlone:      {seeds: 50},
	seed.FollowerShowsAll: {seeds: 50},
	seed.VoteForgotten:    {more: "contested election", seeds: 50, says: `nodes \d+ and \d+ lead in epoch`},
	seed.WatermarkFollows: {seeds: 50, says: `watermark goes back`},
	seed.DoubtIgnored:     {more: "lost tail", level: "os", seeds: 200},
	seed.DoubtEndsEarly:   {more: "lost tail", level: "os", seeds: 100, short: true, says: `lost-write|inconsistent-offsets|is committed at node`},
	seed.StaleRead:        {more: "pause", seeds: 200},
	seed.StaleProducers:   {more: "partition", seeds: 200},
	seed.RetainAlone:      {more: "retention", seeds: 50},
	seed.CompactAhead:     {more: "compaction", seeds: 400},
	seed.DeposedAcks:      {more: "partition", seeds: 200},
	seed.CutForgotten:     {more: "lost tail", seeds: 200},
	seed.CacheKeepsCut:    {more: "partition", seeds: 400},
	seed.LeaderUnsynced:   {more: "slow majority", seeds: 50, says: `have not synced it`},
	seed.FollowerUnsynced: {more: "slow majority", seeds: 50, says: `have not synced it`},
}

// Under a bug TestSimulation looks for it by itself: see internal/seed.
func init() {
	if b, ok := simBugs[os.Getenv("EMBEDLOG_BUG")]; ok {
		*simMore, *simOnly, *simRuns, *simShort = b.more, b.level, b.seeds, b.short
	}
}

// simRan is a seed that was begun; the last one has failed.
var simRan = regexp.MustCompile(`=== RUN   TestSimulation/(\d+)`)

// Each bug is caught, and says by which seed:
//
//	go test -tags seededbugs -run TestSimulationCatches -v -timeout 30m ./raftrepl
func TestSimulationCatches(t *testing.T) {
	if os.Getenv("EMBEDLOG_BUG") != "" {
		t.Skip("a bug is chosen already")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, b := range seed.All {
		if b.Test != "TestSimulation" {
			continue
		}
		tried++
		t.Run(b.Name, func(t *testing.T) {
			how, ok := simBugs[b.Name]
			if !ok {
				t.Fatal("nobody says how it is looked for")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			began := time.Now()
			var out []byte
			var err error
			says := regexp.MustCompile(how.says)
			for try := range 5 { // the seed that fails first may have failed otherwise
				c := exec.CommandContext(ctx, self, "-test.run", "^TestSimulation$", "-test.v", "-test.timeout", "10m", "-sim.from", strconv.Itoa(1+1000*try))
				c.Env = append(os.Environ(), "EMBEDLOG_BUG="+b.Name)
				if out, err = c.CombinedOutput(); err == nil || says.Match(out) {
					break
				}
			}
			ran := simRan.FindAllSubmatch(out, -1)
			switch {
			case ctx.Err() != nil:
				t.Fatalf("it did not end:\n%.2000s", out)
			case err == nil:
				t.Fatalf("not caught within %d seeds", how.seeds)
			case len(ran) == 0:
				t.Fatalf("%v, and no seed was begun:\n%.4000s", err, out)
			case !says.Match(out):
				t.Fatalf("caught, but not by what says %q:\n%.8000s", how.says, out)
			}
			t.Log(fmt.Sprintf("caught by seed %s, after %.1f s", ran[len(ran)-1][1], time.Since(began).Seconds()))
		})
	}
	if tried < 10 {
		t.Errorf("%d bugs were tried", tried)
	}
}
