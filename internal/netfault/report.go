//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/internal/history"
)

// acknowledgements are the times at which clients heard that something they sent is there.
func acknowledgements(src history.Source) (all []time.Time, byKey map[history.Key][]time.Time, err error) {
	byKey = map[history.Key][]time.Time{}
	for op, err := range src.Ops() {
		if err != nil {
			return nil, nil, err
		}
		if op.Kind != history.OpSend && op.Kind != history.OpTxn || op.Outcome != history.OK {
			continue
		}
		at := time.Unix(0, op.End)
		some := false
		for _, run := range op.Sends {
			if op.Kind == history.OpTxn || slices.ContainsFunc(run.Records, func(r history.Record) bool { return r.Offset >= 0 }) {
				byKey[run.Key] = append(byKey[run.Key], at)
				some = true
			}
		}
		if some {
			all = append(all, at)
		}
	}
	return all, byKey, nil
}

// table says of each kind of fault how often it was done, and how long at most nothing was
// acknowledged from its begin until 5 s after its end: anywhere, and in the partition that waited longest.
func (h *harness) table(all []time.Time, byKey map[history.Key][]time.Time, end time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-42s %5s %12s %20s\n", "fault", "times", "longest wait", "of one partition")
	for _, f := range kinds {
		var times int
		var any, one time.Duration
		for _, d := range h.done {
			if d.name != f.name {
				continue
			}
			times++
			to := d.to.Add(5 * time.Second)
			if to.After(end) {
				to = end
			}
			around := []span{{d.from, to}}
			any = max(any, gaps(around, all)[0].length())
			for _, acks := range byKey {
				one = max(one, gaps(around, acks)[0].length())
			}
		}
		if times > 0 {
			fmt.Fprintf(&b, "%-42s %5d %12v %20v\n", f.name, times, any.Round(10*time.Millisecond), one.Round(10*time.Millisecond))
		}
	}
	return b.String()
}
