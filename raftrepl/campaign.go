package raftrepl

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A follower of the library looks for its leader when a timer of one to two timeouts has run out, and
// again after another one; who gets no votes asks again after one to two more. So three timeouts may pass
// before anybody asks, and two that ask at the same time lose two. Here a replica asks when one and a half
// have passed, or at once when its leader's process is known to have ended:
//
//	leader silent, or gone ── in the voters' order ── pre-votes ── of a majority ──> the library: votes
//	                                                     └─ refused: again soon
//
// It is the library that asks for votes then, as one does whom a leader has told to (TimeoutNow), and that
// counts them; its own timers stay as they are, for what is not foreseen here. A round of pre-votes changes
// nothing, and who hears its leader refuses (Raft thesis 9.6), so that a leader that one replica alone misses
// stays.
//
// Of two that ask at the same time the one with the longer log goes on, of equals the first one of the voters.

// campaign is a group's. All of it is of the replica that looks for votes, not of an instance.
type campaign struct {
	mu      sync.Mutex
	timer   *time.Timer // nil before the group runs
	stopped bool
	running bool      // a round is under way
	since   time.Time // when it began
	yielded bool      // to a better candidate, meanwhile
	missing time.Time // since when the leader is known to be gone, or the library is a candidate; zero is not
	after   time.Time // no round begins before
	failed  int       // rounds without success since a leader was heard
	hurried bool      // another one asks who cannot be elected: nobody is waited for
}

// patience is for how long a leader may be silent: half as long again as its lease, so that one that is cut
// off has ceased to lead before, and a machine that stands still for a second changes nothing.
func (t *Timing) patience() time.Duration { return t.Heartbeat * 3 / 2 }

// stagger is by how much a voter lets the one before it in the voters' order go first: a round takes less,
// where nothing stands still.
func (t *Timing) stagger() time.Duration { return t.Heartbeat / 10 }

// lookOut begins to look for a leader.
func (c *campaign) lookOut(g *Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil && !c.stopped {
		c.timer = time.AfterFunc(g.cfg.Timing.Heartbeat, g.look)
	}
}

func (c *campaign) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// lookAgain has the timer go off at once.
func (c *campaign) lookAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil && !c.stopped {
		c.timer.Reset(0)
	}
}

// nodeGone is told that a node's process has ended.
func (g *Group) nodeGone(node int32) {
	if inst := g.instance(); inst != nil {
		if memberNode(inst.leader()) == node {
			g.campaign.lookAgain()
		}
	}
}

// look is what the timer does: it begins a round that is due, or looks again when one may be.
func (g *Group) look() {
	inst := g.instance()
	c := &g.campaign
	wait := g.cfg.Timing.Heartbeat
	if inst != nil {
		wait = inst.dueIn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if wait <= 0 && !c.running && inst.goCall(func() {
		inst.round()
		c.mu.Lock()
		c.running = false
		c.mu.Unlock()
		c.lookAgain()
	}) {
		c.running, c.since, c.yielded = true, time.Now(), false
	}
	if wait <= 0 || wait > g.cfg.Timing.Heartbeat {
		wait = g.cfg.Timing.Heartbeat // the end of a round comes sooner
	}
	c.timer.Reset(wait)
}

// dueIn is when the replica should look for votes: a time of 0 or less is now.
func (i *instance) dueIn() time.Duration {
	t, c, now := &i.g.cfg.Timing, &i.g.campaign, time.Now()
	state := i.raft.State()
	rank, votes := i.rank()
	if state != raft.Follower && state != raft.Candidate || !votes || i.g.doubt.is() {
		return t.Heartbeat
	}
	contact := i.raft.LastContact()
	if contact.Before(i.began) {
		contact = i.began
	}
	gone := i.leaderGone()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !gone && state != raft.Candidate:
		c.missing = time.Time{}
	case c.missing.IsZero():
		c.missing = now
	}
	due := contact.Add(t.patience())
	switch {
	case state == raft.Candidate: // votes are under way, or were lost
		due = c.missing.Add(t.Election / 2)
	case gone:
		due = c.missing
	case now.Before(due):
		c.failed = 0
	}
	due = due.Add(time.Duration(rank) * t.stagger())
	if c.hurried {
		c.hurried, due = false, now
	}
	if c.after.After(due) {
		due = c.after
	}
	return due.Sub(now)
}

// rank is the place of this replica among the voters that may be there, and whether it is one.
func (i *instance) rank() (rank int, votes bool) {
	leader := i.leader()
	for _, s := range i.raft.GetConfiguration().Configuration().Servers {
		switch {
		case s.Suffrage != raft.Voter:
		case s.ID == i.g.self:
			return rank, true
		case s.ID != leader && !i.g.gone(s.ID):
			rank++
		}
	}
	return rank, false
}

// gone says whether the process of another replica's node is known to have ended.
func (g *Group) gone(id raft.ServerID) bool { return g.cfg.Gone != nil && g.cfg.Gone(memberNode(id)) }

// leaderGone says whether the leader's process is known to have ended.
func (i *instance) leaderGone() bool {
	id := i.leader()
	return id != "" && id != i.g.self && i.g.gone(id)
}

// ballot is how a round went.
type ballot struct {
	voters, yes int
	other       raft.Server // one of the voters that is not this replica
	ahead       uint64      // the newest term of those who refused
	ended       bool        // the instance has
}

func (b *ballot) majority() bool { return b.yes >= b.voters/2+1 }

