package crashtest

import (
	"math"
	"slices"
)

// Offer is a batch sent while others are: its place is known when it is
// acknowledged, or never.
type Offer struct {
	recs    []Rec
	meta    any
	base    int64 // -1 while it is not known
	durable bool
	refused bool
}

// Offering notes a batch that several goroutines send at once. What was sent with
// Sending before lies below it.
func (t *Trace) Offering(meta any, recs ...Rec) *Offer {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &Offer{recs: recs, meta: meta, base: -1}
	t.loose = append(t.loose, o)
	t.batches++
	return o
}

// Acknowledged says that the offer is at base. durable says that it was
// acknowledged at a level that survives a power cut.
func (t *Trace) Acknowledged(o *Offer, base int64, durable bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.base, o.durable = base, durable
}

// Refused says that the offer is certain not to be there, now or later.
func (t *Trace) Refused(o *Offer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.refused = true
}

// Settle gives all offers their places, when each was acknowledged or refused.
func (t *Trace) Settle() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	loose := slices.DeleteFunc(t.loose, func(o *Offer) bool { return o.refused })
	slices.SortFunc(loose, func(a, b *Offer) int { return int(a.base - b.base) })
	for _, o := range loose {
		if o.base != int64(len(t.sent)) {
			return broken("an append was acknowledged at %d, the others end at %d", o.base, len(t.sent))
		}
		t.placeLocked(o.meta, o.recs)
		t.written = int64(len(t.sent))
		if o.durable {
			t.durable = t.written
		}
	}
	t.loose = nil
	return nil
}

// foundLocked is the trace with those offers in their places that c shows. Each is
// there whole, once, and where it was acknowledged; those that e cannot have taken
// are there.
func (t *Trace) foundLocked(c *Contents, e Event) (*Trace, error) {
	n := &Trace{
		sent: slices.Clone(t.sent), placed: slices.Clone(t.placed), batches: t.batches, written: t.written, durable: t.durable,
		startLow: t.startLow, startHigh: t.startHigh, floor: math.MaxInt64, compacted: t.compacted,
	}
	at := map[string]*Offer{} // values are unique
	for _, o := range t.loose {
		at[o.recs[0].Value] = o
	}
	for i := 0; i < len(c.Recs); {
		r := c.Recs[i]
		if r.Offset < int64(len(n.sent)) {
			i++
			continue
		}
		o := at[string(r.Value)]
		switch {
		case o == nil || r.Offset != int64(len(n.sent)):
			return nil, broken("invented, torn or twice: %.40q at offset %d, known is all below %d", r.Value, r.Offset, len(n.sent))
		case o.refused:
			return nil, broken("an append that failed is there, at offset %d", r.Offset)
		case o.base >= 0 && o.base != r.Offset:
			return nil, broken("moved: acknowledged at %d, found at %d", o.base, r.Offset)
		}
		delete(at, string(r.Value))
		n.placeLocked(o.meta, o.recs) // the rest of it is compared by Check
		i += len(o.recs)
	}
	for _, o := range at {
		if o.base >= 0 && !o.refused && (e != Power || o.durable) {
			return nil, broken("lost: acknowledged at %d, the log ends at %d (%v)", o.base, c.End, e)
		}
	}
	if int64(len(n.sent)) > c.End && len(n.placed) > 0 && n.placed[len(n.placed)-1].Base < c.End {
		return nil, broken("torn: the log ends at %d, inside a batch", c.End)
	}
	n.written = min(n.written, int64(len(n.sent)))
	return n, nil
}
