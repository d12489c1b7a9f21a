package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"time"
)

// A table prints rows as they are measured, in columns of fixed width.
type table struct {
	w          io.Writer
	pause      string // what the columns beside the figures are
	width      int    // of the widest name
	limitsOnly bool
	rows, ours int
}

func newTable(w io.Writer, c config, rows []*row) *table {
	t := &table{w: w, pause: "pause", limitsOnly: c.limitsOnly}
	for _, r := range rows {
		t.width = max(t.width, len(r.name))
	}
	if c.suite == suiteViews {
		t.pause = "cpu"
	}
	return t
}

func (t *table) header(c config, dir string) {
	fmt.Fprintf(t.w, "%s; %s %s/%s, GOMAXPROCS %d\n", machine(dir), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	fmt.Fprintf(t.w, "%d repetitions of %v or %d MiB; figures are medians, the ratio is the median of the repetitions' ratios\n\n", c.reps, c.seconds, c.bytes>>20)
	if t.limitsOnly {
		t.line("workload", "limit", t.pause, "", "", "(min-max)", "", "")
		return
	}
	t.line("workload", "limit", t.pause, "ours", t.pause, "ratio (min-max)", "target", "ok")
}

// line prints the columns: name, limit, its pause, ours, its pause, ratio, target, ok.
func (t *table) line(columns ...string) {
	line := fmt.Sprintf("%-*s  %-28s %9s", t.width, columns[0], columns[1], columns[2])
	if !t.limitsOnly {
		line += fmt.Sprintf("  %12s %9s", columns[3], columns[4])
	}
	line += fmt.Sprintf("  %-20s %-10s %s", columns[5], columns[6], columns[7])
	fmt.Fprintln(t.w, strings.TrimRight(line, " "))
}

func (t *table) row(r *row, out outcome, v verdict) {
	t.rows++
	limit := r.against + " " + r.show(medianFigure(r, out.limit))
	if t.limitsOnly {
		low, high := math.Inf(1), math.Inf(-1)
		for _, one := range out.limit {
			low, high = min(low, r.figure(one)), max(high, r.figure(one))
		}
		t.line(r.name, limit, r.showBeside(v.limitPause, v.limitCPU), "", "", "("+r.show(low)+" - "+r.show(high)+")", "", "")
		return
	}
	if !v.judged {
		t.line(r.name, limit, r.showBeside(v.limitPause, v.limitCPU), "not built", "", "", r.showTarget(), "")
		return
	}
	t.ours++
	ok := "yes"
	if !v.ok {
		ok = "NO"
	}
	if !v.pauseOK {
		ok += ", pauses"
	}
	for _, note := range v.notes {
		ok += ", " + note
	}
	t.line(r.name, limit, r.showBeside(v.limitPause, v.limitCPU), r.show(medianFigure(r, out.ours)), r.showBeside(v.pause, v.cpu),
		fmt.Sprintf("%s (%s-%s)", short(v.ratio), short(v.low), short(v.high)), r.showTarget(), ok)
}

func (t *table) failed(r *row, err error) {
	t.rows++
	t.line(r.name, "FAILED: "+strings.ReplaceAll(err.Error(), "\n", " "), "", "", "", "", "", "")
}

func (t *table) footer(missed int) {
	if !t.limitsOnly {
		fmt.Fprintf(t.w, "\n%d rows, %d with something of ours to measure, %d of them missed\n", t.rows, t.ours, missed)
	}
}

func medianFigure(r *row, results []result) float64 {
	figures := make([]float64, len(results))
	for i, one := range results {
		figures[i] = r.figure(one)
	}
	return median(figures)
}

// show prints a figure with its unit.
func (r *row) show(x float64) string {
	switch r.measure {
	case latency, tail:
		return time.Duration(x).String()
	case rate, speed:
		switch {
		case x >= 1e6:
			return short(x/1e6) + " M/s"
		case x >= 1e3:
			return short(x/1e3) + " k/s"
		}
		return short(x) + " /s"
	}
	return short(x) + " " + r.unit
}

func (r *row) showTarget() string {
	if r.stated {
		return "stated"
	}
	switch r.measure {
	case rate:
		return ">= " + short(r.target)
	case speed:
		return ">= " + r.show(r.target)
	case latency, tail:
		return "<= " + short(r.target)
	case growth:
		return "<= +" + short(r.target) + " " + r.unit
	}
	return "<= " + short(r.target) + " " + r.unit
}

// showBeside is the longest pause, or what a record took of the processors.
func (r *row) showBeside(pause, cpu time.Duration) string {
	if r.suite == suiteViews && cpu > 0 {
		return cpu.String()
	}
	return r.showPause(pause)
}

func (r *row) showPause(d time.Duration) string {
	switch {
	case !r.pause || d == 0:
		return ""
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// short prints a number with three digits that count.
func short(x float64) string {
	switch a := math.Abs(x); {
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}
