package query

import (
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/internal/seed"
)

// Windows are parts of time: of event time, which is the timestamps of records. Tumbling, Hopping and Sliding make them; the methods return
// others.
//
// A window is over when stream time has come to its end and the grace after it. Stream time is the largest timestamp in a
// partition of a source, so far, and each row is judged by its own partition's: rows that come later are left out, counted
// in Stats.Late, and to be had from Late. A window of rows from several partitions is over when it is for all of them.
type Windows struct {
	size, advance, grace, retain time.Duration
	sliding                      bool // rows make them: see Sliding
}

// Tumbling are windows of a size that follow each other, from 1970 on.
func Tumbling(size time.Duration) Windows { return Windows{size: size, advance: size, retain: -1} }

// Hopping are windows of a size of which one begins with every advance, from 1970 on: a row is in size/advance of them.
func Hopping(size, advance time.Duration) Windows {
	return Windows{size: size, advance: advance, retain: -1}
}

// Grace has windows take rows for some time after their end. Without it rows are late when stream time has come to the end.
func (w Windows) Grace(d time.Duration) Windows { w.grace = d; return w }

// Retain has tables keep windows for some time after their end, and delete them then, from what is made of them too. It is not
// shorter than the grace; without it, it is the grace and a window's size.
func (w Windows) Retain(d time.Duration) Windows { w.retain = d; return w }

// String is "tumbling 1m0s, grace 0s, retain 1m0s".
func (w Windows) String() string {
	kind := fmt.Sprintf("tumbling %v", w.size)
	switch {
	case w.sliding:
		kind = fmt.Sprintf("sliding %v", w.size)
	case w.advance != w.size:
		kind = fmt.Sprintf("hopping %v by %v", w.size, w.advance)
	}
	return fmt.Sprintf("%s, grace %v, retain %v", kind, w.grace, w.kept())
}

func (w Windows) kept() time.Duration {
	if w.retain < 0 {
		return w.grace + w.size
	}
	return max(w.retain, w.grace)
}

// maxWindows bounds how many windows a row is in.
const maxWindows = 10_000

func (w Windows) check() error {
	least := int64(1)
	if w.sliding {
		least = 0
	}
	err := errors.Join(wholeMillis("size", w.size, least), wholeMillis("advance", w.advance, least), wholeMillis("grace", w.grace, 0), wholeMillis("retain", w.kept(), 0))
	if err == nil && !w.sliding && (w.advance > w.size || w.size/w.advance > maxWindows) {
		err = fmt.Errorf("advance is %v for a size of %v: there must be 1 to %d windows for a row", w.advance, w.size, maxWindows)
	}
	if err != nil {
		err = fmt.Errorf("windows %v: %w", w, err)
	}
	return err
}

// wholeMillis says what is wrong with a length of time.
func wholeMillis(name string, d time.Duration, least int64) error {
	if d.Milliseconds() < least || d%time.Millisecond != 0 {
		return fmt.Errorf("%s is %v: it must be whole milliseconds, %d at least", name, d, least)
	}
	return nil
}

func (w Windows) times() *windowTimes {
	if w.sliding { // the last millisecond belongs to them
		return &windowTimes{over: w.grace.Milliseconds() + 1, expires: w.kept().Milliseconds() + 1, closed: true}
	}
	return &windowTimes{over: w.grace.Milliseconds(), expires: w.kept().Milliseconds()}
}

// each calls f for the windows that a time is in, the first one first.
func (w Windows) each(ms int64, f func(start, end int64)) {
	size, advance := w.size.Milliseconds(), w.advance.Milliseconds()
	last := ms - ms%advance
	if last > ms { // before 1970
		last -= advance
	}
	first := last - (size-1-(ms-last))/advance*advance
	for start := first; start <= last; start += advance {
		f(start, plusMillis(start, size))
	}
}

