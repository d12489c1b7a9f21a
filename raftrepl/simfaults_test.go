package raftrepl

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// simFault is one way to break something. do is told the node that was chosen, and says whether
// anything came of it.
type simFault struct {
	name   string
	weight int
	do     func(s *sim, n *simNode) bool
}

var simFaults = []simFault{
	{"kill", 3, func(s *sim, n *simNode) bool { return s.crash(n, false) }},
	{"power cut", 4, func(s *sim, n *simNode) bool { return s.crash(n, true) }},
	{"crash at an operation", 5, (*sim).crashLater},
	{"crash and start at once", 3, (*sim).blink},
	{"stop", 1, (*sim).stopOne},
	{"restart", 8, func(s *sim, _ *simNode) bool { s.restart(); return true }},
	{"power cut for all", 1, (*sim).crashAll},
	{"isolated", 3, (*sim).isolate},
	{"partition", 3, (*sim).split},
	{"one-way cut", 4, (*sim).oneWay},
	{"heal", 6, func(s *sim, _ *simNode) bool { s.net.HealAll(); return true }},
	{"loss", 2, (*sim).lose},
	{"delay", 2, (*sim).delay},
	{"slow link", 1, (*sim).narrow},
	{"reset", 2, (*sim).reset},
	{"odd messages", 2, (*sim).oddMessages},
	{"failed sync", 2, func(s *sim, n *simNode) bool { return s.failSync(n, vfs.OpDatasync, "") }},
	{"failed sync of votes", 1, func(s *sim, n *simNode) bool { return s.failSync(n, vfs.OpSync, "raft.votes*") }},
	{"full disk", 2, (*sim).fill},
	{"slow disk", 2, (*sim).slowDisk},
	{"disk hangs", 2, (*sim).hangDisk},
	{"pause", 4, (*sim).pause},
	{"clock jump", 2, (*sim).jump},
	{"members", 3, (*sim).changeMembers},
	{"transfer", 2, (*sim).transfer},
	{"retention", 4, (*sim).retain},
	{"compaction", 3, (*sim).compactOne},
	{"lost tail", 4, (*sim).loseTail},
	{"slow majority", 2, (*sim).slowMajority},
	{"contested election", 4, (*sim).contest},
	{"late votes", 2, (*sim).delayVotes},
	{"left behind", 3, (*sim).leaveBehind},
}

// harm breaks something every now and then, and mends other things.
func (s *sim) harm(during time.Duration) {
	total := 0
	for _, f := range simFaults {
		total += f.weight
	}
	for time.Since(s.start) < during {
		time.Sleep(s.scaled(time.Duration(50+s.rng.IntN(900)) * time.Millisecond))
		n := s.nodes[s.rng.IntN(len(s.nodes))]
		if s.rng.IntN(2) == 0 { // the leader is worth more trouble
			if l := s.leader(); l != nil {
				n = l.n
			}
		}
		at := s.rng.IntN(total)
		more := ""
		switch {
		case *simMore != "" && s.rng.IntN(2) == 0:
			more = *simMore
		case *simMore == "" && s.plan.behind && s.rng.IntN(3) == 0:
			more = "left behind"
		}
		for _, f := range simFaults {
			if at -= f.weight; at >= 0 && more == "" || more != "" && f.name != more {
				continue
			}
			if f.do(s, n) {
				s.happened(f.name, n)
			}
			break
		}
	}
}

func (s *sim) happened(name string, n *simNode) {
	s.trace("%s: node %d", name, n.id)
	s.mu.Lock()
	s.faults[name]++
	s.mu.Unlock()
}

// another is some other node.
func (s *sim) another(n *simNode) *simNode {
	for {
		if other := s.nodes[s.rng.IntN(len(s.nodes))]; other != n {
			return other
		}
	}
}

// soon is up to so long, at the run's timing.
func (s *sim) soon(d time.Duration) time.Duration {
	return time.Duration(s.rng.Int64N(int64(s.scaled(d))))
}

