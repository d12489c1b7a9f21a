package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// tenure is a leader epoch in which this node leads the log that a coordinator keeps
// its state in. What a coordinator has in memory holds for one tenure: it is read when
// the tenure begins, all that it decides is appended in that epoch or not at all, and
// when the epoch is over, or the outcome of an append is not known, nobody looks at
// that memory again.
//
//	Lead: the log is whole ---> read it ---> decide, append in the epoch ---+
//	   ^                                                                    |
//	   +---- another epoch, or the same one <--- another leads, or an ------+
//	                                             append's outcome is not known
//
// A nil tenure is that of an engine that is alone: it never ends. Methods may be called
// from several goroutines, with any lock held.
type tenure struct {
	part  *Partition
	epoch atomic.Int32 // 0 until begin has succeeded

	once  sync.Once
	over  chan struct{}
	cause error // set before over is closed
}

// newTenure is a tenure that has not begun; nil when the engine is alone.
func newTenure(p *Partition) *tenure {
	if p.engine.options.Cluster == nil {
		return nil
	}
	return &tenure{part: p, over: make(chan struct{})}
}

// leadPatience is how long a call waits while a coordinator reads its log. It goes on
// reading after that.
const leadPatience = 2 * time.Second

// ErrCoordinatorLoading says that the coordinator has come to lead, and is not done
// reading what it is to know. The same call succeeds a little later.
var ErrCoordinatorLoading = errors.New("embedlog: coordinator is loading")

// begin waits until this node is known to lead, with all that earlier leaders left
// committed and visible here. It fails with a *partition.NotLeaderError, and with what
// ended the tenure.
func (t *tenure) begin(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.ended(); err != nil {
		return err
	}
	if t.part.repl == nil {
		return t.part.notLeader(partition.ErrNotLeader)
	}
	epoch, err := t.part.repl.Lead(ctx)
	if err != nil {
		return t.part.notLeader(err)
	}
	// What is in the log and not committed may be of our own, of an append whose
	// outcome nobody waited for. It is decided before this memory is made.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	look := func() {
		if now, err := t.part.repl.LeaderEpoch(); err != nil || now != epoch {
			stop()
		}
	}
	defer t.part.repl.Watch(look)()
	look()
	err = t.part.awaitCommitted(ctx, t.part.LogEnd())
	if err == nil {
		// Its records name topics: what was known where they were written has to be known here.
		err = t.part.engine.metadataNow(ctx)
	}
	if err != nil {
		if now, lost := t.part.repl.LeaderEpoch(); lost != nil || now != epoch {
			return t.part.lostLead(epoch) // perhaps that is why it failed
		}
		return err
	}
	t.epoch.Store(epoch)
	return t.ended()
}

// reset makes a tenure that began, and whose log could not be read, begin again.
func (t *tenure) reset() {
	if t != nil {
		t.epoch.Store(0)
	}
}

// ended is why the tenure is over; nil while it is not.
func (t *tenure) ended() error {
	if t == nil {
		return nil
	}
	select {
	case <-t.over:
		return t.cause
	default:
	}
	epoch := t.epoch.Load()
	if epoch == 0 {
		return nil
	}
	if now, err := t.part.repl.LeaderEpoch(); err != nil || now != epoch {
		t.end(t.part.lostLead(epoch))
		return t.cause
	}
	return nil
}

// end ends the tenure.
func (t *tenure) end(cause error) {
	t.once.Do(func() {
		t.cause = cause
		close(t.over)
	})
}

// done is closed when the tenure is over; nil, which never is, when the engine is alone.
func (t *tenure) done() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.over
}

// append appends records in the tenure's epoch. Alone it waits for the disk whatever
// becomes of the caller, because log and memory must agree; a tenure ends when it is not
// known whether they do.
func (t *tenure) append(ctx context.Context, p *Partition, recs []log.Record, o partition.AppendOptions) (partition.Result, error) {
	if err := ctx.Err(); err != nil {
		return partition.Result{}, err
	}
	if t == nil {
		return p.Append(context.WithoutCancel(ctx), recs, &o)
	}
	if err := t.ended(); err != nil {
		return partition.Result{}, err
	}
	if o.LeaderEpoch = t.epoch.Load(); o.LeaderEpoch == 0 {
		return partition.Result{}, t.part.lostLead(0)
	}
	// It is waited for as long as the engine is open, and by what an engine that closes
	// writes last, a little longer.
	ctx = p.engine.life
	if ctx.Err() != nil {
		last, cancel := context.WithTimeout(context.Background(), leadPatience)
		defer cancel()
		ctx = last
	}
	res, err := p.Append(ctx, recs, &o)
	switch {
	case err == nil:
	case errors.Is(err, partition.ErrUnknownOutcome):
		t.end(fmt.Errorf("an append's outcome is not known: %w", t.part.notLeader(err)))
	case errors.Is(err, partition.ErrNotLeader):
		err = t.part.notLeader(err)
		t.end(err)
	}
	return res, err
}

// confirm returns nil when what was read from the memory of the tenure before the call
// was the newest there is.
func (t *tenure) confirm(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.ended(); err != nil {
		return err
	}
	if err := t.part.repl.Confirm(ctx); err != nil {
		return t.part.notLeader(err)
	}
	return t.ended()
}

// notLeader makes of an error one that says who leads, as far as is known here.
func (p *Partition) notLeader(err error) error {
	var said *partition.NotLeaderError
	switch {
	case errors.As(err, &said) && said.Leader >= 0:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, log.ErrClosed):
		return err
	}
	return fmt.Errorf("%s: %w", p, p.whoLeads())
}

// lostLead says that this node does not lead in that epoch any more.
func (p *Partition) lostLead(epoch int32) error {
	return fmt.Errorf("%s: leader epoch %d is over: %w", p, epoch, p.whoLeads())
}

func (p *Partition) whoLeads() error {
	leader, epoch := p.Leader()
	return &partition.NotLeaderError{Leader: leader, LeaderEpoch: epoch, Address: p.engine.addressOf(leader)}
}

// awaitCommitted waits until the high watermark is at end or behind it.
func (p *Partition) awaitCommitted(ctx context.Context, end int64) error {
	w, x := partition.NewWaiter(), &partition.Wait{}
	defer x.Disarm()
	for p.HighWatermark() < end && x.Arm(w, p.Partition, end-1, partition.ReadUncommitted) {
		select {
		case <-w.C():
			x.Disarm()
		case <-ctx.Done():
			return ctx.Err()
		case <-p.engine.life.Done():
			return log.ErrClosed
		}
	}
	return nil
}
