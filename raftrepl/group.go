package raftrepl

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Timing is how fast a group notices that its leader is gone. A stalled disk delays
// heartbeats as a stalled network does, so the timeouts must exceed the worst stall.
type Timing struct {
	// Heartbeat is for how long a follower waits for its leader before it asks for votes.
	// Leaders send a heartbeat ten times as often.
	Heartbeat time.Duration
	// Election is for how long a candidate waits for votes.
	Election time.Duration
	// LeaderLease is for how long a leader goes on that hears of no majority.
	LeaderLease time.Duration
	// CommitTimeout is how often an idle leader sends what is committed.
	CommitTimeout time.Duration
}

// DefaultTiming moves leadership within about 3 s, FastTiming within 1 s.
var (
	DefaultTiming = Timing{Heartbeat: time.Second, Election: time.Second, LeaderLease: time.Second, CommitTimeout: 2 * time.Second}
	FastTiming    = Timing{Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, LeaderLease: 300 * time.Millisecond, CommitTimeout: time.Second}
)

// GroupConfig is what a Group is made of.
type GroupConfig struct {
	ID   engine.LogID
	Self int32
	// Initial are the members that a new log begins with; see engine.Cluster.Log.
	Initial []int32
	// Transport carries the group's messages. It may be used by several instances of the
	// library one after the other; Stop closes it. Its LocalAddr is Self in decimal.
	Transport raft.Transport
	Votes     *Votes
	Cache     *Cache
	Timing    Timing
	// Gone says whether a node's process is known to have ended, and does not wait. Nil never does.
	Gone   func(node int32) bool
	Logger *slog.Logger
}

// Group is one log as a member of its Raft group: an engine.ReplicatedLog. It runs one
// instance of the library after another; see logStore for why an instance ends.
//
// All methods may be called from several goroutines. Lock order: mu, then an instance's
// pmu, then what is below. The library is not called with a lock held, but for what
// reads its state.
type Group struct {
	cfg  GroupConfig
	name string
	self raft.ServerID // which replica of this node it is
	gate *gate

	mu       sync.Mutex
	p        *partition.Partition
	inst     *instance // nil while none runs
	running  bool
	stopping chan struct{} // closed by Stop
	stopped  bool
	reason   string // why no instance runs
	forGood  bool   // and none will
	looking  bool   // at a place where a reader saw damage
	damaged  error  // because of what is fetched again
	renewals renewals
	fresh    bool         // the group begins here, with this node as the first of its members
	pause    atomic.Int64 // nanoseconds; 0 after a commit
	handed   atomic.Int64 // when the leadership was last given away because of that
	full     atomic.Int64 // nothing of producers is proposed before that time, nanoseconds since 1970
	watchers map[int]func()
	nextID   int
	notices  bool // a goroutine calls the watchers
	again    bool
	work     sync.WaitGroup

	changes    chan struct{} // held by who changes the members; has room for one
	installing installing
	doubt      doubt
	notes      notes
	campaign   campaign

	yields atomic.Bool // see Yield

	starved     atomic.Uint64 // index of the first entry that found no room: see starvedBy
	starvedTill atomic.Int64  // Unix nanoseconds
	roomless    atomic.Int64  // there was no room for what a leader sends: Full until then, Unix nanoseconds

	pipelineFrom   int // pipelineBytes; tests lower it
	messageEntries int // maxEntries; tests lower it

	stall func(sync bool) // tests only: see staller
}

// staller is the file system of a simulation whose disk takes its time: it is called before a log
// is written, or synced by itself, without a lock held, because virtual time stands still while somebody waits
// for one.
type staller interface{ Stall() }

var (
	_ engine.ReplicatedLog = (*Group)(nil)
	_ partition.Commander  = (*Group)(nil)
	_ partition.Confirmer  = (*Group)(nil)
	_ engine.Yielder       = (*Group)(nil)
)

