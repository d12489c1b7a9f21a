package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Txns is the transaction coordinator. The state of a transactional id is a
// record of __transaction_state; what a transaction wrote lies in the partitions,
// invisible to readers of committed records until its marker is there.
//
//	                    InitProducer       data            End, commit
//	                         |              |                   |
//	__transaction_state   [Empty]           |            [PrepareCommit]......[CompleteCommit]
//	                                        |             durable: decided      some time later
//	orders/3                             [data][data]   synced         [commit]
//	__consumer_offsets/0                 [offset]       synced         [commit]
//
// # What is true after a crash
//
// The moment of decision is the PrepareCommit record: before it is durable, all
// that the transaction wrote is (it is synced first, whatever the topic's level);
// after it, the markers are written, now or when the database is opened again.
//
//   - A client of the Kafka door may outlive us, so the partitions of its
//     transaction are on disk (Ongoing) before it writes to them. After a restart
//     it goes on, or its time ends.
//   - A producer in this process does not outlive it. Its partitions are registered
//     in memory only, and an abort is not recorded: the data itself is the record.
//     When the database is opened, before anybody can begin a transaction, each
//     partition's open transactions are looked at: one that no record of the
//     coordinator covers (Prepare*, or Ongoing with that epoch) can only be one that
//     was not decided, and is aborted. That needs all of the coordinator's records:
//     when some are damaged, it stays open and the log says so.
//   - Complete only spares the next open from asking the partitions again. It is
//     written later, and never behind a newer record of its id. A marker that is
//     written again cannot end the transaction that follows: it carries an epoch
//     that is not above that one's, and the partition refuses it; where the client
//     has the first protocol, whose transactions share an epoch, the next one's
//     Ongoing record has replaced Prepare before its first data.
//
// # Concurrency
//
// # In a cluster
//
// This node coordinates the ids whose partition of __transaction_state it leads, for a
// tenure (txn_shards.go). No producer is local: a peer outlives a process. Markers go to
// whoever leads a partition (txn_calls.go), with the tenure's leader epoch as the
// coordinator's: so a coordinator that was replaced ends nothing any more.
//
// Requests of one id take turns; those of several ids do not wait for each other.
// Lock order: a txn's turn, then Txns.mu; no file is touched while mu is held.
type Txns struct {
	e *Engine

	markers markerMemory
	number  atomic.Int64 // of ends, for markerQuestion

	mu      sync.Mutex
	ids     map[string]*txn
	shards  []*txnShard // nil when alone, and while there is no __transaction_state
	closed  bool
	running sync.WaitGroup // requests that write
	ends    sync.RWMutex   // read by who ends a transaction: see holdEnds
	// incomplete says that records of the coordinator could not be read.
	incomplete bool
}

const (
	txnTopicName = "__transaction_state"

	// maxTxnTimeout bounds what a producer may ask for. (transaction.max.timeout.ms)
	maxTxnTimeout = 15 * time.Minute
	// txnIDExpiry is how long an id that nobody uses is remembered. (transactional.id.expiration.ms)
	txnIDExpiry = 7 * 24 * time.Hour
	// completeDelay is how long an id is left alone before its Complete is written: one that is
	// used all the time never needs it.
	completeDelay = time.Second
	// maxTxnIDBytes is what the length in a record's key can say.
	maxTxnIDBytes = math.MaxInt16
)

// txnTopicSettings are those of __transaction_state. Internal topics are durable anyway.
var txnTopicSettings = map[string]string{"cleanup.policy": "compact", settingDurability: "durable"}

// txn is one transactional id.
type txn struct {
	shard *txnShard     // nil when alone
	turn  chan struct{} // holds a token while nobody changes the id
	meta  atomic.Pointer[txnMeta]

	// Below: whoever has the turn.
	left      []txnPart // partitions whose marker is to be written, while prepared
	again     bool      // some of the markers may be there already
	number    int64     // of its last end: see markerQuestion
	logged    bool      // the log has a record of the id
	unwritten bool      // Complete, and the log still says Prepare
	earlier   bool      // read from the log, and not given to anybody since
	stuck     error     // what the log says is not known: until the database is opened again
	dead      bool      // no longer in Txns.ids: look it up again
}

func newTxn(s *txnShard, m txnMeta) *txn {
	x := &txn{shard: s, turn: make(chan struct{}, 1)}
	x.meta.Store(&m)
	x.turn <- struct{}{}
	return x
}

func (x *txn) release() { x.turn <- struct{}{} }

