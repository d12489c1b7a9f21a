package partition

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/seed"
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

// request is one caller's append.
type request struct {
	recs   []log.Record
	batch  []byte          // an encoded batch instead of recs
	header log.BatchHeader // of batch, or what recs are encoded with
	marker *marker
	origin origin
	expect bool
	offset int64 // expected
	plain  bool  // nothing tells its records from a neighbour's
	// internal may use the reserve of a full disk.
	internal bool

	result Result
	err    error

	taken atomic.Int32
	done  chan struct{} // holds one token when the outcome is there
}

// The states of a request in a queue.
const (
	queued    = 0
	isTaken   = 1 // the writer has it: cancelling comes too late
	cancelled = 2
)

// Append appends recs as one batch: all of them or none. They are copied.
//
// When it returns nil the records are as safe as the level says, and visible. A
// context that is cancelled while the append waits for its turn has written
// nothing, and its error is the context's. Later, the error matches
// ErrUnknownOutcome and names the offsets. Whoever writes for the group waits for
// the disk, whatever the context says.
func (p *Partition) Append(ctx context.Context, recs []log.Record, o *AppendOptions) (Result, error) {
	cfg := p.cfg.Load()
	if err := p.checkRecords(recs, cfg); err != nil {
		return Result{}, err
	}
	if o != nil && o.Producer != nil && o.Producer.ID < 0 {
		return Result{}, &InvalidRecordError{Records: []InvalidRecord{{Index: -1, Reason: "a producer without an id"}}}
	}
	if cfg.Compression != compress.None {
		return p.appendCompressed(ctx, recs, o, cfg)
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

// AppendBatch appends a record batch that somebody else encoded, as it came. It is
// checked to hold exactly what it claims; base offset and leader epoch are set.
// batch is not changed, and free again when AppendBatch returns.
//
// The producer's fields are the batch's; of o.Producer only TxnV2 and Coordinator
// count.
func (p *Partition) AppendBatch(ctx context.Context, batch []byte, o *AppendOptions) (Result, error) {
	cfg := p.cfg.Load()
	h, err := log.CheckBatch(batch, log.Limits{
		MaxBatchBytes: cfg.MaxBatchBytes, MaxDecompressedBytes: cfg.MaxDecompressedBytes, RequireKeys: cfg.RequireKeys,
	})
	if err != nil {
		return Result{}, checkError(err, len(batch), cfg)
	}
	if cfg.Recompress && h.Attributes.Codec() != cfg.Compression {
		if batch, err = log.CompressBatch(nil, batch, cfg.Compression, cfg.CompressionLevel); err != nil {
			return Result{}, fmt.Errorf("append: %w", err)
		}
		if len(batch) > cfg.MaxBatchBytes {
			return Result{}, &RecordTooLargeError{Bytes: int64(len(batch)), Limit: int64(cfg.MaxBatchBytes)}
		}
		if h, err = log.ParseBatchHeader(batch); err != nil {
			return Result{}, fmt.Errorf("append: %w", err)
		}
	}
	r := p.getRequest()
	r.reset(nil, batch, o)
	r.header = h
	r.plain = false
	return p.enqueue(ctx, r)
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
func (p *Partition) checkRecords(recs []log.Record, cfg *Config) error {
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
	if cfg.Compression != compress.None {
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
func (p *Partition) appendCompressed(ctx context.Context, recs []log.Record, o *AppendOptions, cfg *Config) (Result, error) {
	r := p.getRequest()
	r.reset(recs, nil, o)
	h := r.header
	plain, err := log.AppendBatch(nil, &h, recs)
	if err == nil {
		r.batch, err = log.CompressBatch(nil, plain, cfg.Compression, cfg.CompressionLevel)
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

func (r *request) reset(recs []log.Record, batch []byte, o *AppendOptions) {
	r.recs, r.batch, r.marker, r.origin = recs, batch, nil, fromProducer
	r.expect, r.plain, r.internal = false, true, false
	r.result, r.err = Result{AppendTime: -1}, nil
	r.header = log.BatchHeader{ProducerID: noProducer, ProducerEpoch: noProducerEpoch, BaseSequence: noSequence}
	if o == nil {
		return
	}
	if o.Internal {
		r.internal, r.plain = true, false
	}
	if o.Expect {
		r.expect, r.offset, r.plain = true, o.ExpectedOffset, false
	}
	if pr := o.Producer; pr != nil {
		r.plain = false
		r.header.ProducerID, r.header.ProducerEpoch, r.header.BaseSequence = pr.ID, pr.Epoch, pr.Sequence
		// The producer's state keeps it, and is made before the batch is encoded.
		for i := range recs {
			if ms := recs[i].Timestamp; i == 0 || ms > r.header.MaxTimestamp {
				r.header.MaxTimestamp = ms
			}
		}
		if pr.Transactional {
			r.header.Attributes |= log.Transactional
		}
		if pr.Coordinator {
			r.origin, r.header.BaseSequence = fromCoordinator, noSequence
		}
		if pr.TxnV2 {
			r.origin |= withTxnV2
		}
	}
}

// getRequest takes a request from the partition's own pool: one that others share
// could hand a channel of a synctest bubble to who is outside of it.
func (p *Partition) getRequest() *request {
	r, ok := p.requests.Get().(*request)
	if !ok {
		r = &request{done: make(chan struct{}, 1)}
	}
	r.taken.Store(queued)
	return r
}

// putRequest gives a request back whose outcome was seen.
func (p *Partition) putRequest(r *request) {
	r.recs, r.batch, r.marker = nil, nil, nil
	p.requests.Put(r)
}

// queue holds the requests of the group that is open.
type queue struct {
	mu   sync.Mutex
	open []*request
	// waiting is how many are in open, to be looked at without the lock.
	waiting atomic.Int32
	spare   []*request // the memory of the group that was written last
	// staging is held while the writer reads the callers' bytes.
	staging sync.Mutex
}

// join adds r to the open group and says whether it is the first.
func (q *queue) join(r *request) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = append(q.open, r)
	q.waiting.Store(int32(len(q.open)))
	return len(q.open) == 1
}

// take closes the open group and returns it.
func (q *queue) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	group := q.open
	q.open, q.spare = q.spare[:0], nil
	q.waiting.Store(0)
	return group
}

// put gives a group's memory back.
func (q *queue) put(group []*request) {
	clear(group)
	q.mu.Lock()
	q.spare = group[:0]
	q.mu.Unlock()
}

// enqueue has r written with a group, by this caller or another, and waits for
// the outcome.
func (p *Partition) enqueue(ctx context.Context, r *request) (Result, error) {
	if err := ctx.Err(); err != nil {
		p.putRequest(r)
		return Result{}, err
	}
	if p.queue.join(r) {
		p.turn.Lock()
		if ctx.Err() != nil {
			r.taken.Store(cancelled) // nobody else takes it; the others' records are written all the same
		}
		group := p.queue.take()
		if p.replicator != nil {
			return p.replicate(ctx, group, r)
		}
		p.writeGroups(group)
		p.turn.Unlock()
		p.answer(group, r)
		return p.finish(ctx, r)
	}
	select {
	case <-r.done:
		return p.finish(ctx, r)
	case <-ctx.Done():
	}
	if r.taken.CompareAndSwap(queued, cancelled) {
		return Result{}, ctx.Err() // the writer passes over it; it is not used again
	}
	// The writer may be reading our bytes: it must not find others there.
	p.queue.staging.Lock()
	if r.taken.CompareAndSwap(queued, cancelled) { // it did not fit and was put back
		p.queue.staging.Unlock()
		return Result{}, ctx.Err()
	}
	result, err := r.outcome(ctx.Err())
	p.queue.staging.Unlock()
	select {
	case <-r.done:
		return p.finish(ctx, r)
	default:
		return result, err
	}
}

// outcome is what a caller is told who leaves, because of cause, before the writer
// is done: a refusal is final, anything else open. staging is held.
func (r *request) outcome(cause error) (Result, error) {
	if r.taken.Load() == cancelled {
		return Result{}, cause
	}
	if r.internal && errors.Is(r.err, log.ErrNoSpace) {
		return Result{}, &UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: cause} // it may be tried again, in the reserve
	}
	if r.err != nil {
		return Result{}, r.err
	}
	return Result{}, &UnknownOutcomeError{BaseOffset: r.result.BaseOffset, LastOffset: r.result.LastOffset, Err: cause}
}

// answer wakes the callers of a group but for the one who wrote it.
func (p *Partition) answer(group []*request, own *request) {
	for _, r := range group {
		if r != own {
			r.done <- struct{}{}
		}
	}
	p.queue.put(group)
}

// finish returns the outcome of a request that nobody else holds any more.
func (p *Partition) finish(ctx context.Context, r *request) (Result, error) {
	result, err := r.result, r.err
	if r.taken.Load() == cancelled {
		result, err = Result{}, ctx.Err()
	}
	p.putRequest(r)
	return result, err
}

// groupWriter is what the one who writes needs.
type groupWriter struct {
	own     request
	header  log.BatchHeader // of a lone append
	group   []*request
	merged  []log.Record
	scratch []byte
	pending *pending
}

// writeGroups writes all requests, in as many groups as it takes. The caller
// holds the log's writer lock.
func (p *Partition) writeGroups(requests []*request) {
	for len(requests) > 0 {
		n := p.writeGroup(requests)
		p.spendReserve(requests[:n])
		requests = requests[n:]
	}
}

// spendReserve tries those again, each by itself, that found the disk full and may
// use the reserve.
func (p *Partition) spendReserve(requests []*request) {
	for i, r := range requests {
		if !r.internal || !errors.Is(r.err, log.ErrNoSpace) || !p.log.SpendReserve() {
			continue
		}
		p.queue.staging.Lock() // a caller that leaves reads it
		r.err = nil
		p.queue.staging.Unlock()
		p.writeGroup(requests[i : i+1])
		p.log.SaveReserve()
	}
}

// writeGroup stages as many of the requests as fit one group, writes them, and
// makes them durable if the level says so. It returns how many it dealt with.
func (p *Partition) writeGroup(requests []*request) (n int) {
	w := &p.writer
	if err := p.Err(); err != nil {
		return p.failAll(requests, fmt.Errorf("append: %w", err))
	}
	now := int64(0)
	w.pending = p.state.begin()
	if requests[0] == &w.own {
		n = p.stageGroup(requests, now) // the only reader of these bytes is their owner
	} else {
		p.queue.staging.Lock()
		n = p.stageGroup(requests, now)
		p.queue.staging.Unlock()
	}
	staged := requests[:n]
	base := p.log.EndOffset()
	if p.log.StagedOffset() == base {
		w.pending.discard()
		return n // all refused or repeated
	}
	if err := p.log.Write(); err != nil {
		w.pending.discard()
		p.failStaged(staged, base, err)
		return n
	}
	if p.log.Level() == log.Durable && !seed.Is(seed.AckBeforeFsync) {
		if err := p.log.Sync(); err != nil {
			// The records are in the log and may be on the disk, now or after a restart.
			w.pending.discard()
			p.failStaged(staged, base, err)
			return n
		}
	}
	if end := p.log.EndOffset(); w.pending.plain() && len(p.state.txns.ended) == 0 {
		// Nothing changes that others look at under mu: end belongs to the writer, and so
		// does the decision that no transaction waits to become visible.
		p.state.end = end
		p.highWatermark.Store(end)
	} else {
		p.mu.Lock()
		w.pending.commit()
		p.advanceLocked(end)
		p.mu.Unlock()
	}
	p.waiters.wake(p)
	return n
}

// failAll answers all requests with err: none was taken.
func (p *Partition) failAll(requests []*request, err error) int {
	p.queue.staging.Lock() // a caller that leaves reads its result
	defer p.queue.staging.Unlock()
	for _, r := range requests {
		// The partition's own request is in no queue: nobody has set its state.
		if r == &p.writer.own || r.taken.CompareAndSwap(queued, isTaken) {
			r.err, r.result = err, Result{}
		}
	}
	return len(requests)
}

// failStaged answers the requests of a group that could not be written.
func (p *Partition) failStaged(requests []*request, base int64, err error) {
	p.queue.staging.Lock() // a caller that leaves reads its result
	defer p.queue.staging.Unlock()
	for _, r := range requests {
		if r.err != nil || r.taken.Load() == cancelled || r.result.Duplicate && r.result.LastOffset < base {
			continue
		}
		r.err = r.result.failed(err)
		r.result = Result{}
	}
}

// stageGroup stages requests until the group is full, and returns how many were
// dealt with: staged, refused, found to be repetitions, or cancelled.
func (p *Partition) stageGroup(requests []*request, now int64) (n int) {
	cfg := p.cfg.Load()
	w := &p.writer
	start := p.log.StartOffset()
	for n < len(requests) {
		r := requests[n]
		if r != &w.own && !r.taken.CompareAndSwap(queued, isTaken) && r.taken.Load() == cancelled {
			n++
			continue
		}
		run := p.mergeable(requests[n:], cfg)
		err := p.stageRun(requests[n:n+run], cfg, &now)
		if errors.Is(err, log.ErrGroupFull) {
			for _, m := range requests[n : n+run] {
				m.taken.Store(queued) // the next group begins with them
			}
			break
		}
		for _, m := range requests[n : n+run] {
			if err != nil {
				m.err, m.result = err, Result{}
			}
			m.result.LogStart = start
		}
		n += run
	}
	if len(w.merged) > 0 {
		clear(w.merged) // they would keep the callers' bytes alive
		w.merged = w.merged[:0]
	}
	return n
}

// mergeable takes the requests whose records can share a batch with the first
// one's, and returns how many those are, the first included.
func (p *Partition) mergeable(requests []*request, cfg *Config) int {
	first := requests[0]
	if !first.plain || len(requests) == 1 || !requests[1].plain {
		return 1
	}
	w := &p.writer
	size, limit := batchBytes(first.recs), min(cfg.MaxBatchBytes, maxMergedBytes)
	if size > limit {
		return 1
	}
	clear(w.merged)
	w.merged = append(w.merged[:0], first.recs...)
	n := 1
	for ; n < len(requests); n++ {
		r := requests[n]
		// Until it is taken its caller may leave at any time, and change its records.
		if !r.plain || !r.taken.CompareAndSwap(queued, isTaken) {
			break
		}
		more := batchBytes(r.recs)
		if size+more > limit {
			r.taken.Store(queued) // the next batch begins with it
			break
		}
		size += more
		w.merged = append(w.merged, r.recs...)
	}
	return n
}

// maxMergedBytes bounds a batch of several callers: who reads one record of it
// reads it whole.
const maxMergedBytes = 64 << 10

// batchBytes is an upper bound of what the records take in a batch.
func batchBytes(recs []log.Record) int {
	n := 0
	for i := range recs {
		r := &recs[i]
		n += maxRecordOverhead/2 + len(r.Key) + len(r.Value)
		for j := range r.Headers {
			n += maxHeaderOverhead + len(r.Headers[j].Key) + len(r.Headers[j].Value)
		}
	}
	return n
}

// stageRun stages the requests as one batch. Their results say where they will be.
func (p *Partition) stageRun(run []*request, cfg *Config, now *int64) error {
	w := &p.writer
	first := run[0]
	recs := first.recs
	if len(run) > 1 {
		recs = w.merged
	}
	h := &first.header
	base := p.log.StagedOffset()
	h.BaseOffset, h.LeaderEpoch = base, int32(p.epoch.Load())
	if first.batch == nil {
		h.LastOffsetDelta = int32(len(recs) - 1)
	}
	if first.expect && first.offset != base {
		return &UnexpectedOffsetError{Expected: first.offset, LogEnd: base}
	}
	appendTime := int64(-1)
	if cfg.AppendTime && h.Attributes&log.Control == 0 {
		// The clock may have been set back, since the log was last open or since the last
		// append: the append time stays where it was.
		appendTime = max(p.wall(), w.pending.appendTime)
		h.Attributes |= log.AppendTime
		h.MaxTimestamp = appendTime
	}
	mark := w.pending.mark()
	if h.ProducerID >= 0 {
		if *now == 0 {
			*now = p.clock.now()
		}
	}
	v, err := w.pending.stage(h, first.marker, first.origin, *now)
	if err != nil {
		return err
	}
	if v.duplicate {
		first.result = Result{BaseOffset: v.baseOffset, LastOffset: v.lastOffset, AppendTime: appendTime, Duplicate: true}
		if cfg.AppendTime {
			first.result.AppendTime = v.timestamp
		}
		return nil
	}
	epoch := uint64(h.LeaderEpoch)
	switch {
	case first.batch == nil:
		err = p.log.StageRecords(epoch, h, recs)
	case appendTime >= 0:
		w.scratch = append(w.scratch[:0], first.batch...)
		log.SetAppendTime(w.scratch, appendTime)
		err = p.log.StageBatch(0, epoch, w.scratch)
	default:
		err = p.log.StageBatch(0, epoch, first.batch)
	}
	if err != nil {
		w.pending.rollback(mark)
		return err
	}
	for _, r := range run {
		count := int64(len(r.recs))
		if r.batch != nil {
			count = int64(h.LastOffsetDelta) + 1
		}
		r.result = Result{BaseOffset: base, LastOffset: base + count - 1, AppendTime: appendTime}
		base += count
	}
	return nil
}
