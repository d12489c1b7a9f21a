package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Bounds are where a partition's records begin and end.
type Bounds struct {
	LogStart, LogEnd          int64
	HighWatermark, LastStable int64
	LeaderEpoch               int32
}

// End is the offset behind the last record that a reader of that isolation can read.
func (b *Bounds) End(i partition.Isolation) int64 {
	if i == partition.ReadCommitted {
		return b.LastStable
	}
	return b.HighWatermark
}

// Here says whether this node has a replica of the partition.
func (p *Partition) Here() bool { return p.engine.cluster == nil || p.repl != nil }

// leads is nil when this node leads the partition.
func (p *Partition) leads() error {
	if p.engine.cluster == nil {
		return nil
	}
	if p.repl == nil {
		return p.isElsewhere()
	}
	_, err := p.repl.LeaderEpoch()
	return err
}

// knows is nil when this node leads the partition and knows all that earlier leaders have
// committed, for which it waits. Before that its high watermark is what its replica had heard of: after a
// start, that of its checkpoint.
func (p *Partition) knows(ctx context.Context) error {
	if p.engine.cluster == nil {
		return nil
	}
	if p.repl == nil {
		return p.isElsewhere()
	}
	_, err := p.repl.Lead(ctx)
	return err
}

// over is a context that has ended, for who does not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// View answers questions about a partition's offsets, from the log of this node or from
// that of the leader. Its methods may wait for the leader: as long as ctx allows, and 30
// seconds at most, after which they fail with a *partition.NotLeaderError.
type View struct {
	p      *Partition
	leader bool
}

// View is what this node's replica says, and the leader where this node has none. Alone
// nothing waits, and the only errors are those of the log.
func (p *Partition) View() View {
	p = p.Current()
	return View{p, !p.Here()}
}

// LeaderView is what the leader says: a replica may lag behind.
func (p *Partition) LeaderView() View {
	p = p.Current()
	return View{p, p.knows(over) != nil}
}

// Remote says whether another node is asked.
func (v View) Remote() bool { return v.leader }

const serviceLookup = "lookup"

// What a lookup is about.
type lookupKind uint8

const (
	lookupBounds lookupKind = iota
	lookupTime
	lookupMaxTimestamp
	lookupEpochEnd
	lookupEpochOf
	lookupBehind
	lookupConfirmed
)

type lookupCall struct {
	Topic     TopicID
	Partition int32
	Kind      lookupKind
	Arg       int64
	Isolation partition.Isolation
}

// lookupResult is the answer: of the fields below Bounds those that the kind is about.
type lookupResult struct {
	Bounds    Bounds
	Found     bool
	Offset    int64
	Timestamp int64
	Epoch     int32
}

// ask answers here, or asks the leader.
func (v View) ask(ctx context.Context, kind lookupKind, arg int64) (res lookupResult, err error) {
	return v.askFor(ctx, lookupCall{Kind: kind, Arg: arg})
}

func (v View) askFor(ctx context.Context, c lookupCall) (res lookupResult, err error) {
	p := v.p
	if !v.leader && c.Kind != lookupConfirmed {
		return p.lookup(ctx, &c)
	}
	c.Topic, c.Partition = p.topicID, p.id
	r := p.route("ask for offsets")
	r.again, r.firm = true, true
	err = r.run(ctx, func(ctx context.Context) (err error) {
		now := p.Current()
		if err = now.knows(ctx); err == nil {
			res, err = now.lookup(ctx, &c)
		}
		return err
	}, func(ctx context.Context, node int32) (err error) {
		res, err = callStruct[lookupCall, lookupResult](ctx, p.engine, node, serviceLookup, &c)
		return err
	})
	return res, err
}

func (e *Engine) serveLookup(ctx context.Context, c *lookupCall) (res lookupResult, err error) {
	p, err := e.partitionAsked(ctx, c.Topic, c.Partition)
	if err == nil {
		err = p.knows(ctx)
	}
	if err != nil {
		return res, err
	}
	return p.lookup(ctx, c)
}

// bounds are those of this node's log.
func (p *Partition) bounds() Bounds {
	stable := p.LastStable() // in this order: it is never above the high watermark
	return Bounds{LogStart: p.LogStart(), LogEnd: p.LogEnd(), HighWatermark: p.HighWatermark(), LastStable: stable, LeaderEpoch: p.LeaderEpoch()}
}

// lookup asks this node's log.
func (p *Partition) lookup(ctx context.Context, c *lookupCall) (res lookupResult, err error) {
	res = lookupResult{Offset: -1, Epoch: -1}
	var at log.TimePosition
	switch c.Kind {
	case lookupBounds:
	case lookupConfirmed:
		// What an earlier leader has acknowledged is below the high watermark once Lead says
		// so, and what this one has, in any case. The high watermark of before the
		// question counts: see Cluster's Confirm.
		if p.repl != nil {
			if _, err = p.repl.Lead(ctx); err != nil {
				return res, err
			}
		}
		res.Bounds = p.bounds()
		if p.repl != nil {
			err = p.repl.Confirm(ctx)
		}
		return res, err
	case lookupTime:
		if at, res.Found, err = p.OffsetForTime(c.Arg); res.Found {
			res.Offset, res.Timestamp, res.Epoch = at.Offset, at.Timestamp, int32(at.Epoch)
		}
	case lookupMaxTimestamp:
		if at, res.Found, err = p.Log().MaxTimestamp(); res.Found {
			res.Offset, res.Timestamp, res.Epoch = at.Offset, at.Timestamp, int32(at.Epoch)
		}
	case lookupEpochEnd:
		res.Epoch, res.Offset = p.EpochEnd(int32(c.Arg))
		res.Found = res.Offset >= 0
	case lookupEpochOf:
		res.Epoch, res.Found = p.EpochOf(c.Arg)
	case lookupBehind:
		res.Offset, err = p.behind(c.Arg, c.Isolation)
		res.Found = res.Offset >= 0
	default:
		return res, fmt.Errorf("a lookup of kind %d, which this version does not know", c.Kind)
	}
	res.Bounds = p.bounds()
	return res, err
}