func (s *sim) minority() int { return (len(s.initial) - 1) / 2 }

// down is how many are not there, have a log that has failed, or have no vote because they may have
// lost records.
func (s *sim) down() (count int) {
	for _, n := range s.nodes {
		if r := n.run.Load(); r == nil || r.failed() || s.weak() && (r.condemned.Load() || r.doubts()) {
			count++
		}
	}
	return count
}

// failed says that the process has to be started again.
func (r *simRun) failed() bool {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	return r.g.forGood || r.p.Err() != nil
}

// doubts says that the replica has no vote because it may have lost records.
func (r *simRun) doubts() bool {
	st, _ := r.p.Group()
	return r.g.doubt.is() || st.Doubtful
}

// crash ends a process. At a weak level no more than a minority may be down, or have lost records and
// not got them back: that is what the level promises.
func (s *sim) crash(n *simNode, power bool) bool {
	r := n.run.Load()
	if r == nil || s.down() >= s.minority() && (s.weak() || s.rng.IntN(4) > 0) {
		return false
	}
	if r := s.die(r, power, s.rng.Uint64()); r != nil {
		r.end()
		return true
	}
	return false
}

// die is the moment of a process's end, if it may end.
func (s *sim) die(r *simRun, power bool, seed uint64) *simRun {
	s.dying.Lock()
	defer s.dying.Unlock()
	if r == nil || s.weak() && s.down() >= s.minority() {
		return nil
	}
	return r.n.die(r, power, seed)
}

// crashLater has the process end just before one of its next operations on its disk.
func (s *sim) crashLater(n *simNode) bool {
	r := n.run.Load()
	if r == nil || s.down() >= s.minority() {
		return false
	}
	power, seed := s.rng.IntN(3) > 0, s.rng.Uint64()
	r.fault.Add(vfs.Rule{Op: vfs.OpAny, Skip: s.rng.IntN(60), Effect: vfs.Call(func() {
		if r := s.die(r, power, seed); r != nil {
			s.happened("crashed at an operation", n)
			s.wg.Go(func() { r.end() })
		}
	})})
	return true
}

// blink ends a process and starts it again, often before the others have noticed.
func (s *sim) blink(n *simNode) bool {
	if !s.crash(n, s.rng.IntN(2) == 0) {
		return false
	}
	time.Sleep(s.soon(100 * time.Millisecond))
	s.begin(n)
	return true
}

func (s *sim) stopOne(n *simNode) bool {
	if n.run.Load() == nil || s.down() >= s.minority() {
		return false
	}
	n.stop() // what it says of a log that has failed before concerns nobody
	return true
}

// crashAll ends all processes. At a weak level that would lose what was acknowledged.
func (s *sim) crashAll(*simNode) bool {
	if s.weak() {
		return false
	}
	for _, n := range s.nodes {
		n.crash(true, s.rng.Uint64())
	}
	s.restart()
	return true
}

// restart starts what is down, and again what has failed.
func (s *sim) restart() {
	for _, n := range s.nodes {
		if r := n.run.Load(); r != nil && (r.failed() || r.condemned.Load() && s.rng.IntN(3) == 0) {
			n.crash(s.rng.IntN(2) == 0, s.rng.Uint64())
		}
		s.begin(n)
	}
}

func (s *sim) begin(n *simNode) {
	if n.run.Load() != nil {
		return
	}
	n.disk.Load().SetCapacity(-1)
	if err := n.start(); err != nil {
		s.problem("node %d does not start: %v", n.id, err)
	}
}

func (s *sim) isolate(n *simNode) bool {
	for _, other := range s.nodes {
		s.net.CutBoth(hostName(n.id), hostName(other.id))
	}
	return true
}

