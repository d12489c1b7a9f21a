package raftrepl

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// gate stands between a group's transport and the instances of the library that use it
// one after the other. It carries nothing of a failed instance, no votes of a doubtful
// replica and nothing to followers from a leader whose disk hangs, bounds what a message
// may commit, and notes what followers have answered.
type gate struct {
	g     *Group
	trans raft.Transport

	mu    sync.Mutex
	peers map[raft.ServerID]*progress
	asked map[raft.ServerID]string // how the last request for a vote ended
	// hearing has a channel for each follower that is waited for; see retried.
	hearing map[raft.ServerID]chan struct{}
	reached map[int32]time.Time // when there was a connection with a node
}

// progress is what the leader has heard of a follower.
type progress struct {
	match   uint64 // the last entry that it has said to have
	contact time.Time
	// When the library sent the newest message that it has answered, and in which term.
	asked time.Time
	term  uint64
}

func newGate(g *Group, t raft.Transport) *gate {
	return &gate{g: g, trans: t, peers: make(map[raft.ServerID]*progress), asked: make(map[raft.ServerID]string),
		hearing: make(map[raft.ServerID]chan struct{}), reached: make(map[int32]time.Time)}
}

var (
	errCutOff   = errors.New("this replica has failed")
	errDoubtful = errors.New("this replica may have lost records, and has no vote before it is up to date")
	errYields   = errors.New("this node is to lead nothing now")
	errHung     = errors.New("this replica's disk hangs")
	errNotUp    = errors.New("the replica does not take part now")
	errBusy     = errors.New("too many requests wait for the group")
)

// pump gives what comes in to the instance that runs.
func (l *gate) pump() {
	in := l.trans.Consumer()
	for {
		select {
		case <-l.g.stopping:
			return
		case rpc := <-in:
			wait := l.take(rpc)
			if wait == nil {
				rpc.Respond(nil, errBusy)
				continue
			}
			l.g.work.Go(func() { rpc.Respond(wait()) })
		}
	}
}

// answering waits for the answer to a request.
type answering func() (response any, err error)

func at(response any, err error) answering {
	return func() (any, error) { return response, err }
}

// direct is a transport that gives requests to who takes them in the order of their arrival, without
// another goroutine between, and calls what it gets in return once, in a goroutine. Nil is that too many
// wait. Requests with a Reader go to the Consumer.
type direct interface {
	takenBy(take func(raft.RPC) answering)
}

// take gives a request to the instance that runs. It does not wait.
func (l *gate) take(rpc raft.RPC) answering {
	inst := l.g.instance()
	if inst == nil {
		return at(nil, errNotUp)
	}
	var has uint64 // what an answer says that is on this disk
	switch m := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		l.g.doubt.heard(m)
		if inst.hangs() && inst.raft.State() != raft.Leader {
			return at(nil, errHung) // answers would keep a leader that has nobody to store what it sends
		}
		if !onlyHeartbeat(m) {
			has = m.PrevLogEntry + uint64(len(m.Entries))
		}
		if err := inst.parted(m); err != nil {
			inst.fail(err)
			return at(nil, errCutOff)
		}
		own := inst.received(m)
		rpc.Command = own
		if st, _ := inst.store.p.Group(); seed.Is(seed.WatermarkFollows) && !onlyHeartbeat(m) && own.LeaderCommitIndex < st.Index {
			inst.store.p.Commit(own.LeaderCommitIndex)
		}
	case *raft.RequestVoteRequest:
		if l.g.doubt.is() {
			return at(&raft.RequestVoteResponse{RPCHeader: l.header(), Term: inst.raft.CurrentTerm()}, nil)
		}
		m = inst.released(m)
		rpc.Command = m
		if inst.newer(m.ID, m.LastLogIndex, m.LastLogTerm) {
			own := *m
			own.ID = nil // which the library takes for a member's
			rpc.Command = &own
		}
	case *raft.RequestPreVoteRequest:
		if l.g.doubt.is() || l.g.starvedBy(m.LastLogIndex) {
			return at(&raft.RequestPreVoteResponse{RPCHeader: l.header(), Term: inst.raft.CurrentTerm()}, nil)
		}
		if inst.newer(m.ID, m.LastLogIndex, m.LastLogTerm) {
			if inst.leader() == "" && m.Term >= inst.raft.CurrentTerm() {
				return at(&raft.RequestPreVoteResponse{RPCHeader: l.header(), Term: m.Term, Granted: true}, nil)
			}
		}
		if granted, decided := inst.answers(m); decided {
			resp := &raft.RequestPreVoteResponse{RPCHeader: l.header(), Term: inst.raft.CurrentTerm(), Granted: granted}
			if granted {
				resp.Term = m.Term
			}
			return at(resp, nil)
		}
	case *raft.TimeoutNowRequest:
		if l.g.doubt.is() {
			return at(nil, errDoubtful)
		}
		if l.g.yields.Load() {
			return at(nil, errYields)
		}
	case *raft.InstallSnapshotRequest:
		return func() (any, error) {
			if err := inst.store.sync.settle(); err != nil { // the answer may be that it is all here
				return nil, err
			}
			return l.g.Install(m, rpc.Reader)
		}
	}
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	select {
	case inst.rpc <- rpc:
	default:
		return nil
	}
	return func() (any, error) {
		select {
		case a := <-answers:
			return inst.vouch(a, has)
		case <-inst.done:
			return nil, errCutOff
		}
	}
}

