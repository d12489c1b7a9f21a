//go:build linux

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/internal/soak"
)

// evidence is what a run leaves behind, from which it is judged.
type evidence struct {
	verdict verdict  // of the clients, who have checked all histories together
	notes   []string // the history files
	dirs    []string // the nodes' databases, closed
	// partitions of each topic.
	partitions int
	moments    []moment
	end        time.Time // when the load went off
	done       []done
	// window is the longest time without an acknowledgement that a partition may have while a
	// majority must take records.
	window time.Duration
	// strict makes a longer one a failure. Otherwise it is reported.
	strict bool
}

// producers are the partitions that producers send to all the time: to these the window applies. The topic that
// a group copies to gets records when the group has members and something to copy.
func (e *evidence) producers() (list []history.Key) {
	sent, _ := soak.Topics()
	for _, topic := range sent {
		for p := range int32(e.partitions) {
			list = append(list, history.Key{Topic: topic, Partition: p})
		}
	}
	return list
}

// judge is what the run says, and what is wrong with it. A run that shows nothing is wrong, too.
func (e *evidence) judge() (text string, bad []string, err error) {
	var b strings.Builder
	if e.verdict.Error != "" {
		bad = append(bad, "the clients could not end, or could not be judged: "+e.verdict.Error)
	}
	fmt.Fprintln(&b, e.verdict.Text)
	if e.verdict.Bad > 0 {
		bad = append(bad, fmt.Sprintf("anomalies of %d kinds in the histories: see above", e.verdict.Bad))
	}
	problems, logs, entries, err := compareReplicas(e.dirs)
	if err != nil {
		return b.String(), bad, err
	}
	bad = append(bad, problems...)
	fmt.Fprintf(&b, "replicas: %d logs of %d nodes, %d entries compared, %d problems\n", logs, len(e.dirs), entries, len(problems))
	if entries == 0 {
		bad = append(bad, "no entries of replicas were compared")
	}
	seen, err := observe(history.OpenFiles(e.notes...))
	if err != nil {
		return b.String(), bad, err
	}
	more, late := e.times(&b, seen)
	bad = append(bad, more...)
	if e.strict {
		bad = append(bad, late...)
	} else {
		for _, text := range late {
			fmt.Fprintln(&b, "NOTE:", text)
		}
	}
	return b.String(), bad, nil
}

// times writes how long nothing was acknowledged, and says which partitions took nothing at all (bad), or not within
// the window (late).
func (e *evidence) times(b *strings.Builder, seen *observed) (bad, late []string) {
	begin := e.moments[0].at
	duty := duties(e.moments, e.end)
	var total time.Duration
	for _, d := range duty {
		total += d.length()
	}
	fmt.Fprintf(b, "load for %v; for %v of it a majority was alive, connected and on working disks, and had to take records\n",
		e.end.Sub(begin).Round(time.Second), total.Round(time.Second))
	e.table(b, seen)
	if len(duty) == 0 {
		return []string{"there never was a majority that had to take records"}, nil
	}
	var lines []string
	for _, k := range e.producers() {
		acks := seen.acks[k]
		if len(acks) == 0 {
			bad = append(bad, fmt.Sprintf("%v: nothing was acknowledged at all", k))
			continue
		}
		g := gaps(duty, acks)[0]
		lines = append(lines, fmt.Sprintf("%v %s", k, g))
		if g.length() >= e.window {
			late = append(late, fmt.Sprintf("%v: no acknowledgement for %v from %s on, while a majority had to take records", k, round(g.length()), clock(g.from)))
		}
	}
	fmt.Fprintf(b, "longest times without an acknowledgement while a majority had to take records (at most %v is wanted):\n", e.window)
	if all := seen.all(e.producers()); len(all) > 0 {
		fmt.Fprintf(b, "  of all partitions together %s\n", gaps(duty, all)[0])
	}
	for _, line := range lines {
		fmt.Fprintln(b, "  "+line)
	}
	fmt.Fprintln(b, "longest times in which a group moved nothing, then (for information: its members may be on dead nodes, or have nothing to do):")
	for _, name := range slices.Sorted(maps.Keys(seen.groups)) {
		group := seen.groups[name]
		worst, where := span{}, history.Key{}
		for _, k := range slices.SortedFunc(maps.Keys(group), byName) {
			if g := gaps(duty, group[k])[0]; g.length() > worst.length() {
				worst, where = g, k
			}
		}
		fmt.Fprintf(b, "  %s: %s in all, %s in %v\n", name, gaps(duty, together(group, slices.Collect(maps.Keys(group))))[0], worst, where)
	}
	return bad, late
}

