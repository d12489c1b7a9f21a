package partition

import (
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
)

// appendAlone is writeGroup for the most common append there is: ordinary records
// of somebody who found nobody writing. There is no one to share a group with and
// no state to check, so the records go straight into the log. done is false when
// something has to be looked at after all, and nothing has happened.
//
// The caller holds the log's writer lock. Budget: with package log's part 120 ns
// for a record of 100 bytes at OS, three atomic stores, no allocation, no lock but
// the one that is held.
func (p *Partition) appendAlone(recs []log.Record, cfg *Config) (result Result, done bool, err error) {
	w := &p.writer
	epoch := int32(p.epoch.Load())
	if cfg.AppendTime || epoch != p.state.epochs.latest() || len(p.state.txns.ended) > 0 {
		return result, false, nil
	}
	if err := p.Err(); err != nil {
		return result, true, fmt.Errorf("append: %w", err)
	}
	w.header = log.BatchHeader{ProducerID: noProducer, ProducerEpoch: noProducerEpoch, BaseSequence: noSequence}
	if err := p.log.StageRecords(uint64(epoch), &w.header, recs); err != nil {
		return result, true, fmt.Errorf("append: %w", err)
	}
	base := w.header.BaseOffset
	result = Result{BaseOffset: base, LastOffset: base + int64(len(recs)) - 1, AppendTime: -1, LogStart: p.log.StartOffset()}
	err = p.log.Write()
	if err == nil && p.log.Level() == log.Durable {
		err = p.log.Sync()
	}
	if err != nil {
		return Result{}, true, result.failed(err)
	}
	p.state.end = result.LastOffset + 1
	p.highWatermark.Store(result.LastOffset + 1)
	p.waiters.wake(p)
	return result, true, nil
}

// failed is the error of an append that would have had this result. After a
// failure of the storage the records may be in the log and on the disk, now or
// after a restart.
func (r *Result) failed(err error) error {
	if errors.Is(err, log.ErrStorageFailed) {
		return &UnknownOutcomeError{BaseOffset: r.BaseOffset, LastOffset: r.LastOffset, Err: err}
	}
	return fmt.Errorf("append: %w", err)
}
