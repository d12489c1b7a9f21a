package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// shareTopicName keeps what share groups have been delivered, and their settings.
const shareTopicName = "__share_group_state"

// shareTopicSettings are what it is made with: see offsetsTopicSettings.
var shareTopicSettings = map[string]string{
	"cleanup.policy": "compact", "segment.bytes": "16777216", "max.message.bytes": "8388608",
}

// maxGroupsWithSettings bounds what settings take.
const maxGroupsWithSettings = 10_000

// Shares is the records of share groups: who has which, and what was said of them. Who
// is in a group is kept by Groups. (KIP-932; docs/share-groups.md)
//
// Lock order: a group's gate (groupGate), sharePart.reading, sharePart.writing, Shares.mu, shareShard.mu,
// sharePart.mu. No file is touched while a mutex is held.
type Shares struct {
	engine   *Engine
	began    time.Time // see clock
	Sessions ShareSessions

	mu     sync.Mutex
	shards []*shareShard // nil while there is no __share_group_state

	// Of tick, which is called by one goroutine at a time.
	cleanedView uint64 // version of the topics when states were last looked through
	triedView   uint64 // the one that was tried last, and when
	cleaned     time.Time
}

func newShares(e *Engine) *Shares {
	s := &Shares{engine: e, began: e.Now()}
	s.Sessions.init()
	return s
}

// clock is a time as locks have it: nanoseconds since the engine was opened, which go on evenly
// when the wall clock is set.
func (s *Shares) clock(t time.Time) int64 { return int64(t.Sub(s.began)) }

// shareShard is what one partition of __share_group_state says, once it has been read. A
// group's name decides which one is the group's, as in __consumer_offsets.
type shareShard struct {
	part   *Partition
	tenure *tenure       // as in offsetsShard
	turn   chan struct{} // holds a token while nobody loads it
	loaded atomic.Bool

	mu     sync.Mutex
	groups map[string]*shareGroup
}

// shareGroup is one group's share partitions.
type shareGroup struct {
	shard    *shareShard
	name     string
	settings atomic.Pointer[shareSettings]
	altering chan struct{}            // holds a token while nobody changes the settings
	parts    map[topicPart]*sharePart // under shard.mu
}

// sharePart is one partition as the group sees it.
type sharePart struct {
	group *shareGroup
	at    topicPart
	// reading holds a token while nobody looks for records to acquire, writing while
	// nobody writes a snapshot.
	reading, writing chan struct{}

	// Of who has writing.
	snapshots  int32 // snapshotEpoch of the last one
	stateEpoch int32 // grows when the offset is set by hand
	created    int64

	mu      sync.Mutex
	state   shareState
	stored  bool // there is a snapshot in the log
	dead    bool // no longer in group.parts
	dirty   bool // the last snapshot does not say all
	tickets uint64
	durable uint64 // the tickets up to this one are in a snapshot
	waiting map[*partition.Waiter]int
	// restored is the leader epoch of the snapshot that was loaded, until its state was
	// held against the log; restoredNone when that was done.
	restored int32
}

const restoredNone = math.MinInt32

func newSharePart(g *shareGroup, at topicPart) *sharePart {
	sp := &sharePart{group: g, at: at, reading: make(chan struct{}, 1), writing: make(chan struct{}, 1), restored: restoredNone}
	sp.reading <- struct{}{}
	sp.writing <- struct{}{}
	return sp
}

// take waits for a token.
func take(ctx context.Context, token chan struct{}) error {
	select {
	case <-token:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Shares) allShards() []*shareShard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards
}

