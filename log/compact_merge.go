package log

import (
	"math"

	"github.com/x/embedlog/compress"
)

// pending is a run of neighbouring batches that will be written as one.
type pending struct {
	header  BatchHeader // of the first; LastOffsetDelta reaches to the end of the last
	codec   compress.Codec
	index   uint64 // of the last one's frame
	epoch   uint64
	records []Record
	bytes   int    // uncompressed
	batches int    // 0: nothing is pending
	raw     []byte // of a single batch that did not change; nil otherwise
}

// pend adds what is left of a batch to the pending one, or writes that first.
func (c *cleaner) pend(h *frameHeader, bh *BatchHeader, batch []byte, recs []Record, changed bool) error {
	codec := bh.Attributes.Codec()
	size := EncodedLen(bh, recs)
	p := &c.pending
	if p.batches > 0 && p.joins(h, bh, codec, c.p.Recompress) && p.bytes+size <= c.p.MergeBytes {
		p.header.LastOffsetDelta = int32(bh.LastOffset() - p.header.BaseOffset)
		p.header.MaxTimestamp = max(p.header.MaxTimestamp, bh.MaxTimestamp)
		p.index, p.raw = h.index, nil
		p.records = append(p.records, recs...)
		p.bytes += size
		p.batches++
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	*p = pending{header: *bh, codec: codec, index: h.index, epoch: h.epoch, records: recs, bytes: size, batches: 1}
	if !changed {
		p.raw = batch
	}
	if size > c.p.MergeBytes || len(recs) == 0 || bh.ProducerID >= 0 {
		return c.flush() // nothing will join it
	}
	return nil
}

// joins says whether a batch may become one with the pending one: nothing that a
// reader could tell apart may differ.
func (p *pending) joins(h *frameHeader, bh *BatchHeader, codec compress.Codec, recompress bool) bool {
	a, b := &p.header, bh
	return p.epoch == h.epoch && a.LeaderEpoch == b.LeaderEpoch &&
		a.Attributes&^CodecMask == b.Attributes&^CodecMask && (recompress || p.codec == codec) &&
		a.ProducerID < 0 && b.ProducerID < 0 && a.ProducerEpoch == b.ProducerEpoch &&
		a.BaseSequence < 0 && b.BaseSequence < 0 &&
		!a.Attributes.Has(Transactional) && !a.Attributes.Has(Control) &&
		(!a.Attributes.Has(DeleteHorizon) || a.BaseTimestamp == b.BaseTimestamp) &&
		(!a.Attributes.Has(AppendTime) || a.MaxTimestamp == b.MaxTimestamp) &&
		b.LastOffset()-a.BaseOffset <= math.MaxInt32
}

// incompressible is by how much a codec may make a batch of maxFrameBytes larger.
const incompressible = maxFrameBytes / 64

// flush writes the pending batch.
func (c *cleaner) flush() error {
	p := &c.pending
	if p.batches == 0 {
		return nil
	}
	batch, codec := p.raw, p.codec
	// Without its compression a segment could outgrow what a segment may be, and a batch
	// what a frame may be.
	if c.p.Recompress && c.out.size()+int64(p.bytes) <= c.limit && p.bytes <= maxFrameBytes-incompressible {
		codec = c.p.Codec
	}
	var err error
	if batch == nil {
		if batch, err = AppendBatchAt(nil, &p.header, p.records); err != nil {
			return err
		}
		if codec != compress.None && len(p.records) > 0 {
			batch, err = CompressBatch(nil, batch, codec, c.p.CodecLevel)
		}
	} else if codec != p.codec && len(p.records) > 0 {
		batch, err = CompressBatch(nil, batch, codec, c.p.CodecLevel)
	}
	if err != nil {
		return err
	}
	index, epoch := p.index, p.epoch
	*p = pending{}
	return c.out.add(KindData, index, epoch, batch)
}