// split cuts the nodes into two parts.
func (s *sim) split(*simNode) bool {
	order := s.rng.Perm(len(s.nodes))
	at := 1 + s.rng.IntN(len(order)-1)
	for _, a := range order[:at] {
		for _, b := range order[at:] {
			s.net.CutBoth(hostName(s.nodes[a].id), hostName(s.nodes[b].id))
		}
	}
	return true
}

func (s *sim) oneWay(n *simNode) bool {
	a, b := hostName(n.id), hostName(s.another(n).id)
	if s.rng.IntN(2) == 0 {
		a, b = b, a
	}
	s.net.Cut(a, b)
	return true
}

// lose has one write in ten wait until it is sent again.
func (s *sim) lose(n *simNode) bool {
	lost, late := rand.New(rand.NewPCG(s.rng.Uint64(), 1)), s.scaled(200*time.Millisecond)
	s.net.Loss(hostName(n.id), hostName(s.another(n).id), func() time.Duration {
		if lost.IntN(10) == 0 {
			return late
		}
		return 0
	})
	return true
}

func (s *sim) delay(n *simNode) bool {
	s.net.Delay(hostName(n.id), hostName(s.another(n).id), s.soon(100*time.Millisecond))
	return true
}

func (s *sim) narrow(n *simNode) bool {
	s.net.Rate(hostName(n.id), hostName(s.another(n).id), int64(float64(20<<10+s.rng.IntN(200<<10))/s.plan.scale))
	return true
}

func (s *sim) reset(n *simNode) bool {
	s.net.Reset(hostName(n.id), hostName(s.another(n).id))
	return true
}

// oddMessages has messages of a node get lost, come late or come twice for a while.
func (s *sim) oddMessages(n *simNode) bool {
	r := n.run.Load()
	if r == nil {
		return false
	}
	was := r.wire.odd.Swap(int64(50 + s.rng.IntN(400)))
	s.later(s.soon(2*time.Second), func() { r.wire.odd.Store(was) })
	return true
}

// later does something by itself.
func (s *sim) later(after time.Duration, f func()) {
	s.wg.Go(func() {
		time.Sleep(after)
		f()
	})
}

func (s *sim) failSync(n *simNode, op vfs.Op, glob string) bool {
	r := n.run.Load()
	if r == nil || s.down() >= s.minority() {
		return false
	}
	if s.weak() {
		// It takes what was acknowledged, at a time that is not chosen here: from now on the replica counts as one
		// that has lost something.
		s.dying.Lock()
		defer s.dying.Unlock()
		if s.down() >= s.minority() {
			return false
		}
		r.condemned.Store(true)
	}
	r.fault.Add(vfs.Rule{Op: op, Glob: glob, Effect: vfs.FailSync()})
	return true
}

func (s *sim) fill(n *simNode) bool {
	disk := n.disk.Load()
	disk.SetCapacity(0)
	s.later(s.soon(3*time.Second), func() { disk.SetCapacity(-1) })
	return true
}

func (s *sim) slowDisk(n *simNode) bool {
	r := n.run.Load()
	if r == nil {
		return false
	}
	r.slow.set(time.Now().Add(s.soon(3*time.Second)), s.soon(200*time.Millisecond), time.Time{})
	return true
}

func (s *sim) hangDisk(n *simNode) bool {
	r := n.run.Load()
	if r == nil {
		return false
	}
	now := time.Now()
	r.slow.set(now, 0, now.Add(s.soon(3*time.Second)))
	return true
}

