package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// oracleTotals is what some cases of a test came to. A line of the state file is one.
type oracleTotals struct {
	Test string `json:"test"`
	// Generator is the version of what a seed decides: cases of another one are others, and count for themselves.
	Generator int              `json:"generator,omitempty"`
	Commit    string           `json:"commit"`
	From      uint64           `json:"from"`
	Next      uint64           `json:"next"`
	Cases     int              `json:"cases"`
	Failed    []uint64         `json:"failed,omitempty"`
	Seconds   float64          `json:"seconds"`
	Counts    map[string]int64 `json:"counts"`

	began time.Time
}

// oracleGenerators are the versions of what makes cases, by test: another one begins with the first seed, in the same file. It goes up when a seed
// is another case, or lives through something else.
var oracleGenerators = map[string]int{"TestOracle": 2}

// key tells sums apart.
func (a *oracleTotals) key() string {
	if a.Generator == 0 {
		return a.Test
	}
	return fmt.Sprintf("%s, generator %d", a.Test, a.Generator)
}

func newOracleTotals(t *testing.T, from uint64) *oracleTotals {
	return &oracleTotals{Test: t.Name(), Generator: oracleGenerators[t.Name()], Commit: oracleCommit(), From: from, Next: from, Counts: map[string]int64{}, began: time.Now()}
}

// add takes in a case.
func (a *oracleTotals) add(seed uint64, counts map[string]int64, failed bool) {
	a.Cases++
	a.Next = seed + 1
	if failed {
		a.Failed = append(a.Failed, seed)
	}
	for k, n := range counts {
		a.Counts[k] += n
	}
	a.Seconds = time.Since(a.began).Seconds()
}

// save appends a line to the state file, if there is one.
func (a *oracleTotals) save(t *testing.T) {
	if *oracleState == "" || a.Cases == 0 {
		return
	}
	line, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(*oracleState, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(append(append([]byte{'\n'}, line...), '\n')) // what was before may have no end
	if cerr := f.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
}

// oracleCommit is of what the tests were built, as far as anybody knows. It is looked for once: the next commit is not what runs.
var oracleCommit = sync.OnceValue(func() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(out))
	if exec.Command("git", "diff", "--quiet", "HEAD").Run() != nil {
		commit += "+"
	}
	return commit
})

// readOracleState is the sums of the state file, by test and generator, and the one of this test.
func readOracleState(t *testing.T) (all map[string]*oracleTotals, own *oracleTotals) {
	b, err := os.ReadFile(*oracleState)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	own = newOracleTotals(t, 1)
	all = map[string]*oracleTotals{own.key(): own}
	for line := range bytes.Lines(b) {
		if len(line) == 1 {
			continue
		}
		var one oracleTotals
		if err := json.Unmarshal(line, &one); err != nil {
			continue // whoever wrote it was killed: other cases take the place of these
		}
		sum := all[one.key()]
		if sum == nil {
			sum = &oracleTotals{Test: one.Test, Generator: one.Generator, From: one.From, Counts: map[string]int64{}}
			all[one.key()] = sum
		}
		sum.Commit = one.Commit
		sum.From, sum.Next = min(sum.From, one.From), max(sum.Next, one.Next)
		sum.Cases += one.Cases
		sum.Seconds += one.Seconds
		sum.Failed = append(sum.Failed, one.Failed...)
		for k, n := range one.Counts {
			sum.Counts[k] += n
		}
	}
	return all, own
}

func (a *oracleTotals) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d cases, from %d to before %d, in %.0f s, %d failed %v", a.key(), a.Cases, a.From, a.Next, a.Seconds, len(a.Failed), a.Failed)
	for _, k := range slices.Sorted(maps.Keys(a.Counts)) {
		fmt.Fprintf(&b, "\n  %s: %d", k, a.Counts[k])
	}
	return b.String()
}

// TestOracleTotals prints what is in a state file.
func TestOracleTotals(t *testing.T) {
	if *oracleState == "" {
		t.Skip("without -oracle.state there is nothing to add up")
	}
	all, own := readOracleState(t)
	delete(all, own.key())
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Logf("%v", all[name])
	}
}

// A file with cases of an older generator says nothing of the cases that there are now, and goes on being added up.
func TestOracleState(t *testing.T) {
	defer func(file string) { *oracleState = file }(*oracleState)
	*oracleState = filepath.Join(t.TempDir(), "state")
	defer func(was int) { oracleGenerators[t.Name()] = was }(oracleGenerators[t.Name()])
	for _, generator := range []int{0, 1} {
		oracleGenerators[t.Name()] = generator
		for range 2 {
			_, done := readOracleState(t)
			some := newOracleTotals(t, done.Next)
			some.add(done.Next, map[string]int64{"records": 2}, false)
			some.save(t)
		}
	}
	all, own := readOracleState(t)
	if old := all["TestOracleState"]; own.Next != 3 || own.Cases != 2 || old == nil || old.Next != 3 || old.Counts["records"] != 4 || len(all) != 2 {
		t.Errorf("%v\n%v", all, own)
	}
}
