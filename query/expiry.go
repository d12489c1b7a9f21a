package query

import (
	"encoding/binary"

	"github.com/tidwall/btree"

	"github.com/x/embedlog/internal/seed"
)

// windowTimes says when windows are over, and when their rows go, by their end. All in milliseconds.
type windowTimes struct {
	over    int64 // after the end: no row comes any more
	expires int64 // after the end; not less than over
	closed  bool  // the end belongs to the window
}

// windowsOf is when the windows are over that a node's keys are of; nil where they are of none. Where windows of several
// kinds meet, it is when all are.
func windowsOf(n *node) (w *windowTimes) {
	switch {
	case n.windows != nil:
		return n.windows
	case n.rekeys:
		return nil
	}
	for _, in := range n.inputs {
		i := windowsOf(in)
		if i == nil || w == nil {
			w = i
		} else {
			w = &windowTimes{max(w.over, i.over), max(w.expires, i.expires), i.closed}
		}
		if w == nil {
			return nil
		}
	}
	return w
}

// at is the moment when the windows with an end are over, or expire: no record that comes before is later than that.
func (w *windowTimes) at(end, after int64) moment {
	m := moment{ms: end, stream: plusMillis(end, after)}
	if !w.closed {
		m.ms--
	}
	return m
}

// ends are keys by the time of their end: what is over is found without looking at the rest. They are not kept: after a restart they are made again
// from the rows.
type ends struct {
	order btree.Map[string, struct{}]
	buf   []byte
}

func (x *ends) place(end int64, key string) []byte {
	x.buf = binary.BigEndian.AppendUint64(x.buf[:0], uint64(end)^1<<63)
	x.buf = append(x.buf, key...)
	return x.buf
}

func (x *ends) add(end int64, key string) { x.order.Set(string(x.place(end, key)), struct{}{}) }

func (x *ends) remove(end int64, key string) { x.order.Delete(text(x.place(end, key))) }

// due takes out the keys whose end and after are not later than now, in the order of their ends, and calls f for them.
func (x *ends) due(after, now int64, f func(key string, end int64)) {
	for {
		key, _, ok := x.order.Min()
		if !ok {
			return
		}
		end := int64(binary.BigEndian.Uint64([]byte(key[:8])) ^ 1<<63)
		if plusMillis(end, after) > now {
			return
		}
		x.order.Delete(key)
		f(key[8:], end)
	}
}

// expiry has the rows of windows leave a store.
type expiry[S any] struct{ ends ends }

// expiring watches over a store whose keys are of windows, if they are: a window that expires is taken back like a row that
// is deleted. Clear, where it is not nil, deletes what else there is of its key. It is nil where keys are of no windows.
func expiring[K, R, S any](b *builder, n *node, s *store[S], clear func(key string), result func(S) R, key Codec[K], out *port[K, R]) *expiry[S] {
	w := windowsOf(n)
	if w == nil {
		return nil
	}
	x := &expiry[S]{}
	b.task.loaded = append(b.task.loaded, func() {
		s.scan("", "", func(key string, e *entry[S]) bool {
			if !e.is.there {
				return true
			}
			_, end, err := storedSpan(s.name, key)
			if err != nil {
				b.task.fail(err)
				return false
			}
			x.ends.add(end, key)
			return true
		})
	})
	mark := b.watermark(n)
	var buf []delta[K, R]
	b.everyChunk(n, whenExpired, func() {
		buf = buf[:0]
		after := w.expires
		if seed.Is(seed.ViewExpiry) {
			after--
		}
		x.ends.due(after, mark.now(), func(raw string, end int64) {
			e := s.find(rawOf(raw))
			if e == nil || !e.is.there {
				return
			}
			if len(out.outs) > 0 {
				k, err := key.Decode(rawOf(raw))
				if err != nil {
					b.task.fail(err)
					return
				}
				buf = append(buf, delta[K, R]{key: k, val: result(e.is.val), raw: rawOf(e.key), time: w.at(end, w.expires), weight: -1})
			}
			if clear != nil {
				clear(e.key)
			}
			var none S
			s.write(e, none, false)
		})
		out.emit(buf)
	})
	return x
}

// add notes a row that is about to be written. It does nothing where keys are of no windows.
func (x *expiry[S]) add(e *entry[S]) {
	if x != nil && !e.is.there {
		_, end := spanOf(e.key)
		x.ends.add(end, e.key)
	}
}

// remove forgets a row that is taken away before its time.
func (x *expiry[S]) remove(e *entry[S]) {
	_, end := spanOf(e.key)
	x.ends.remove(end, e.key)
}