// vouch waits until an answer of the library is true: see syncer.
func (i *instance) vouch(a raft.RPCResponse, has uint64) (any, error) {
	if r, ok := a.Response.(*raft.AppendEntriesResponse); ok && a.Error == nil && r.Success && has > 0 && !seed.Is(seed.FollowerUnsynced) {
		if err := i.store.sync.wait(has); err != nil {
			return nil, err
		}
		if i.raft.CurrentTerm() != r.Term {
			return nil, errTakenBack
		}
	}
	if i.cutOff.Load() {
		return nil, errCutOff
	}
	return a.Response, a.Error
}

// received is a leader's message as the library is to see it.
func (i *instance) received(m *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	if onlyHeartbeat(m) {
		return m
	}
	own := *m // the sender may be in this process
	// The library takes what is committed for what our log has there, also behind what the
	// message has compared.
	own.LeaderCommitIndex = min(m.LeaderCommitIndex, m.PrevLogEntry+uint64(len(m.Entries)))
	own.Entries = make([]*raft.Log, 0, len(m.Entries))
	st, _ := i.store.p.Group()
	for _, e := range m.Entries {
		if e.Index > st.Index {
			own.Entries = append(own.Entries, &raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: e.Data}) // without tickets: they are of one node
		}
	}
	if m.PrevLogEntry < st.Index {
		// It begins below what is committed here, where entries may be gone or compacted and
		// could not be compared. What is committed is the same everywhere.
		own.PrevLogEntry, own.PrevLogTerm = st.Index, st.Epoch
	}
	return &own
}

// parted says that the group has gone on without what is committed here, which only an operator's decision allows: see
// engine.RecoverReplica. What received passes over would never be compared, and this replica would acknowledge
// entries that it does not have. Such a log is damaged, and fetched again. Where the last entry that is in both is the same, all before
// it are.
func (i *instance) parted(m *raft.AppendEntriesRequest) error {
	st, _ := i.store.p.Group()
	if onlyHeartbeat(m) || m.PrevLogEntry >= st.Index || m.Term < i.raft.CurrentTerm() {
		return nil // nothing is passed over, or the library refuses it
	}
	index, term := m.PrevLogEntry, m.PrevLogTerm
	for _, e := range m.Entries {
		if e.Index <= st.Index {
			index, term = e.Index, e.Term
		}
	}
	own := st.Epoch
	if index < st.Index {
		l := i.store.p.Log()
		if index < l.FirstCompleteIndex() {
			return nil // deleted or compacted: it was committed long ago
		}
		var err error
		if own, err = l.EpochOf(index); err != nil {
			return nil // who needs it finds out
		}
	}
	if own == term {
		return nil
	}
	return fmt.Errorf("entry %d of epoch %d is committed here, and the group has gone on without it: it has one of epoch %d: %w", index, own, term, log.ErrCorrupt)
}

// newer says whether a candidate is no voter here because this log is too old to know of it. The
// library refuses those, and a group could be without a leader although a majority of its members runs:
// one that is behind, and one that came since. (Ongaro's dissertation, 4.1: votes are given to who is
// not in the voter's configuration.) One that was removed has an older log, and is refused.
func (i *instance) newer(candidate []byte, index, term uint64) bool {
	for _, s := range i.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) == string(candidate) {
			return false
		}
	}
	own := i.raft.Stats() // the last entry as the main loop has it, without a look at the disk
	lastTerm, err1 := strconv.ParseUint(own["last_log_term"], 10, 64)
	lastIndex, err2 := strconv.ParseUint(own["last_log_index"], 10, 64)
	return err1 == nil && err2 == nil && (term > lastTerm || term == lastTerm && index > lastIndex)
}

