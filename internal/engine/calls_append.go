package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/compress"
	codec "github.com/x/embedlog/internal/wire"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// An append at another node:
//
//	request   version, topic id (16), uvarint partition, flags, [8 bytes expected offset], batch
//	answer    0, varints: base offset, last offset, append time, log start, leader epoch; flags
//
// The records are encoded here, once, and the leader takes the batch as one that a
// client of Kafka's protocol sent.

const (
	serviceAppend  = "append"
	serviceEndTxn  = "end-transaction"
	serviceDelete  = "delete-records"
	appendVersion  = 1
	maxAppendHead  = 1 + 16 + binary.MaxVarintLen32 + 1 + 8
	flagExpect     = 1 << 0
	flagInternal   = 1 << 1
	flagFixMax     = 1 << 2
	flagTxnV2      = 1 << 3
	flagCoord      = 1 << 4
	flagDuplicate  = 1 << 0 // of an answer
	noSequenceSaid = -1
)

// appendRequest is a request without its batch. It names no coordinator's epoch and no
// verification: what is decided by what this node's memory says is appended here or not at all.
type appendRequest struct {
	topic     TopicID
	partition int32
	options   partition.AppendOptions
	producer  partition.Producer
}

func appendAppendHead(dst []byte, p *Partition, o *partition.AppendOptions) []byte {
	dst = append(dst, appendVersion)
	dst = append(dst, p.topicID[:]...)
	dst = binary.AppendUvarint(dst, uint64(uint32(p.id)))
	flags := byte(0)
	if o != nil {
		if o.Expect {
			flags |= flagExpect
		}
		if o.Internal {
			flags |= flagInternal
		}
		if o.FixMaxTimestamp {
			flags |= flagFixMax
		}
		if o.Producer != nil && o.Producer.TxnV2 {
			flags |= flagTxnV2
		}
		if o.Producer != nil && o.Producer.Coordinator {
			flags |= flagCoord
		}
	}
	dst = append(dst, flags)
	if flags&flagExpect != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(o.ExpectedOffset))
	}
	return dst
}

var errAppendRequest = errors.New("malformed append of a peer")

// decodeAppend reads a request. batch aliases b.
func decodeAppend(b []byte) (r appendRequest, batch []byte, err error) {
	if len(b) < 1+len(r.topic) || b[0] != appendVersion {
		return r, nil, errAppendRequest
	}
	b = b[1:]
	copy(r.topic[:], b)
	n, b, ok := codec.CutUvarint(b[len(r.topic):])
	if !ok || n > 1<<31-1 || len(b) == 0 {
		return r, nil, errAppendRequest
	}
	r.partition = int32(n)
	flags := b[0]
	b = b[1:]
	if flags&flagExpect != 0 {
		if len(b) < 8 {
			return r, nil, errAppendRequest
		}
		r.options.Expect, r.options.ExpectedOffset = true, int64(binary.BigEndian.Uint64(b))
		b = b[8:]
	}
	r.options.Internal = flags&flagInternal != 0
	r.options.FixMaxTimestamp = flags&flagFixMax != 0
	r.producer.TxnV2, r.producer.Coordinator = flags&flagTxnV2 != 0, flags&flagCoord != 0
	return r, b, nil
}

func appendResult(dst []byte, r *partition.Result, epoch int32) []byte {
	for _, n := range [...]int64{r.BaseOffset, r.LastOffset, r.AppendTime, r.LogStart, int64(epoch)} {
		dst = binary.AppendVarint(dst, n)
	}
	if r.Duplicate {
		return append(dst, flagDuplicate)
	}
	return append(dst, 0)
}

func decodeResult(b []byte) (r partition.Result, epoch int32, err error) {
	var e int64
	for _, to := range [...]*int64{&r.BaseOffset, &r.LastOffset, &r.AppendTime, &r.LogStart, &e} {
		n, k := binary.Varint(b)
		if k <= 0 {
			return r, 0, errAppendRequest
		}
		*to, b = n, b[k:]
	}
	if len(b) == 0 {
		return r, 0, errAppendRequest
	}
	r.Duplicate = b[0]&flagDuplicate != 0
	return r, int32(e), nil
}

// mayForward says whether an append may be made by the leader instead.
func mayForward(o *partition.AppendOptions) bool {
	return o == nil || o.LeaderEpoch == 0 && (o.Producer == nil || o.Producer.Verified == nil)
}

// isIdempotent says whether the leader recognises the batch when it is sent again.
func isIdempotent(batch []byte, o *partition.AppendOptions) bool {
	h, err := log.ParseBatchHeader(batch)
	return err == nil && h.ProducerID >= 0 && h.BaseSequence >= 0 && (o == nil || o.Producer == nil || !o.Producer.Coordinator)
}