// behind is the first offset behind damage at an offset; -1 when there is none, or it
// is not known where the damage ends.
func (p *Partition) behind(offset int64, isolation partition.Isolation) (int64, error) {
	r, err := p.ReadFrom(offset, &partition.ReaderOptions{Isolation: isolation})
	if err != nil {
		return -1, err
	}
	if _, err = r.TryNext(); err == nil || err == io.EOF {
		return -1, nil
	}
	next, err := r.Skip()
	if err == io.EOF {
		return p.LogEnd(), nil // nothing whole comes behind
	}
	if err != nil {
		return -1, err
	}
	return next, nil
}

// Bounds are where the records begin and end.
func (v View) Bounds(ctx context.Context) (Bounds, error) {
	if !v.leader {
		return v.p.bounds(), nil
	}
	res, err := v.ask(ctx, lookupBounds, 0)
	return res.Bounds, err
}

// Confirmed are Bounds that hold all records that were acknowledged anywhere before the call: the leader has a
// majority confirm that it leads. This node's replica may have less: see ReadIndex.
func (v View) Confirmed(ctx context.Context) (Bounds, error) {
	if v.p.engine.cluster == nil {
		return v.p.bounds(), nil
	}
	res, err := v.ask(ctx, lookupConfirmed, 0)
	return res.Bounds, err
}

// OffsetForTime finds a record by its timestamp: see partition.Partition.
func (v View) OffsetForTime(ctx context.Context, ms int64) (at log.TimePosition, ok bool, err error) {
	res, err := v.ask(ctx, lookupTime, ms)
	return res.position(), res.Found, err
}

// MaxTimestamp is the first record with the largest timestamp.
func (v View) MaxTimestamp(ctx context.Context) (at log.TimePosition, ok bool, err error) {
	res, err := v.ask(ctx, lookupMaxTimestamp, 0)
	return res.position(), res.Found, err
}

func (r *lookupResult) position() log.TimePosition {
	return log.TimePosition{Offset: r.Offset, Timestamp: r.Timestamp, Epoch: uint64(max(r.Epoch, 0))}
}

// EpochEnd says where a leader epoch ended: see partition.Partition.
func (v View) EpochEnd(ctx context.Context, epoch int32) (found int32, end int64, err error) {
	if !v.leader {
		found, end = v.p.EpochEnd(epoch)
		return found, end, nil
	}
	res, err := v.ask(ctx, lookupEpochEnd, int64(epoch))
	return res.Epoch, res.Offset, err
}

// EpochOf is the leader epoch of the record at an offset, where it is known.
func (v View) EpochOf(ctx context.Context, offset int64) (epoch int32, ok bool, err error) {
	if !v.leader {
		epoch, ok = v.p.EpochOf(offset)
		return epoch, ok, nil
	}
	res, err := v.ask(ctx, lookupEpochOf, offset)
	return res.Epoch, res.Found, err
}

// Behind is the first offset behind damage at an offset, -1 when it is not known.
func (v View) Behind(ctx context.Context, offset int64, isolation partition.Isolation) (int64, error) {
	if !v.leader {
		return v.p.behind(offset, isolation)
	}
	res, err := v.askFor(ctx, lookupCall{Kind: lookupBehind, Arg: offset, Isolation: isolation})
	if err != nil {
		return -1, err
	}
	return res.Offset, nil
}

// ReadIndex returns bounds that hold all records that were acknowledged anywhere before
// the call, when this node can read up to them: the leader has a majority confirm that it
// leads, and the replica of this node, if it has one, has caught up. What is read after that
// is linearizable. (ReadIndex, Raft thesis 6.4)
func (p *Partition) ReadIndex(ctx context.Context) (Bounds, error) {
	if p.engine.cluster == nil {
		return p.bounds(), nil
	}
	p = p.Current()
	res, err := p.LeaderView().askFor(ctx, lookupCall{Kind: lookupConfirmed})
	if err == nil && p.Here() {
		err = p.awaitEnd(ctx, res.Bounds.HighWatermark)
		// Transactions may have ended since: what this node knows now is not older.
		res.Bounds.LastStable = max(res.Bounds.LastStable, min(p.LastStable(), res.Bounds.HighWatermark))
	}
	if err != nil {
		return Bounds{}, p.failed("read index", err)
	}
	return res.Bounds, nil
}

// awaitEnd waits until the high watermark of this node's replica is at end or behind it.
func (p *Partition) awaitEnd(ctx context.Context, end int64) error {
	w, x := partition.NewWaiter(), &partition.Wait{}
	defer x.Disarm()
	for p.HighWatermark() < end {
		if !x.Arm(w, p.Partition, end-1, partition.ReadUncommitted) {
			if err := p.Err(); err != nil && errors.Is(err, log.ErrClosed) {
				return err
			}
			continue
		}
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
