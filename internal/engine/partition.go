package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Partition is a partition of a topic. What it adds to partition.Partition is the
// name in errors ("append orders/3: ..."), and the reason when the topic was deleted.
type Partition struct {
	*partition.Partition
	engine  *Engine
	topic   string
	topicID TopicID
	id      int32
	space   *space      // what its files may take under the database's cap
	gone    atomic.Bool // the topic was deleted

	// In a cluster: nil where this node has no replica.
	repl    ReplicatedLog
	unwatch func()
	// elsewhere says that other nodes have it; the hints are who leads it, as far as it
	// was heard.
	elsewhere             bool
	hintLeader, hintEpoch int32
	// Of calls to other nodes: who answered last as the leader, 0 when nobody is known
	// to, and the newest leader epoch that was heard of.
	lastLeader, seenEpoch atomic.Int32
}

// Leader is the node that leads the partition, as far as this node knows, and in which
// epoch: -1 when nobody is known to. Alone it is this node.
func (p *Partition) Leader() (node, epoch int32) {
	switch {
	case p.repl != nil:
		return p.repl.Leader()
	case p.elsewhere:
		return p.hintLeader, p.hintEpoch
	case p.engine.cluster != nil:
		return -1, -1 // its replica here does not open
	}
	return p.engine.identity.node, p.LeaderEpoch()
}

// Leads says whether this node leads the partition, as far as it knows.
func (p *Partition) Leads() bool {
	if p.engine.cluster == nil {
		return true
	}
	node, _ := p.Leader()
	return p.repl != nil && node == p.engine.identity.node
}

// Replicated is the partition's log as a member of its group; nil alone, and where
// this node has no replica.
func (p *Partition) Replicated() ReplicatedLog { return p.repl }

// Elsewhere says that other nodes have the partition, and this one does not.
func (p *Partition) Elsewhere() bool { return p.elsewhere }

// Watch has f called after another node leads the partition, with no lock held, until
// cancel is called. Where this node has no replica it is never called: the topic is
// then another one when the leader is (Engine.OnMetadata).
func (p *Partition) Watch(f func()) (cancel func()) {
	if p.repl == nil {
		return func() {}
	}
	return p.repl.Watch(f)
}

// Topic is the name of the topic.
func (p *Partition) Topic() string { return p.topic }

// TopicID is the id of the topic.
func (p *Partition) TopicID() TopicID { return p.topicID }

// ID is the partition's number within its topic.
func (p *Partition) ID() int32 { return p.id }

// String is topic/number.
func (p *Partition) String() string { return fmt.Sprintf("%s/%d", p.topic, p.id) }

// failed says of an error what was tried on which partition.
func (p *Partition) failed(what string, err error) error {
	if p.gone.Load() && errors.Is(err, log.ErrClosed) && !errors.Is(err, ErrUnknownTopic) {
		err = fmt.Errorf("%w: %w", p.deleted(), err)
	}
	if inner := errors.Unwrap(err); inner != nil && err.Error() == what+": "+inner.Error() {
		err = inner // it says what was tried, but not on what
	}
	if strings.HasPrefix(err.Error(), what+" "+p.String()+": ") {
		return err // whoever looked for the leader has said so
	}
	return fmt.Errorf("%s %s: %w", what, p, err)
}

func (p *Partition) deleted() error {
	return &UnknownTopicError{Name: p.topic, ID: p.topicID, Deleted: true}
}

// Append appends recs as one batch: see partition.Partition. When the disk cap of
// the database is reached, the oldest data that may go makes room.
func (p *Partition) Append(ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
	if p.engine.hooks.OnProduce == nil {
		res, err := p.Partition.Append(ctx, recs, o)
		if err != nil {
			if p.goesElsewhere(ctx, err, o) {
				return p.appendThere(ctx, recs, o, err)
			}
			return p.appendAgain(ctx, err, func() (partition.Result, error) { return p.Partition.Append(ctx, recs, o) })
		}
		return res, nil
	}
	began := time.Now()
	res, err := p.Partition.Append(ctx, recs, o)
	switch {
	case err == nil:
	case p.goesElsewhere(ctx, err, o):
		res, err = p.appendThere(ctx, recs, o, err)
	default:
		res, err = p.appendAgain(ctx, err, func() (partition.Result, error) { return p.Partition.Append(ctx, recs, o) })
	}
	var size int64
	for i := range recs {
		size += int64(len(recs[i].Key) + len(recs[i].Value))
	}
	p.engine.hooks.OnProduce(p.topic, p.id, len(recs), size, time.Since(began), err)
	return res, err
}