// NewGroup is a group that does not take part before Run.
func NewGroup(cfg GroupConfig) *Group {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Cache == nil {
		cfg.Cache = NewCache(0)
	}
	if cfg.Timing == (Timing{}) {
		cfg.Timing = DefaultTiming
	}
	g := &Group{cfg: cfg, watchers: make(map[int]func()), stopping: make(chan struct{}), changes: make(chan struct{}, 1), pipelineFrom: pipelineBytes, messageEntries: maxEntries, reason: "it does not take part yet"}
	g.name = "metadata"
	if !cfg.ID.IsMeta() {
		g.name = fmt.Sprintf("%s/%d", cfg.ID.Topic, cfg.ID.Partition)
	}
	known, _ := cfg.Votes.get(cfg.ID)
	g.self = replicaID(cfg.Self, known.life)
	g.cfg.Logger = cfg.Logger.With("group", g.name, "node", cfg.Self)
	g.gate = newGate(g, cfg.Transport)
	return g
}

// memberID is the name of a node's first replica in the library; see replicaID.
func memberID(node int32) raft.ServerID { return raft.ServerID(strconv.Itoa(int(node))) }

// memberNode is the node of a replica; -1 for what is none.
func memberNode(id raft.ServerID) int32 {
	node, _, _ := parseReplica(id)
	return node
}

// Run implements engine.ReplicatedLog. It returns when the log is a member of its group,
// or is waiting to be made one; it does not wait for a leader. It fails with ErrVotesLost,
// ErrVotesBehind or ErrGroupLost when this node cannot take part without endangering
// what others rely on.
func (g *Group) Run(p *partition.Partition) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running || g.stopped {
		return errors.New("group: it was run before")
	}
	if err := g.join(p); err != nil {
		g.endLocked(err)
		return fmt.Errorf("group %s: %w", g.name, err)
	}
	g.p, g.running = p, true
	if st, _ := p.Group(); st.Doubtful {
		if g.onlyVoter(st) {
			p.SetDoubtful(false) // nobody knows more
		} else {
			g.doubt.begin(g)
		}
	}
	if err := g.startLocked(); err != nil {
		g.running = false
		g.reason = err.Error()
		return fmt.Errorf("group %s: %w", g.name, err)
	}
	g.work.Go(g.gate.pump)
	g.campaign.lookOut(g)
	if d, ok := g.gate.trans.(direct); ok {
		d.takenBy(g.gate.take)
	}
	if g.fresh {
		inst := g.inst
		g.work.Go(func() { g.hasten(inst) })
	}
	return nil
}

// hastenAfter is when the first member of a new group asks for votes. The others may be
// making their logs still.
var hastenAfter = []time.Duration{10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond}

// hasten spares a new group the wait for a leader that it cannot have yet: nobody has ever
// led. The first of the initial members asks for votes as one does whom a leader has told to.
func (g *Group) hasten(inst *instance) {
	for _, after := range hastenAfter {
		t := time.NewTimer(after)
		select {
		case <-t.C:
		case <-inst.done:
			t.Stop()
			return
		}
		if inst.leader() != "" || inst.raft.State() == raft.Leader {
			return
		}
		if last, _ := inst.store.LastIndex(); last > 1 {
			return
		}
		select {
		case inst.rpc <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: g.gate.header()}, RespChan: make(chan raft.RPCResponse, 1)}:
		case <-inst.done:
			return
		}
	}
}

