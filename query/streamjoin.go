package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// JoinWindows are how far apart the times of rows may be that are joined: see JoinStreams.
type JoinWindows struct {
	before, after, grace time.Duration
}

// Within joins rows whose times differ by at most d, whichever is first.
func Within(d time.Duration) JoinWindows { return JoinWindows{before: d, after: d, grace: -1} }

// Before is how much older than the left row the right one may be.
func (w JoinWindows) Before(d time.Duration) JoinWindows { w.before = d; return w }

// After is how much later than the left row the right one may be.
func (w JoinWindows) After(d time.Duration) JoinWindows { w.after = d; return w }

// Grace is how much older than stream time rows may be: those that are older yet are late. Without it, it is the longer one of before
// and after.
func (w JoinWindows) Grace(d time.Duration) JoinWindows { w.grace = max(d, 0); return w }

// String is "before 1m0s, after 5m0s, grace 5m0s".
func (w JoinWindows) String() string {
	return fmt.Sprintf("before %v, after %v, grace %v", w.before, w.after, w.late())
}

func (w JoinWindows) late() time.Duration {
	if w.grace < 0 {
		return max(w.before, w.after)
	}
	return w.grace
}

func (w JoinWindows) missed(m moment) bool {
	return plusMillis(m.ms, w.late().Milliseconds()) < m.stream
}

func (w JoinWindows) check() error {
	err := errors.Join(wholeMillis("before", w.before, 0), wholeMillis("after", w.after, 0), wholeMillis("grace", w.late(), 0))
	if err != nil {
		err = fmt.Errorf("within %v: %w", w, err)
	}
	return err
}

// JoinStreams is the pairs of rows of two streams that have the same key and whose times are within w of each other; the streams may be of one topic.
// Each pair comes once, when its second row does, with the later one of their times. Rows are kept as long as rows that are not late may
// match them. The pairs' values are written with DefaultCodec.
func JoinStreams[K, V, W, R any](a *Stream[K, V], b *Stream[K, W], w JoinWindows, f func(key K, left V, right W) R) *Stream[K, R] {
	s := joinedStreams(inner, a, b, w, func(k K, v V, o *W) R { return f(k, v, *o) })
	s.n.needs("function", f != nil)
	return s
}

// LeftJoinStreams is JoinStreams with the left rows that nothing matches, where right is nil. They come when that is certain: when stream time
// in the right one's partitions is later than the row, w's After and its grace. Their time is the row's.
func LeftJoinStreams[K, V, W, R any](a *Stream[K, V], b *Stream[K, W], w JoinWindows, f func(key K, left V, right *W) R) *Stream[K, R] {
	s := joinedStreams(left, a, b, w, f)
	s.n.needs("function", f != nil)
	return s
}

// waiting is a row that may be matched yet. Its store has it by its key, its time, and a number that tells rows of one time apart:
// like the key of a window, with the time as its start and the number as its end.
type waiting[V any] struct {
	val     V
	stream  int64 // of its moment
	matched bool  // of a left row, where unmatched ones are shown
}

func waitingCodec[V any](value Codec[V]) rowCodec[waiting[V]] {
	return rowCodec[waiting[V]]{
		func(dst []byte, r waiting[V]) ([]byte, []embedlog.Header, error) {
			dst = binary.AppendVarint(dst, r.stream)
			matched := byte(0)
			if r.matched {
				matched = 1
			}
			b, err := value.Append(append(dst, matched), r.val)
			return b, nil, err
		},
		func(rec *embedlog.Record) (r waiting[V], err error) {
			stream, n := binary.Varint(rec.Value)
			if n <= 0 || n == len(rec.Value) || rec.Value[n] > 1 {
				return r, errWaiting
			}
			r.stream, r.matched = stream, rec.Value[n] == 1
			r.val, err = value.Decode(rec.Value[n+1:])
			return r, err
		},
	}
}

var errWaiting = errors.New("query: invalid encoding of a row that waits for others")

// waitingSide is a stream's rows that may be matched yet.
type waitingSide[K, V any] struct {
	*store[waiting[V]]
	k      *keyer[K]
	ends   ends
	number int64 // of the next row: all that are there have smaller ones
	raw    []byte
}

func newWaiting[K, V any](b *builder, name string, key Codec[K], value Codec[V]) *waitingSide[K, V] {
	s := &waitingSide[K, V]{store: newKept(b, name, waitingCodec(value)), k: &keyer[K]{codec: key}}
	b.task.keyers(&s.k.err)
	b.task.loaded = append(b.task.loaded, func() {
		s.scan("", "", func(key string, _ *entry[waiting[V]]) bool {
			ms, number, err := storedSpan(s.name, key)
			if err != nil {
				b.task.fail(err)
				return false
			}
			s.number = max(s.number, number+1)
			s.ends.add(ms, key)
			return true
		})
	})
	return s
}

