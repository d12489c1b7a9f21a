package partition

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/log"
)

// Appends are combined. Who finds nobody writing writes at once. Who does not
// joins the group that is open; the group's first member waits for the writer's
// lock, takes the whole group, writes it with one call, makes it durable with one
// call, and wakes the others. There is no goroutine of the partition's own.
//
//	caller 1   append -- lock ------- write, sync ------- unlock
//	caller 2     append -- first of the open group ........ lock - write, sync - unlock
//	caller 3       append -- joins ................................................... done
//	caller 4         append -- joins ................................................. done

// Producer is what an idempotent or transactional producer says of its batch.
type Producer struct {
	ID       int64
	Epoch    int16
	Sequence int32 // of the first record; the next batch's is one behind the last record's
	// Transactional makes the records part of the producer's transaction.
	Transactional bool
	// TxnV2 says that the producer has an epoch for each transaction (KIP-890).
	TxnV2 bool
	// Coordinator marks a group coordinator's commit within a transaction: it has
	// no sequence.
	Coordinator bool
	// Verified is what the transaction was verified under; nil where it need not be.
	Verified *Verification
}

// AppendOptions say more about an append. Nil is none of it.
type AppendOptions struct {
	// Producer makes the append idempotent: a repetition gets the offsets of the
	// original. Nil is an ordinary append.
	Producer *Producer
	// Expect makes the append fail with an *UnexpectedOffsetError unless its first
	// record gets ExpectedOffset.
	Expect         bool
	ExpectedOffset int64
	// Internal lets a small append use half of the log's reserve when the disk is
	// full: for what must go on then, such as offset commits.
	Internal bool
	// Unsynced lets a Durable partition acknowledge the append without a sync of its
	// own: whoever appends calls Sync before anything depends on it. It is for the
	// records of a transaction in this process, which nobody counts on before its end,
	// and then for all of them. With a replicator it is not looked at.
	Unsynced bool
	// LeaderEpoch, if not zero, has the append refused with a *NotLeaderError unless
	// this node leads in that epoch: what was decided by what the log said in one epoch
	// is not written in another, in which somebody else may have decided. Without a
	// replicator it is not looked at.
	LeaderEpoch int32
	// FixMaxTimestamp lets AppendBatch put a maximum timestamp right that is not that
	// of the batch's records, in the caller's bytes, as Kafka does. Without it such a
	// batch is refused.
	FixMaxTimestamp bool
	// Placed, if not nil, is called by an append with a replicator when this node's log has
	// the records, and before it is waited for a majority: what is appended here from then on
	// comes behind them, and goes where they go. It must not wait. Where the append fails
	// before, or another node leads, it is not called.
	Placed func()
	// Compression and CompressionLevel are what Append compresses the records with
	// where the partition keeps what producers send (Config.Recompress is false and
	// Config.Compression none). Zero is none, and the codec's default level.
	Compression      compress.Codec
	CompressionLevel int
}

// codec is what records are compressed with.
func (o *AppendOptions) codec(cfg *Config) (compress.Codec, int) {
	if o == nil || cfg.Recompress || cfg.Compression != compress.None {
		return cfg.Compression, cfg.CompressionLevel
	}
	return o.Compression, o.CompressionLevel
}

// Result says where records went.
type Result struct {
	BaseOffset, LastOffset int64
	// AppendTime is the timestamp that the records were given, in milliseconds since
	// 1970; -1 when they kept their own.
	AppendTime int64
	// LogStart is the log start offset at that time.
	LogStart int64
	// Duplicate says that these records had been appended before.
	Duplicate bool
}