// CanTry says whether partition.Partition.TryAppend may be called past the engine,
// which then neither counts nor measures anything: an error goes through Tried.
func (p *Partition) CanTry() bool { return p.engine.hooks.OnProduce == nil }

// Tried is the error of a TryAppend as Append would have it. again says that Append
// should be called after all: it can make room, and goes to who leads.
func (p *Partition) Tried(err error) (again bool, _ error) {
	if errors.Is(err, log.ErrNoSpace) && !errors.Is(err, partition.ErrUnknownOutcome) || p.ledElsewhere(err) {
		return true, nil
	}
	return false, p.failed("append", err)
}

// AppendBatch appends a record batch as it came: see partition.Partition.
func (p *Partition) AppendBatch(ctx context.Context, batch []byte, o *partition.AppendOptions) (partition.Result, error) {
	began := time.Now()
	res, err := p.Partition.AppendBatch(ctx, batch, o)
	switch {
	case err == nil:
	case p.goesElsewhere(ctx, err, o):
		res, err = p.appendBatchThere(ctx, batch, o, err)
	default:
		res, err = p.appendAgain(ctx, err, func() (partition.Result, error) { return p.Partition.AppendBatch(ctx, batch, o) })
	}
	if hook := p.engine.hooks.OnProduce; hook != nil {
		records := 0
		if err == nil {
			records = int(res.LastOffset - res.BaseOffset + 1)
		}
		hook(p.topic, p.id, records, int64(len(batch)), time.Since(began), err)
	}
	return res, err
}

// Begun is an append under way: see partition.Begun. It ends with one call of Finish,
// by the goroutine that began it.
type Begun struct {
	p       *Partition
	ctx     context.Context
	batch   []byte
	options *partition.AppendOptions
	began   time.Time
	begun   partition.Begun
	err     error // why nothing was begun
}

// BeginBatch begins what AppendBatch does: see partition.Partition. What fails is told
// by Finish.
func (p *Partition) BeginBatch(ctx context.Context, batch []byte, o *partition.AppendOptions, line *partition.Line, lead func(write func())) Begun {
	b := Begun{p: p, ctx: ctx, batch: batch, options: o, began: time.Now()}
	if b.err = ctx.Err(); b.err == nil {
		b.begun, b.err = p.Partition.BeginBatch(batch, o, line, lead)
	}
	return b
}

// Done has a token when Finish will not wait. Nil says so at once.
func (b *Begun) Done() <-chan struct{} {
	if b.err != nil {
		return nil
	}
	return b.begun.Done()
}

// Finish waits for the outcome, as long as the context that the append was begun with
// allows. taken says that the token of Done was taken. What has to be tried again is
// tried here, before anything that was begun later by the same goroutine: an append
// for which room could be made, and one that was not tried because another failed.
func (b *Begun) Finish(taken bool) (partition.Result, error) {
	p := b.p
	var res partition.Result
	err := b.err
	if err == nil {
		if !taken {
			select {
			case <-b.begun.Done():
				taken = true
			case <-b.ctx.Done():
			}
		}
		if taken {
			res, err = b.begun.Finish()
		} else {
			res, err = b.begun.Leave(b.ctx)
		}
	}
	again := func() (partition.Result, error) { return p.Partition.AppendBatch(b.ctx, b.batch, b.options) }
	if errors.Is(err, partition.ErrLineBroken) {
		res, err = again()
	}
	switch {
	case err == nil:
	case p.goesElsewhere(b.ctx, err, b.options):
		res, err = p.appendBatchThere(b.ctx, b.batch, b.options, err)
	default:
		res, err = p.appendAgain(b.ctx, err, again)
	}
	if hook := p.engine.hooks.OnProduce; hook != nil {
		records := 0
		if err == nil {
			records = int(res.LastOffset - res.BaseOffset + 1)
		}
		hook(p.topic, p.id, records, int64(len(b.batch)), time.Since(b.began), err)
	}
	return res, err
}