// round asks the other voters whether they would vote for this replica, and has the library ask for votes
// when a majority would.
func (i *instance) round() {
	t, c := &i.g.cfg.Timing, &i.g.campaign
	term := i.raft.CurrentTerm()
	b := i.poll(term + 1)
	if b.ended || i.raft.CurrentTerm() != term || i.raft.State() == raft.Leader {
		return // it has been overtaken
	}
	candidate := i.raft.State() == raft.Candidate
	rank, _ := i.rank()
	wanted := i.leader() == "" || i.missed()
	c.mu.Lock()
	won := wanted && b.majority() && !c.yielded
	learn := !won && b.ahead > term
	switch {
	case won: // whatever it leads to takes a while
		c.after = time.Now().Add(t.Election + time.Duration(rank)*t.stagger() + rand.N(t.stagger()/2))
	case learn:
		c.after = time.Now().Add(rand.N(t.stagger() / 2))
	default:
		pause := min(t.stagger()/2<<min(c.failed, 6), t.Heartbeat)
		c.after = time.Now().Add(pause/2 + rand.N(pause))
		c.failed++
	}
	c.mu.Unlock()
	switch {
	case learn:
		i.follow(b.other, b.ahead)
	case won:
		if candidate {
			i.follow(b.other, term+1) // it would wait for one to two timeouts for the votes that it has not got
		}
		i.inject(&raft.TimeoutNowRequest{RPCHeader: i.g.gate.header()})
	}
}

// poll asks for pre-votes, and returns when a majority grants them or all have answered.
func (i *instance) poll(term uint64) (b ballot) {
	type answer struct {
		term    uint64
		granted bool
	}
	index, last := i.store.p.LastEntry()
	trans := i.g.gate.transport(i)
	answers := make(chan answer, maxMembers)
	asked := 0
	for _, s := range i.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		b.voters++
		if s.ID == i.g.self {
			b.yes++
			continue
		}
		b.other = s
		m := &raft.RequestPreVoteRequest{RPCHeader: i.g.gate.header(), Term: term, LastLogIndex: index, LastLogTerm: last}
		if i.goCall(func() {
			var resp raft.RequestPreVoteResponse
			err := trans.RequestPreVote(s.ID, s.Address, m, &resp)
			answers <- answer{resp.Term, err == nil && resp.Granted}
		}) {
			asked++
		}
	}
	late := time.NewTimer(max(i.g.cfg.Timing.Election, 500*time.Millisecond))
	defer late.Stop()
	for ; asked > 0 && !b.majority(); asked-- {
		select {
		case a := <-answers:
			if a.granted {
				b.yes++
			} else {
				b.ahead = max(b.ahead, a.term)
			}
		case <-late.C:
			return b
		case <-i.done:
			b.ended = true
			return b
		}
	}
	return b
}

// inject gives the library a message that could have come from a peer.
func (i *instance) inject(m any) {
	select {
	case i.rpc <- raft.RPC{Command: m, RespChan: make(chan raft.RPCResponse, 1)}:
	case <-i.done:
	}
}

// follow has the library be a follower in a term that is above its own, as if a voter with an empty log had
// asked for its vote: the log is what such a one is refused for.
func (i *instance) follow(as raft.Server, term uint64) {
	if as.ID == "" || term <= i.raft.CurrentTerm() {
		return
	}
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(as.ID), Addr: []byte(as.ID)}
	i.inject(&raft.RequestVoteRequest{RPCHeader: header, Term: term, LeadershipTransfer: true})
}

// answers says how a pre-vote is answered where the library's answer would not do: it refuses whom this
// replica's own timer has not found to be silent yet, and grants it to several at a time.
func (i *instance) answers(m *raft.RequestPreVoteRequest) (granted, decided bool) {
	silent := i.leader() == "" && i.raft.State() != raft.Leader || i.missed()
	if !silent || m.Term <= i.raft.CurrentTerm() || !i.votes(m.ID) {
		return false, m.Term <= i.raft.CurrentTerm()
	}
	c := &i.g.campaign
	index, term := i.store.p.LastEntry()
	switch {
	case m.LastLogTerm < term || m.LastLogTerm == term && m.LastLogIndex < index:
		c.hurry() // it will not be the other one
		return false, true
	case m.LastLogTerm == term && m.LastLogIndex == index && i.before(m.ID) && c.ahead(i.g.cfg.Timing.stagger()):
		return false, true
	}
	c.yield(time.Now().Add(i.g.cfg.Timing.Election / 2)) // votes take their time on a busy disk
	return true, true
}

// votes says whether a replica is a voter.
func (i *instance) votes(id []byte) bool {
	return slices.ContainsFunc(i.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
		return string(s.ID) == string(id) && s.Suffrage == raft.Voter
	})
}

// before says whether this replica comes before another one in the voters' order.
func (i *instance) before(id []byte) bool {
	for _, s := range i.raft.GetConfiguration().Configuration().Servers {
		if s.ID == i.g.self || string(s.ID) == string(id) {
			return s.ID == i.g.self
		}
	}
	return false
}

// hurry has a round begin as soon as it may.
func (c *campaign) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil && !c.stopped && !c.running && time.Now().After(c.after) {
		c.hurried = true
		c.timer.Reset(0)
	}
}

// ahead says whether a round of this replica's own has just begun. One that goes on for longer is not
// heard by all.
func (c *campaign) ahead(atMost time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running && !c.yielded && time.Since(c.since) < atMost
}

// yield lets another candidate go first.
func (c *campaign) yield(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.yielded = true
	if until.After(c.after) {
		c.after = until
	}
}
