package partition

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/x/embedlog/log"
)

// The snapshot of a partition's state, which the log's checkpoint carries under
// its own checksum. Big-endian. Equal states have equal bytes.
//
//	 0  2  version: 1, or 2 with a group's part behind everything else
//	 2  8  end: the state is that of the batches below this offset
//	10  8  the newest append time, milliseconds since 1970
//	18  4  number of leader epochs, then for each, epochs and starts growing:
//	       4 epoch  8 start offset
//	    4  number of producers, then for each, ids growing:
//	       8 producer id  2 epoch  4 coordinator epoch  8 first offset of the open transaction or -1
//	       8 last append, milliseconds of the partition's clock  1 number of batches, then for each, oldest first:
//	          4 last sequence  4 last offset less base offset  8 last offset  8 maximum timestamp
//	    4  number of ended transactions whose markers were not visible, then for each, markers growing:
//	       8 first offset  8 marker
//	    4  number of aborted transactions, then for each, markers growing:
//	       8 producer id  8 first offset  8 marker  8 last stable offset behind the marker
//	the group's part, of version 2:
//	    8  index of the last committed entry  8 its epoch
//	    8  index of the entry that said who the members are
//	    8  log start offset that the group has decided
//	    1  flags: 1 doubtful, 2 weak, 4 open
//	    4  number of bytes that say who the members are, and those bytes
const (
	stateVersion = 1
	groupVersion = 2 // a state with a group's part
	groupBytes   = 8 + 8 + 8 + 8 + 1 + 4
	flagDoubtful = 1
	flagWeak     = 2
	flagOpen     = 4

	epochBytes        = 4 + 8
	producerBytes     = 8 + 2 + 4 + 8 + 8 + 1 // without its batches
	sentBatchBytes    = 4 + 4 + 8 + 8
	endedBytes        = 8 + 8
	abortedBytes      = 8 + 8 + 8 + 8
	stateHeaderBytes  = 2 + 8 + 8
	stateCountBytes   = 4
	stateMinimumBytes = stateHeaderBytes + 4*stateCountBytes
)

// appendTo encodes the state behind dst. A group under way is no part of it.
func (s *state) appendTo(dst []byte) []byte {
	be := binary.BigEndian
	dst = slices.Grow(dst, stateMinimumBytes+len(s.epochs.list)*epochBytes+
		len(s.producers)*(producerBytes+keptBatches*sentBatchBytes)+
		len(s.txns.ended)*endedBytes+len(s.txns.aborted)*abortedBytes)
	version := uint16(stateVersion)
	if s.group != nil {
		version = groupVersion
	}
	dst = be.AppendUint16(dst, version)
	dst = be.AppendUint64(dst, uint64(s.end))
	dst = be.AppendUint64(dst, uint64(s.appendTime))
	dst = be.AppendUint32(dst, uint32(len(s.epochs.list)))
	for _, e := range s.epochs.list {
		dst = be.AppendUint32(dst, uint32(e.epoch))
		dst = be.AppendUint64(dst, uint64(e.start))
	}
	dst = be.AppendUint32(dst, uint32(len(s.producers)))
	for _, p := range s.sortedProducers() {
		dst = p.appendTo(dst)
	}
	dst = be.AppendUint32(dst, uint32(len(s.txns.ended)))
	for _, e := range s.txns.ended {
		dst = be.AppendUint64(dst, uint64(e.first))
		dst = be.AppendUint64(dst, uint64(e.marker))
	}
	dst = be.AppendUint32(dst, uint32(len(s.txns.aborted)))
	for _, a := range s.txns.aborted {
		dst = be.AppendUint64(dst, uint64(a.producerID))
		dst = be.AppendUint64(dst, uint64(a.first))
		dst = be.AppendUint64(dst, uint64(a.marker))
		dst = be.AppendUint64(dst, uint64(a.lastStable))
	}
	if s.group != nil {
		dst = s.group.appendTo(dst)
	}
	return dst
}

