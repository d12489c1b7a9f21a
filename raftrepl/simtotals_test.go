package raftrepl

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

var simResults = flag.String("sim.results", "", "a file to which the totals of the runs are added, and behind whose seeds the next run begins")

// simTotals is what seeds came to. A line of the results is one.
type simTotals struct {
	Commit  string             `json:"commit"`
	From    uint64             `json:"from"`
	Seeds   int                `json:"seeds"`
	Seconds float64            `json:"seconds"` // of real time
	Hours   map[string]float64 `json:"hours"`   // of virtual time, by timing
	Faults  map[string]int     `json:"faults"`
	Counts  map[string]int64   `json:"counts"`
	Plans   map[string]int     `json:"plans"`
}

func (a *simTotals) maps() {
	if a.Hours == nil {
		a.Hours, a.Faults, a.Counts, a.Plans = map[string]float64{}, map[string]int{}, map[string]int64{}, map[string]int{}
	}
}

// simReal is the clock outside of bubbles.
var simBegan = time.Now()

// add takes in a run.
func (a *simTotals) add(s *sim) {
	a.maps()
	a.Seeds++
	a.Hours[s.plan.speed] += time.Since(s.start).Hours()
	for name, n := range s.faults {
		a.Faults[name] += n
	}
	for name, n := range s.counts {
		if strings.HasPrefix(name, "longest") {
			a.Counts[name] = max(a.Counts[name], n)
		} else {
			a.Counts[name] += n
		}
	}
	p := s.plan
	for name, is := range map[string]bool{fmt.Sprintf("%d members", p.members): true, p.level.String(): true, "odd messages": p.odd, "compaction": p.compact,
		"transactions": p.txns, "installs": p.behind, "short messages": p.short > 0, "spare node": p.spare > 0} {
		if is {
			a.Plans[name]++
		}
	}
}

// merge adds other results.
func (a *simTotals) merge(b *simTotals) {
	a.maps()
	a.Seeds += b.Seeds
	a.Seconds += b.Seconds
	for k, v := range b.Hours {
		a.Hours[k] += v
	}
	for k, v := range b.Faults {
		a.Faults[k] += v
	}
	for k, v := range b.Plans {
		a.Plans[k] += v
	}
	for k, v := range b.Counts {
		if strings.HasPrefix(k, "longest") {
			a.Counts[k] = max(a.Counts[k], v)
		} else {
			a.Counts[k] += v
		}
	}
}

// save writes a line to the results, and says what was done where somebody looks.
func (a *simTotals) save(t *testing.T) {
	if a.Seeds == 0 {
		return
	}
	a.Seconds = time.Since(simBegan).Seconds()
	simBegan = time.Now()
	a.Commit = simCommit()
	line, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if *simResults == "" {
		t.Logf("%s", line)
		return
	}
	f, err := os.OpenFile(*simResults, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(append(line, '\n'))
	if cerr := f.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	all, _ := readResults(t)
	t.Logf("all so far: %v", all)
}

// simCommit is of what the tests were built, as far as anybody knows.
func simCommit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(out))
	if exec.Command("git", "diff", "--quiet", "HEAD").Run() != nil {
		commit += "+"
	}
	return commit
}

// readResults is the sum of the file, and the seed to go on with.
func readResults(t *testing.T) (all *simTotals, next uint64) {
	all, next = &simTotals{}, 1
	all.maps()
	b, err := os.ReadFile(*simResults)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var one simTotals
		if err := json.Unmarshal(line, &one); err != nil {
			t.Fatalf("%s: %v", *simResults, err)
		}
		all.merge(&one)
		next = max(next, one.From+uint64(one.Seeds))
	}
	return all, next
}

// simFirst is the seed to begin with.
func simFirst(t *testing.T) uint64 {
	switch {
	case *simFrom > 0:
		return *simFrom
	case *simResults != "":
		_, next := readResults(t)
		return next
	}
	return 1
}

func (a *simTotals) String() string {
	var b strings.Builder
	hours := 0.0
	for _, h := range a.Hours {
		hours += h
	}
	fmt.Fprintf(&b, "%d seeds, %.1f virtual hours in %.0f s\n", a.Seeds, hours, a.Seconds)
	for _, k := range slices.Sorted(maps.Keys(a.Hours)) {
		fmt.Fprintf(&b, "  hours, %s timing: %.1f\n", k, a.Hours[k])
	}
	for _, k := range slices.Sorted(maps.Keys(a.Plans)) {
		fmt.Fprintf(&b, "  runs, %s: %d\n", k, a.Plans[k])
	}
	for _, k := range slices.Sorted(maps.Keys(a.Faults)) {
		fmt.Fprintf(&b, "  fault, %s: %d\n", k, a.Faults[k])
	}
	for _, k := range slices.Sorted(maps.Keys(a.Counts)) {
		fmt.Fprintf(&b, "  %s: %d\n", k, a.Counts[k])
	}
	return b.String()
}

// TestSimulationTotals prints the sum of a file of results:
//
//	go test -run TestSimulationTotals -v ./raftrepl -sim.results FILE
func TestSimulationTotals(t *testing.T) {
	if *simResults == "" {
		t.Skip("without -sim.results there is nothing to add up")
	}
	if _, err := os.Stat(*simResults); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	} else if _, ok := err.(*fs.PathError); ok {
		t.Fatal(err)
	}
	all, next := readResults(t)
	t.Logf("%vthe next seed is %d", all, next)
}