func (l *gate) header() raft.RPCHeader {
	id := l.g.self
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
}

// transport is what one instance has.
func (l *gate) transport(inst *instance) *instanceTransport { return &instanceTransport{l, inst} }

// instanceTransport is the gate as one instance of the library sees it.
type instanceTransport struct {
	*gate
	inst *instance
}

var (
	_ raft.Transport   = (*instanceTransport)(nil)
	_ raft.WithPreVote = (*instanceTransport)(nil)
)

// Consumer implements raft.Transport.
func (t *instanceTransport) Consumer() <-chan raft.RPC { return t.inst.rpc }

// LocalAddr implements raft.Transport: addresses are node ids, and looked up when dialling.
func (t *instanceTransport) LocalAddr() raft.ServerAddress {
	return raft.ServerAddress(t.g.self)
}

// EncodePeer implements raft.Transport.
func (t *instanceTransport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte {
	return []byte(a)
}

// DecodePeer implements raft.Transport.
func (t *instanceTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport. The handler is not used: it would run
// beside the main loop, and can make a leader write an entry under a term that it never
// led (github.com/hashicorp/raft/issues/695).
func (t *instanceTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries implements raft.Transport.
func (t *instanceTransport) AppendEntries(id raft.ServerID, to raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !onlyHeartbeat(m) {
		if err := t.inst.store.fill(m, t.inst.raft.LastIndex()); err != nil {
			return err
		}
		m.LeaderCommitIndex = min(m.LeaderCommitIndex, m.PrevLogEntry+uint64(len(m.Entries)))
	} else if err := t.untilDue(id, m.Term); err != nil {
		return err
	}
	if !onlyHeartbeat(m) {
		return t.retried(id, m, func() error { return t.deliver(id, to, m, resp) })
	}
	return t.deliver(id, to, m, resp)
}

// deliver sends a message of the library's once.
func (t *instanceTransport) deliver(id raft.ServerID, to raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	began := time.Now()
	err := t.send(id, m, resp, func() error {
		if b, ok := t.trans.(beater); ok && onlyHeartbeat(m) {
			return b.Beat(id, to, m, resp)
		}
		return t.trans.AppendEntries(id, to, m, resp)
	})
	if err == nil {
		t.answered(id, m.Term, began)
	}
	return err
}

// ask sends a message that is not the library's. It waits for nothing, and the library, which does not
// know that it was answered, sends its own as if there were none.
func (t *instanceTransport) ask(id raft.ServerID, to raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.send(id, m, resp, func() error { return t.trans.AppendEntries(id, to, m, resp) })
}

// send has f carry a message, unless the instance must not say anything.
func (t *instanceTransport) send(id raft.ServerID, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, f func() error) error {
	if err := t.maySend(); err != nil {
		return err
	}
	return t.took(id, m, resp, f())
}

// maySend says why nothing goes to followers now, if that is so.
func (t *instanceTransport) maySend() error {
	if t.inst.hangs() {
		return errHung // each of them would keep the followers from electing another
	}
	if t.inst.cutOff.Load() {
		return errCutOff
	}
	return nil
}

// took takes in how a message to a follower ended, before the library does.
func (t *instanceTransport) took(id raft.ServerID, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) error {
	if err != nil {
		var other *RemoteError
		if errors.As(err, &other) && other.Replica != "" {
			t.g.renewed(t.inst, id, other.Replica)
		}
		return err
	}
	if n := len(m.Entries); n > 0 && resp.Success && !seed.Is(seed.LeaderUnsynced) {
		// The library counts this node among those that have the entries: see syncer.
		if err := t.inst.store.sync.wait(m.Entries[n-1].Index); err != nil {
			return err
		}
	}
	if t.inst.cutOff.Load() {
		return errCutOff
	}
	t.heard(id, m, resp)
	return nil
}

// beater is a transport that lets heartbeats wait for those of other groups.
type beater interface {
	Beat(id raft.ServerID, to raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error
}

// beatEvery is for how long after an answer a follower is sent no heartbeat. The library would send ten
// while a follower waits for one; three do.
func (t *Timing) beatEvery() time.Duration { return t.Heartbeat * 3 / 10 }

// untilDue returns when a follower needs a heartbeat: while entries flow it needs none. All groups wake
// at the same ticks, so that their heartbeats travel together.
func (t *instanceTransport) untilDue(id raft.ServerID, term uint64) error {
	every := t.g.cfg.Timing.beatEvery()
	for {
		wait := t.quiet(id, term, every)
		if wait <= 0 {
			return nil
		}
		tick := every / 16
		now := time.Duration(time.Now().UnixNano())
		timer := time.NewTimer((now + wait).Truncate(tick) + tick - now)
		select {
		case <-timer.C:
		case <-t.inst.done:
			timer.Stop()
			return errCutOff
		}
	}
}

// quiet is for how long a follower needs no heartbeat: it has answered what the library sent in this
// term, and the library knows.
func (l *gate) quiet(id raft.ServerID, term uint64, every time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.peers[id]; p != nil && p.term == term {
		return every - time.Since(p.asked)
	}
	return 0
}

// onlyHeartbeat says whether the message is one of those that only say that there is a leader.
func onlyHeartbeat(m *raft.AppendEntriesRequest) bool {
	return m.PrevLogEntry == 0 && len(m.Entries) == 0 && m.LeaderCommitIndex == 0
}

// heard notes a follower's answer.
func (l *gate) heard(id raft.ServerID, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if resp.Term > m.Term {
		// It is there. That this leader's term is over the library learns from the answer to entries only,
		// so who waits to send some does.
		l.reached[memberNode(id)] = time.Now()
		l.heardLocked(id)
		return
	}
	p := l.peers[id]
	if p == nil {
		p = &progress{}
		l.peers[id] = p
	}
	p.contact = time.Now()
	l.heardLocked(id)
	if resp.Success && !onlyHeartbeat(m) {
		p.match = max(p.match, m.PrevLogEntry+uint64(len(m.Entries)))
	} else if !resp.Success {
		p.match = min(p.match, resp.LastLog)
	}
}

// answered notes when the library sent what a follower has answered.
func (l *gate) answered(id raft.ServerID, term uint64, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.peers[id]; p != nil && (term > p.term || term == p.term && sent.After(p.asked)) {
		p.term, p.asked = term, sent
	}
}

// progress is what was heard of a follower.
func (l *gate) progress(id raft.ServerID) (p progress, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.peers[id]; known != nil {
		return *known, true
	}
	return p, false
}

// RequestVote implements raft.Transport.
func (t *instanceTransport) RequestVote(id raft.ServerID, to raft.ServerAddress, m *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.mayAsk(); err != nil {
		return err
	}
	err := t.trans.RequestVote(id, to, m, resp)
	t.voted(id, resp.Granted, err)
	return err
}

// RequestPreVote implements raft.WithPreVote.
func (t *instanceTransport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, m *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.mayAsk(); err != nil {
		return err
	}
	pre, ok := t.trans.(raft.WithPreVote)
	if !ok {
		return errors.New("the transport carries no pre-votes")
	}
	err := pre.RequestPreVote(id, to, m, resp)
	t.voted(id, resp.Granted, err)
	return err
}

// voted notes how a request for a vote ended, for Status.
func (l *gate) voted(id raft.ServerID, granted bool, err error) {
	how := "grants no vote"
	switch {
	case err != nil:
		how = troubleText(err)
	case granted:
		how = "grants its vote"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[id] = how
}

// begin forgets what followers said to an earlier leader.
func (l *gate) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.peers)
	clear(l.asked)
}

func (t *instanceTransport) mayAsk() error {
	switch {
	case t.inst.cutOff.Load():
		return errCutOff
	case t.g.doubt.is():
		return errDoubtful
	}
	return nil
}

// InstallSnapshot implements raft.Transport. It may take minutes: an instance that ends does
// not wait for it, and two that send to each other would wait for ever.
func (t *instanceTransport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, m *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	var answer raft.InstallSnapshotResponse
	done := make(chan error, 1)
	g := t.g
	g.mu.Lock()
	if t.inst.cutOff.Load() || g.stopped {
		g.mu.Unlock()
		return errCutOff
	}
	began := time.Now()
	g.work.Go(func() { done <- t.trans.InstallSnapshot(id, to, m, &answer, data) })
	g.mu.Unlock()
	select {
	case err := <-done:
		*resp = answer
		return t.installed(id, m, began, data, err)
	case <-t.inst.done:
		return errCutOff // the library closes data, which ends the call
	}
}

// TimeoutNow implements raft.Transport.
func (t *instanceTransport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, m *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if t.inst.cutOff.Load() {
		return errCutOff
	}
	return t.trans.TimeoutNow(id, to, m, resp)
}