// missed says whether a row is too late for one of its windows.
func (w Windows) missed(m moment) (late bool) {
	grace := w.grace.Milliseconds()
	if w.sliding {
		return plusMillis(m.ms, grace) < m.stream
	}
	w.each(m.ms, func(_, end int64) { late = late || plusMillis(end, grace) <= m.stream })
	return late
}

// ErrNotStream says that windows, or a join within a time, were asked for of rows that are taken back: those of a table, whose
// changes have other times than their rows.
var ErrNotStream = errors.New("query: the rows are not a stream's")

// Windowed puts the rows of a stream into windows, each row into all that its time is in; GroupBy goes before. Every aggregate of
// them has a row for each key and window, until the window expires.
func Windowed[K, V any](r Rows[K, V], w Windows) *Grouped[WindowKey[K], V] {
	in, key, value := r.rows()
	n := &node{kind: "windows", label: w.String(), inputs: []*node{in}, appends: true, windows: w.times(), err: w.check()}
	if !in.appends {
		n.err = errors.Join(n.err, fmt.Errorf("windows: %w", ErrNotStream))
	}
	n.build = func(b *builder) any {
		if w.sliding {
			return sliding(b, n, in, w, key, value)
		}
		out := new(port[WindowKey[K], V])
		k := &keyer[K]{codec: key}
		b.task.keyers(&k.err)
		over := w.grace.Milliseconds()
		if seed.Is(seed.ViewGrace) {
			over = 0
		}
		var buf []delta[WindowKey[K], V]
		var keys []byte // of the batch's rows, one after another
		portOf[K, V](b, in).to(func(ds []delta[K, V]) {
			buf, keys = buf[:0], keys[:0]
			for i := range ds {
				d := &ds[i]
				if d.null { // for the aggregate to count
					buf = append(buf, delta[WindowKey[K], V]{val: d.val, time: d.time, weight: d.weight, null: true})
					continue
				}
				from := len(keys)
				keys = appendText(keys, keyOf(k, d))
				prefix := keys[from:len(keys):len(keys)]
				late := false
				w.each(d.time.ms, func(start, end int64) {
					if plusMillis(end, over) <= d.time.stream && !(seed.Is(seed.ViewLate) && plusMillis(end, over) == d.time.stream) {
						late = true
						return
					}
					from := len(keys)
					keys = appendSpan(append(keys, prefix...), start, end)
					buf = append(buf, delta[WindowKey[K], V]{
						key: WindowKey[K]{d.key, atMillis(start), atMillis(end)}, val: d.val,
						raw: keys[from:len(keys):len(keys)], time: d.time, weight: d.weight,
					})
				})
				if late {
					b.task.late.Add(d.weight)
				}
			}
			out.emit(buf)
		})
		return out
	}
	return &Grouped[WindowKey[K], V]{n, WindowCodec[K]{key}, value}
}

// Lateness is what decides which rows of a stream are late.
type Lateness interface {
	missed(m moment) bool
	check() error
}

// Late is the rows of a stream that windows, or a join within a time, leave out because they come too late: of hopping windows
// also those that only some of their windows leave out. It takes the definition that the rows were left out by.
//
//	perMinute := query.Tumbling(time.Minute).Grace(10 * time.Second)
//	counts := query.Count(query.Windowed(orders, perMinute))
//	query.To(g, query.Late(orders, perMinute), lateOrders)
func Late[K, V any](r Rows[K, V], by Lateness) *Stream[K, V] {
	in, key, value := r.rows()
	n := linear("late", in, false, func(buf []delta[K, V], d *delta[K, V]) []delta[K, V] {
		if !d.null && by.missed(d.time) {
			buf = append(buf, *d)
		}
		return buf
	})
	if n.needs("definition", by != nil); by != nil {
		n.label, n.err = fmt.Sprint(by), by.check()
	}
	if !in.appends {
		n.err = errors.Join(n.err, fmt.Errorf("late: %w", ErrNotStream))
	}
	return &Stream[K, V]{n, key, value}
}