// prepare finds or makes the shards. They are nil when there is no state and create is
// false.
func (s *Shares) prepare(ctx context.Context, create bool) ([]*shareShard, error) {
	if err := s.engine.closedError(); err != nil {
		return nil, err
	}
	if shards := s.allShards(); shards != nil {
		return shards, nil
	}
	t, err := s.engine.Topic(shareTopicName)
	if errors.Is(err, ErrUnknownTopic) {
		if !create {
			return nil, nil
		}
		t, err = s.engine.coordinatorTopic(ctx, shareTopicName)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shards == nil {
		for _, p := range t.Partitions() {
			s.shards = append(s.shards, newShareShard(p))
			s.engine.coordinators.follow(p)
		}
	}
	return s.shards, nil
}

// group returns what is kept of a group, loaded. It is nil when create is false and
// there is nothing.
func (s *Shares) group(ctx context.Context, name string, create bool) (*shareGroup, error) {
	shards, err := s.prepare(ctx, create)
	if err == nil && shards == nil {
		var t *Topic
		if t, err = s.engine.internalTopic(ctx, shareTopicName); t != nil {
			shards, err = s.prepare(ctx, false) // this node had not heard of it
		}
	}
	if err != nil || shards == nil {
		return nil, err
	}
	shard, err := s.loaded(ctx, int(offsetsPartitionOf(name, len(shards))))
	if err != nil {
		return nil, err
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	g := shard.groups[name]
	if g == nil && create {
		g = shard.groupLocked(name)
	}
	return g, nil
}

// loadAll reads all there is, and returns the groups.
func (s *Shares) loadAll(ctx context.Context) (list []*shareGroup, err error) {
	shards, err := s.prepare(ctx, false)
	if err != nil {
		return nil, err
	}
	for i := range shards {
		// In a cluster those that are led elsewhere are cared for there.
		if _, err := s.loaded(ctx, i); err != nil && !errors.Is(err, partition.ErrNotLeader) {
			return nil, err
		}
	}
	return s.loadedGroups(), nil
}

func (s *Shares) loadedGroups() (list []*shareGroup) {
	for _, shard := range s.allShards() {
		if !shard.loaded.Load() || shard.tenure.ended() != nil {
			continue
		}
		shard.mu.Lock()
		for _, g := range shard.groups {
			list = append(list, g)
		}
		shard.mu.Unlock()
	}
	return list
}

func (x *shareShard) groupLocked(name string) *shareGroup {
	g := x.groups[name]
	if g == nil {
		g = &shareGroup{shard: x, name: name, altering: make(chan struct{}, 1), parts: map[topicPart]*sharePart{}}
		g.altering <- struct{}{}
		g.settings.Store(defaultShareSettings)
		x.groups[name] = g
	}
	return g
}

// forget takes a group out of memory about which nothing is known. Who holds it and wants to
// put something into it looks whether it is still there: see mappedLocked.
func (g *shareGroup) forget() {
	select {
	case <-g.altering:
		defer func() { g.altering <- struct{}{} }()
	default:
		return // whoever alters it does that
	}
	g.forgetAltering()
}

// forgetAltering is forget for whoever has altering.
func (g *shareGroup) forgetAltering() {
	g.shard.mu.Lock()
	defer g.shard.mu.Unlock()
	if len(g.parts) == 0 && len(g.settings.Load().explicit) == 0 && g.mappedLocked() {
		delete(g.shard.groups, g.name)
	}
}

// mappedLocked says that the group is not one that was forgotten. The caller has shard.mu.
func (g *shareGroup) mappedLocked() bool { return g.shard.groups[g.name] == g }

func newShareShard(p *Partition) *shareShard {
	x := &shareShard{part: p, tenure: newTenure(p), turn: make(chan struct{}, 1), groups: map[string]*shareGroup{}}
	x.turn <- struct{}{}
	return x
}

// loaded returns a shard that is loaded, and whose tenure goes on.
func (s *Shares) loaded(ctx context.Context, i int) (*shareShard, error) {
	for {
		shard := s.allShards()[i]
		if shard.loaded.Load() && shard.tenure.ended() == nil {
			return shard, nil
		}
		patient, stop := shard.tenure.patience(ctx)
		err := shard.load(patient)
		stop()
		if err == nil {
			return shard, nil
		}
		if s.replace(i, shard) {
			continue // who led and leads again reads what was written meanwhile
		}
		return nil, shard.tenure.loading(ctx, err)
	}
}

// replace puts a new shard in the place of one whose tenure is over, and wakes who
// waits for something of the old one. It reports whether it is over.
func (s *Shares) replace(i int, old *shareShard) bool {
	now, stale := old.tenure.stale(shareTopicName)
	if !stale {
		return false
	}
	if now != old.part {
		s.engine.coordinators.follow(now)
	}
	s.mu.Lock()
	if s.shards[i] == old {
		s.shards = slices.Clone(s.shards) // allShards was given to others
		s.shards[i] = newShareShard(now)
	}
	s.mu.Unlock()
	if !old.loaded.Load() {
		return true // whoever reads it finds out
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	for _, g := range old.groups {
		for _, sp := range g.parts {
			sp.mu.Lock()
			sp.wakeLocked()
			sp.mu.Unlock()
		}
	}
	return true
}

// follow keeps step with who leads: memory of tenures that are over is let go of, and
// what this node has come to lead is read.
func (s *Shares) follow(ctx context.Context) {
	shards, err := s.prepare(ctx, false)
	if err != nil {
		return
	}
	for i, shard := range shards {
		s.replace(i, shard)
		if shard = s.allShards()[i]; !shard.tenure.leads() {
			continue
		}
		if !shard.loaded.Load() {
			s.engine.coordinators.background("read its log", shard.part, func() error { return shard.load(ctx) })
		}
		s.join(ctx, i, shard)
	}
}

// load reads the partition from its start, unless that was done.
func (x *shareShard) load(ctx context.Context) error {
	if err := take(ctx, x.turn); err != nil {
		return err
	}
	defer func() { x.turn <- struct{}{} }()
	if x.loaded.Load() {
		return x.tenure.ended()
	}
	err := x.tenure.begin(ctx)
	if err != nil {
		return err
	}
	if err = x.replay(); err == nil {
		err = x.tenure.ended()
	}
	if err != nil {
		x.groups = map[string]*shareGroup{}
		x.tenure.reset()
		return fmt.Errorf("read %s: %w", x.part, err)
	}
	x.loaded.Store(true)
	return nil
}

func (x *shareShard) replay() error {
	// The last record of a key counts; what is made of it is made once.
	last := map[topicPartOf]shareSnapshot{}
	r, err := x.part.ReadFrom(x.part.LogStart(), &partition.ReaderOptions{Reuse: true})
	if err != nil {
		return err
	}
	var records log.RecordReader
	for {
		batch, err := r.TryNext()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = records.Reset(batch, 0)
		}
		if err != nil {
			return err
		}
		for records.Next() {
			rec := records.Record()
			if err := x.apply(rec, last); err != nil {
				return fmt.Errorf("record %d: %w", rec.Offset, err)
			}
		}
		if err := records.Err(); err != nil {
			return err
		}
	}
	for at, snap := range last {
		g := x.groupLocked(at.group)
		sp := newSharePart(g, at.topicPart)
		sp.snapshots, sp.stateEpoch, sp.created, sp.stored, sp.restored = snap.snapshotEpoch, snap.stateEpoch, snap.created, true, snap.leaderEpoch
		sp.state = restoreShare(snap.start, snap.batches, math.MaxInt64, g.settings.Load().limit)
		g.parts[at.topicPart] = sp
	}
	return nil
}

type topicPartOf struct {
	group string
	topicPart
}

func (x *shareShard) apply(rec *log.Record, last map[topicPartOf]shareSnapshot) error {
	key, err := parseShareKey(rec.Key)
	if err != nil {
		return err
	}
	switch key.version {
	case shareSnapshotKeyVersion:
		at := topicPartOf{key.group, key.at}
		if rec.Value == nil {
			delete(last, at)
			return nil
		}
		snap, err := parseShareSnapshot(rec.Value)
		if err != nil {
			return err
		}
		last[at] = snap
	case shareSettingsKeyVersion:
		if rec.Value == nil {
			if g := x.groups[key.group]; g != nil {
				g.settings.Store(defaultShareSettings)
			}
			return nil
		}
		set, err := parseShareSettings(rec.Value)
		if err != nil {
			return err
		}
		settings, err := newShareSettings(set)
		if err != nil {
			return fmt.Errorf("%w: %w", errOffsetRecord, err)
		}
		x.groupLocked(key.group).settings.Store(settings)
	}
	return nil
}

// over is closed when the group's memory is not to be used any more.
func (g *shareGroup) over() <-chan struct{} {
	if g == nil {
		return nil
	}
	return g.shard.tenure.done()
}

// find returns the share partition if there is one.
func (g *shareGroup) find(at topicPart) *sharePart {
	if g == nil {
		return nil
	}
	g.shard.mu.Lock()
	defer g.shard.mu.Unlock()
	return g.parts[at]
}

func (g *shareGroup) list() (list []*sharePart) {
	if g == nil {
		return nil
	}
	g.shard.mu.Lock()
	defer g.shard.mu.Unlock()
	for _, sp := range g.parts {
		list = append(list, sp)
	}
	return list
}

// check holds a state that was loaded against the log, once: offsets behind the end of
// the epoch that it was written in are not the records that it tells of. (KIP-320)
func (sp *sharePart) check(p *Partition) {
	sp.mu.Lock()
	epoch := sp.restored
	sp.mu.Unlock()
	if epoch == restoredNone {
		return
	}
	end := p.LogEnd()
	if p.engine.cluster != nil {
		// What was acknowledged in a replicated log stays, and what is here may lag behind it.
		epoch, end = -1, math.MaxInt64
	}
	if epoch >= 0 {
		if found, e := p.EpochEnd(epoch); found >= 0 && e >= 0 {
			end = min(end, e)
		}
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.restored == restoredNone {
		return
	}
	sp.restored = restoredNone
	if sp.state.end() > end {
		_, batches, _ := sp.state.snapshot()
		sp.state = restoreShare(sp.state.start, batches, end, math.MaxInt16)
		sp.dirty = true
	}
}

// refresh brings the state up to the present: what is below the log start offset is
// gone, locks run out. The caller has mu.
func (sp *sharePart) refreshLocked(p *Partition, now int64) {
	before := sp.state.start
	if sp.state.trim(p.LogStart()); sp.state.start != before {
		sp.wakeLocked() // the window may have room again
	}
	if sp.state.expire(now, sp.group.settings.Load().limit) {
		sp.dirty = true
		sp.wakeLocked()
	}
}

// wakeLocked makes those look again who wait for records of the share partition.
func (sp *sharePart) wakeLocked() {
	for w := range sp.waiting {
		w.Wake()
	}
}

// write makes durable what was settled with a ticket up to that one, together with
// everything else that is known by then. It waits for the disk whatever becomes of the caller.
func (s *Shares) write(ctx context.Context, sp *sharePart, ticket uint64) error {
	if err := take(ctx, sp.writing); err != nil {
		return err
	}
	defer func() { sp.writing <- struct{}{} }()
	sp.mu.Lock()
	if sp.dead {
		sp.mu.Unlock()
		return ErrUnknownGroup
	}
	if sp.durable >= ticket {
		sp.mu.Unlock()
		return nil
	}
	upto := sp.tickets
	start, batches, done := sp.state.snapshot()
	sp.dirty = false
	sp.mu.Unlock()
	if err := s.append(ctx, sp, start, batches, done); err != nil {
		sp.mu.Lock()
		sp.dirty = true
		sp.mu.Unlock()
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.stored, sp.durable = true, upto
	records := sp.group.settings.Load().records
	_, before := sp.state.next(records)
	sp.state.finish(upto)
	if at, after := sp.state.next(records); after && (!before || at < sp.state.end()) {
		sp.wakeLocked()
	}
	return nil
}

// append writes a snapshot. The caller has writing.
func (s *Shares) append(ctx context.Context, sp *sharePart, start int64, batches []shareBatch, done int64) error {
	epoch := int32(-1)
	if p, err := s.partition(sp.at); err == nil {
		epoch = p.LeaderEpoch()
	}
	now := s.engine.Now().UnixMilli()
	if sp.created == 0 {
		sp.created = now
	}
	snap := shareSnapshot{
		snapshotEpoch: sp.snapshots + 1, stateEpoch: sp.stateEpoch, leaderEpoch: epoch, start: start, created: sp.created, written: now,
		done: int32(min(done, math.MaxInt32)), batches: batches,
	}
	if snap.snapshotEpoch < 0 {
		snap.snapshotEpoch = 0
	}
	key := shareKey{shareSnapshotKeyVersion, sp.group.name, sp.at}
	rec := log.Record{Timestamp: now, Key: appendShareKey(nil, &key), Value: appendShareSnapshot(nil, &snap)}
	if err := sp.group.shard.append(ctx, []log.Record{rec}); err != nil {
		return fmt.Errorf("state of %s: %w", key.String(), err)
	}
	sp.snapshots = snap.snapshotEpoch
	return nil
}

func (x *shareShard) append(ctx context.Context, recs []log.Record) error {
	_, err := x.tenure.append(ctx, x.part, recs, partition.AppendOptions{Internal: true})
	return err
}

// releaseMember takes back what a member has that is gone: its session and its records.
func (s *Shares) releaseMember(group, member string) {
	s.Sessions.end(group, member)
	s.Release(group, member)
}

// Release takes back all records that a member has, for others to have. It is what the
// end of a share session does.
func (s *Shares) Release(group, member string) {
	ctx, cancel := context.WithTimeout(s.engine.life, leadPatience)
	defer cancel()
	// Where it is not heard, locks run out.
	_, _ = s.askRelease().of(ctx, s, group, &shareRelease{group, member})
}

func (s *Shares) release(group, member string) {
	shards := s.allShards()
	if shards == nil {
		return
	}
	shard := shards[offsetsPartitionOf(group, len(shards))]
	if !shard.loaded.Load() || shard.tenure.ended() != nil {
		return
	}
	shard.mu.Lock()
	g := shard.groups[group]
	shard.mu.Unlock()
	if g == nil {
		return
	}
	limit := g.settings.Load().limit
	for _, sp := range g.list() {
		sp.mu.Lock()
		if sp.state.release(member, limit) {
			sp.dirty = true
			sp.wakeLocked()
		}
		sp.mu.Unlock()
	}
}

// tick takes back what was locked for too long, writes what changed by itself, and
// forgets the state of topics that were deleted. It is called once a second.
func (s *Shares) tick(now time.Time) {
	view := s.engine.groups.view.Load()
	groups := s.loadedGroups()
	// What failed is tried again later: a damaged partition is not read every second.
	if since := now.Sub(s.cleaned); view.version != s.cleanedView && (view.version != s.triedView || since >= offsetsCleaningInterval || since < 0) {
		s.cleaned, s.triedView = now, view.version
		if all, err := s.loadAll(s.engine.life); err == nil {
			groups = all
			if s.clean(s.engine.life, groups, view) {
				s.cleanedView = view.version
			}
		}
	}
	s.flushAll(groups, now, false)
	for _, g := range groups {
		g.forget()
	}
}

// flushAll does so for all share partitions of the groups, side by side: what they
// wait for is then the same round of the disk.
func (s *Shares) flushAll(groups []*shareGroup, now time.Time, held bool) {
	var list []*sharePart
	for _, g := range groups {
		list = append(list, g.list()...)
	}
	var due []*sharePart
	for _, sp := range list {
		if s.due(sp, now, held) {
			due = append(due, sp)
		}
	}
	parallel(len(due), func(i int) { s.flush(due[i], held) })
}

// due brings a share partition up to the present, and says whether there is something
// that no acknowledgement has written: deliveries that came to nothing, and with held
// those that are under way, too.
func (s *Shares) due(sp *sharePart, now time.Time, held bool) bool {
	p, err := s.partition(sp.at)
	if err != nil {
		return false // its topic is being deleted, or cannot be read
	}
	sp.check(p)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.refreshLocked(p, s.clock(now))
	return sp.stored && !sp.dead && (sp.dirty || held && sp.state.held())
}

// flush writes a share partition that is due.
func (s *Shares) flush(sp *sharePart, held bool) {
	sp.mu.Lock()
	sp.tickets++
	ticket := sp.tickets
	sp.mu.Unlock()
	ctx := s.engine.life
	if held {
		ctx = context.Background()
	}
	if err := s.write(ctx, sp, ticket); err != nil && s.engine.life.Err() == nil {
		s.engine.Logger().Debug("the state of a share partition is not on disk yet", "group", sp.group.name, "error", err)
	}
}

// close writes what is known of deliveries. Topics are still open.
func (s *Shares) close() {
	s.flushAll(s.loadedGroups(), s.engine.Now(), true)
}

// clean forgets the states of partitions that there are not. It reports whether that is done.
func (s *Shares) clean(ctx context.Context, groups []*shareGroup, view *topicsView) (done bool) {
	done = true
	for _, g := range groups {
		var gone []*sharePart
		for _, sp := range g.list() {
			if _, ok := view.byID[sp.at.topic]; !ok {
				gone = append(gone, sp)
			}
		}
		if err := s.remove(ctx, g, gone); err != nil {
			done = false
			if s.engine.life.Err() == nil {
				s.engine.Logger().Warn("the state of a share group in a deleted topic is still there", "group", g.name, "error", err)
			}
		}
	}
	return done
}

// remove deletes the states of share partitions, durably.
func (s *Shares) remove(ctx context.Context, g *shareGroup, parts []*sharePart) error {
	for len(parts) > 0 {
		n := min(len(parts), tombstoneBatch)
		if err := s.removeSome(ctx, g, parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

func (s *Shares) removeSome(ctx context.Context, g *shareGroup, parts []*sharePart) error {
	// In one order, so that two who remove do not wait for each other.
	sortShareParts(parts)
	now := s.engine.Now().UnixMilli()
	var recs []log.Record
	for i, sp := range parts {
		if err := take(ctx, sp.writing); err != nil {
			for _, before := range parts[:i] {
				before.writing <- struct{}{}
			}
			return err
		}
		key := shareKey{shareSnapshotKeyVersion, g.name, sp.at}
		recs = append(recs, log.Record{Timestamp: now, Key: appendShareKey(nil, &key)})
	}
	err := g.shard.append(ctx, recs)
	g.shard.mu.Lock()
	for _, sp := range parts {
		if err == nil {
			sp.mu.Lock()
			sp.dead = true
			sp.wakeLocked()
			sp.mu.Unlock()
			if g.parts[sp.at] == sp {
				delete(g.parts, sp.at)
			}
		}
		sp.writing <- struct{}{}
	}
	g.shard.mu.Unlock()
	g.forget()
	return err
}
