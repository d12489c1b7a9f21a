package history

import (
	"math/bits"
)

// values is what is known of the values of one key: a row for each, in columns, and
// a hash table from value to row. There are millions of rows; nothing here points.
type values struct {
	key   Key
	value []int64
	op    []uint32 // who sent it; none when only polls know it
	sent  []int64  // the offset that the answer named, or a code
	read  []int64  // the offset at which it was polled first, or NoOffset
	flags []uint8

	// moved are further offsets at which it was polled. Rare, and bounded.
	moved map[uint32][]int64

	table []uint32 // rows + 1; 0 is free; at most half full
}

const none = ^uint32(0)

// Flags of a value.
const (
	seenCommitted   uint8 = 1 << iota // by a committed reader
	seenUncommitted                   // by another reader
	seenFinal                         // by a committed reader, in a final read
	retries                           // its producer may repeat it
)

func (v *values) hash(value int64) uint64 {
	// Values are often counters: the multiplication spreads them over the high bits.
	return uint64(value) * 0x9e3779b97f4a7c15
}

// find returns the row of a value, or none.
func (v *values) find(value int64) uint32 {
	if len(v.table) == 0 {
		return none
	}
	mask := uint64(len(v.table) - 1)
	shift := 64 - bits.Len64(mask)
	for i := v.hash(value) >> shift; ; i = (i + 1) & mask {
		switch r := v.table[i]; {
		case r == 0:
			return none
		case v.value[r-1] == value:
			return r - 1
		}
	}
}

// row returns the row of a value, which it makes when there is none.
func (v *values) row(value int64) uint32 {
	if r := v.find(value); r != none {
		return r
	}
	v.value = append(v.value, value)
	v.op = append(v.op, none)
	v.sent = append(v.sent, NoOffset)
	v.read = append(v.read, NoOffset)
	v.flags = append(v.flags, 0)
	if 2*len(v.value) > len(v.table) {
		v.table = make([]uint32, max(16, 2*len(v.table)))
		for r := range v.value {
			v.enter(uint32(r))
		}
	} else {
		v.enter(uint32(len(v.value) - 1))
	}
	return uint32(len(v.value) - 1)
}

func (v *values) enter(row uint32) {
	mask := uint64(len(v.table) - 1)
	i := v.hash(v.value[row]) >> (64 - bits.Len64(mask))
	for v.table[i] != 0 {
		i = (i + 1) & mask
	}
	v.table[i] = row + 1
}

// mostMoved bounds what is kept of values that were read at several offsets: a
// history with more is known to be broken.
const mostMoved = 1 << 16

// polled notes that a value was read at an offset.
func (v *values) polled(row uint32, offset int64, flags uint8) {
	v.flags[row] |= flags
	switch at := v.read[row]; {
	case at == NoOffset:
		v.read[row] = offset
	case at != offset:
		for _, o := range v.moved[row] {
			if o == offset {
				return
			}
		}
		if len(v.moved) < mostMoved && len(v.moved[row]) < mostMoved/1024 {
			if v.moved == nil {
				v.moved = map[uint32][]int64{}
			}
			v.moved[row] = append(v.moved[row], offset)
		}
	}
}
