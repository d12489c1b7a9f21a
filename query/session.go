package query

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/x/embedlog/internal/seed"
)

// SessionWindows are windows that rows make themselves: those of a key that follow each other by no more than a gap are in one session. A row can
// lengthen a session, and can make one of two. The key of a session has the times of its first and of its last row; when these
// change, it is another row of the table.
//
// A row is late when it is older than its partition's stream time by more than the grace. So a session is over, for good, when stream time is later
// than its end, the gap and the grace.
type SessionWindows struct {
	gap, grace, retain time.Duration
}

// Session are sessions that end with a gap.
func Session(gap time.Duration) SessionWindows {
	return SessionWindows{gap: gap, grace: -1, retain: -1}
}

// Grace is how much older than stream time rows may be. Without it, it is the gap.
func (w SessionWindows) Grace(d time.Duration) SessionWindows { w.grace = max(d, 0); return w }

// Retain has tables keep sessions for some time after their end. It is not shorter than the gap and the grace, which it is without it.
func (w SessionWindows) Retain(d time.Duration) SessionWindows { w.retain = d; return w }

// String is "gap 5m0s, grace 5m0s, retain 10m0s".
func (w SessionWindows) String() string {
	return fmt.Sprintf("gap %v, grace %v, retain %v", w.gap, w.late(), w.kept())
}

func (w SessionWindows) late() time.Duration {
	if w.grace < 0 {
		return w.gap
	}
	return w.grace
}

func (w SessionWindows) kept() time.Duration { return max(w.retain, w.gap+w.late()) }

// times are one millisecond more than what belongs to the session still.
func (w SessionWindows) times() *windowTimes {
	return &windowTimes{over: (w.gap + w.late()).Milliseconds() + 1, expires: w.kept().Milliseconds() + 1, closed: true}
}

func (w SessionWindows) missed(m moment) bool {
	return plusMillis(m.ms, w.late().Milliseconds()) < m.stream
}

func (w SessionWindows) check() error {
	err := errors.Join(wholeMillis("gap", w.gap, 1), wholeMillis("grace", w.late(), 0), wholeMillis("retain", w.kept(), 0))
	if err != nil {
		err = fmt.Errorf("sessions %v: %w", w, err)
	}
	return err
}

// CountSessions is how many rows each session has.
func CountSessions[K, V any](r Rows[K, V], w SessionWindows) *Table[WindowKey[K], int64] {
	return FoldSessions(r, w, DefaultCodec[int64](),
		func(n int64, _ K, _ V) int64 { return n + 1 },
		func(_ K, a, b int64) int64 { return a + b })
}

// FoldSessions is a table of sessions with what add makes of their rows, as Fold does. Merge makes one of what two sessions came to that a row has
// joined, the earlier one first; the row is added then. Both return new values and change none.
//
// Each row changes the table once, so that Changes has a row for each that is not late.
func FoldSessions[K, V, A any](r Rows[K, V], w SessionWindows, acc Codec[A], add func(acc A, key K, value V) A, merge func(key K, a, b A) A) *Table[WindowKey[K], A] {
	in, key, _ := r.rows()
	n := &node{kind: "sessions", label: w.String(), inputs: []*node{in}, windows: w.times(), err: w.check()}
	if !in.appends {
		n.err = errors.Join(n.err, fmt.Errorf("sessions: %w", ErrNotStream))
	}
	n.needs("codec", acc != nil).needs("function", add != nil).needs("merging function", merge != nil)
	n.build = func(b *builder) any {
		out := new(port[WindowKey[K], A])
		s := newKept(b, b.storeName(n), plain(acc))
		b.tables[n] = &storeRows[A, A]{s, same[A]}
		x := expiring(b, n, s, nil, same[A], Codec[WindowKey[K]](WindowCodec[K]{key}), out)
		k := &keyer[K]{codec: key}
		b.task.keyers(&k.err)
		gap := w.gap.Milliseconds()
		var buf []delta[WindowKey[K], A]
		var raw []byte
		var joins []*entry[A]
		portOf[K, V](b, in).to(func(ds []delta[K, V]) {
			buf = buf[:0]
			for i := range ds {
				d := &ds[i]
				if d.null {
					b.task.noKey.Add(1)
					continue
				}
				if w.missed(d.time) {
					b.task.late.Add(d.weight)
					continue
				}
				raw = appendText(raw[:0], keyOf(k, d))
				start, end := d.time.ms, d.time.ms
				joins = sessionsAt(s, joins[:0], raw, start, gap)
				var now A
				var none A
				for i, e := range joins {
					from, to := spanOf(e.key)
					start, end = min(start, from), max(end, to)
					if len(out.outs) > 0 {
						buf = append(buf, delta[WindowKey[K], A]{
							key: WindowKey[K]{d.key, atMillis(from), atMillis(to)}, val: e.is.val, raw: rawOf(e.key), time: d.time, weight: -1,
						})
					}
					if i == 0 {
						now = e.is.val
					} else if !seed.Is(seed.ViewSessionMerge) {
						now = merge(d.key, now, e.is.val)
					}
				}
				for range d.weight {
					now = add(now, d.key, d.val)
				}
				e := s.entry(appendSpan(raw, start, end))
				for _, o := range joins {
					if o != e {
						x.remove(o)
						s.write(o, none, false)
					}
				}
				x.add(e)
				s.write(e, now, true)
				if len(out.outs) > 0 {
					buf = append(buf, delta[WindowKey[K], A]{
						key: WindowKey[K]{d.key, atMillis(start), atMillis(end)}, val: now, raw: rawOf(e.key), time: d.time, weight: 1,
					})
				}
			}
			clear(joins)
			out.emit(buf)
		})
		return out
	}
	return &Table[WindowKey[K], A]{n, WindowCodec[K]{key}, acc}
}

// sessionsAt appends the sessions of a key that a row at a time joins, in their order. Sessions of a key are further from each other than the
// gap, so that they are in the order of their ends as well.
func sessionsAt[A any](s *store[A], list []*entry[A], prefix []byte, ms, gap int64) []*entry[A] {
	latest := appendSpan(prefix, plusMillis(ms, gap), math.MaxInt64)
	s.before(text(latest), func(key string, e *entry[A]) bool {
		if len(key) != len(prefix)+spanBytes || key[:len(prefix)] != text(prefix) {
			return false
		}
		if !e.is.there {
			return true
		}
		if _, end := spanOf(key); plusMillis(end, gap) < ms || seed.Is(seed.ViewSessionGap) && plusMillis(end, gap) == ms {
			return false
		}
		list = append(list, e)
		return true
	})
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}