// EndTransaction appends the marker that ends a transaction: see partition.Partition.
func (p *Partition) EndTransaction(ctx context.Context, producerID int64, epoch int16, commit bool, coordinatorEpoch int32, txnV2 bool) (partition.Result, error) {
	c := endTxnCall{ProducerID: producerID, Epoch: epoch, Commit: commit, CoordinatorEpoch: coordinatorEpoch, TxnV2: txnV2}
	res, err := p.endTransactionHere(ctx, &c)
	if err != nil && p.ledElsewhere(err) {
		return p.endTransactionThere(ctx, c)
	}
	return res, err
}

func (p *Partition) endTransactionHere(ctx context.Context, c *endTxnCall) (partition.Result, error) {
	res, err := p.Partition.EndTransaction(ctx, c.ProducerID, c.Epoch, c.Commit, c.CoordinatorEpoch, c.TxnV2)
	if errors.Is(err, log.ErrNoSpace) && !errors.Is(err, partition.ErrUnknownOutcome) {
		// A transaction that does not end holds up readers, and what is kept back is for that.
		lower := p.space.raise(vfs.QuotaEssential)
		res, err = p.Partition.EndTransaction(ctx, c.ProducerID, c.Epoch, c.Commit, c.CoordinatorEpoch, c.TxnV2)
		lower()
	}
	if err != nil {
		return res, p.failed("end transaction", err)
	}
	return res, nil
}

// Fetch returns batches from an offset on: see partition.Partition.
func (p *Partition) Fetch(ctx context.Context, q partition.FetchRequest) (partition.FetchResult, error) {
	hook := p.engine.hooks.OnFetch
	var began time.Time
	if hook != nil {
		began = time.Now()
	}
	res, err := p.Partition.Fetch(ctx, q)
	if err != nil {
		err = p.failed("fetch", err)
	}
	if hook != nil {
		var size int64
		for _, b := range res.Batches {
			size += int64(len(b))
		}
		hook(p.topic, p.id, len(res.Batches), size, time.Since(began), err)
	}
	return res, err
}

// ReadFrom returns a reader: see partition.Partition. When the topic is deleted it
// fails with an error that matches ErrUnknownTopic and log.ErrClosed.
func (p *Partition) ReadFrom(offset int64, o *partition.ReaderOptions) (*partition.Reader, error) {
	r, err := p.Partition.ReadFrom(offset, o)
	if err != nil {
		return nil, p.failed("read", err)
	}
	return r, nil
}

// DeleteRecords moves the log start offset: see partition.Partition.
func (p *Partition) DeleteRecords(ctx context.Context, offset int64) (int64, error) {
	start, err := p.Partition.DeleteRecords(ctx, offset)
	if err != nil && p.ledElsewhere(err) {
		return p.deleteRecordsThere(ctx, offset)
	}
	if err != nil {
		return start, p.failed("delete records", err)
	}
	return start, nil
}

// OffsetForTime finds a record by its timestamp: see partition.Partition.
func (p *Partition) OffsetForTime(ms int64) (log.TimePosition, bool, error) {
	found, ok, err := p.Partition.OffsetForTime(ms)
	if err != nil {
		return found, ok, p.failed("offset for time", err)
	}
	return found, ok, nil
}

// Sync returns when all that was acknowledged is durable: see partition.Partition.
func (p *Partition) Sync(ctx context.Context) error {
	if err := p.Partition.Sync(ctx); err != nil {
		return p.failed("sync", err)
	}
	return nil
}

// retire closes the partition of a topic that was deleted.
func (p *Partition) retire() error {
	p.gone.Store(true)
	return p.Partition.CloseFor(p.deleted())
}