// pause has a process stand still for a while, as SIGSTOP does: what it sends and gets waits, its log
// takes nothing, and the library's main loop sees no timer, because it waits for somebody to take an
// answer.
func (s *sim) pause(n *simNode) bool {
	r := n.run.Load()
	if r == nil {
		return false
	}
	inst := r.g.instance()
	if inst == nil {
		return false
	}
	for_ := s.soon(3 * time.Second)
	now := time.Now()
	s.net.Freeze(hostName(n.id), true)
	r.slow.set(now, 0, now.Add(for_))
	answer := make(chan raft.RPCResponse)
	s.wg.Go(func() {
		end := time.NewTimer(for_)
		defer end.Stop()
		select {
		case inst.rpc <- raft.RPC{Command: &raft.AppendEntriesRequest{RPCHeader: r.g.gate.header()}, RespChan: answer}:
			<-end.C
			s.net.Freeze(hostName(n.id), false)
			select {
			case <-answer:
				return
			case <-inst.done:
			}
			// The library has answered, is about to, or ends without having looked.
			ended := make(chan struct{})
			s.wg.Go(func() { inst.raft.Shutdown().Error(); close(ended) })
			select {
			case <-answer:
			case <-ended:
			}
		case <-end.C:
			s.net.Freeze(hostName(n.id), false)
		case <-inst.done:
			<-end.C
			s.net.Freeze(hostName(n.id), false)
		}
	})
	return true
}

// jump has the node's wall clock be wrong.
func (s *sim) jump(n *simNode) bool {
	n.skew.Store(int64(time.Duration(s.rng.IntN(7200)-3600) * time.Second))
	return true
}

// changeMembers asks the leader for other members, of which most are those that were.
func (s *sim) changeMembers(*simNode) bool {
	l := s.leader()
	if l == nil || s.weak() && s.plan.spare == 0 { // of two, one in doubt would wait for a person
		return false
	}
	var want []int32
	for _, n := range s.nodes {
		want = append(want, n.id)
	}
	if s.rng.IntN(2) == 0 {
		out := s.rng.IntN(len(want))
		want = slices.Delete(want, out, out+1)
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.clients, s.scaled(15*time.Second))
		defer cancel()
		if l.g.SetMembers(ctx, want) == nil {
			s.count("member changes", 1)
		}
	})
	return true
}

func (s *sim) transfer(*simNode) bool {
	l := s.leader()
	if l == nil {
		return false
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.clients, s.scaled(5*time.Second))
		defer cancel()
		if l.g.Transfer(ctx, 0) == nil {
			s.count("transfers", 1)
		}
	})
	return true
}

// retain has the log begin somewhere below what the final read has seen.
func (s *sim) retain(*simNode) bool {
	l := s.leader()
	upto := s.collected()
	if l == nil || l.p.LogStart() >= upto || upto > l.p.HighWatermark() {
		return false
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.clients, s.scaled(5*time.Second))
		defer cancel()
		l.p.DeleteRecords(ctx, upto)
	})
	return true
}

// compactOne compacts a node's log, each by itself as in life.
func (s *sim) compactOne(n *simNode) bool {
	r := n.run.Load()
	if r == nil || !s.plan.compact {
		return false
	}
	again := s.rng.IntN(2) == 0
	s.wg.Go(func() {
		if r.p.Roll(s.clients) != nil || again && r.p.Checkpoint() != nil {
			return
		}
		report, err := r.p.Compact(s.clients, log.CompactPolicy{DeleteRetention: -1, Again: again})
		if err == nil {
			s.count("records compacted away", report.RecordsRead-report.RecordsKept)
		}
	})
	return true
}

// heal ends all faults and starts all nodes.
func (s *sim) heal() {
	s.net.HealAll()
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			s.net.Loss(hostName(a.id), hostName(b.id), nil)
			s.net.Delay(hostName(a.id), hostName(b.id), 0)
			s.net.Rate(hostName(a.id), hostName(b.id), 0)
		}
		a.skew.Store(0)
		a.disk.Load().SetCapacity(-1)
		if r := a.run.Load(); r != nil {
			r.fault.Clear()
			r.wire.odd.Store(0)
		}
	}
	s.plan.odd = false
	s.restart()
}