func (g *GroupState) appendTo(dst []byte) []byte {
	be := binary.BigEndian
	dst = be.AppendUint64(dst, g.Index)
	dst = be.AppendUint64(dst, g.Epoch)
	dst = be.AppendUint64(dst, g.MembersIndex)
	dst = be.AppendUint64(dst, uint64(g.LogStart))
	flags := byte(0)
	if g.Doubtful {
		flags |= flagDoubtful
	}
	if g.Weak {
		flags |= flagWeak
	}
	if g.Open {
		flags |= flagOpen
	}
	dst = append(dst, flags)
	dst = be.AppendUint32(dst, uint32(len(g.Members)))
	return append(dst, g.Members...)
}

func (p *producer) appendTo(dst []byte) []byte {
	be := binary.BigEndian
	dst = be.AppendUint64(dst, uint64(p.id))
	dst = be.AppendUint16(dst, uint16(p.epoch))
	dst = be.AppendUint32(dst, uint32(p.coordinatorEpoch))
	dst = be.AppendUint64(dst, uint64(p.txnFirst))
	dst = be.AppendUint64(dst, uint64(p.lastAppend))
	dst = append(dst, byte(p.kept))
	for i := range p.batches[:p.kept] {
		b := &p.batches[i]
		dst = be.AppendUint32(dst, uint32(b.lastSequence))
		dst = be.AppendUint32(dst, uint32(b.offsetDelta))
		dst = be.AppendUint64(dst, uint64(b.lastOffset))
		dst = be.AppendUint64(dst, uint64(b.timestamp))
	}
	return dst
}

// decodeState reads a snapshot. It takes any bytes: what it allocates is bounded
// by a few times their number, and what it accepts encodes to the same bytes. A
// version that is not known is log.ErrNewerFormat.
func decodeState(b []byte) (*state, error) {
	r := stateReader{rest: b}
	version := r.u16()
	if r.err == nil && version > groupVersion {
		return nil, fmt.Errorf("partition state: version %d: %w", version, log.ErrNewerFormat)
	}
	r.check(version == stateVersion || version == groupVersion, "unknown version")
	s := newState(r.i64())
	r.check(s.end >= 0, "negative end")
	s.appendTime = r.i64()
	r.epochs(s)
	r.producers(s)
	r.ended(s)
	r.aborted(s)
	if version == groupVersion {
		r.group(s)
	}
	r.check(len(r.rest) == 0, "bytes behind the end")
	if r.err != nil {
		return nil, fmt.Errorf("partition state: %w", r.err)
	}
	s.txns.findUnstable()
	return s, nil
}

// stateReader reads big-endian numbers until the bytes run out or something is
// wrong; from then on everything reads as zero and err has the first reason.
type stateReader struct {
	rest []byte
	err  error
}

var errStateShort = errors.New("ends too early")

func (r *stateReader) check(ok bool, reason string) {
	if !ok && r.err == nil {
		r.err = errors.New(reason)
	}
}