// openTxns reads the coordinator's records, and ends what an earlier run has left.
func openTxns(e *Engine) (*Txns, error) {
	t := &Txns{e: e, ids: make(map[string]*txn)}
	if e.options.Cluster == nil {
		t.load()
	}
	return t, nil
}

// begin counts a request in, so that close waits for it.
func (t *Txns) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("transactions: %w", log.ErrClosed)
	}
	t.running.Add(1)
	return nil
}

// close waits for what is being ended and writes what is complete down.
func (t *Txns) close() {
	t.mu.Lock()
	was := t.closed
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
	if !was {
		t.writeCompletes(time.Time{})
	}
}

// take returns the id with its turn. Without create, an id that is not known is nil.
func (t *Txns) take(ctx context.Context, id string, create bool) (*txn, error) {
	for {
		s, err := t.shardOf(ctx, id, create)
		if err != nil {
			return nil, fmt.Errorf("transactional id %q: %w", id, err)
		}
		t.mu.Lock()
		if !t.ownsLocked(s) {
			t.mu.Unlock()
			continue
		}
		x := t.ids[id]
		if x == nil && create {
			x = newTxn(s, newTxnMeta(id))
			t.ids[id] = x
		}
		t.mu.Unlock()
		if x == nil {
			return nil, nil
		}
		select {
		case <-x.turn:
		default:
			select {
			case <-x.turn:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if !x.dead && x.tenure().ended() == nil {
			return x, nil
		}
		x.release()
	}
}

// forget takes the id out. The caller has the turn, and gives it back.
func (t *Txns) forget(x *txn) {
	x.dead = true
	id := x.meta.Load().id
	t.mu.Lock()
	if t.ids[id] == x {
		delete(t.ids, id)
	}
	t.mu.Unlock()
}

// all returns the ids, in no order.
func (t *Txns) all() []*txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*txn, 0, len(t.ids))
	for _, x := range t.ids {
		list = append(list, x)
	}
	return list
}

// InitRequest asks for a producer id and epoch.
type InitRequest struct {
	// TransactionalID is empty for a producer without transactions.
	TransactionalID string
	// Timeout is how long a transaction may be open. At most 15 minutes.
	Timeout time.Duration
	// ProducerID and Epoch are what the caller has, -1 if it has none: then it takes
	// the id over from whoever has it.
	ProducerID int64
	Epoch      int16
	// Local says that the producer lives in this process. Anonymous, that nobody
	// will ask for the id in another run.
	Local, Anonymous bool
}

// InitProducer gives a producer its id and epoch. What is open under the
// transactional id is aborted first, and whoever had the id before is fenced.
//
// Without a transactional id the producer id is a new one. With one, an error
// that matches ErrConcurrentTransactions says that an earlier transaction waits
// for a partition that cannot be written.
func (t *Txns) InitProducer(ctx context.Context, r InitRequest) (producerID int64, epoch int16, err error) {
	if r.TransactionalID == "" {
		producerID, err = t.e.AllocateProducerID(ctx)
		return producerID, 0, err
	}
	if len(r.TransactionalID) > maxTxnIDBytes || !utf8.ValidString(r.TransactionalID) {
		return -1, -1, fmt.Errorf("%w: want at most %d bytes of UTF-8", ErrInvalidTransactionalID, maxTxnIDBytes)
	}
	if r.Timeout <= 0 || r.Timeout > maxTxnTimeout {
		return -1, -1, &TxnTimeoutError{Timeout: r.Timeout, Max: maxTxnTimeout}
	}
	if err := t.begin(); err != nil {
		return -1, -1, err
	}
	defer t.running.Done()
	x, err := t.take(ctx, r.TransactionalID, true)
	if err != nil {
		return -1, -1, fmt.Errorf("init producer %q: %w", r.TransactionalID, err)
	}
	defer x.release()
	if err := t.init(ctx, x, &r); err != nil {
		if x.meta.Load().producerID < 0 && !x.logged {
			t.forget(x)
		}
		return -1, -1, fmt.Errorf("init producer: %w", err)
	}
	m := x.meta.Load()
	return m.producerID, m.epoch, nil
}