// justMajority leaves the leader with so many that they are just a majority, and returns them and the leader. Nil is that there is
// none, or that somebody is missing already.
func (s *sim) justMajority() (l *simRun, with []*simNode) {
	if l = s.leader(); l == nil || s.down() > 0 {
		return nil, nil
	}
	s.net.HealAll()
	var without []*simNode
	for _, i := range s.rng.Perm(len(s.nodes)) {
		switch n := s.nodes[i]; {
		case n == l.n:
		case len(with) < s.minority() && slices.Contains(s.initial, n.id):
			with = append(with, n)
		default:
			without = append(without, n)
		}
	}
	for _, a := range without {
		for _, b := range append(with, l.n) {
			s.net.CutBoth(hostName(a.id), hostName(b.id))
		}
	}
	return l, with
}

// loseTail has just a majority acknowledge for a while. Then the power of one of them goes, it comes
// back, and soon the leader is gone: those that are left are as many as a majority, and what the one
// may have lost is nowhere among them.
func (s *sim) loseTail(*simNode) bool {
	l, with := s.justMajority()
	if l == nil {
		return false
	}
	time.Sleep(s.soon(500 * time.Millisecond))
	victim := with[0]
	r := s.die(victim.run.Load(), true, s.rng.Uint64())
	if r == nil {
		return true
	}
	s.wg.Go(func() { r.end() })
	late := s.soon(40 * time.Millisecond)
	s.net.Delay(hostName(l.n.id), hostName(victim.id), late)
	s.begin(victim)
	time.Sleep(s.soon(400 * time.Millisecond))
	s.net.HealAll()
	s.isolate(l.n)
	time.Sleep(s.soon(3 * time.Second))
	s.net.Delay(hostName(l.n.id), hostName(victim.id), 0)
	return true
}

// slowMajority has just a majority there while the disk of one of them, most often the leader's, takes its time: nothing may be shown
// meanwhile that only the others have. Then its power goes.
func (s *sim) slowMajority(*simNode) bool {
	l, with := s.justMajority()
	if l == nil {
		return false
	}
	victim := l.n
	if s.rng.IntN(3) == 0 {
		victim = with[0]
	}
	r := victim.run.Load()
	if r == nil {
		return true
	}
	for_ := s.soon(time.Second)
	r.slow.setSyncs(time.Now().Add(for_), s.scaled(time.Duration(30+s.rng.IntN(100))*time.Millisecond))
	time.Sleep(for_)
	if r := s.die(r, true, s.rng.Uint64()); r != nil {
		s.wg.Go(func() { r.end() })
		s.begin(victim)
	}
	s.net.HealAll()
	return true
}

// contest is an election with two candidates at once. Whoever gives one of them the vote ends
// thereupon and starts again, and the other one's request comes then.
type contest struct {
	voter   *simNode
	mu      sync.Mutex
	first   raft.ServerID // that asked the voter
	again   chan struct{} // closed when the voter runs again
	granted bool
}

func (s *sim) contest(*simNode) bool {
	l := s.leader()
	if l == nil || s.down() > 0 {
		return false
	}
	var two []*simRun
	for _, i := range s.rng.Perm(len(s.nodes)) {
		if r := s.nodes[i].run.Load(); r != l && slices.Contains(s.initial, r.n.id) && len(two) < 2 {
			two = append(two, r)
		}
	}
	c := &contest{voter: l.n, again: make(chan struct{})}
	s.contested.Store(c)
	for _, r := range two {
		r.stands()
	}
	time.Sleep(s.soon(time.Second))
	s.contested.CompareAndSwap(c, nil)
	return true
}

// lateVotes is an election in which the first candidate hears late that it has votes, and of the
// second, who stands a moment later, not by its request but when it leads already.
type lateVotes struct{ first, second raft.ServerID }

