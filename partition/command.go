package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// A command is an entry that changes the log itself, on every replica when it is
// committed: retention and DeleteRecords are decided on the leader, and replicas
// whose clocks differ delete the same.
//
//	0  1  0x81: version 1. The first byte of a record batch is that of an offset, and below 0x80
//	1  1  what to do: 1 the log starts at an offset
//	2  8  the offset
const (
	commandVersion  = 0x81
	commandLogStart = 1
	commandBytes    = 10
)

// IsCommand says whether the bytes of an entry are a command and not a record batch.
func IsCommand(data []byte) bool { return len(data) > 0 && data[0]&0x80 != 0 }

func logStartCommand(offset int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{commandVersion, commandLogStart}, uint64(offset))
}

// CheckCommand says what is wrong with the bytes of a command, from a peer or the disk.
func CheckCommand(data []byte) error {
	_, err := parseCommand(data)
	return err
}

// parseCommand is the offset that the log is to start at.
func parseCommand(data []byte) (start int64, err error) {
	if len(data) < 2 || data[0] != commandVersion || data[1] != commandLogStart {
		return 0, fmt.Errorf("command % x is not known: %w", data[:min(len(data), 2)], log.ErrNewerFormat)
	}
	if len(data) != commandBytes {
		return 0, fmt.Errorf("command of %d bytes: %w", len(data), log.ErrCorrupt)
	}
	if start = int64(binary.BigEndian.Uint64(data[2:])); start < 0 {
		return 0, fmt.Errorf("command: the log is to start at %d: %w", start, log.ErrCorrupt)
	}
	return start, nil
}

// Commander is a Replicator that replicates commands, too. With one that does not,
// each replica deletes on its own.
// It asks the log's HasRoom before it proposes records, because the replicas store
// whatever was proposed.
type Commander interface {
	// ProposeCommand is Propose for an entry of log.KindCommand.
	ProposeCommand(ctx context.Context, epoch int32, command []byte) (Proposal, error)
}

// commander is the replicator where it replicates commands.
func (p *Partition) commander() Commander {
	c, _ := p.replicator.(Commander)
	return c
}

// proposeStart has every replica's log start at offset, which the high watermark has
// passed, and returns when this one does.
func (p *Partition) proposeStart(ctx context.Context, c Commander, offset int64) error {
	epoch, err := p.replicator.LeaderEpoch()
	if err != nil {
		return err
	}
	if seed.Is(seed.RetainAlone) {
		p.log.Lock()
		defer p.log.Unlock()
		return p.log.TruncateToKeeping(offset, p.keepIndex())
	}
	proposal, err := c.ProposeCommand(ctx, epoch, logStartCommand(offset))
	if err == nil {
		err = proposal.Wait(ctx)
	}
	if err != nil {
		return err
	}
	return p.followStart()
}

// followStart deletes what lies below the log start that the group has decided.
func (p *Partition) followStart() error {
	p.mu.Lock()
	start := int64(0)
	if p.base != nil && p.base.group != nil {
		start = min(p.base.group.LogStart, p.highWatermark.Load())
	}
	p.mu.Unlock()
	return p.follow(start)
}

// FollowStart deletes what lies below start on this replica, which has not heard yet that its group's log starts there or
// behind: that comes behind entries for which there may be no room before. Somebody must have seen it committed, and
// then it holds for ever, in whatever epoch. What is not committed here stays, as when Commit follows, and so
// the log is one that it could be when a group deletes less: it starts at the high watermark at most.
// It does nothing without a Commander, where each replica decides by itself.
func (p *Partition) FollowStart(start int64) error {
	if p.commander() == nil {
		return nil
	}
	if err := p.follow(min(start, p.highWatermark.Load())); err != nil {
		return fmt.Errorf("follow the log start to %d: %w", start, err)
	}
	return nil
}

func (p *Partition) follow(start int64) error {
	if start <= p.log.StartOffset() {
		return nil
	}
	p.log.Lock()
	defer p.log.Unlock()
	if err := p.log.TruncateToKeeping(start, p.keepIndex()); err != nil {
		return err
	}
	p.movedStart()
	return nil
}

// retainReplicated is Retain with a replicator: the leader proposes what the policy
// says, and every replica deletes whole segments below the log start.
func (p *Partition) retainReplicated(ctx context.Context, c Commander, policy log.RetentionPolicy) (deleted int, freed int64, err error) {
	segments, took := p.log.Segments(), p.log.AllocatedBytes()
	_, err = p.replicator.LeaderEpoch()
	if err == nil {
		p.log.Lock()
		var start int64
		start, err = p.log.RetentionPoint(policy)
		p.log.Unlock()
		if err == nil && start > p.log.StartOffset() {
			err = p.proposeStart(ctx, c, start)
		}
	}
	if err == nil || errors.Is(err, ErrNotLeader) {
		// What could not go when the log start moved, because it was not in a checkpoint yet.
		if err = p.followStart(); err == nil {
			p.log.Lock()
			_, err = p.log.Retain(log.RetentionPolicy{Upto: p.log.StartOffset(), KeepIndex: policy.KeepIndex, Room: 0})
			p.log.Unlock()
		}
	}
	deleted = max(segments-p.log.Segments(), 0)
	if deleted > 0 {
		freed = max(took-p.log.AllocatedBytes(), 0)
	}
	return deleted, freed, err
}