// join makes the log a member of its group where it is in none yet. Each step is durable
// before the next, and a crash between them has the next Run do it again.
func (g *Group) join(p *partition.Partition) error {
	if err := p.Err(); err != nil {
		return err
	}
	v := g.cfg.Votes
	known, _ := v.get(g.cfg.ID)
	_, member := p.Group()
	last, epoch := p.LastEntry()
	switch {
	case member && !known.known() && last > 0:
		return ErrVotesLost
	case !member && known.joined:
		return ErrGroupLost
	case known.empty && (member || last > 0):
		return ErrReplicaGone
	case known.life > 0 && !member && last > 0:
		return ErrGroupLost
	case known.term < epoch && member:
		return fmt.Errorf("term %d, the log has term %d: %w", known.term, epoch, ErrVotesBehind)
	}
	if known.empty {
		if err := v.change(g.cfg.ID, func(x *vote) { x.empty = false }); err != nil {
			return err
		}
	}
	if !member {
		term := max(known.term, epoch)
		if last > 0 || len(g.cfg.Initial) > 0 {
			term = max(term, 1) // the entry of a new log has it, and a term of 0 is what nobody has heard of
		}
		if err := v.change(g.cfg.ID, func(x *vote) { x.term = max(x.term, term) }); err != nil {
			return err
		}
		if err := g.begin(p, last); err != nil {
			return err
		}
	}
	if !known.joined {
		return v.change(g.cfg.ID, func(x *vote) { x.joined = true })
	}
	return nil
}

// begin makes the log say that it is in the group.
func (g *Group) begin(p *partition.Partition, last uint64) error {
	if g.self != memberID(g.cfg.Self) {
		return p.JoinGroup() // the group has begun long ago, with another replica of this node
	}
	first := firstMembers(g.cfg.Initial)
	if last > 0 && !g.bootstrapped(p, last, first) {
		return p.BeginGroup(firstMembers([]int32{g.cfg.Self}))
	}
	if last == 0 && len(g.cfg.Initial) > 0 {
		if err := p.Store([]partition.Entry{{Kind: log.KindConfiguration, Index: 1, Epoch: 1, Data: first}}); err != nil {
			return err
		}
		if err := p.Log().Flush(); err != nil {
			return err
		}
		g.fresh = g.cfg.Initial[0] == g.cfg.Self
	}
	return p.JoinGroup()
}

// onlyVoter says whether the group is this node alone.
func (g *Group) onlyVoter(st partition.GroupState) bool {
	c, err := decodeMembers(st.Members)
	voters := 0
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters++
			if s.ID != g.self {
				return false
			}
		}
	}
	return err == nil && voters == 1
}

// bootstrapped says whether all that the log holds is the entry that begin stored before
// a crash.
func (g *Group) bootstrapped(p *partition.Partition, last uint64, first []byte) bool {
	if last != 1 || len(g.cfg.Initial) == 0 {
		return false
	}
	f, err := p.Log().Entry(1)
	return err == nil && f.Kind == log.KindConfiguration && f.Epoch == 1 && string(f.Payload) == string(first)
}

// instance is one instance of the library.
type instance struct {
	g       *Group
	raft    *raft.Raft
	library atomic.Pointer[raft.Raft] // the same, for what the library calls before it is set
	store   *logStore
	rpc     chan raft.RPC
	began   time.Time
	// cutOff says that the instance has failed: it gets no message through, in or out,
	// and its log takes nothing, until it is gone.
	cutOff atomic.Bool
	done   chan struct{} // closed then
	why    error         // set before

	callsMu sync.Mutex
	closing bool
	calls   sync.WaitGroup // those who wait for a future

	pmu          sync.Mutex
	leading      uint64 // the term in which it leads; 0 is none
	transferring bool
	tickets      uint64
	proposals    map[uint64]*proposal // by ticket
	inflight     []*proposal          // admitted, in their order
	refused      []*proposal          // by the StoreLogs that runs
	readyAt      uint64               // index of the first entry of the term in which it leads
	ready        chan struct{}        // closed when that is committed
	isReady      bool
}