func (t *Txns) init(ctx context.Context, x *txn, r *InitRequest) error {
	q := txnInit{producerID: r.ProducerID, epoch: r.Epoch, timeout: r.Timeout, now: t.e.Now()}
	switch {
	case x.shard != nil: // a client to all who may coordinate it after us
	case r.Local && r.Anonymous:
		q.owner = ownerAnonymous
	case r.Local:
		q.owner = ownerLocal
	}
	for {
		if x.stuck != nil {
			return x.stuck
		}
		m := x.meta.Load()
		if m.state.prepared() {
			t.mark(x) // a partition may be writable again
			m = x.meta.Load()
		}
		next, step, err := m.init(&q)
		if err != nil {
			return err
		}
		switch step {
		case initRepeated:
			return nil
		case initAbort:
			if err := t.abort(x, fenceTakeover); err != nil {
				return err
			}
			continue
		case initAllocate:
			producerID, err := t.e.AllocateProducerID(ctx)
			if err != nil {
				return err
			}
			next = next.withProducer(producerID)
		}
		// A local producer's epochs need not be on disk, because the id gets another
		// producer id in the next run; but that the id is local has to be, if the log
		// says it is a client's.
		if !next.local() || x.logged && !m.local() {
			if err := t.write(x, &next); err != nil {
				return err
			}
		}
		x.meta.Store(&next)
		x.earlier = false
		return nil
	}
}

// AddPartitions makes the partitions part of the transaction of the id, and
// begins one if none is open. It returns before any of the transaction's data may
// be written to them.
func (t *Txns) AddPartitions(ctx context.Context, id string, producerID int64, epoch int16, parts []TopicPartitions) error {
	var list []txnPart
	for _, p := range parts {
		for _, n := range p.Partitions {
			if _, err := t.e.partitionAsked(ctx, p.Topic, n); err != nil {
				return fmt.Errorf("add to transaction: %w", err)
			}
			list = append(list, txnPart{p.Topic, n})
		}
	}
	if err := t.add(ctx, id, producerID, epoch, list); err != nil {
		return fmt.Errorf("add to transaction: %w", err)
	}
	return nil
}

func (t *Txns) add(ctx context.Context, id string, producerID int64, epoch int16, parts []txnPart) error {
	return t.atCoordinator(ctx, txnQuestion{Op: askAdd, ID: id, ProducerID: producerID, Epoch: epoch, Parts: txnPartsList(parts)})
}

func (t *Txns) addHere(ctx context.Context, id string, producerID int64, epoch int16, parts []txnPart) error {
	if err := t.begin(); err != nil {
		return err
	}
	defer t.running.Done()
	if err := t.know(ctx, parts); err != nil {
		return err
	}
	x, err := t.take(ctx, id, false)
	if err != nil {
		return err
	}
	if x == nil {
		return &ProducerMappingError{TransactionalID: id, ProducerID: producerID}
	}
	defer x.release()
	if x.stuck != nil {
		return x.stuck
	}
	m := x.meta.Load()
	next, changed, err := m.add(producerID, epoch, parts, t.e.Now())
	if err != nil || !changed {
		return err
	}
	if !next.local() {
		if err := t.write(x, &next); err != nil {
			return err
		}
	}
	x.meta.Store(&next)
	return nil
}

