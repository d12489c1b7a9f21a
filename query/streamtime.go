package query

import (
	"math"
	"slices"
	"time"
)

// Stream time is how far event time has come in a partition of a source: the largest timestamp of the records read from it, in their
// order. It depends on this partition alone, and is committed with the position, so that it is the same wherever the log was cut
// into batches, whatever the other partitions do, and after a restart.

// moment is when a row was, and how far its partition's stream time was when its record had been read. Rows that are made of several records
// have the later ones of both. All in milliseconds since 1970.
type moment struct {
	ms     int64
	stream int64
}

func (m moment) later(o moment) moment { return moment{max(m.ms, o.ms), max(m.stream, o.stream)} }

// maxMillis bounds the times of records, 36 million years from 1970, so that sums have room.
const maxMillis = 1 << 60

func millisOf(t time.Time) int64 { return max(-maxMillis, min(t.UnixMilli(), maxMillis)) }

// unknownTime is before all times: nothing is late, and nothing is over.
const unknownTime = math.MinInt64

// defaultMaxAhead is what Kafka's brokers let records be ahead of their clock. (message.timestamp.after.max.ms)
const defaultMaxAhead = time.Hour

// aheadRecords is how many records in a row have to be far ahead before they are believed.
const aheadRecords = 10

// streamTime is a partition's. A clock that is wrong must not make late what all others send: a record that is
// further ahead than a bound does not move the time, unless aheadRecords follow each other that are. The first record alone is not
// believed either, because there is nothing to compare it with: of two that are far apart the earlier is the better guess.
type streamTime struct {
	Time int64 `json:"time"`
	// First is the record before the time is known.
	First int64 `json:"first"`
	// Ahead are the times of the last records, as long as all were too far ahead.
	Ahead []int64 `json:"ahead,omitempty"`
}

func newStreamTime() *streamTime { return &streamTime{Time: unknownTime, First: unknownTime} }

// see takes the next record's time. A negative bound is none. Times before 1970 say that a record has none.
func (s *streamTime) see(ms, bound int64) {
	if ms < 0 {
		return
	}
	if bound < 0 {
		s.Time = max(s.Time, ms)
		return
	}
	from := s.Time
	if from == unknownTime {
		if from = s.First; from == unknownTime {
			s.First = ms
			return
		}
	}
	switch {
	case ms > plusMillis(from, bound):
		s.ahead(ms, bound)
		return
	case s.Time != unknownTime:
		s.Time = max(s.Time, ms)
	case plusMillis(ms, bound) < s.First:
		s.First = ms
	default:
		s.Time = max(s.First, ms)
	}
	s.Ahead = nil
}

// ahead takes the time of a record that is too far ahead. When there are enough, the least of them is believed, and whatever is
// not too far ahead of it.
func (s *streamTime) ahead(ms, bound int64) {
	s.Ahead = append(s.Ahead, ms)
	if len(s.Ahead) < aheadRecords {
		return
	}
	for i, x := range slices.Sorted(slices.Values(s.Ahead)) {
		if i == 0 || x <= plusMillis(s.Time, bound) {
			s.Time = x
		}
	}
	s.Ahead = slices.DeleteFunc(s.Ahead, func(x int64) bool { return x <= s.Time })
}

// plusMillis adds a length to a time; the result is not after the last time.
func plusMillis(ms, d int64) int64 {
	if d > 0 && ms > math.MaxInt64-d {
		return math.MaxInt64
	}
	return ms + d
}

// watermark is how far event time has come for a node in a task: the least stream time of the partitions that its rows come from. It is
// unknown while one of them has no time yet.
type watermark struct {
	t      *task
	topics map[string]bool
	times  []*streamTime
}

func (b *builder) watermark(n *node) *watermark {
	w := &watermark{t: b.task, topics: map[string]bool{}}
	n.clocks(b.task.g, map[*node]bool{}, w.topics)
	return w
}

// clocks collects the topics whose records a node's rows have their times of.
func (n *node) clocks(g *Graph, seen map[*node]bool, topics map[string]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.source != nil {
		topics[n.label] = true
	}
	if n.rep != nil {
		topics[g.repName(n)] = true
		return
	}
	in := n.inputs
	if n.timedBy != nil {
		in = n.timedBy
	}
	for _, i := range in {
		i.clocks(g, seen, topics)
	}
}

func (w *watermark) now() int64 {
	if w.times == nil {
		for at := range w.t.positions {
			if w.topics[at.topic] {
				w.times = append(w.times, w.t.streamTime(at))
			}
		}
	}
	if len(w.times) == 0 {
		return unknownTime
	}
	least := int64(math.MaxInt64)
	for _, s := range w.times {
		least = min(least, s.Time)
	}
	return least
}

// streamTime is a partition's in the task.
func (t *task) streamTime(at place) *streamTime {
	s := t.times[at]
	if s == nil {
		s = newStreamTime()
		t.times[at] = s
	}
	return s
}

// tick is what an operator does when a chunk is through and event time may have come further.
type tick struct {
	phase tickPhase
	rank  int
	run   func()
}

// All that is over is shown before anything expires, because what is shown is read where it expires.
type tickPhase uint8

const (
	whenOver tickPhase = iota
	whenExpired
)

// everyChunk registers a tick of a node. What it is made of has its own before.
func (b *builder) everyChunk(n *node, phase tickPhase, run func()) {
	t := tick{phase, n.rank(), run}
	i, _ := slices.BinarySearchFunc(b.task.ticks, t, func(a, t tick) int {
		if a.phase < t.phase || a.phase == t.phase && a.rank <= t.rank {
			return -1
		}
		return 1
	})
	b.task.ticks = slices.Insert(b.task.ticks, i, t)
}
