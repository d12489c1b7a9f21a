package engine

import (
	"context"
	"errors"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A replica that finds no room for what its leader sends does not hear of what was deleted meanwhile, because that comes
// behind it. So it is asked for.
//
//	this replica    100 ........ 170|            no room for 171
//	its leader           140 ............ 400|   the command "starts at 140" is entry 390
//	                100 to 140 go here, up to 170 if it were all deleted there
//
// Where a leader's log starts has been committed by its group and holds for ever, whoever leads by the time that its
// answer comes. What this replica has not seen committed stays, and what its checkpoint needs.

// makesRoom has a partition of which this node has a replica without room delete what its leader has deleted.
func (r *replicas) makesRoom(p *Partition) {
	if !p.full() || p.Leads() {
		return
	}
	r.task("room in "+p.String(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		err := p.followLeaderStart(ctx)
		if errors.Is(err, partition.ErrNotLeader) || errors.Is(err, ErrPeerUnreachable) || errors.Is(err, context.DeadlineExceeded) {
			return nil // who leads is not known here for most of the time: it is asked again at once, and not after a pause
		}
		return err
	})
}

// followLeaderStart asks where the leader's log starts, and has this one start there, or where it ends.
func (p *Partition) followLeaderStart(ctx context.Context) error {
	there, err := View{p, true}.Bounds(ctx)
	if err != nil {
		return err
	}
	before := p.LogStart()
	if there.LogStart <= before {
		return nil
	}
	upto := there.LogStart
	if end := p.LogEnd(); end <= upto {
		// All that is here is deleted there: only closed segments go.
		defer p.space.raise(vfs.QuotaEssential)()
		err := p.Roll(ctx)
		switch {
		case errors.Is(err, log.ErrNoSpace):
			upto = end - 1 // closed ones make room for that, the next time
		case err != nil:
			return err
		}
	}
	segments, took := p.Log().Segments(), p.Log().AllocatedBytes()
	if err := p.FollowStart(upto); err != nil {
		return err
	}
	deleted := max(segments-p.Log().Segments(), 0)
	if deleted > 0 {
		freed := max(took-p.Log().AllocatedBytes(), 0)
		p.engine.cleaner.count(func(s *MaintenanceStats) { s.RetainedSegments += int64(deleted); s.RetainedBytes += freed })
		p.engine.logger.Info("segments deleted that the leader has deleted: there was no room", "partition", p.String(), "segments", deleted, "bytes", freed, "log_start", p.LogStart())
	}
	return nil
}

// full says that this node's replica has found no room lately for what its leader sends.
func (p *Partition) full() bool {
	f, ok := p.repl.(Fuller)
	return ok && f.Full()
}