func (s *sim) delayVotes(*simNode) bool {
	l := s.leader()
	if l == nil || s.down() > 0 {
		return false
	}
	var two []*simRun
	for _, i := range s.rng.Perm(len(s.nodes)) {
		if r := s.nodes[i].run.Load(); r != nil && r != l && slices.Contains(s.initial, r.n.id) && len(two) < 2 {
			two = append(two, r)
		}
	}
	if len(two) < 2 {
		return false
	}
	s.net.HealAll()
	s.lateVotes.Store(&lateVotes{memberID(two[0].n.id), memberID(two[1].n.id)})
	defer s.lateVotes.Store(nil)
	two[0].stands()
	time.Sleep(s.scaled(10 * time.Millisecond))
	two[1].stands()
	time.Sleep(s.soon(time.Second))
	return true
}

// stands has a member ask for votes, as one does whom a leader has told to.
func (r *simRun) stands() {
	inst := r.g.instance()
	if inst == nil {
		return
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case inst.rpc <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: r.g.gate.header()}, RespChan: make(chan raft.RPCResponse, 1)}:
	case <-inst.done:
	case <-t.C:
	}
}

// ask carries a request for a vote while an election is contested.
func (c *contest) ask(s *sim, from raft.ServerID, granted *bool, send func() error) error {
	c.mu.Lock()
	if c.first == "" {
		c.first = from
	}
	first := c.first == from
	c.mu.Unlock()
	if !first {
		t := time.NewTimer(s.scaled(200 * time.Millisecond))
		defer t.Stop()
		select {
		case <-c.again:
		case <-t.C:
		}
		return send()
	}
	err := send()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && *granted && !c.granted {
		c.granted = true
		s.wg.Go(func() {
			defer close(c.again)
			if r := s.die(c.voter.run.Load(), true, uint64(time.Since(s.start))); r != nil {
				s.happened("crash after a vote", c.voter)
				s.wg.Go(func() { r.end() })
				s.begin(c.voter)
			}
		})
	}
	return err
}

// leaveBehind has a follower miss so much, deleted or compacted since, that it gets the log whole; and sometimes another leader
// comes while that is on its way, over a slow link.
func (s *sim) leaveBehind(*simNode) bool {
	if s.plan.behind {
		s.net.HealAll()
		s.restart()
		time.Sleep(s.soon(time.Second))
	}
	l := s.leader()
	if l == nil || s.down() > 0 {
		return false
	}
	n := s.another(l.n)
	if !s.crash(n, true) {
		return false
	}
	time.Sleep(s.soon(2 * time.Second))
	ctx, cancel := context.WithTimeout(s.clients, s.scaled(2*time.Second))
	defer cancel()
	l.p.Roll(ctx)
	time.Sleep(s.scaled(200 * time.Millisecond))
	if l.dead.Load() || l.p.LogEnd() < s.collected() {
		return true
	}
	s.collectFrom(l)
	if s.plan.compact && s.rng.IntN(2) == 0 {
		l.p.Checkpoint() // nothing above it is compacted
		l.p.Compact(ctx, log.CompactPolicy{DeleteRetention: -1, Again: true})
	} else {
		if upto := s.collected(); upto > l.p.LogStart() && upto <= l.p.HighWatermark() {
			l.p.DeleteRecords(ctx, upto)
		}
		time.Sleep(s.scaled(50 * time.Millisecond))
		l.p.Checkpoint()
		l.p.Retain(ctx, log.RetentionPolicy{Upto: s.collected()})
	}
	slow := s.rng.IntN(2) == 0
	if slow {
		s.net.Rate(hostName(l.n.id), hostName(n.id), int64(float64(10<<10)/s.plan.scale))
	}
	s.begin(n)
	if slow {
		time.Sleep(s.soon(time.Second))
		for _, other := range s.nodes {
			if r := other.run.Load(); r != nil && other != l.n && other != n {
				r.stands()
				break
			}
		}
		time.Sleep(s.soon(2 * time.Second))
		s.net.Rate(hostName(l.n.id), hostName(n.id), 0)
	}
	return true
}
