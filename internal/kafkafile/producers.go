package kafkafile

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// producers is what a broker knows of the producers of a partition, computed from
// the batches as a broker does when it reads its log (ProducerStateManager).
type producers struct {
	known map[int64]bool // by the partition: the others have expired, and are left out
	byID  map[int64]*producer
	open  map[int64]int64 // producer id to first offset of its open transaction
}

// producer is one entry of a snapshot.
type producer struct {
	id               int64
	epoch            int16
	lastSequence     int32 // -1: none in this epoch
	lastOffset       int64 // -1: none
	offsetDelta      int32 // last sequence less first of the last batch
	timestamp        int64
	coordinatorEpoch int32 // -1: no marker seen
}

// abortedTxn is one entry of a .txnindex.
type abortedTxn struct{ producerID, first, marker, lastStable int64 }

func newProducers(known []partition.ProducerState) *producers {
	ps := &producers{known: make(map[int64]bool), byID: make(map[int64]*producer), open: make(map[int64]int64)}
	for _, p := range known {
		ps.known[p.ProducerID] = true
	}
	return ps
}

// apply takes in a batch. It returns the transaction that it aborts, if it does.
func (ps *producers) apply(h *log.BatchHeader, marker func() (log.ControlType, int32, error)) (*abortedTxn, error) {
	if h.ProducerID < 0 {
		return nil, nil
	}
	control := h.Attributes.Has(log.Control)
	kind, coordinator := log.ControlUnknown, int32(-1)
	if control {
		if h.Count == 0 {
			return nil, nil // what compaction left of a marker whose transaction is gone
		}
		var err error
		if kind, coordinator, err = marker(); err != nil {
			return nil, err
		}
		if kind != log.ControlAbort && kind != log.ControlCommit {
			return nil, nil
		}
	}
	p := ps.byID[h.ProducerID]
	if p == nil || p.epoch != h.ProducerEpoch {
		fresh := &producer{id: h.ProducerID, epoch: h.ProducerEpoch, lastSequence: -1, lastOffset: -1, coordinatorEpoch: -1}
		if p != nil {
			fresh.coordinatorEpoch = p.coordinatorEpoch
		}
		if p = fresh; ps.known[p.id] {
			ps.byID[p.id] = p
		}
	}
	p.timestamp = h.MaxTimestamp
	if !control {
		if h.BaseSequence >= 0 {
			p.lastSequence, p.lastOffset, p.offsetDelta = h.LastSequence(), h.LastOffset(), h.LastOffsetDelta
		}
		if _, open := ps.open[p.id]; !open && h.Attributes.Has(log.Transactional) {
			ps.open[p.id] = h.BaseOffset
		}
		return nil, nil
	}
	p.coordinatorEpoch = coordinator
	first, open := ps.open[p.id]
	delete(ps.open, p.id)
	if !open || kind != log.ControlAbort {
		return nil, nil
	}
	a := &abortedTxn{producerID: p.id, first: first, marker: h.BaseOffset, lastStable: h.LastOffset() + 1}
	for _, other := range ps.open {
		a.lastStable = min(a.lastStable, other)
	}
	return a, nil
}

// snapshot encodes the producers.
//
//	0  2  version: 1
//	2  4  CRC-32C of bytes 6 to the end
//	6  4  number of producers, then for each:
//	   8 producer id  2 epoch  4 last sequence  8 last offset  4 offset delta  8 timestamp
//	   4 coordinator epoch  8 first offset of the open transaction or -1
func (ps *producers) snapshot() []byte {
	be := binary.BigEndian
	b := make([]byte, snapshotHeaderBytes, snapshotHeaderBytes+len(ps.byID)*snapshotEntryBytes)
	be.PutUint16(b, 1)
	be.PutUint32(b[6:], uint32(len(ps.byID)))
	for _, id := range slices.Sorted(maps.Keys(ps.byID)) {
		p := ps.byID[id]
		first, open := ps.open[id]
		if !open {
			first = -1
		}
		b = be.AppendUint64(b, uint64(p.id))
		b = be.AppendUint16(b, uint16(p.epoch))
		b = be.AppendUint32(b, uint32(p.lastSequence))
		b = be.AppendUint64(b, uint64(p.lastOffset))
		b = be.AppendUint32(b, uint32(p.offsetDelta))
		b = be.AppendUint64(b, uint64(p.timestamp))
		b = be.AppendUint32(b, uint32(p.coordinatorEpoch))
		b = be.AppendUint64(b, uint64(first))
	}
	be.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
	return b
}

const (
	snapshotHeaderBytes = 2 + 4 + 4
	snapshotEntryBytes  = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
