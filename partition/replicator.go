package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// Replicator commits the appends of one partition on a majority of peers. The
// partition's log is the replicator's log: it writes entries into it with Store,
// takes a conflicting tail back with TruncateFrom, and says with Commit what a
// majority has.
//
//	Append -> check, encode -> Propose -> (order, Store here and on the peers)
//	                             returns when Store was called here
//	       -> Wait                       -> Commit: the high watermark moves
//
// Propose is called by one goroutine at a time.
type Replicator interface {
	// LeaderEpoch is the epoch in which this node leads. A node that does not
	// answers with a *NotLeaderError.
	LeaderEpoch() (epoch int32, err error)
	// Propose has the record batches appended, in this order, one entry each, the
	// first one's records from offset base on. They were checked for that place and
	// epoch: if the log ends elsewhere by now, or this node leads in another epoch,
	// it must refuse them all with a *NotLeaderError. It
	// returns when this node's log holds them all: Store has returned. An error that
	// matches ErrUnknownOutcome says that some may be there, now or later; any other
	// that none is or will be.
	Propose(ctx context.Context, epoch int32, base int64, batches [][]byte) (Proposal, error)
}

// Confirmer is a Replicator that can find out whether this node leads still.
type Confirmer interface {
	// Confirm returns nil when a majority has said so since the call, and a *NotLeaderError
	// when none does.
	Confirm(ctx context.Context) error
}

// Proposal is entries on their way.
type Proposal interface {
	// Wait returns nil when a majority has the entries and Commit was called for
	// them here. After an error they may be committed nevertheless. It may be called
	// again after its context ended.
	Wait(ctx context.Context) error
}

// DamageWatcher is what a Replicator may be, too: ReadFailed tells it that a reader came
// upon damage, err. It does not wait, and looks for itself.
type DamageWatcher interface{ ReadFailed(err error) }

// Entry is one entry of a replicated log.
type Entry struct {
	Kind  log.Kind
	Index uint64
	Epoch uint64
	Data  []byte // a record batch, or what the replicator wants kept
}

// storedEntry is an entry above the high watermark: where it ends, and what its
// batch does to the state. Those in Partition.stored lead from base to state, so
// that a tail is taken back without reading the log again, and a checkpoint holds
// nothing that a truncation could take back: it is of base.
type storedEntry struct {
	index  uint64
	epoch  uint64
	kind   log.Kind
	next   int64 // offset behind it
	data   bool
	start  int64  // the log start of a command; 0 otherwise
	body   []byte // a configuration's
	header log.BatchHeader
	marker marker
	ends   bool // marker is one
	now    int64
}

// apply takes the entry in, as recovery would.
func (e *storedEntry) apply(s *state) error {
	if g := s.group; g != nil {
		g.Index, g.Epoch = e.index, e.epoch
		g.LogStart = max(g.LogStart, e.start)
		if e.kind == log.KindConfiguration {
			g.Members, g.MembersIndex = e.body, e.index
		}
	}
	if !e.data {
		return nil
	}
	return s.replay(&e.header, e.now, func() (marker, bool, error) { return e.marker, e.ends, nil })
}

// Store appends entries at the log's end, each at its index, and makes them as
// durable as the level says: all or none. A gap is refused. Base offsets and
// leader epochs in batches are set here, not in the caller's bytes, which are free again
// when Store returns. For the replicator, on every node.
func (p *Partition) Store(entries []Entry) error { return p.storeEntries(entries, true) }

// StoreUnsynced is Store without the sync: the entries are durable when a call of
// Log().Flush has returned that began later, and nobody may be told before that this
// node has them. Until then they are in the log for everything else.
func (p *Partition) StoreUnsynced(entries []Entry) error { return p.storeEntries(entries, false) }

