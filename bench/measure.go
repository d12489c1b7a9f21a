package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// outcome is what the repetitions of a row measured. Results with the same
// number ran next to each other; ours is empty when nothing is registered.
type outcome struct {
	limit, ours []result
}

// measureAll measures the rows one after the other, prints each as it is done,
// and counts those that missed their target. A row that fails does not stop the
// others; its error is returned at the end.
func measureAll(c config, rows []*row, stdout io.Writer) (missed int, err error) {
	base, err := os.MkdirTemp(c.dir, "embedlog-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	// Interrupted, the program must not leave gigabytes behind.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	go func() {
		if _, ok := <-interrupts; ok {
			os.RemoveAll(base)
			os.Exit(130)
		}
	}()

	t := newTable(stdout, c, rows)
	t.header(c, base)
	var errs []error
	for _, r := range rows {
		out, err := measureRow(c, r, base)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
			t.failed(r, err)
			continue
		}
		v := r.judge(out)
		if v.judged && !v.ok {
			missed++
		}
		t.row(r, out, v)
	}
	t.footer(missed)
	return missed, errors.Join(errs...)
}

// measureRow runs the repetitions of a row: limit and ours in turn, the one that
// goes first changing each time, so that neither always finds the disk as the
// other left it.
func measureRow(c config, r *row, base string) (outcome, error) {
	sides := []side{r.limit}
	if s, ok := ours[r.name]; ok && !c.limitsOnly {
		sides = append(sides, s)
	}
	shared := make([]string, len(sides)) // directories of sides with a setup
	for i, s := range sides {
		if s.setup == nil {
			continue
		}
		dir, err := os.MkdirTemp(base, "row-")
		if err != nil {
			return outcome{}, err
		}
		defer os.RemoveAll(dir) // again with base, where an error is reported
		shared[i] = dir
		one := r.repetition(c)
		one.Dir = dir
		if err := s.setup(&one); err != nil {
			return outcome{}, fmt.Errorf("set up %s: %w", sideNames[i], err)
		}
	}
	reps := c.reps
	if r.once {
		reps = 1
	}
	results := make([][]result, len(sideNames))
	for n := range reps {
		for k := range sides {
			i := (n + k) % len(sides)
			res, err := measureSide(c, r, sides[i], i, base, shared[i])
			if err != nil {
				return outcome{}, fmt.Errorf("%s: %w", sideNames[i], err)
			}
			results[i] = append(results[i], res)
		}
	}
	return outcome{limit: results[0], ours: results[1]}, nil
}

var sideNames = []string{"limit", "ours"}

// measureSide runs one repetition of one side, in a directory of its own unless
// the side shares one.
func measureSide(c config, r *row, s side, number int, base, dir string) (res result, err error) {
	one := r.repetition(c)
	one.Dir = dir
	if dir == "" {
		if one.Dir, err = os.MkdirTemp(base, "rep-"); err != nil {
			return result{}, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(one.Dir)) }()
	}
	one.records() // the pool is made before the clock starts
	if s.prepare != nil {
		if err := s.prepare(&one); err != nil {
			return result{}, fmt.Errorf("prepare: %w", err)
		}
	}
	if s.fresh {
		if c.profile != "" && number > 0 {
			one.Profile = filepath.Join(c.profile, strings.ReplaceAll(r.name, "/", ","))
		}
		return inChild(r.name, sideNames[number], &one)
	}
	runtime.GC() // what the last repetition left is not this one's to clean up
	return s.run(&one)
}

// A verdict is what the results of a row come to.
type verdict struct {
	judged            bool // there is something of ours
	ok                bool
	ratio             float64 // or the amount, or the growth: what is held against the target
	low, high         float64
	limitPause, pause time.Duration
	pauseOK           bool
	limitCPU, cpu     time.Duration // of a record, median
	notes             []string
}

// judge compares the repetitions of a row pair by pair.
func (r *row) judge(out outcome) verdict {
	v := verdict{judged: len(out.ours) > 0, pauseOK: true}
	for _, one := range out.limit {
		v.limitPause = max(v.limitPause, one.Longest)
	}
	v.limitCPU, v.cpu = medianCPU(out.limit), medianCPU(out.ours)
	if !v.judged {
		return v
	}
	var held []float64
	for i, our := range out.ours {
		held = append(held, r.held(out.limit[i], our))
		v.pause = max(v.pause, our.Longest)
		if our.Note != "" && !slices.Contains(v.notes, our.Note) {
			v.notes = append(v.notes, our.Note)
		}
	}
	v.ratio, v.low, v.high = median(held), slices.Min(held), slices.Max(held)
	v.ok = v.ratio <= r.target
	switch r.measure {
	case rate:
		v.ok = v.ratio >= r.target
	case speed:
		v.ok = medianFigure(r, out.ours) >= r.target
	}
	if r.stated {
		v.ok = true
	}
	if r.steady {
		v.pauseOK = v.pause <= v.limitPause+pauseSlack
	}
	v.ok = v.ok && v.pauseOK && len(v.notes) == 0
	return v
}

// held is the number of one pair that the target is about.
func (r *row) held(limit, our result) float64 {
	switch r.measure {
	case amount:
		return our.Value
	case growth:
		return our.Value - limit.Value
	}
	return r.figure(our) / r.figure(limit)
}

// figure is what a side is reported as: records per second, nanoseconds, or the amount.
func (r *row) figure(one result) float64 {
	switch r.measure {
	case rate, speed:
		return float64(one.Records) / one.Elapsed.Seconds()
	case latency:
		return float64(one.P50)
	case tail:
		return float64(one.P99)
	}
	return one.Value
}

// medianCPU is what a record has taken of the processors.
func medianCPU(results []result) time.Duration {
	var list []float64
	for _, one := range results {
		list = append(list, float64(one.CPU)/float64(max(one.Records, 1)))
	}
	if len(list) == 0 {
		return 0
	}
	return time.Duration(median(list))
}

// median returns the middle, or the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