// know returns when this node knows the partitions, which another one may have heard of first.
// From then on a topic that it does not know is one that was deleted.
func (t *Txns) know(ctx context.Context, parts []txnPart) error {
	current := t.e.cluster == nil
	for _, p := range parts {
		_, err := t.partition(p)
		if err != nil && !current {
			if err := t.e.metadataNow(ctx); err != nil {
				return err
			}
			current = true
			_, err = t.partition(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Verify says whether the partition is part of the open transaction of the id, for
// a producer that adds partitions before it writes to them: one that nobody added
// would stay open for ever. It takes no turn, so a marker may land before the answer is
// used: whoever asks holds a partition.Verification. In a cluster it asks the
// coordinator. (KIP-890, part 1)
func (t *Txns) Verify(ctx context.Context, id string, producerID int64, epoch int16, topic TopicID, partition int32) error {
	err := t.atCoordinator(ctx, txnQuestion{Op: askVerify, ID: id, ProducerID: producerID, Epoch: epoch, Parts: []TopicPartitions{{topic, []int32{partition}}}})
	if err != nil {
		return fmt.Errorf("write in transaction: %w", err)
	}
	return nil
}

func (t *Txns) verifyHere(ctx context.Context, id string, producerID int64, epoch int16, parts []txnPart) error {
	if _, err := t.shardOf(ctx, id, false); err != nil {
		return err
	}
	t.mu.Lock()
	x := t.ids[id]
	t.mu.Unlock()
	if x == nil {
		return &ProducerMappingError{TransactionalID: id, ProducerID: producerID}
	}
	m := x.meta.Load()
	if err := m.checkProducer(producerID, epoch); err != nil {
		return err
	}
	if m.state.prepared() {
		return m.concurrent()
	}
	for _, p := range parts {
		if _, ok := m.parts[p]; m.state != txnOngoing || !ok {
			return m.invalid("write to a partition that is not part")
		}
	}
	return nil
}

// AddOffsets makes the group's committed offsets part of the transaction of the
// id: Groups.TxnCommit may be called afterwards.
func (t *Txns) AddOffsets(ctx context.Context, id string, producerID int64, epoch int16, group string) error {
	part, err := t.e.groups.OffsetsPartition(ctx, group)
	if err == nil {
		err = t.add(ctx, id, producerID, epoch, []txnPart{{part.TopicID(), part.ID()}})
	}
	if err != nil {
		return fmt.Errorf("add offsets of group %q to transaction: %w", group, err)
	}
	return nil
}

// End commits or aborts the transaction of the id, and returns the producer id
// and epoch of the next one (KIP-890). Repeated, it returns the same again.
//
// When a commit returns nil, it is decided and durable, and visible but where a
// partition cannot be written: there it is completed when it can. An error that
// matches partition.ErrUnknownOutcome says that it may be committed or not: the
// end goes on in the background when the context ended while it was under way.
// After another error the transaction is open as before.
func (t *Txns) End(ctx context.Context, id string, producerID int64, epoch int16, commit bool) (newProducerID int64, newEpoch int16, err error) {
	return t.end(ctx, id, producerID, epoch, commit, txnV2)
}

// EndV1 is End for a producer that keeps its epoch from one transaction to the next (KIP-98).
func (t *Txns) EndV1(ctx context.Context, id string, producerID int64, epoch int16, commit bool) error {
	_, _, err := t.end(ctx, id, producerID, epoch, commit, txnV1)
	return err
}

func (t *Txns) end(ctx context.Context, id string, producerID int64, epoch int16, commit bool, version int16) (int64, int16, error) {
	request := "abort transaction"
	if commit {
		request = "commit transaction"
	}
	fail := func(err error) (int64, int16, error) { return -1, -1, fmt.Errorf("%s: %w", request, err) }
	if err := t.begin(); err != nil {
		return fail(err)
	}
	x, err := t.take(ctx, id, false)
	switch {
	case err != nil:
	case x == nil:
		err = &ProducerMappingError{TransactionalID: id, ProducerID: producerID}
	case x.stuck != nil:
		err = x.stuck
		x.release()
	}
	if err != nil {
		t.running.Done()
		return fail(err)
	}
	m := x.meta.Load()
	if m.state.prepared() {
		t.mark(x)
		m = x.meta.Load()
	}
	next, repeated, err := m.end(producerID, epoch, commit, version, t.e.Now())
	if err == nil && !repeated {
		err = t.nextProducer(ctx, m, &next)
	}
	if err != nil || repeated {
		x.release()
		t.running.Done()
		if err != nil {
			return fail(err)
		}
		newID, newEpoch := m.answer()
		return newID, newEpoch, nil
	}
	// From here on it is finished whatever becomes of the caller.
	newID, newEpoch := next.answer()
	done := make(chan error, 1)
	go func() {
		defer t.running.Done()
		err := t.finish(x, next)
		x.release()
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		default:
			err = &TxnUnknownOutcomeError{TransactionalID: id, Commit: commit, Err: ctx.Err()}
		}
	}
	if err != nil {
		return fail(err)
	}
	return newID, newEpoch, nil
}

// nextProducer allocates the next transaction's producer id when its epoch is the
// first of one.
func (t *Txns) nextProducer(ctx context.Context, m, next *txnMeta) (err error) {
	if next.version >= txnV2 && m.exhausted() {
		next.next, err = t.e.AllocateProducerID(ctx)
	}
	return err
}

// abort ends the open transaction of an id for a reason of our own.
func (t *Txns) abort(x *txn, why txnFence) error {
	m := x.meta.Load()
	next := m.prepare(false, m.version, why, t.e.Now())
	if err := t.nextProducer(context.Background(), m, &next); err != nil {
		return err
	}
	return t.finish(x, next)
}

// TxnListing is one line of a list of transactional ids.
type TxnListing struct {
	TransactionalID string
	ProducerID      int64
	State           string // Kafka's name
}

// TxnDescription is what is known of a transactional id.
type TxnDescription struct {
	TxnListing
	Epoch      int16
	Timeout    time.Duration
	Local      bool      // its producer lives in this process
	Started    time.Time // of the open transaction, or of the one being ended; else zero
	Partitions []TopicPartitions
}

// List lists the transactional ids that are known, sorted. In a cluster they are those
// that this node coordinates.
func (t *Txns) List() []TxnListing {
	var list []TxnListing
	for _, x := range t.all() {
		list = append(list, x.meta.Load().listing())
	}
	slices.SortFunc(list, func(a, b TxnListing) int {
		if a.TransactionalID < b.TransactionalID {
			return -1
		}
		return 1
	})
	return list
}

func (m *txnMeta) listing() TxnListing {
	return TxnListing{TransactionalID: m.id, ProducerID: m.producerID, State: m.state.String()}
}

// Describe describes a transactional id. One that is not known is a *ProducerMappingError.
func (t *Txns) Describe(id string) (TxnDescription, error) {
	if _, err := t.shardOf(t.e.life, id, false); err != nil {
		return TxnDescription{}, fmt.Errorf("transactional id %q: %w", id, err)
	}
	t.mu.Lock()
	x := t.ids[id]
	t.mu.Unlock()
	if x == nil {
		return TxnDescription{}, &ProducerMappingError{TransactionalID: id, ProducerID: -1}
	}
	m := x.meta.Load()
	d := TxnDescription{TxnListing: m.listing(), Epoch: m.epoch, Timeout: m.timeout, Local: m.local()}
	if !m.state.ended() {
		d.Started = m.started
	}
	for _, p := range m.sortedParts() {
		if n := len(d.Partitions); n == 0 || d.Partitions[n-1].Topic != p.topic {
			d.Partitions = append(d.Partitions, TopicPartitions{Topic: p.topic})
		}
		last := &d.Partitions[len(d.Partitions)-1]
		last.Partitions = append(last.Partitions, p.partition)
	}
	return d, nil
}

// tick does what is due: transactions that are open too long are aborted, markers
// that could not be written are tried again, ids that nobody uses are forgotten.
// It returns when that is done.
func (t *Txns) tick(now time.Time) {
	if t.begin() != nil {
		return
	}
	defer t.running.Done()
	var ending sync.WaitGroup
	for _, x := range t.all() {
		// Most of them need nothing: a look without the turn says so.
		m := x.meta.Load()
		if !m.state.prepared() && !m.expired(now) && !m.forgotten(now) {
			continue
		}
		select {
		case <-x.turn:
		default:
			continue // somebody is at it
		}
		one := func() {
			defer x.release()
			t.tickOne(x, now)
		}
		if x.shard == nil {
			ending.Go(one)
		} else {
			t.running.Go(one) // other nodes may let us wait, and more than this is due
		}
	}
	ending.Wait()
	t.writeCompletes(now)
}

func (t *Txns) tickOne(x *txn, now time.Time) {
	m := x.meta.Load()
	switch {
	case x.dead, x.stuck != nil, x.tenure().ended() != nil:
	case m.state.prepared():
		t.mark(x)
	case m.expired(now):
		if err := t.abort(x, fenceTimeout); err != nil {
			t.warn("a transaction that is open too long could not be aborted", m, err)
		}
	case m.forgotten(now) && !x.unwritten:
		if x.logged {
			if err := t.writeTombstone(x); err != nil {
				t.warn("an unused transactional id could not be forgotten", m, err)
				return
			}
		}
		t.forget(x)
	}
}

// forgotten says that the id is not to be remembered any more.
func (m *txnMeta) forgotten(now time.Time) bool {
	if !m.state.ended() {
		return false
	}
	// One that was made up in an earlier run, and is complete.
	if m.owner == ownerAnonymous && m.producerID < 0 {
		return true
	}
	return now.Sub(m.updated) >= txnIDExpiry
}

func (t *Txns) warn(what string, m *txnMeta, err error) {
	t.e.Logger().Warn(what, slog.String("transactional_id", m.id), slog.Int64("producer_id", m.producerID),
		slog.Int("epoch", int(m.epoch)), slog.String("state", m.state.String()), slog.Any("error", err))
}

// TxnUnknownOutcomeError is the end of a transaction whose caller did not wait for
// it. It is finished in the background, unless the process dies first.
type TxnUnknownOutcomeError struct {
	TransactionalID string
	Commit          bool
	Err             error // the context's
}

func (e *TxnUnknownOutcomeError) Error() string {
	what := "abort"
	if e.Commit {
		what = "commit"
	}
	return fmt.Sprintf("the %s of %q is finished in the background: %v", what, e.TransactionalID, e.Err)
}

// Is matches partition.ErrUnknownOutcome.
func (e *TxnUnknownOutcomeError) Is(target error) bool {
	return target == partition.ErrUnknownOutcome
}

// Unwrap returns the context's error.
func (e *TxnUnknownOutcomeError) Unwrap() error { return e.Err }
