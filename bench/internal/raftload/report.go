package raftload

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Better is how many times a is better than b, by repetition: median, least, most.
func Better(k Kind, a, b []Result) (mid, low, high float64) {
	var all []float64
	for i := range min(len(a), len(b)) {
		x := a[i].PerSecond() / b[i].PerSecond()
		if k == Single {
			x = float64(b[i].P50) / float64(a[i].P50)
		}
		all = append(all, x)
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	slices.Sort(all)
	return median(all), all[0], all[len(all)-1]
}

// median is the lower one of an even number.
func median[T cmp.Ordered](sorted []T) T { return sorted[(len(sorted)-1)/2] }

func medianOf[T cmp.Ordered](results []Result, f func(*Result) T) T {
	var all []T
	for i := range results {
		all = append(all, f(&results[i]))
	}
	slices.Sort(all)
	return median(all)
}

// Figures prints a system's results of a load: p50 / p99, or records and megabytes a second.
func Figures(k Kind, results []Result) string {
	if k == Single {
		return Round(medianOf(results, func(r *Result) time.Duration { return r.P50 })) + " / " + Round(medianOf(results, func(r *Result) time.Duration { return r.P99 }))
	}
	return PerSecond(medianOf(results, (*Result).PerSecond)) + ", " + Short(medianOf(results, (*Result).MBPerSecond)) + " MB/s"
}

// cpu is what all nodes took of the processors for a record.
func cpu(results []Result) time.Duration {
	return medianOf(results, func(r *Result) time.Duration {
		var sum time.Duration
		for _, d := range r.CPU {
			sum += d
		}
		return sum / time.Duration(max(r.Records, 1))
	})
}

// Print prints the lines as Markdown: what each system did, and in brackets how many times
// ours is ahead of it (below 1: behind), median and least to most of the repetitions.
func (m *Matrix) Print(w io.Writer, lines []Line) {
	head, rule := "| three replicas, each record on two disks |", "|---|"
	for _, s := range m.Systems {
		head += " " + s.Name + " |"
		rule += "---:|"
	}
	fmt.Fprintf(w, "%s CPU/record, all nodes |\n%s---|\n", head, rule)
	for _, line := range lines {
		own := line.Of(OursName)
		cells := []string{strings.TrimPrefix(line.Load.Name(), "raft/")}
		var cpus []string
		for _, o := range line.Outcomes {
			text := Figures(line.Load.Kind, o.Results)
			if o.System.Name != OursName {
				mid, low, high := Better(line.Load.Kind, own, o.Results)
				text += fmt.Sprintf(" (%s, %s to %s)", Short(mid), Short(low), Short(high))
			}
			cells = append(cells, text)
			cpus = append(cpus, o.System.Name+" "+cpu(o.Results).String())
		}
		fmt.Fprintf(w, "| %s | %s |\n", strings.Join(cells, " | "), strings.Join(cpus, ", "))
	}
	fmt.Fprintln(w)
	for _, s := range m.Systems {
		fmt.Fprintf(w, "- %s: %s\n", s.Name, s.Note)
	}
}

// PerSecond prints a number of records a second.
func PerSecond(n float64) string {
	switch {
	case n >= 1e6:
		return Short(n/1e6) + " M/s"
	case n >= 1e3:
		return Short(n/1e3) + " k/s"
	}
	return Short(n) + " /s"
}

// Short is a number with three digits that count.
func Short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Round prints a duration with the digits that count.
func Round(d time.Duration) string {
	switch {
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