// Append appends recs as one batch: all of them or none. They are copied.
//
// When it returns nil the records are as safe as the level says, and visible. A
// context that is cancelled while the append waits for its turn has written
// nothing, and its error is the context's. Later, the error matches
// ErrUnknownOutcome and names the offsets. Whoever writes for the group waits for
// the disk, whatever the context says.
func (p *Partition) Append(ctx context.Context, recs []log.Record, o *AppendOptions) (Result, error) {
	cfg := p.cfg.Load()
	codec, level := o.codec(cfg)
	if err := p.checkRecords(recs, cfg, codec); err != nil {
		return Result{}, err
	}
	if o != nil && o.Producer != nil && o.Producer.ID < 0 {
		return Result{}, &InvalidRecordError{Records: []InvalidRecord{{Index: -1, Reason: "a producer without an id"}}}
	}
	if codec != compress.None {
		return p.appendCompressed(ctx, recs, o, cfg, codec, level)
	}
	// A group that is open goes first: whoever overtook it would write and sync one
	// record while many wait.
	if p.replicator == nil && p.queue.waiting.Load() == 0 && ctx.Err() == nil && p.log.TryLock() {
		// The common case: nobody else writes.
		if o == nil {
			if result, done, err := p.appendAlone(recs, cfg); done {
				p.log.Unlock()
				return result, err
			}
		}
		// The request lives in the partition, so that nothing is allocated.
		w := &p.writer
		r := &w.own
		r.reset(recs, nil, o)
		w.group = append(w.group[:0], r)
		p.writeGroups(w.group)
		result, err := r.result, r.err
		r.recs = nil
		p.log.Unlock()
		return result, err
	}
	r := p.getRequest()
	r.reset(recs, nil, o)
	return p.enqueue(ctx, r)
}

// TryAppend is Append of ordinary records where nobody else writes and nothing
// has to be compressed or replicated: the common case. Otherwise done is false and
// nothing has happened. The records are not kept, whatever the outcome, so the
// slice can lie on the caller's stack.
func (p *Partition) TryAppend(ctx context.Context, recs []log.Record) (result Result, done bool, err error) {
	cfg := p.cfg.Load()
	if cfg.Compression != compress.None || p.replicator != nil || p.queue.waiting.Load() != 0 || ctx.Err() != nil {
		return result, false, nil
	}
	if err := p.checkRecords(recs, cfg, compress.None); err != nil {
		return result, true, err
	}
	if !p.log.TryLock() {
		return result, false, nil
	}
	result, done, err = p.appendAlone(recs, cfg)
	p.log.Unlock()
	return result, done, err
}

// AppendBatch appends a record batch that somebody else encoded, as it came. It is
// checked to hold exactly what it claims; base offset and leader epoch are set.
// batch is not changed, and free again when AppendBatch returns: with a large one a
// caller whose context ends while its group is written waits for that, not for the sync.
//
// The producer's fields are the batch's; of o.Producer only TxnV2, Coordinator
// and Verified count.
func (p *Partition) AppendBatch(ctx context.Context, batch []byte, o *AppendOptions) (Result, error) {
	r, err := p.batchRequest(batch, o)
	if err != nil {
		return Result{}, err
	}
	return p.enqueue(ctx, r)
}

// batchRequest checks a batch and makes the request that appends it.
func (p *Partition) batchRequest(batch []byte, o *AppendOptions) (*request, error) {
	cfg := p.cfg.Load()
	h, err := log.CheckBatch(batch, log.Limits{
		MaxBatchBytes: cfg.MaxBatchBytes, MaxDecompressedBytes: cfg.MaxDecompressedBytes, RequireKeys: cfg.RequireKeys,
		FixMaxTimestamp: o != nil && o.FixMaxTimestamp,
	})
	if err != nil {
		return nil, checkError(err, len(batch), cfg)
	}
	if cfg.Recompress && h.Attributes.Codec() != cfg.Compression {
		if batch, err = log.CompressBatch(nil, batch, cfg.Compression, cfg.CompressionLevel); err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
		if len(batch) > cfg.MaxBatchBytes {
			return nil, &RecordTooLargeError{Bytes: int64(len(batch)), Limit: int64(cfg.MaxBatchBytes)}
		}
		if h, err = log.ParseBatchHeader(batch); err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
	}
	r := p.getRequest()
	r.reset(nil, batch, o)
	r.header = h
	r.plain = false
	return r, nil
}

