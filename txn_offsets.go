package embedlog

import (
	"context"
	"fmt"

	"github.com/x/embedlog/internal/engine"
)

// CommitOffsets makes what is marked in a group's consumer part of the
// transaction: it is committed when the transaction is, and when that is aborted the
// consumer reads those records again. The consumer has ManualCommit, and does
// nothing else meanwhile.
//
// It fails with an error that matches ErrRebalance when the group has given one of
// the partitions to somebody else. After an error the transaction can only be aborted.
func (t *Txn) CommitOffsets(ctx context.Context, c *Consumer) error {
	if err := t.beginOffsets(ctx); err != nil {
		return err
	}
	defer t.release()
	r, done, err := c.offsetsForTxn(ctx)
	if err != nil {
		c.Rewind() // what it dropped was read for nothing
		return t.fail(fmt.Errorf("commit offsets: %w", err))
	}
	t.consumers = append(t.consumers, done)
	return t.fail(t.commitOffsets(ctx, r))
}

// CommitPositions makes positions of a group part of the transaction: where it goes
// on reading. The group has no members. After an error the transaction can only
// be aborted.
func (t *Txn) CommitPositions(ctx context.Context, group string, positions ...Position) error {
	if err := t.beginOffsets(ctx); err != nil {
		return err
	}
	defer t.release()
	r := engine.CommitRequest{Group: group, MemberEpoch: -1}
	for _, p := range positions {
		r.Offsets = append(r.Offsets, engine.OffsetCommit{Topic: p.Topic, Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch})
	}
	return t.fail(t.commitOffsets(ctx, r))
}

func (t *Txn) beginOffsets(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return fmt.Errorf("commit offsets: %w", err)
	}
	if t.failed != nil {
		defer t.release()
		return fmt.Errorf("commit offsets: a part of the transaction failed: %w", t.failed)
	}
	return nil
}

func (t *Txn) commitOffsets(ctx context.Context, r engine.CommitRequest) error {
	if len(r.Offsets) == 0 {
		return nil
	}
	r.Local = true
	part, err := t.db.engine.AnyGroups().OffsetsPartition(ctx, r.Group)
	if err != nil {
		return fmt.Errorf("commit offsets: %w", err)
	}
	if t.parts[placeOf(part)] == nil {
		err := t.atFirst(ctx, func(s *txnSession) error {
			return t.db.engine.AnyTxns().AddOffsets(ctx, s.id, s.producerID, s.epoch, r.Group)
		})
		if err != nil {
			return err
		}
		t.parts[placeOf(part)] = &txnPart{}
	}
	return t.db.engine.AnyGroups().TxnCommit(ctx, r, t.session.producerID, t.session.epoch)
}