func (r *stateReader) take(n int) []byte {
	if r.err != nil || len(r.rest) < n {
		if r.err == nil {
			r.err = errStateShort
		}
		return make([]byte, 8)[:n] // n is at most 8
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *stateReader) u8() byte    { return r.take(1)[0] }
func (r *stateReader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *stateReader) i32() int32  { return int32(binary.BigEndian.Uint32(r.take(4))) }
func (r *stateReader) i64() int64  { return int64(binary.BigEndian.Uint64(r.take(8))) }

// count reads how many things of at least that many bytes follow, and believes
// it only when the bytes are there: memory is made for no more than that.
func (r *stateReader) count(bytes int) int {
	n := int64(uint32(r.i32()))
	if r.err == nil && n > int64(len(r.rest)/bytes) {
		r.err = errStateShort
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *stateReader) epochs(s *state) {
	n := r.count(epochBytes)
	s.epochs.list = slices.Grow(s.epochs.list, n)
	last := leaderEpoch{-1, -1}
	for range n {
		e := leaderEpoch{epoch: r.i32(), start: r.i64()}
		r.check(e.epoch > last.epoch && e.start > last.start, "leader epochs do not grow")
		s.epochs.list = append(s.epochs.list, e)
		last = e
	}
}

func (r *stateReader) producers(s *state) {
	n := r.count(producerBytes)
	last := noProducer
	for range n {
		p := r.producer(s.end)
		r.check(p.id > last, "producer ids do not grow")
		if r.err != nil {
			return
		}
		last = p.id
		s.producers[p.id] = &p
		if p.txnFirst >= 0 {
			s.txns.open = append(s.txns.open, openTxn{p.id, p.txnFirst})
		}
	}
	slices.SortFunc(s.txns.open, func(a, b openTxn) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(s.txns.open); i++ {
		r.check(s.txns.open[i].first != s.txns.open[i-1].first, "two transactions begin at one offset")
	}
}

func (r *stateReader) producer(end int64) producer {
	p := producer{
		id: r.i64(), epoch: int16(r.u16()), coordinatorEpoch: r.i32(),
		txnFirst: r.i64(), lastAppend: r.i64(), kept: int(r.u8()),
	}
	r.check(p.epoch >= 0, "producer without an epoch")
	r.check(p.coordinatorEpoch >= noCoordinatorEpoch, "coordinator epoch out of range")
	r.check(p.txnFirst >= noOffset && p.txnFirst < end, "transaction's offset out of range")
	r.check(p.kept <= keptBatches, "too many batches of a producer")
	if r.err != nil {
		return p
	}
	last := int64(-1)
	for i := range p.batches[:p.kept] {
		b := sentBatch{lastSequence: r.i32(), offsetDelta: r.i32(), lastOffset: r.i64(), timestamp: r.i64()}
		r.check(b.lastSequence >= 0 && b.offsetDelta >= 0, "sequence out of range")
		r.check(b.lastOffset < end && b.lastOffset-int64(b.offsetDelta) > last, "offsets of a producer's batches do not grow")
		p.batches[i] = b
		last = b.lastOffset
	}
	return p
}

func (r *stateReader) ended(s *state) {
	n := r.count(endedBytes)
	s.txns.ended = slices.Grow(s.txns.ended, n)
	last := int64(-1)
	for range n {
		e := endedTxn{first: r.i64(), marker: r.i64()}
		r.check(e.first >= 0 && e.first < e.marker && e.marker < s.end && e.marker > last, "ended transactions out of order")
		s.txns.ended = append(s.txns.ended, e)
		last = e.marker
	}
}

func (r *stateReader) group(s *state) {
	g := &GroupState{Index: uint64(r.i64()), Epoch: uint64(r.i64()), MembersIndex: uint64(r.i64()), LogStart: r.i64()}
	flags := r.u8()
	r.check(flags&^(flagDoubtful|flagWeak|flagOpen) == 0, "unknown flags of the group")
	g.Doubtful, g.Weak, g.Open = flags&flagDoubtful != 0, flags&flagWeak != 0, flags&flagOpen != 0
	r.check(g.LogStart >= 0, "negative log start")
	if n := r.count(1); n > 0 {
		g.Members, r.rest = slices.Clone(r.rest[:n]), r.rest[n:]
	}
	s.group = g
}

func (r *stateReader) aborted(s *state) {
	n := r.count(abortedBytes)
	s.txns.aborted = slices.Grow(s.txns.aborted, n)
	last := int64(-1)
	for range n {
		a := abortedTxn{producerID: r.i64(), first: r.i64(), marker: r.i64(), lastStable: r.i64()}
		r.check(a.producerID >= 0 && a.first >= 0 && a.first < a.marker && a.marker < s.end && a.marker > last, "aborted transactions out of order")
		r.check(a.lastStable >= 0 && a.lastStable < math.MaxInt64 && a.lastStable <= a.marker+1, "last stable offset out of range")
		s.txns.aborted = append(s.txns.aborted, a)
		last = a.marker
	}
}
