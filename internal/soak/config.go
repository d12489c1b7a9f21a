package soak

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/internal/history"
)

// Config says what a run is. The zero value of a field is its default.
type Config struct {
	// Dir is where the database and the history go: it has to be empty, or not there.
	Dir string
	// Time is how long clients work. Zero means 10 s.
	Time time.Duration
	// KillEvery is the mean time between two kills of the server, after it was ready.
	// Zero means 3 s, negative never.
	KillEvery time.Duration
	// CutEvery is the mean time between two cuts of all connections. Zero means 2 s,
	// negative never.
	CutEvery time.Duration
	// Rate is how many records a second all producers together send at most. Zero
	// means 10,000.
	Rate int
	// RecordBytes is the size of a value. Zero means 100, the least is 8.
	RecordBytes int
	// Partitions of each topic. Zero means 3.
	Partitions int
	// Seed of what is random. What clients and the system do is not repeatable.
	Seed uint64
	// Log is told what happens. Nil is silent.
	Log io.Writer
	// Verbose has Log told what members of groups do.
	Verbose bool
	// WhileDead, if not nil, is called with the directory of the database while the
	// server is dead, for the n-th time from 1. It is for tests that do harm.
	WhileDead func(dir string, n int) error
	// Binary, if not empty, is embedlog, whose `serve` is the server. Without it the
	// binary that calls Main is.
	Binary string
	// Server, if not empty, is the address of a server that runs already, which is not
	// killed and has the topics fast, safe and copied. Several nodes of a cluster have
	// commas between them.
	Server string
	// End, if not nil, ends the work when it is closed, if Time has not passed by then.
	End <-chan struct{}
	// Beside are history files of others who work on the same topics, and have ended
	// when the final read begins. What they saw is checked together with the rest. Their
	// processes have numbers from 1000 on.
	Beside func() ([]string, error)
}

func (c Config) withDefaults() (Config, error) {
	var bad []error
	if c.Dir == "" {
		bad = append(bad, errors.New("soak: no directory"))
	}
	for _, f := range []struct {
		name        string
		at          *int
		def, atLeas int
	}{{"Rate", &c.Rate, 10_000, 1}, {"RecordBytes", &c.RecordBytes, 100, 8}, {"Partitions", &c.Partitions, 3, 1}} {
		if *f.at == 0 {
			*f.at = f.def
		}
		if *f.at < f.atLeas {
			bad = append(bad, fmt.Errorf("soak: %s is %d, the least is %d", f.name, *f.at, f.atLeas))
		}
	}
	for _, f := range []struct {
		at  *time.Duration
		def time.Duration
	}{{&c.Time, 10 * time.Second}, {&c.KillEvery, 3 * time.Second}, {&c.CutEvery, 2 * time.Second}} {
		if *f.at == 0 {
			*f.at = f.def
		}
	}
	if c.Time < 0 {
		bad = append(bad, fmt.Errorf("soak: Time is %v", c.Time))
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	return c, errors.Join(bad...)
}

// Result is what became of a run.
type Result struct {
	Report  *history.Report
	History string // the file
	Took    time.Duration
	Kills   int
	Cuts    int
	// Ready are the times from the start of a killed server until it answers.
	Ready []time.Duration
	// Notes are errors that clients met, and how often. They are no faults: what comes
	// of them is in the history.
	Notes map[string]int
}

// String is the result for people.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v of work, %d kills, %d cuts of all connections\n", r.Took.Round(time.Millisecond), r.Kills, r.Cuts)
	if len(r.Ready) > 0 {
		fmt.Fprintf(&b, "ready again after %v at most\n", slices.Max(r.Ready).Round(time.Millisecond))
	}
	var notes []string
	for text, n := range r.Notes {
		notes = append(notes, fmt.Sprintf("%dx %s", n, text))
	}
	slices.Sort(notes)
	for _, note := range notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	b.WriteString(r.Report.String())
	return b.String()
}
