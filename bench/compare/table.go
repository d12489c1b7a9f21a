package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

type table struct{ rows []*row }

type row struct {
	w     *workload
	size  int
	cells map[string]*cell
}

type cell struct {
	results []result
	cannot  string
}

func (t *table) add(w *workload, size int) *row {
	r := &row{w: w, size: size, cells: map[string]*cell{}}
	t.rows = append(t.rows, r)
	return r
}

func (r *row) cell(system string) *cell {
	if r.cells[system] == nil {
		r.cells[system] = &cell{}
	}
	return r.cells[system]
}

// median is the middle one of what f picks.
func (c *cell) median(f func(result) float64) float64 {
	var v []float64
	for _, r := range c.results {
		v = append(v, f(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// score is the figure of the cell, in which more is better.
func (c *cell) score(k kind) float64 {
	switch k {
	case following:
		return 1 / c.median(func(r result) float64 { return float64(r.P50) })
	case opening:
		return 1 / c.median(func(r result) float64 { return float64(r.Took) })
	}
	return c.median(func(r result) float64 { return r.PerSecond })
}

func (c *cell) text(k kind) string {
	switch k {
	case following:
		return fmt.Sprintf("%s / %s", round(c.median(func(r result) float64 { return float64(r.P50) })), round(c.median(func(r result) float64 { return float64(r.P99) })))
	case opening:
		return round(c.median(func(r result) float64 { return float64(r.Took) }))
	}
	switch n := c.score(k); {
	case n >= 1e6:
		return fmt.Sprintf("%.2f M/s", n/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f k/s", n/1e3)
	default:
		return fmt.Sprintf("%.0f /s", n)
	}
}

func round(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d >= 10*time.Microsecond:
		return d.Round(time.Microsecond).String()
	default:
		return d.Round(10 * time.Nanosecond).String()
	}
}

// print writes the table as Markdown: a figure, and how many times ours it is.
func (t *table) print(w io.Writer, o options) {
	fmt.Fprintf(w, "%s/%s, %d CPUs, %s; median of %d, %.1f s each; page cache warm.\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), o.Reps, o.Seconds)
	fmt.Fprintf(w, "A figure in brackets says how many times embedlog is ahead (below 1: behind).\n\n")
	var names []string
	for _, s := range systems {
		if s.name == ours || o.Systems.MatchString(s.name) {
			names = append(names, s.name)
		}
	}
	fmt.Fprintf(w, "| workload | value | %s |\n|---|---:|%s\n", strings.Join(names, " | "), strings.Repeat("---:|", len(names)))
	behind := 0
	for _, r := range t.rows {
		fmt.Fprintf(w, "| %s | %d B ", r.w.name, r.size)
		own := r.cell(ours)
		for _, n := range names {
			c := r.cell(n)
			switch {
			case c.cannot != "":
				fmt.Fprintf(w, "| %s ", c.cannot)
			case len(c.results) == 0:
				fmt.Fprint(w, "| ")
			case n == ours:
				fmt.Fprintf(w, "| %s ", c.text(r.w.kind))
			default:
				ahead := own.score(r.w.kind) / c.score(r.w.kind)
				if ahead < 1 {
					behind++
				}
				fmt.Fprintf(w, "| %s (%s) ", c.text(r.w.kind), times(ahead))
			}
		}
		fmt.Fprintln(w, "|")
	}
	fmt.Fprintln(w)
	for _, l := range workloads {
		if o.Only.MatchString(l.name) {
			fmt.Fprintf(w, "- %s: %s\n", l.name, l.what)
		}
	}
	for _, s := range systems {
		fmt.Fprintf(w, "- %s: %s\n", s.name, s.note)
	}
	fmt.Fprintf(w, "\nembedlog is behind in %d cells.\n", behind)
}

func times(x float64) string {
	if x >= 10 {
		return fmt.Sprintf("%.0f×", x)
	}
	return fmt.Sprintf("%.2g×", x)
}