func (g *Group) raftConfig(inst *instance) *raft.Config {
	const never = 365 * 24 * time.Hour
	t := g.cfg.Timing
	return &raft.Config{
		ProtocolVersion: raft.ProtocolVersionMax, LocalID: g.self,
		HeartbeatTimeout: t.patience(), ElectionTimeout: max(t.Election, t.patience()), LeaderLeaseTimeout: t.LeaderLease, CommitTimeout: t.CommitTimeout,
		MaxAppendEntries: min(maxAppendEntries, g.messageEntries), BatchApplyCh: true,
		// The library's own snapshots are never made: the log is the snapshot.
		SnapshotInterval: never, SnapshotThreshold: 1 << 62, TrailingLogs: 1 << 62, NoSnapshotRestoreOnStart: true,
		NoLegacyTelemetry: true,
		Logger:            &raftLogger{to: g.cfg.Logger},
	}
}

// maxAppendEntries bounds the entries of a message as the library builds it: they may be large, and it
// holds them all. The gate adds to those that are short of bytes.
const maxAppendEntries = 64

// inSyncEntries is how many entries a member may be behind that counts as in sync.
const inSyncEntries = 64

// startLocked starts an instance on what the log says now. mu is held.
func (g *Group) startLocked() error {
	inst := &instance{
		g: g, rpc: make(chan raft.RPC, maxGroupRequests), done: make(chan struct{}), proposals: make(map[uint64]*proposal), began: time.Now(),
	}
	inst.store = newLogStore(inst, g.p, g.cfg.Cache)
	stable := &stableStore{v: g.cfg.Votes, id: g.cfg.ID, lost: inst.fail}
	r, err := raft.NewRaft(g.raftConfig(inst), &fsm{inst}, inst.store, stable, &snapshots{inst}, g.gate.transport(inst))
	if err != nil {
		return err
	}
	inst.raft = r
	inst.library.Store(r)
	if inst.cutOff.Load() {
		// It failed on the way, and whoever told so found no instance to end.
		g.work.Go(func() { inst.shut() })
		<-inst.done
		return inst.why
	}
	g.inst, g.reason = inst, ""
	r.RegisterObserver(raft.NewObserver(nil, false, inst.observe))
	g.noticeLocked()
	return nil
}

// instance is the one that runs; nil is none.
func (g *Group) instance() *instance {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inst
}

// observe is called by the library's main loop, at once, when something changes.
func (i *instance) observe(o *raft.Observation) bool {
	switch d := o.Data.(type) {
	case raft.RaftState:
		switch d {
		case raft.Leader:
			i.g.gate.begin()
		case raft.Candidate:
			i.g.campaign.lookAgain()
		}
		i.moved(d)
		i.g.notice()
	case raft.LeaderObservation:
		i.g.notice()
	}
	return false
}

// moved follows the state of the library.
func (i *instance) moved(s raft.RaftState) {
	err := error(nil)
	if s != raft.Leader {
		err = i.g.notLeaderAs(i)
	}
	i.pmu.Lock()
	defer i.pmu.Unlock()
	if s != raft.Leader {
		if i.leading != 0 {
			i.leading, i.readyAt, i.isReady = 0, 0, false
			if i.ready != nil {
				close(i.ready)
				i.ready = nil
			}
		}
		i.dropProposals(err)
		return
	}
	if term := i.raft.CurrentTerm(); i.leading != term && !i.cutOff.Load() {
		i.leading, i.isReady, i.ready = term, false, make(chan struct{})
	}
}

// ledFrom notes where the term in which this node leads begins in the log.
func (i *instance) ledFrom(term, index uint64) {
	i.pmu.Lock()
	defer i.pmu.Unlock()
	if i.leading == 0 && !i.cutOff.Load() {
		// It led before there was an observer.
		i.leading, i.isReady, i.ready = term, false, make(chan struct{})
	}
	i.readyAt = index
}

// fail ends the instance because of err: at once for all others, by and by for itself.
// It may be called by the library's own goroutines.
func (i *instance) fail(err error) {
	if i.cut(err) {
		i.g.work.Go(func() { i.g.ended(i, err) }) // who starts an instance holds mu
	}
}

