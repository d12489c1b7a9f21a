package kafka

import (
	"testing"

	"github.com/x/embedlog/internal/engine"
)

// Pieces that are lent do not overlap, and what is given back is lent again.
func TestFetchMemory(t *testing.T) {
	m := fetchMemory{pool: &frames{}}
	for _, sizes := range [][]int{{1, 100, leastPiece}, {leastPiece - 10, 11, 10}, {5 << 20}, {1 << 20, 1, 4096, 1 << 20}} {
		var lent [][]byte
		for i, n := range sizes {
			b := m.get(n)
			if len(b) != n || cap(b) != n {
				t.Fatalf("%v: %d bytes with room for %d, want %d", sizes, len(b), cap(b), n)
			}
			for k := range b {
				b[k] = byte(i + 1)
			}
			lent = append(lent, b)
		}
		for i, b := range lent {
			for k := range b {
				if b[k] != byte(i+1) {
					t.Fatalf("%v: piece %d was written by another", sizes, i)
				}
			}
		}
		m.release()
		if len(m.taken) != 0 || m.free != nil {
			t.Errorf("%v: %d pieces and %d bytes are kept", sizes, len(m.taken), len(m.free))
		}
	}
}

// Places are bounded, however many partitions a client reads.
func TestFetchPlacesAreBounded(t *testing.T) {
	var f fetchPlaces
	first := &engine.Partition{}
	at := f.of(first)
	if f.of(first) != at {
		t.Error("the place of a partition is another one the second time")
	}
	for range keptParts * 2 {
		f.of(&engine.Partition{})
	}
	if len(f) > keptParts {
		t.Errorf("%d places", len(f))
	}
}