// take keeps a row, unless it is late or has no key. What it returns of the key is valid until the next call.
func (s *waitingSide[K, V]) take(t *task, w JoinWindows, d *delta[K, V]) (e *entry[waiting[V]], prefix []byte) {
	if d.null {
		t.noKey.Add(1)
		return nil, nil
	}
	if w.missed(d.time) {
		t.late.Add(1)
		return nil, nil
	}
	s.raw = appendText(s.raw[:0], keyOf(s.k, d))
	n := len(s.raw)
	s.raw = appendSpan(s.raw, d.time.ms, s.number)
	s.number++
	e = s.entry(s.raw)
	s.ends.add(d.time.ms, e.key)
	s.write(e, waiting[V]{val: d.val, stream: d.time.stream}, true)
	return e, s.raw[:n:n]
}

// match calls f for the rows of a key whose times are from the one to the other.
func (s *waitingSide[K, V]) match(prefix []byte, from, to int64, f func(m moment, e *entry[waiting[V]])) {
	first := text(appendSpan(prefix, from, math.MinInt64))
	s.between(first, "", func(key string, e *entry[waiting[V]]) bool {
		if len(key) != len(prefix)+spanBytes || key[:len(prefix)] != text(prefix) {
			return false
		}
		ms, _ := spanOf(key)
		if ms > to || ms == to && seed.Is(seed.ViewStreamJoin) {
			return false
		}
		if e.is.there {
			f(moment{ms, e.is.val.stream}, e)
		}
		return true
	})
}

// expire drops the rows that nothing can match any more: those that are older than a time by more than they are kept.
func (s *waitingSide[K, V]) expire(kept, now int64, f func(e *entry[waiting[V]])) {
	s.ends.due(kept+1, now, func(key string, _ int64) {
		if e := s.find(rawOf(key)); e != nil && e.is.there {
			f(e)
			s.write(e, waiting[V]{}, false)
		}
	})
}

func joinedStreams[K, V, W, R any](kind joinKind, a *Stream[K, V], b *Stream[K, W], w JoinWindows, f func(K, V, *W) R) *Stream[K, R] {
	n := &node{kind: kind.String() + " streams", label: w.String(), inputs: []*node{a.n, b.n}, appends: true, err: w.check()}
	if !equal(a.key, b.key) {
		n.err = errors.Join(n.err, fmt.Errorf("%s: the streams' keys have codecs %T and %T", n.kind, a.key, b.key))
	}
	if !a.n.appends || !b.n.appends {
		n.err = errors.Join(n.err, fmt.Errorf("%s: %w", n.kind, ErrNotStream))
	}
	n.build = func(bu *builder) any {
		out := new(port[K, R])
		name := bu.storeName(n)
		l, r := newWaiting(bu, name+"-left", a.key, a.value), newWaiting(bu, name+"-right", b.key, b.value)
		before, after, grace := w.before.Milliseconds(), w.after.Milliseconds(), w.late().Milliseconds()
		var buf []delta[K, R]
		show := func(k K, v V, o *W, at moment) {
			if buf = append(buf, delta[K, R]{key: k, val: f(k, v, o), time: at, weight: 1}); len(buf) >= chunk { // a row may match a million
				out.emit(buf)
				buf = buf[:0]
			}
		}
		pair := func(k K, le *entry[waiting[V]], re *entry[waiting[W]], at moment) {
			if kind == left && !le.is.val.matched {
				row := le.is.val
				row.matched = true
				l.write(le, row, true)
			}
			show(k, le.is.val.val, &re.is.val.val, at)
		}
		flush := func() {
			out.emit(buf)
			clear(buf)
			buf = buf[:0]
		}
		portOf[K, V](bu, a.n).to(func(ds []delta[K, V]) {
			for i := range ds {
				d := &ds[i]
				for range d.weight {
					if e, prefix := l.take(bu.task, w, d); e != nil {
						r.match(prefix, plusMillis(d.time.ms, -before), plusMillis(d.time.ms, after), func(m moment, o *entry[waiting[W]]) {
							pair(d.key, e, o, d.time.later(m))
						})
					}
				}
			}
			flush()
		})
		portOf[K, W](bu, b.n).to(func(ds []delta[K, W]) {
			for i := range ds {
				d := &ds[i]
				for range d.weight {
					if e, prefix := r.take(bu.task, w, d); e != nil {
						l.match(prefix, plusMillis(d.time.ms, -after), plusMillis(d.time.ms, before), func(m moment, o *entry[waiting[V]]) {
							pair(d.key, o, e, d.time.later(m))
						})
					}
				}
			}
			flush()
		})
		// A left row waits for right ones, and these are as late as their own stream time says.
		leftMark, rightMark := bu.watermark(a.n), bu.watermark(b.n)
		bu.everyChunk(n, whenOver, func() {
			l.expire(after+grace, rightMark.now(), func(e *entry[waiting[V]]) {
				row := e.is.val
				if kind != left || row.matched && !seed.Is(seed.ViewUnmatched) {
					return
				}
				raw, ms, _, err := splitWindow(rawOf(e.key))
				var k K
				if err == nil {
					k, err = a.key.Decode(raw)
				}
				if err != nil {
					bu.task.fail(fmt.Errorf("%s: %w", n.kind, err))
					return
				}
				show(k, row.val, nil, moment{ms, max(row.stream, plusMillis(ms, after+grace+1))})
			})
			r.expire(before+grace, leftMark.now(), func(*entry[waiting[W]]) {})
			flush()
		})
		return out
	}
	return &Stream[K, R]{n, a.key, DefaultCodec[R]()}
}
