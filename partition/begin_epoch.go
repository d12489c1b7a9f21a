package partition

import (
	"errors"
	"fmt"
	"math"

	"github.com/x/embedlog/log"
)

// BeginEpoch makes appends carry a leader epoch that none before it had, and
// that none after a crash will have again: an entry without an offset makes it
// durable, whatever the level. The owner of a partition without a Replicator
// calls it after an open that may have lost the end of the log. Who had read what
// was lost can then tell: EpochEnd of the epoch that he read is not past where the
// log now goes on. Without it records of the same epoch would take the place of
// those that are gone, and he would go on behind them. (KIP-101)
//
// It is small, and may use the reserve of a full disk. When there is no room at all,
// appends carry the new epoch all the same, which is then as durable as they are.
func (p *Partition) BeginEpoch() error {
	p.log.Lock()
	defer p.log.Unlock()
	epoch := p.epoch.Load() + 1
	if epoch >= math.MaxInt32 {
		return fmt.Errorf("begin leader epoch %d: there is none above", epoch)
	}
	err := p.Err()
	if err == nil {
		p.epoch.Store(epoch) // before there is anything that could fail for want of room
		err = p.writeEpoch(epoch)
	}
	if errors.Is(err, log.ErrNoSpace) && p.log.SpendReserve() {
		err = p.writeEpoch(epoch)
		p.log.SaveReserve()
	}
	if err != nil {
		return fmt.Errorf("begin leader epoch %d: %w", epoch, err)
	}
	return nil
}

// writeEpoch makes an entry of the epoch durable. Writer.
func (p *Partition) writeEpoch(epoch int64) error {
	if err := p.log.StageEntry(log.KindNoop, 0, uint64(epoch), nil); err != nil {
		return err
	}
	if err := p.log.Write(); err != nil {
		return err
	}
	return p.log.Sync()
}