// table says of each kind of fault how often it was done, and how long at most nothing was acknowledged from its
// begin until 5 s after its end: anywhere, and in the partition that waited longest.
func (e *evidence) table(b *strings.Builder, seen *observed) {
	fmt.Fprintf(b, "%-42s %5s  %s\n", "", "", "longest time without an acknowledgement, of")
	fmt.Fprintf(b, "%-42s %5s %15s %15s\n", "fault", "times", "all partitions", "one partition")
	all := seen.all(e.producers())
	for _, f := range kinds {
		var times int
		var any, one time.Duration
		for _, d := range e.done {
			if d.name != f.name {
				continue
			}
			times++
			around := []span{{d.from, d.to.Add(5 * time.Second)}}
			if around[0].to.After(e.end) {
				around[0].to = e.end
			}
			any = max(any, gaps(around, all)[0].length())
			for _, k := range e.producers() {
				one = max(one, gaps(around, seen.acks[k])[0].length())
			}
		}
		if times > 0 {
			fmt.Fprintf(b, "%-42s %5d %15v %15v\n", f.name, times, round(any), round(one))
		}
	}
}

// observed is when things were heard of, in order.
type observed struct {
	acks   map[history.Key][]time.Time            // something that was sent is there, or was committed
	groups map[string]map[history.Key][]time.Time // a member of a group got records of a partition
}

func (o *observed) all(keys []history.Key) []time.Time { return together(o.acks, keys) }

func together(m map[history.Key][]time.Time, keys []history.Key) (all []time.Time) {
	for _, k := range keys {
		all = append(all, m[k]...)
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

// observe reads a history. What has no known outcome is no acknowledgement.
func observe(src history.Source) (*observed, error) {
	o := &observed{acks: map[history.Key][]time.Time{}, groups: map[string]map[history.Key][]time.Time{}}
	member := map[int32]string{}
	for op, err := range src.Ops() {
		if err != nil {
			return nil, err
		}
		at := time.Unix(0, op.End)
		switch op.Kind {
		case history.OpSubscribe:
			member[op.Process] = op.Group
		case history.OpSend, history.OpTxn:
			if op.Outcome != history.OK {
				break
			}
			for _, run := range op.Sends {
				if op.Kind == history.OpTxn || slices.ContainsFunc(run.Records, func(r history.Record) bool { return r.Offset >= 0 }) {
					o.acks[run.Key] = append(o.acks[run.Key], at)
				}
			}
		}
		group := cmp.Or(op.Group, member[op.Process])
		if group == "" || op.Final {
			continue
		}
		for _, run := range op.Polls {
			if o.groups[group] == nil {
				o.groups[group] = map[history.Key][]time.Time{}
			}
			o.groups[group][run.Key] = append(o.groups[group][run.Key], at)
		}
	}
	for _, acks := range o.acks {
		slices.SortFunc(acks, time.Time.Compare)
	}
	for _, group := range o.groups {
		for _, polls := range group {
			slices.SortFunc(polls, time.Time.Compare)
		}
	}
	return o, nil
}

func byName(a, b history.Key) int { return strings.Compare(a.String(), b.String()) }

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

func clock(at time.Time) string { return at.Format("15:04:05.000") }