func (p *Partition) storeEntries(entries []Entry, sync bool) error {
	p.log.Lock()
	defer p.log.Unlock()
	err := p.storeAll(entries, sync)
	if errors.Is(err, log.ErrNoSpace) && vital(entries) && p.log.SpendReserve() {
		err = p.storeAll(entries, sync)
		p.log.SaveReserve()
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// maxVitalBytes bounds what may use the reserve of a full disk at once.
const maxVitalBytes = 64 << 10

// vital says whether the entries are none of a producer's: without the first entry of its
// term a leader commits nothing, not even the command that would make room.
func vital(entries []Entry) bool {
	size := 0
	for i := range entries {
		size += len(entries[i].Data)
		if entries[i].Kind == log.KindData {
			return false
		}
	}
	return size <= maxVitalBytes
}

func (p *Partition) storeAll(entries []Entry, sync bool) error {
	if err := p.noteWeak(); err != nil {
		return err
	}
	first := p.log.NextIndex()
	err := p.store(entries, sync)
	if err != nil {
		p.log.Discard()
		// All or nothing: what went in before a group was full is taken back.
		if p.log.NextIndex() > first && p.log.Err() == nil {
			back := p.truncateFrom(first)
			if back != nil && p.log.Err() == nil {
				back = errors.Join(back, p.takeIn(first))
			}
			err = errors.Join(err, back)
		}
	}
	return err
}

// takeIn has the state follow entries that are in the log against our will: a full disk has
// no room to take them back. The log's owner goes on with what the log says, so whoever sends
// their records again must be told that they are there; and it counts on them, so they are as
// durable as others. The writer's lock is held.
func (p *Partition) takeIn(first uint64) error {
	if p.log.Level() == log.Durable {
		if err := p.log.Sync(); err != nil {
			return err
		}
	}
	r, err := p.log.ReadFromIndex(first)
	if err != nil {
		return err
	}
	var left []storedEntry
	if err := p.eachEntry(r, func(e *storedEntry) error {
		left = append(left, *e)
		return nil
	}); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeInLocked(left)
}

func (p *Partition) store(entries []Entry, sync bool) error {
	from, now := p.log.EndOffset(), p.clock.now()
	var stored []storedEntry
	for _, e := range entries {
		err := p.stageEntry(&e)
		if errors.Is(err, log.ErrGroupFull) {
			if err = p.log.Write(); err == nil {
				err = p.stageEntry(&e)
			}
		}
		if err != nil {
			return err
		}
		is := storedEntry{index: e.Index, epoch: e.Epoch, kind: e.Kind, next: p.log.StagedOffset(), now: now}
		if err := is.parse(e.Data); err != nil {
			return err
		}
		if is.data {
			is.header.BaseOffset, is.header.LeaderEpoch = from, int32(e.Epoch)
			from = is.next
		}
		stored = append(stored, is)
	}
	if err := p.log.Write(); err != nil {
		return err
	}
	if sync && p.log.Level() == log.Durable && !seed.Is(seed.ReplicaNoFsync) {
		if err := p.log.Sync(); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeInLocked(stored)
}

// takeInLocked has the state follow entries that are in the log.
func (p *Partition) takeInLocked(stored []storedEntry) error {
	for i := range stored {
		e := &stored[i]
		if err := e.apply(p.state); err != nil {
			return err
		}
		p.stored = append(p.stored, *e)
		if !e.data {
			continue
		}
		p.epoch.Store(max(p.epoch.Load(), int64(e.header.LeaderEpoch)))
	}
	return nil
}

// parse reads what the entry does to the state.
func (e *storedEntry) parse(batch []byte) (err error) {
	switch e.kind {
	case log.KindConfiguration:
		e.body = bytes.Clone(batch)
		return nil
	case log.KindCommand:
		e.start, err = parseCommand(batch)
		return err
	case log.KindData:
	default:
		return nil
	}
	e.data = true
	if e.header, err = log.ParseBatchHeader(batch); err != nil {
		return err
	}
	if e.header.Attributes.Has(log.Control) && e.header.Count > 0 {
		e.marker, e.ends, err = readMarker(batch)
	}
	return err
}

func (p *Partition) stageEntry(e *Entry) error {
	if e.Kind == log.KindData {
		return p.log.StageBatch(e.Index, e.Epoch, e.Data, -1)
	}
	return p.log.StageEntry(e.Kind, e.Index, e.Epoch, e.Data)
}

// Commit says that a majority has the log up to and with index: the high
// watermark moves there, and deletion and compaction may reach that far. index is at
// most the last one stored here. For the replicator, on every node.
func (p *Partition) Commit(index uint64) error {
	p.mu.Lock()
	if p.base.group == nil {
		p.base.group = &GroupState{}
	}
	if seed.Is(seed.WatermarkFollows) && index < p.base.group.Index {
		if f, err := p.log.Entry(index + 1); err == nil {
			p.highWatermark.Store(f.Offset)
		}
	}
	next, n := p.highWatermark.Load(), 0
	var err error
	for ; n < len(p.stored) && p.stored[n].index <= index && err == nil; n++ {
		err = p.stored[n].apply(p.base)
		next = p.stored[n].next
	}
	p.stored = p.stored[n:]
	follow := p.base.group.LogStart > p.log.StartOffset()
	p.base.txns.advance(next)
	if next > p.highWatermark.Load() {
		p.advanceLocked(next)
	}
	if seed.Is(seed.WatermarkBack) && n == 0 {
		p.highWatermark.Store(p.log.StartOffset())
	}
	p.mu.Unlock()
	p.waiters.wake(p)
	if follow && err == nil {
		err = p.followStart()
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// TruncateFrom takes back the entry at index and all behind it, none of which may
// be committed. For the replicator, when a leader's log differs from ours.
func (p *Partition) TruncateFrom(index uint64) error {
	p.log.Lock()
	defer p.log.Unlock()
	return p.truncateFrom(index)
}

func (p *Partition) truncateFrom(index uint64) error {
	if index >= p.log.NextIndex() {
		return nil
	}
	f, err := p.log.Entry(index)
	if err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	end := f.Offset
	if hw := p.highWatermark.Load(); end < hw {
		return fmt.Errorf("truncate at log index %d, offset %d: the high watermark is %d", index, end, hw)
	}
	// The state goes back to what it was then: what is committed, and what follows it.
	p.mu.Lock()
	n := len(p.stored)
	for n > 0 && p.stored[n-1].index >= index {
		n--
	}
	s := p.base.clone()
	s.group = nil
	for i := range p.stored[:n] {
		if err := p.stored[i].apply(s); err != nil {
			p.mu.Unlock()
			return fmt.Errorf("truncate: %w", err)
		}
	}
	before, tail := p.state, p.stored
	if seed.Is(seed.StaleProducers) {
		s.producers = before.producers
	}
	p.state, p.stored = s, p.stored[:n]
	p.cuts++
	p.mu.Unlock()
	if err := p.log.TruncateFrom(index); err != nil {
		if p.log.Err() == nil {
			p.mu.Lock()
			p.state, p.stored = before, tail
			p.mu.Unlock()
		}
		return err
	}
	return nil
}

// replicate has a group committed by the replicator. The caller, who made r, holds
// the turn; it is given on as soon as the group has its place in the log.
func (p *Partition) replicate(ctx context.Context, group []*request, r *request) (Result, error) {
	// The others' contexts are their own: ours must not end what is theirs.
	proposed := p.propose(context.WithoutCancel(ctx), group)
	p.turn.Unlock()
	proposed.tellPlaced()
	err := proposed.wait(ctx, p)
	if err != nil && ctx.Err() != nil && len(group) > 1 {
		p.queue.staging.Lock()
		result, err := r.outcome(ctx.Err())
		p.queue.staging.Unlock()
		go func() {
			if err := proposed.wait(p.life, p); err != nil {
				if p.life.Err() != nil {
					err = log.ErrClosed
				}
				proposed.fail(p, err, true)
			}
			p.answer(group, r)
		}()
		return result, err
	}
	if err != nil {
		proposed.fail(p, err, true)
	}
	p.answer(group, r)
	return p.finish(ctx, r)
}

// proposals are requests whose batches were proposed together.
type proposals struct {
	proposal Proposal
	requests []*request
	next     int64  // offset behind the last one
	cuts     uint64 // Partition.cuts at the time
	epoch    int32  // in which they were checked
}

// lookAgain is how often who waits for a repetition looks whether this node leads still: a
// replicator ends proposals when it does not, and of a repetition it knows nothing.
const lookAgain = time.Second

// errTakenBack is the outcome of a repetition whose original may be gone: something else can have its
// offset now.
var errTakenBack = errors.New("entries were taken back while it was waited for")

// propose checks and encodes the requests of a group and hands them to the
// replicator. Every request that is not in the result has its answer.
func (p *Partition) propose(ctx context.Context, requests []*request) (out proposals) {
	cfg := p.cfg.Load()
	epoch, err := p.replicator.LeaderEpoch()
	if err == nil {
		err = p.Err()
	}
	if err != nil {
		p.failAll(requests, fmt.Errorf("append: %w", err))
		return out
	}
	p.queue.staging.Lock()
	p.mu.Lock()
	pending := p.state.begin()
	base := p.state.end
	first := base
	out.cuts, out.epoch = p.cuts, epoch
	now := p.clock.now()
	var batches [][]byte
	for _, r := range requests {
		if !r.taken.CompareAndSwap(queued, isTaken) {
			continue
		}
		batch, err := p.proposeOne(r, pending, cfg, epoch, base, now)
		if err != nil {
			r.err, r.result = err, Result{}
			continue
		}
		out.requests = append(out.requests, r)
		if batch != nil {
			batches = append(batches, batch)
			base = r.result.LastOffset + 1
		}
		r.result.LogStart = p.log.StartOffset()
		out.next = max(out.next, r.result.LastOffset+1)
	}
	pending.discard() // Store applies them
	p.mu.Unlock()
	p.queue.staging.Unlock()
	if len(batches) == 0 {
		return out
	}
	if out.proposal, err = p.replicator.Propose(ctx, epoch, first, batches); err != nil {
		out.fail(p, err, errors.Is(err, ErrUnknownOutcome) || errors.Is(err, log.ErrStorageFailed))
		return proposals{}
	}
	return out
}

// proposeOne checks one request and encodes its batch; nil for a repetition.
func (p *Partition) proposeOne(r *request, pending *pending, cfg *Config, epoch int32, base, now int64) ([]byte, error) {
	if r.leaderEpoch != 0 && r.leaderEpoch != epoch {
		return nil, fmt.Errorf("append in leader epoch %d: %w", r.leaderEpoch, &NotLeaderError{Leader: -1, LeaderEpoch: epoch})
	}
	if r.expect && r.offset != base {
		return nil, &UnexpectedOffsetError{Expected: r.offset, LogEnd: base}
	}
	h := &r.header
	h.BaseOffset, h.LeaderEpoch = base, epoch
	if r.batch == nil {
		h.LastOffsetDelta = int32(len(r.recs) - 1)
	}
	appendTime := int64(-1)
	if cfg.AppendTime && h.Attributes&log.Control == 0 {
		appendTime = max(p.wall(), pending.appendTime)
		h.Attributes |= log.AppendTime
		h.MaxTimestamp = appendTime
	}
	v, err := p.stage(r, pending, now)
	if err != nil {
		return nil, err
	}
	if v.duplicate {
		r.result = Result{BaseOffset: v.baseOffset, LastOffset: v.lastOffset, AppendTime: -1, Duplicate: true}
		if cfg.AppendTime {
			r.result.AppendTime = v.timestamp
		}
		return nil, nil
	}
	batch := append([]byte(nil), r.batch...)
	if r.batch == nil {
		if batch, err = log.AppendBatch(nil, h, r.recs); err != nil {
			return nil, err
		}
	} else {
		if appendTime >= 0 {
			log.SetAppendTime(batch, appendTime)
		}
		log.SetBatchOffset(batch, base, epoch) // whoever carries it can tell where it belongs
	}
	r.result = Result{BaseOffset: base, LastOffset: h.LastOffset(), AppendTime: appendTime}
	return batch, nil
}

// wait waits until a majority has what was proposed. A repetition of something
// that is still on its way waits for that.
func (o *proposals) wait(ctx context.Context, p *Partition) error {
	if len(o.requests) == 0 {
		return nil
	}
	if o.proposal != nil {
		if err := o.proposal.Wait(ctx); err != nil {
			return err
		}
		return p.waitFor(ctx, o.next, ReadUncommitted)
	}
	for {
		look, cancel := context.WithTimeout(ctx, lookAgain)
		err := p.waitFor(look, o.next, ReadUncommitted)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		epoch, err := p.replicator.LeaderEpoch()
		if err == nil && epoch != o.epoch {
			err = &NotLeaderError{Leader: -1, LeaderEpoch: epoch}
		}
		if err != nil {
			return err
		}
	}
	// The watermark has passed an offset. Another entry may have come there meanwhile.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cuts != o.cuts {
		return errTakenBack
	}
	return nil
}

// tellPlaced is for those who have asked to be told.
func (o *proposals) tellPlaced() {
	if o.proposal == nil {
		return
	}
	for _, r := range o.requests {
		if r.placed != nil {
			r.placed()
		}
	}
}

func (o *proposals) fail(p *Partition, err error, unknown bool) {
	p.queue.staging.Lock()
	defer p.queue.staging.Unlock()
	for _, r := range o.requests {
		r.err = fmt.Errorf("append: %w", err)
		if unknown {
			r.err = &UnknownOutcomeError{BaseOffset: r.result.BaseOffset, LastOffset: r.result.LastOffset, Err: err}
		}
		r.result = Result{}
	}
}
