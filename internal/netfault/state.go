package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// nodes is how many there are, from 1 on.
const nodes = 3

// state is what is wrong with the nodes at a moment, by number.
type state struct {
	dead, paused, full, slow, lossy [nodes + 1]bool
	// deaf[a][b] says that a hears nothing from b.
	deaf [nodes + 1][nodes + 1]bool
}

// whole says that nothing is wrong with the node, whoever it can talk to.
func (s *state) whole(n int) bool {
	return !s.dead[n] && !s.paused[n] && !s.full[n] && !s.slow[n] && !s.lossy[n]
}

// majority says whether two nodes are whole, and hear each other: they must take records.
func (s *state) majority() bool {
	for a := 1; a <= nodes; a++ {
		for b := a + 1; b <= nodes; b++ {
			if s.whole(a) && s.whole(b) && !s.deaf[a][b] && !s.deaf[b][a] {
				return true
			}
		}
	}
	return false
}

// span is a time.
type span struct{ from, to time.Time }

func (s span) length() time.Duration { return s.to.Sub(s.from) }

func (s span) String() string {
	return fmt.Sprintf("%v (at %s)", s.length().Round(10*time.Millisecond), s.from.Format("15:04:05.000"))
}

// moment is when it began, or ceased, that a majority must take records.
type moment struct {
	at       time.Time
	majority bool
}

// duties are the times at which a majority had to take records.
func duties(moments []moment, end time.Time) (list []span) {
	var from time.Time
	on := false
	for _, m := range append(slices.Clone(moments), moment{end, false}) {
		switch {
		case m.majority && !on:
			from, on = m.at, true
		case !m.majority && on:
			on = false
			if m.at.After(from) {
				list = append(list, span{from, m.at})
			}
		}
	}
	return list
}

// gaps are the times within the duties without an acknowledgement, the longest first. A duty's
// begin and end are bounds of gaps, too. acks are in order.
func gaps(list []span, acks []time.Time) (out []span) {
	for _, duty := range list {
		from := duty.from
		i, _ := slices.BinarySearchFunc(acks, duty.from, time.Time.Compare)
		for ; i < len(acks) && acks[i].Before(duty.to); i++ {
			out = append(out, span{from, acks[i]})
			from = acks[i]
		}
		out = append(out, span{from, duty.to})
	}
	slices.SortStableFunc(out, func(a, b span) int { return cmp.Compare(b.length(), a.length()) })
	return out
}