// goesElsewhere says of an append that failed here that the leader is to be asked: where
// another node leads, where this one has no replica, whose settings say nothing, and where
// this one led and was replaced before a batch that may be sent again was committed.
func (p *Partition) goesElsewhere(ctx context.Context, err error, o *partition.AppendOptions) bool {
	if p.engine.cluster == nil || !mayForward(o) || ctx.Err() != nil {
		return false
	}
	if errors.Is(err, partition.ErrUnknownOutcome) {
		return o != nil && o.Producer != nil && !o.Producer.Coordinator && o.Producer.Sequence >= 0 && !errors.Is(err, log.ErrStorageFailed)
	}
	return errors.Is(err, partition.ErrNotLeader) || !p.Here()
}

// appendThere is Append where another node leads, after cause.
func (p *Partition) appendThere(ctx context.Context, recs []log.Record, o *partition.AppendOptions, cause error) (partition.Result, error) {
	h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: noSequenceSaid}
	if o != nil && o.Producer != nil {
		pr := o.Producer
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = pr.ID, pr.Epoch, pr.Sequence
		if pr.Transactional {
			h.Attributes |= log.Transactional
		}
		if pr.Coordinator {
			h.BaseSequence = noSequenceSaid
		}
	}
	codec, level := compress.None, 0
	switch cfg := p.Config(); {
	case cfg.Recompress || cfg.Compression != compress.None:
		codec, level = cfg.Compression, cfg.CompressionLevel
	case o != nil:
		codec, level = o.Compression, o.CompressionLevel
	}
	head := appendAppendHead(make([]byte, 0, maxAppendHead+log.EncodedLen(&h, recs)), p, o)
	var request []byte
	var err error
	if codec == compress.None {
		request, err = log.AppendBatch(head, &h, recs)
	} else {
		var plain []byte
		if plain, err = log.AppendBatch(nil, &h, recs); err == nil {
			request, err = log.CompressBatch(head, plain, codec, level)
		}
	}
	if err != nil {
		return partition.Result{}, p.failed("append", err)
	}
	return p.send(ctx, request, len(head), o, cause)
}

// appendBatchThere is AppendBatch where another node leads.
func (p *Partition) appendBatchThere(ctx context.Context, batch []byte, o *partition.AppendOptions, cause error) (partition.Result, error) {
	head := appendAppendHead(make([]byte, 0, maxAppendHead+len(batch)), p, o)
	return p.send(ctx, append(head, batch...), len(head), o, cause)
}

// send has the leader append the batch, which begins at in request. cause is what this
// node's own log said.
func (p *Partition) send(ctx context.Context, request []byte, at int, o *partition.AppendOptions, cause error) (res partition.Result, err error) {
	batch := request[at:]
	r := p.route("append")
	r.again = isIdempotent(batch, o)
	if errors.Is(cause, partition.ErrUnknownOutcome) {
		r.lost = cause
	}
	err = r.run(ctx, func(ctx context.Context) (err error) {
		now := p.Current()
		if now.repl == nil {
			return now.isElsewhere()
		}
		res, err = now.appendBatchHere(ctx, batch, o)
		return err
	}, func(ctx context.Context, node int32) error {
		payload, err := p.engine.callPeer(ctx, node, serviceAppend, request)
		if err != nil {
			return err
		}
		var epoch int32
		if res, epoch, err = decodeResult(payload); err != nil {
			return fmt.Errorf("node %d: %w: %w", node, errAnswerLost, err)
		}
		p.heardOf(epoch)
		return nil
	})
	if err != nil {
		return partition.Result{}, p.failed("append", err)
	}
	return res, nil
}

// appendBatchHere is AppendBatch of this node's log, which makes room where it can.
func (p *Partition) appendBatchHere(ctx context.Context, batch []byte, o *partition.AppendOptions) (partition.Result, error) {
	res, err := p.Partition.AppendBatch(ctx, batch, o)
	if err != nil {
		res, err = p.appendAgain(ctx, err, func() (partition.Result, error) { return p.Partition.AppendBatch(ctx, batch, o) })
	}
	return res, err
}

// serveAppend appends for a peer.
func (e *Engine) serveAppend(ctx context.Context, _ int32, request []byte) ([]byte, error) {
	r, batch, err := decodeAppend(request)
	if err != nil {
		return nil, err
	}
	p, err := e.partitionAsked(ctx, r.topic, r.partition)
	if err != nil {
		return nil, err
	}
	o := r.options
	o.Producer = &r.producer
	began := time.Now()
	res, err := p.appendBatchHere(ctx, batch, &o)
	if hook := e.hooks.OnProduce; hook != nil && !errors.Is(err, partition.ErrNotLeader) {
		records := 0
		if err == nil {
			records = int(res.LastOffset - res.BaseOffset + 1)
		}
		hook(p.topic, p.id, records, int64(len(batch)), time.Since(began), err)
	}
	if err != nil {
		return nil, err
	}
	return appendResult([]byte{answerOK}, &res, p.Partition.LeaderEpoch()), nil
}