// EndTransaction appends the marker that ends the producer's transaction here.
// (WriteTxnMarkers in Kafka's protocol.)
func (p *Partition) EndTransaction(ctx context.Context, producerID int64, epoch int16, commit bool, coordinatorEpoch int32, txnV2 bool) (Result, error) {
	if producerID < 0 || epoch < 0 {
		return Result{}, &InvalidTxnStateError{ProducerID: producerID, FirstOffset: -1, Reason: "a marker needs a producer id and epoch"}
	}
	key, value := log.EndTxnMarker(commit, coordinatorEpoch)
	r := p.getRequest()
	r.reset([]log.Record{{Timestamp: p.wall(), Key: key, Value: value}}, nil, nil)
	r.header.ProducerID, r.header.ProducerEpoch = producerID, epoch
	r.header.Attributes = log.Transactional | log.Control
	r.marker = &marker{commit: commit, coordinatorEpoch: coordinatorEpoch}
	r.origin, r.plain, r.internal = fromCoordinator, false, true
	if txnV2 {
		r.origin |= withTxnV2
	}
	return p.enqueue(ctx, r)
}

// checkRecords refuses what can be refused without the writer's lock.
func (p *Partition) checkRecords(recs []log.Record, cfg *Config, codec compress.Codec) error {
	size := 0
	for i := range recs {
		r := &recs[i]
		size += len(r.Key) + len(r.Value)
		if r.Key == nil && cfg.RequireKeys {
			return p.keylessRecords(recs)
		}
		if len(r.Headers) != 0 {
			for j := range r.Headers {
				size += maxHeaderOverhead + len(r.Headers[j].Key) + len(r.Headers[j].Value)
			}
		}
	}
	if len(recs) == 0 {
		return &InvalidRecordError{Records: []InvalidRecord{{Index: -1, Reason: "no records"}}}
	}
	// Compressed records only have to be small enough to be read back.
	limit := cfg.MaxBatchBytes
	if codec != compress.None {
		limit = max(limit, cfg.MaxDecompressedBytes)
	}
	// The exact size is only computed where it might matter: a record and a header
	// take at most so much besides their bytes.
	if size+len(recs)*maxRecordOverhead > limit {
		h := log.BatchHeader{ProducerID: -1}
		if n := log.EncodedLen(&h, recs); n > limit {
			return &RecordTooLargeError{Bytes: int64(n), Limit: int64(limit)}
		}
	}
	return nil
}

// maxRecordOverhead is more than a record without headers adds to key and value,
// and the batch's header to the first one.
const maxRecordOverhead = 128

// maxHeaderOverhead is the most that the lengths of a header's key and value take.
const maxHeaderOverhead = 10

func (p *Partition) keylessRecords(recs []log.Record) error {
	e := &InvalidRecordError{}
	for i := range recs {
		if recs[i].Key == nil {
			e.Records = append(e.Records, InvalidRecord{i, "no key, in a compacted partition"})
		}
	}
	return e
}

// checkError says of a refused batch what a partition's caller branches on.
func checkError(err error, size int, cfg *Config) error {
	if size > cfg.MaxBatchBytes {
		return &RecordTooLargeError{Bytes: int64(size), Limit: int64(cfg.MaxBatchBytes)}
	}
	var bad *log.BadRecordsError
	if errors.As(err, &bad) {
		e := &InvalidRecordError{}
		for _, i := range bad.Indexes {
			e.Records = append(e.Records, InvalidRecord{i, bad.Reason})
		}
		return e
	}
	return fmt.Errorf("append: %w", err)
}

// appendCompressed encodes and compresses before it takes a turn in writing.
func (p *Partition) appendCompressed(ctx context.Context, recs []log.Record, o *AppendOptions, cfg *Config, codec compress.Codec, level int) (Result, error) {
	r := p.getRequest()
	r.reset(recs, nil, o)
	h := r.header
	plain, err := log.AppendBatch(nil, &h, recs)
	if err == nil {
		r.batch, err = log.CompressBatch(nil, plain, codec, level)
	}
	if err == nil {
		r.header, err = log.ParseBatchHeader(r.batch)
	}
	if err != nil {
		return Result{}, fmt.Errorf("append: %w", err)
	}
	if len(r.batch) > cfg.MaxBatchBytes {
		return Result{}, &RecordTooLargeError{Bytes: int64(len(r.batch)), Limit: int64(cfg.MaxBatchBytes)}
	}
	r.recs, r.plain = nil, false
	return p.enqueue(ctx, r)
}
