package query

import (
	"cmp"
	"slices"
	"time"
)

// Sliding are windows of the rows of a key whose times are no further apart than a difference: one for each set of rows that are next to each other in
// time and have room in one, so that nothing depends on when windows happen to begin. In Kafka they are SlidingWindows, from KIP-450.
//
// A window's key has its first and its last millisecond, which both belong to it: they are the difference apart. For each row there is the window
// that ends with it, and the one that begins a millisecond after it, if there are rows in that. A row makes the windows that it brings
// about, and enters those that are there: the rows of each window are aggregated in the order in which they came.
//
// A row is late when it is older than its partition's stream time by more than the grace: then it is left out of all windows, and
// of their making. So a window is over when stream time is later than its end and grace.
func Sliding(difference time.Duration) Windows {
	return Windows{size: difference, advance: difference, retain: -1, sliding: true}
}

// slide puts rows into sliding windows. The rows that may be in windows to come are kept, by key, time and number.
//
//	rows of a key at 5, 9 and 30, difference 10:     [-5,5] 5     [-1,9] 5 9     [6,16] 9     [20,30] 30
//	one at 14 comes:                                 + [4,14] 5 9 14    it enters [6,16] 9 14    + [10,20] 14
//	                                                 [15,25] has no row
type slide[K, V any] struct {
	d      int64 // the difference
	rows   *waitingSide[K, V]
	near   []nearRow[V]
	some   []nearRow[V]
	starts []int64
	buf    []delta[WindowKey[K], V]
	keys   []byte // of the batch's windows, one after another
	out    *port[WindowKey[K], V]
}

// nearRow is a row that shares a window with another one, or is just before one. Rows have numbers in the order in which they came.
type nearRow[V any] struct {
	ms, number int64
	row        waiting[V]
}

// sliding is Windowed for sliding windows.
func sliding[K, V any](b *builder, n, in *node, w Windows, key Codec[K], value Codec[V]) *port[WindowKey[K], V] {
	s := &slide[K, V]{d: w.size.Milliseconds(), out: new(port[WindowKey[K], V])}
	s.rows = newWaiting(b, b.storeName(n), key, value)
	late := JoinWindows{grace: w.grace}
	portOf[K, V](b, in).to(func(ds []delta[K, V]) {
		for i := range ds {
			d := &ds[i]
			if d.null { // for the aggregate to count
				s.add(delta[WindowKey[K], V]{val: d.val, time: d.time, weight: d.weight, null: true})
				continue
			}
			for range d.weight {
				if e, prefix := s.rows.take(b.task, late, d); e != nil {
					s.place(d, prefix)
				}
			}
		}
		s.flush()
	})
	mark := b.watermark(in)
	// A row is needed until the window behind it, which it brings about, is over.
	kept := plusMillis(s.d+1, w.grace.Milliseconds())
	b.everyChunk(n, whenExpired, func() {
		s.rows.expire(kept, mark.now(), func(*entry[waiting[V]]) {})
	})
	return s.out
}

func (s *slide[K, V]) add(d delta[WindowKey[K], V]) {
	if s.buf = append(s.buf, d); len(s.buf) >= chunk {
		s.flush()
	}
}

func (s *slide[K, V]) flush() {
	s.out.emit(s.buf)
	clear(s.buf)
	s.buf, s.keys = s.buf[:0], s.keys[:0]
}

// place puts a row that was just kept into its windows: those that begin with or before it, and end with or after it. Where it is the first
// row of its time, one of them may be new, as may be the one behind it.
func (s *slide[K, V]) place(d *delta[K, V], prefix []byte) {
	t := d.time.ms
	s.near = s.near[:0] // the others, in the order of their times
	s.rows.match(prefix, t-s.d-1, t+s.d+1, func(m moment, e *entry[waiting[V]]) {
		if _, number := spanOf(e.key); number != s.rows.number-1 {
			s.near = append(s.near, nearRow[V]{m.ms, number, e.is.val})
		}
	})
	s.starts = append(s.starts[:0], t-s.d)
	again := false // there is a row of this time
	for i := range s.near {
		switch ms := s.near[i].ms; {
		case ms == t:
			again = true
		case ms < t:
			s.starts = append(s.starts, ms+1)
		case ms <= t+s.d:
			s.starts = append(s.starts, ms-s.d)
		}
	}
	slices.Sort(s.starts)
	s.starts = slices.Compact(s.starts)
	for _, start := range s.starts {
		if !again {
			s.open(d, prefix, start)
		}
		s.put(d, prefix, start, d.time, d.val)
	}
	if !again {
		s.open(d, prefix, t+1)
	}
	clear(s.near)
	clear(s.some)
}

// from is where the rows of a time, or later ones, begin in near.
func (s *slide[K, V]) from(ms int64) int {
	i, _ := slices.BinarySearchFunc(s.near, ms, func(r nearRow[V], ms int64) int { return cmp.Compare(r.ms, ms) })
	return i
}

func (s *slide[K, V]) has(ms int64) bool {
	i := s.from(ms)
	return i < len(s.near) && s.near[i].ms == ms
}

// open has the rows that were there before enter a window, in the order in which they came, unless it was there before as well: it
// was when it had rows, and one of them ended it, or one was just before it.
func (s *slide[K, V]) open(d *delta[K, V], prefix []byte, start int64) {
	rows := s.near[s.from(start):s.from(start+s.d+1)]
	if len(rows) == 0 || s.has(start+s.d) || s.has(start-1) {
		return
	}
	s.some = append(s.some[:0], rows...)
	slices.SortFunc(s.some, func(a, b nearRow[V]) int { return cmp.Compare(a.number, b.number) })
	for i := range s.some {
		r := &s.some[i]
		s.put(d, prefix, start, moment{r.ms, r.row.stream}, r.row.val)
	}
}

func (s *slide[K, V]) put(d *delta[K, V], prefix []byte, start int64, at moment, val V) {
	from := len(s.keys)
	s.keys = appendSpan(append(s.keys, prefix...), start, start+s.d)
	s.add(delta[WindowKey[K], V]{
		key: WindowKey[K]{d.key, atMillis(start), atMillis(start + s.d)}, val: val,
		raw: s.keys[from:len(s.keys):len(s.keys)], time: at.later(d.time), weight: 1,
	})
}