// partition is a partition by its topic's id.
func (e *Engine) partition(topic TopicID, id int32) (*Partition, error) {
	t, err := e.TopicByID(topic)
	if err != nil {
		return nil, err
	}
	return t.Partition(id)
}

// isElsewhere says that this node has no replica, or that the topic was deleted.
func (p *Partition) isElsewhere() error {
	if p.gone.Load() {
		return fmt.Errorf("%w: %w", p.deleted(), log.ErrClosed)
	}
	return &partition.NotLeaderError{Leader: -1, LeaderEpoch: p.LeaderEpoch()}
}

// heardOf notes the epoch in which another node leads.
func (p *Partition) heardOf(epoch int32) {
	for {
		has := p.seenEpoch.Load()
		if epoch <= has || p.seenEpoch.CompareAndSwap(has, epoch) {
			return
		}
	}
}

// LeaderEpoch is the newest leader epoch that is known here.
func (p *Partition) LeaderEpoch() int32 {
	return max(p.Partition.LeaderEpoch(), p.seenEpoch.Load())
}

// endTxnCall asks a leader for the end of a transaction in its partition.
type endTxnCall struct {
	Topic            TopicID
	Partition        int32
	ProducerID       int64
	Epoch            int16
	Commit, TxnV2    bool
	CoordinatorEpoch int32
}

// appended is a partition.Result on its way.
type appended struct {
	Result partition.Result
	Epoch  int32
}

// endTransactionThere is EndTransaction where another node leads. A marker may be
// written twice: the coordinator goes on to the next transaction when it was told of one.
func (p *Partition) endTransactionThere(ctx context.Context, c endTxnCall) (res partition.Result, err error) {
	c.Topic, c.Partition = p.topicID, p.id
	r := p.route("end transaction")
	r.again = true
	err = r.run(ctx, func(ctx context.Context) (err error) {
		now := p.Current()
		if now.repl == nil {
			return now.isElsewhere()
		}
		res, err = now.endTransactionHere(ctx, &c)
		return err
	}, func(ctx context.Context, node int32) error {
		a, err := callStruct[endTxnCall, appended](ctx, p.engine, node, serviceEndTxn, &c)
		if err == nil {
			res = a.Result
			p.heardOf(a.Epoch)
		}
		return err
	})
	if err != nil {
		return partition.Result{}, p.failed("end transaction", err)
	}
	return res, nil
}

func (e *Engine) serveEndTxn(ctx context.Context, c *endTxnCall) (a appended, err error) {
	p, err := e.partitionAsked(ctx, c.Topic, c.Partition)
	if err != nil {
		return a, err
	}
	a.Result, err = p.endTransactionHere(ctx, c)
	a.Epoch = p.Partition.LeaderEpoch()
	return a, err
}

// deleteCall asks a leader to move the log start offset.
type deleteCall struct {
	Topic     TopicID
	Partition int32
	Offset    int64
}

type deletedTo struct{ LogStart int64 }

// deleteRecordsThere is DeleteRecords where another node leads.
func (p *Partition) deleteRecordsThere(ctx context.Context, offset int64) (start int64, err error) {
	r := p.route("delete records")
	r.again = true
	err = r.run(ctx, func(ctx context.Context) (err error) {
		now := p.Current()
		if now.repl == nil {
			return now.isElsewhere()
		}
		start, err = now.Partition.DeleteRecords(ctx, offset)
		return err
	}, func(ctx context.Context, node int32) error {
		a, err := callStruct[deleteCall, deletedTo](ctx, p.engine, node, serviceDelete, &deleteCall{p.topicID, p.id, offset})
		start = a.LogStart
		return err
	})
	if err != nil {
		return start, p.failed("delete records", err)
	}
	return start, nil
}

func (e *Engine) serveDelete(ctx context.Context, c *deleteCall) (d deletedTo, err error) {
	p, err := e.partitionAsked(ctx, c.Topic, c.Partition)
	if err != nil {
		return d, err
	}
	d.LogStart, err = p.Partition.DeleteRecords(ctx, c.Offset)
	return d, err
}

// Config are the settings in force. Where this node has no replica they are those of
// the topic.
func (p *Partition) Config() partition.Config {
	c := p.Partition.Config()
	if p.Here() {
		return c
	}
	if t, err := p.engine.TopicByID(p.topicID); err == nil {
		is := p.engine.partitionConfig(t.settings, t.meta.internal)
		if is.MaxBatchBytes > 0 {
			c.MaxBatchBytes = is.MaxBatchBytes
		}
		c.Compression, c.CompressionLevel, c.Recompress, c.RequireKeys = is.Compression, is.CompressionLevel, is.Recompress, is.RequireKeys
	}
	return c
}
