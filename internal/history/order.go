package history

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// order is the version order of a key: the offsets at which visible records lie,
// each with the row of its value. A rank is a place in it.
type order struct {
	offsets []int64
	rows    []uint32
	// txns are the ranks whose record a transaction wrote, the first of each stretch
	// by the same one.
	txns []uint32
}

// rank is how many visible records lie before an offset. The hint is a rank that
// was near: readers go on where they were.
func (o *order) rank(offset int64, hint int) int {
	for range 2 {
		if hint > len(o.offsets) {
			break
		}
		if (hint == 0 || o.offsets[hint-1] < offset) && (hint == len(o.offsets) || o.offsets[hint] >= offset) {
			return hint
		}
		hint++
	}
	i, _ := slices.BinarySearch(o.offsets, offset)
	return i
}

// txnAfter returns the first rank past this one at which a transaction wrote.
func (o *order) txnAfter(rank int) (int, bool) {
	i := sort.Search(len(o.txns), func(i int) bool { return int(o.txns[i]) > rank })
	if i == len(o.txns) {
		return 0, false
	}
	return int(o.txns[i]), true
}

// place is a value at an offset.
type place struct {
	offset int64
	row    uint32
	order  bool // belongs to the version order
}

// arrange makes the version order of a key, and finds values that lie twice and
// offsets that hold two.
func (c *checker) arrange(key int32) {
	k := &c.keys[key]
	v := &k.values
	places := make([]place, 0, len(v.value))
	for i := range v.value {
		row := uint32(i)
		visible := c.visible(v, row)
		if visible {
			c.twice(v, row)
		}
		// A record that nobody sent, or whose write failed, has no place among the others,
		// but nothing else may lie there. What only readers of the uncommitted saw, and
		// nobody committed, may be gone when its machine has lost its power.
		seen := visible || v.flags[row]&seenCommitted != 0
		if seen && v.read[row] >= 0 {
			places = append(places, place{v.read[row], row, visible})
			for _, at := range v.moved[row] {
				places = append(places, place{at, row, visible})
			}
			if visible && v.flags[row]&(seenCommitted|seenUncommitted) != 0 {
				k.read = max(k.read, c.first(v, row))
			}
		}
		if visible && v.sent[row] >= 0 && v.sent[row] != v.read[row] {
			// Where it was read is where it lies; what the answer said is second to that.
			places = append(places, place{v.sent[row], row, v.read[row] < 0})
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.offset != b.offset {
			return cmp.Compare(a.offset, b.offset)
		}
		return cmp.Compare(a.row, b.row)
	})
	n := 0
	for _, p := range places {
		if p.order {
			n++
		}
	}
	k.order.offsets, k.order.rows = make([]int64, 0, n), make([]uint32, 0, n)
	for i := 0; i < len(places); {
		end, inOrder := i+1, none
		for end < len(places) && places[end].offset == places[i].offset {
			end++
		}
		same := places[i:end]
		for _, p := range same {
			if p.order {
				inOrder = p.row
				break
			}
		}
		if same[0].row != same[len(same)-1].row {
			c.inconsistent(v, same)
		}
		if inOrder != none {
			k.order.offsets = append(k.order.offsets, places[i].offset)
			k.order.rows = append(k.order.rows, inOrder)
		}
		i = end
	}
	last := none
	for rank, row := range k.order.rows {
		if op := v.op[row]; c.ops[op].kind == OpTxn && op != last {
			k.order.txns, last = append(k.order.txns, uint32(rank)), op
		}
	}
	k.lag = shorten(k.lag)
}

// first is the lowest offset at which a value is known to lie, or NoOffset.
func (c *checker) first(v *values, row uint32) int64 {
	at := v.read[row]
	if s := v.sent[row]; s >= 0 && (at < 0 || s < at) {
		at = s
	}
	for _, m := range v.moved[row] {
		at = min(at, m)
	}
	return at
}

// twice reports a value that lies at several offsets.
func (c *checker) twice(v *values, row uint32) {
	if v.read[row] < 0 {
		return
	}
	acked := v.sent[row] >= 0 && v.sent[row] != v.read[row] && !slices.Contains(v.moved[row], v.sent[row])
	if !acked && len(v.moved[row]) == 0 {
		return
	}
	if v.flags[row]&retries != 0 {
		c.report.Figures.Repeats++
		return
	}
	if in := c.add(Duplicate); in != nil {
		in.Key, in.Values, in.Ops = v.key, []int64{v.value[row]}, c.refs(v.op[row])
		in.Offsets = append([]int64{v.read[row]}, v.moved[row]...)
		in.Detail = "a value was polled at several offsets"
		if acked {
			in.Offsets = append(in.Offsets, v.sent[row])
			in.Detail = fmt.Sprintf("a value was acknowledged at offset %d and polled elsewhere", v.sent[row])
		}
	}
}

// inconsistent reports an offset that holds several values.
func (c *checker) inconsistent(v *values, same []place) {
	in := c.add(InconsistentOffsets)
	if in == nil {
		return
	}
	in.Key, in.Offsets, in.Detail = v.key, []int64{same[0].offset}, "one offset holds several values"
	last := none
	for _, p := range same {
		if p.row != last {
			in.Values = append(in.Values, v.value[p.row])
			in.Ops = append(in.Ops, c.refs(v.op[p.row])...)
		}
		last = p.row
	}
}
