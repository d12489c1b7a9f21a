package kafka

import (
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/partition"
)

// fetchMemory is what the batches of one answer are read into. It is given back when
// the answer is written, and used again: nothing is cleared or collected for a fetch.
type fetchMemory struct {
	pool  *frames
	free  []byte    // what is left of the last piece
	taken []*[]byte // for frames.put
}

// leastPiece is what is taken from the pool at once, at least: the batches of many
// partitions with little news lie in one piece.
const leastPiece = 16 << 10

// get returns n bytes with anything in them, until release.
func (m *fetchMemory) get(n int) []byte {
	if n > len(m.free) {
		b, free := m.pool.get(max(n, leastPiece))
		if free != nil {
			m.taken = append(m.taken, free)
			b = *free // its class may be larger
		}
		m.free = b
	}
	b := m.free[:n:n]
	m.free = m.free[n:]
	return b
}

// release gives everything back.
func (m *fetchMemory) release() {
	for _, free := range m.taken {
		m.pool.put(free)
	}
	clear(m.taken)
	if cap(m.taken) > keptPieces {
		m.taken = nil
	}
	m.taken, m.free = m.taken[:0], nil
}

// fetchPlaces are where the last fetches of a connection ended: a client goes on
// there, and the partition need not look into its indexes.
type fetchPlaces map[*engine.Partition]*partition.FetchPlace

// of is the place in a partition.
func (f *fetchPlaces) of(p *engine.Partition) *partition.FetchPlace {
	if at := (*f)[p]; at != nil {
		return at
	}
	if *f == nil || len(*f) >= keptParts {
		*f = make(fetchPlaces) // deleted topics are not held for ever
	}
	at := &partition.FetchPlace{}
	(*f)[p] = at
	return at
}
