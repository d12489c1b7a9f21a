package query

import (
	"errors"

	"github.com/x/embedlog/internal/seed"
)

var errNoWindows = errors.New("query: final: the table is not of windows")

// Final is the rows of windows that are over, each once and as it is for good: no other one comes before. They leave the table when
// the window expires. Rows are over for good when stream time has passed the window's end and grace, in all partitions
// that its task reads; so a partition without records, or with one alone, holds all of them back. (suppress)
//
// A row's time is the last millisecond of its window.
func Final[K, V any](t *Table[WindowKey[K], V]) *Table[WindowKey[K], V] {
	n := &node{kind: "final", inputs: []*node{t.n}}
	w := windowsOf(t.n)
	if w == nil {
		n.err = errNoWindows
	}
	n.build = func(b *builder) any {
		out := new(port[WindowKey[K], V])
		name := b.storeName(n)
		rows := tableRows(b, t, name+"-open")
		s := newKept(b, name, plain(t.value))
		b.tables[n] = &storeRows[V, V]{s, same[V]}
		k := &keyer[WindowKey[K]]{codec: t.key}
		b.task.keyers(&k.err)
		mark := b.watermark(n)
		open := &ends{}
		b.task.loaded = append(b.task.loaded, func() {
			var some []row[V]
			for from := new(string); from != nil; {
				some, from = rows.page(some[:0], b.task.clock.version, *from, "", page)
				for _, r := range some {
					_, end, err := storedSpan(name, r.key)
					if err != nil {
						b.task.fail(err)
						return
					}
					if _, final := s.get(rawOf(r.key)); !final || seed.Is(seed.ViewFinalTwice) {
						open.add(end, r.key)
					}
				}
			}
		})
		var buf []delta[WindowKey[K], V]
		portOf[WindowKey[K], V](b, t.n).to(func(ds []delta[WindowKey[K], V]) {
			buf = buf[:0]
			for i := 0; i < len(ds); i++ {
				d := &ds[i]
				if i+1 < len(ds) && d.weight < 0 && ds[i+1].weight > 0 && len(d.raw) > 0 && len(ds[i+1].raw) == len(d.raw) && &d.raw[0] == &ds[i+1].raw[0] {
					if _, final := s.get(d.raw); !final { // the window stays where it is
						i++
						continue
					}
				}
				raw := string(keyOf(k, d))
				_, end := spanOf(raw)
				e := s.find(rawOf(raw))
				switch final := e != nil && e.is.there; {
				case d.weight < 0 && final: // it expires
					var none V
					buf = append(buf, delta[WindowKey[K], V]{key: d.key, val: e.is.val, raw: rawOf(e.key), time: d.time, weight: -1})
					s.write(e, none, false)
				case d.weight < 0:
					open.remove(end, raw)
				default:
					open.add(end, raw)
				}
			}
			out.emit(buf)
		})
		b.everyChunk(n, whenOver, func() {
			buf = buf[:0]
			open.due(w.over, mark.now(), func(raw string, end int64) {
				v, ok := rows.get(rawOf(raw))
				if !ok {
					return
				}
				key, err := t.key.Decode(rawOf(raw))
				if err != nil {
					b.task.fail(err)
					return
				}
				e := s.entry(rawOf(raw))
				s.write(e, v, true)
				buf = append(buf, delta[WindowKey[K], V]{key: key, val: v, raw: rawOf(e.key), time: w.at(end, w.over), weight: 1})
			})
			out.emit(buf)
		})
		return out
	}
	return &Table[WindowKey[K], V]{n, t.key, t.value}
}
