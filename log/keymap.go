package log

import (
	"crypto/sha256"
	"encoding/binary"
)

// keyMap holds the last offset of each key in bounded memory: an open-addressed
// table of 128-bit hashes. The keys themselves are not kept, so two keys with one
// hash would be taken for one and records would be lost. With SHA-256 that cannot
// be brought about on purpose, and by chance it happens once in 2^128/n^2 tables
// of n keys: 1 in 10^26 for the half million of the default size.
type keyMap struct {
	slots []keySlot // a power of two of them
	used  int
	limit int // at which it counts as full
}

type keySlot struct {
	high, low uint64
	offset    int64 // one more than it is, so that 0 says free
}

const keySlotBytes = 24

// newKeyMap returns a map that takes at most so many bytes, and never less than
// is needed for a few keys.
func newKeyMap(bytes int) *keyMap {
	n := 8
	for 2*n*keySlotBytes <= bytes {
		n *= 2
	}
	return &keyMap{slots: make([]keySlot, n), limit: n / 4 * 3}
}

// clear makes the map empty again.
func (m *keyMap) clear() {
	clear(m.slots)
	m.used = 0
}

// put notes that key's last offset is offset, which must not be below an earlier
// one. It answers false when the map is full, and is then as it was.
func (m *keyMap) put(key []byte, offset int64) bool {
	high, low := hashKey(key)
	s := m.find(high, low)
	if s.offset == 0 {
		if m.used >= m.limit {
			return false
		}
		m.used++
		s.high, s.low = high, low
	}
	s.offset = offset + 1
	return true
}

// get returns the last offset of key.
func (m *keyMap) get(key []byte) (offset int64, ok bool) {
	s := m.find(hashKey(key))
	return s.offset - 1, s.offset != 0
}

// find returns the slot of a hash, or the free one where it belongs.
func (m *keyMap) find(high, low uint64) *keySlot {
	mask := uint64(len(m.slots) - 1)
	for i := low & mask; ; i = (i + 1) & mask {
		s := &m.slots[i]
		if s.offset == 0 || s.high == high && s.low == low {
			return s
		}
	}
}

func hashKey(key []byte) (high, low uint64) {
	sum := sha256.Sum256(key)
	return binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])
}
