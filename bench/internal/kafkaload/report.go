package kafkaload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Run measures the selected loads and prints what came out as Markdown. A load that
// fails does not stop the others. behind is in how many cells ours is behind, of those
// that count.
func (m *Matrix) Run(ctx context.Context, counts func(*System, *Load) bool, w, progress io.Writer) (behind int, err error) {
	files, err := os.MkdirTemp(m.Dir, "kafkaload-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(files)) }()
	fmt.Fprintf(w, "%s/%s, GOMAXPROCS %d, %s; medians of %d repetitions of %v, taken in turns.\n", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version(), m.Reps, m.Time)
	fmt.Fprintf(w, "In brackets how many times embedlog is ahead (below 1: behind): median (least to most) of the repetitions.\n")
	var errs []error
	var section string
	var measured []lineOf
	flush := func() {
		if len(measured) > 0 {
			m.section(w, section, measured)
			measured = nil
		}
	}
	for _, l := range m.Selected() {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		out, err := m.Measure(ctx, l, files, progress)
		fmt.Fprint(progress, "\r\x1b[K")
		if err == nil {
			err = clearDir(files)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if string(l.Kind) != section {
			flush()
			section = string(l.Kind)
		}
		measured = append(measured, lineOf{l, out})
		own := ours(out)
		for _, o := range out {
			if len(o.Results) > 0 && o.System.Name != OursName && counts(o.System, &l) {
				if mid, _, _ := ahead(l.Kind, own, o.Results); mid < 1 {
					behind++
				}
			}
		}
	}
	flush()
	fmt.Fprintln(w)
	for _, s := range m.Systems {
		fmt.Fprintf(w, "- %s: %s\n", s.Name, s.Note)
	}
	return behind, errors.Join(errs...)
}

func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(dir+"/"+e.Name()))
	}
	return err
}

type lineOf struct {
	load Load
	out  []Outcome
}

func ours(out []Outcome) []Result {
	for _, o := range out {
		if o.System.Name == OursName {
			return o.Results
		}
	}
	return nil
}

// ahead is how many times ours is better, by repetition: median, least, most.
func ahead(k Kind, ours, other []Result) (mid, low, high float64) {
	var all []float64
	for i := range min(len(ours), len(other)) {
		x := ours[i].PerSecond() / other[i].PerSecond()
		if k == Latency {
			x = float64(other[i].P50) / float64(ours[i].P50)
		}
		all = append(all, x)
	}
	slices.Sort(all)
	return all[len(all)/2], all[0], all[len(all)-1]
}

func median[T int64 | float64 | time.Duration](results []Result, f func(*Result) T) T {
	var all []T
	for i := range results {
		all = append(all, f(&results[i]))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// section prints the figures of a kind of loads, and what the servers took.
func (m *Matrix) section(w io.Writer, kind string, lines []lineOf) {
	title := kind + ", records a second"
	if kind == string(Latency) {
		title = kind + ", p50 / p99"
	}
	head := fmt.Sprintf("\n| %s |", title)
	rule := "|---|"
	for _, s := range m.Systems {
		head += " " + s.Name + " |"
		rule += "---:|"
	}
	if kind != string(Latency) {
		head += " MB/s |"
		rule += "---:|"
	}
	for _, s := range m.Systems {
		head += " CPU/MB " + s.Name + " |"
		rule += "---:|"
	}
	fmt.Fprintln(w, head)
	fmt.Fprintln(w, rule)
	for _, line := range lines {
		own := ours(line.out)
		cells := []string{strings.TrimPrefix(line.load.Name(), "kafka/"+kind+"/")}
		for _, o := range line.out {
			cells = append(cells, cell(line.load.Kind, o, own))
		}
		if kind != string(Latency) {
			cells = append(cells, short(median(own, (*Result).MBPerSecond)))
		}
		for _, o := range line.out {
			if o.Cannot != "" {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, round(median(o.Results, (*Result).CPUPerMB)))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

func cell(k Kind, o Outcome, own []Result) string {
	if o.Cannot != "" {
		return o.Cannot
	}
	text := ""
	if k == Latency {
		text = round(median(o.Results, func(r *Result) time.Duration { return r.P50 })) + " / " + round(median(o.Results, func(r *Result) time.Duration { return r.P99 }))
	} else {
		text = perSecond(median(o.Results, (*Result).PerSecond))
	}
	if o.System.Name == OursName {
		return text
	}
	mid, low, high := ahead(k, own, o.Results)
	return fmt.Sprintf("%s (%s, %s to %s)", text, short(mid), short(low), short(high))
}

func perSecond(n float64) string {
	switch {
	case n >= 1e6:
		return short(n/1e6) + " M"
	case n >= 1e3:
		return short(n/1e3) + " k"
	}
	return short(n)
}

// short is a number with three digits that count.
func short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func round(d time.Duration) string {
	switch {
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