// ended is the rest of fail.
func (g *Group) ended(i *instance, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inst != i {
		return // Stop, or a start that looks at cutOff itself
	}
	g.inst = nil
	g.endLocked(err)
	if g.forGood {
		g.cfg.Logger.Error("the replica does not take part any more", "error", err)
	} else {
		g.cfg.Logger.Warn("the replica pauses", "error", err)
	}
	g.noticeLocked()
	if g.stopped {
		return
	}
	g.work.Go(func() {
		i.shut()
		g.resume()
	})
}

// endLocked notes why no instance runs, and whether one will. mu is held.
func (g *Group) endLocked(err error) {
	g.reason = err.Error()
	if g.p != nil && g.p.Err() != nil && !permanent(err) {
		err = g.p.Err() // damage that the open has found
	}
	g.forGood = permanent(err) || !g.running
	if errors.Is(err, log.ErrCorrupt) || errors.Is(err, engine.ErrReplicaLost) {
		g.damaged = err
	}
}

// permanent says whether a failure stays when it is tried again.
func permanent(err error) bool {
	return errors.Is(err, log.ErrStorageFailed) || errors.Is(err, log.ErrCorrupt) || errors.Is(err, log.ErrClosed)
}

const (
	firstRestart = 100 * time.Millisecond
	longRestart  = 10 * time.Second
)

// resume starts an instance again after a pause, which grows while they fail.
func (g *Group) resume() {
	for {
		g.mu.Lock()
		if g.stopped || g.forGood || g.inst != nil {
			g.mu.Unlock()
			return
		}
		pause := min(max(2*time.Duration(g.pause.Load()), firstRestart), longRestart)
		g.pause.Store(int64(pause))
		g.mu.Unlock()
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-g.stopping:
			t.Stop()
			return
		}
		g.mu.Lock()
		if !g.stopped && g.inst == nil {
			if err := g.startLocked(); err != nil {
				g.endLocked(err)
			}
		}
		g.mu.Unlock()
	}
}

// cut cuts the instance off, and says whether it was not before.
func (i *instance) cut(why error) bool {
	if i.cutOff.Swap(true) {
		return false
	}
	i.why = why
	close(i.done)
	err := i.g.notLeaderAs(nil)
	i.pmu.Lock()
	defer i.pmu.Unlock()
	i.leading, i.readyAt, i.isReady = 0, 0, false
	if i.ready != nil {
		close(i.ready)
		i.ready = nil
	}
	i.dropProposals(err)
	return true
}

// shut has the library's goroutines end.
func (i *instance) shut() {
	i.callsMu.Lock()
	i.closing = true
	i.callsMu.Unlock()
	// A future of a shut down library may never answer. While its main loop runs, all do.
	i.calls.Wait()
	i.raft.Shutdown().Error()
	i.store.sync.end()
}

// Yield implements engine.Yielder.
func (g *Group) Yield() { g.yields.Store(true) }

// Stop implements engine.ReplicatedLog.
func (g *Group) Stop() {
	g.mu.Lock()
	inst := g.inst
	if !g.stopped {
		g.stopped = true
		close(g.stopping)
	}
	g.inst = nil
	if !g.forGood {
		g.reason = "it was stopped"
	}
	g.mu.Unlock()
	g.notes.stop()
	g.campaign.stop()
	if c, ok := g.cfg.Transport.(raft.WithClose); ok {
		c.Close() // or the library's goroutines would wait for answers
	}
	if inst != nil {
		inst.cut(log.ErrClosed)
		inst.shut()
	}
	g.work.Wait()
}

// hangs says whether the log's disk has been at one write for so long that another node
// should lead.
func (i *instance) hangs() bool { return i.store.hung() > i.g.cfg.Timing.Election }

// StoreHung is for how long the write to the log's disk has lasted that is under way; 0
// when none is. A leader whose disk hangs must not keep its followers from electing another.
func (g *Group) StoreHung() time.Duration {
	if inst := g.instance(); inst != nil {
		return inst.store.hung()
	}
	return 0
}
