package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
)

// modelMember is a client of the protocol, on the other side of a network that
// loses calls and answers. What it holds is the truth about who reads what.
type modelMember struct {
	id, instance string
	epoch        int32
	topics       []string
	regex        string
	holds        groupParts
	target       groupParts // the last assignment that it heard
	mustReport   bool       // what it holds goes with the next call
	silent       bool       // it works on and calls no more: the session will end
	lazy         bool       // it gives nothing up: the rebalance timeout will end it
	lastSent     time.Time  // of the last call that it got an answer to
	giveUpBy     time.Time
	joined       bool
	session      time.Duration
	rebalance    time.Duration
}

func (c *modelMember) lose() {
	c.joined, c.epoch, c.holds, c.target, c.mustReport = false, 0, groupParts{}, groupParts{}, false
	c.giveUpBy = time.Time{}
}

type groupWorld struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     time.Time
	g       *groupState
	view    *topicsView
	clients []*modelMember
	nextID  int
	nextTop int
	log     []string
	stops   int // partitions that a member gave up and that were for it all the time
	// What happened, so that a run that tests nothing is noticed.
	lost, expired, fenced, moved, takenOver int
}

func (w *groupWorld) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *groupWorld) fail(format string, args ...any) {
	w.t.Helper()
	if len(w.log) > 60 {
		w.log = w.log[len(w.log)-60:]
	}
	for _, line := range w.log {
		w.t.Log(line)
	}
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *groupWorld) newView(f func(byName map[string]viewTopic)) {
	byName := maps.Clone(w.view.byName)
	f(byName)
	w.view = testView(w.view.version+1, slices.Collect(maps.Values(byName))...)
}

func testView(version uint64, topics ...viewTopic) *topicsView {
	v := &topicsView{version: version, byName: map[string]viewTopic{}, byID: map[TopicID]viewTopic{}}
	for _, t := range topics {
		v.byName[t.name], v.byID[t.id] = t, t
	}
	return v
}

func (w *groupWorld) topicID() TopicID {
	w.nextTop++
	return TopicID{byte(w.nextTop), byte(w.nextTop >> 8), 1}
}

// call is one heartbeat of a client, with what the network does to it.
func (w *groupWorld) call(c *modelMember, lossy bool) {
	req := &HeartbeatRequest{Group: "g", MemberID: c.id, MemberEpoch: c.epoch, InstanceID: c.instance}
	if !c.joined {
		req.MemberEpoch, req.Topics, req.Regex = JoinEpoch, c.topics, c.regex
		req.SessionTimeout, req.RebalanceTimeout = c.session, c.rebalance
	} else {
		req.NoRegex = c.regex == ""
		req.Topics, req.Regex = c.topics, c.regex
		if req.Topics == nil {
			req.Topics = []string{}
		}
		if c.mustReport {
			req.Owned = c.holds.list()
		}
	}
	sent := w.now
	if lossy && w.rng.IntN(10) == 0 {
		c.mustReport = c.joined
		w.lost++
		w.note("%s epoch %d: call lost", c.id, req.MemberEpoch)
		return
	}
	w.g.setTopics(w.view)
	asked := groupParts{} // also in answers that were lost
	if m := w.g.members[c.id]; m != nil {
		asked = m.revoking
	}
	r, err := w.g.heartbeat(w.now, req)
	w.note("%v %s epoch %d owned %v -> %+v %v", w.now.Sub(time.Time{}), c.id, req.MemberEpoch, req.Owned != nil, r, err)
	if lossy && w.rng.IntN(10) == 0 {
		c.mustReport = c.joined
		w.lost++
		w.note("%s: answer lost", c.id)
		return
	}
	switch {
	case errors.Is(err, ErrInstanceInUse):
		return // later
	case errors.Is(err, ErrUnknownMember) || errors.Is(err, ErrRebalance) || errors.Is(err, ErrFencedInstance):
		w.fenced++
		c.lose()
		return
	case err != nil:
		w.fail("%s: %v", c.id, err)
	}
	if req.Owned != nil && len(newGroupParts(req.Owned).minus(c.target)) == 0 {
		c.giveUpBy = time.Time{} // the coordinator knows that it has nothing more to give up
	}
	// A call before this one may have asked already, and its answer got lost: so the
	// time runs from the last call that was answered.
	heard := c.lastSent
	c.joined, c.lastSent, c.mustReport, c.epoch = true, sent, false, r.MemberEpoch
	if r.Assignment == nil {
		return
	}
	before, target := c.holds, w.g.members[c.id].target
	defer func() { c.mustReport = !c.holds.equal(before) }()
	c.target = newGroupParts(r.Assignment)
	if gone := c.holds.minus(c.target); len(gone) > 0 {
		w.moved += gone.count()
		w.stops += gone.minus(asked).and(target).count() // what it was asked for before has to go, also when it comes back
		if c.giveUpBy.IsZero() {
			c.giveUpBy = heard.Add(max(c.rebalance, c.session))
		}
		if !c.lazy {
			c.holds = c.holds.and(c.target)
		}
	}
	c.holds = c.holds.or(c.target)
}

// clock moves the time, and has clients whose session is over know it.
func (w *groupWorld) clock(d time.Duration) {
	w.now = w.now.Add(d)
	for _, c := range w.clients {
		if c.joined && (!w.now.Before(c.lastSent.Add(c.session)) || !c.giveUpBy.IsZero() && !w.now.Before(c.giveUpBy)) {
			w.expired++
			c.lose()
		}
	}
	w.g.expire(w.now)
}

func (w *groupWorld) step() {
	if len(w.clients) == 0 || w.rng.IntN(40) == 0 && len(w.clients) < 9 {
		c := &modelMember{
			id: fmt.Sprintf("m%d", w.nextID), holds: groupParts{}, target: groupParts{}, topics: w.subscription(),
			session: time.Duration(5+w.rng.IntN(10)) * time.Second, rebalance: time.Duration(3+w.rng.IntN(10)) * time.Second,
			lastSent: w.now,
		}
		if w.rng.IntN(4) == 0 {
			c.regex = "[ab].*"
		}
		if w.rng.IntN(3) == 0 {
			c.instance = fmt.Sprintf("i%d", w.nextID)
		}
		w.nextID++
		w.clients = append(w.clients, c)
	}
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch n := w.rng.IntN(100); {
	case n < 70:
		if !c.silent {
			w.call(c, true)
		}
	case n < 84:
		w.clock(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
	case n < 86:
		c.silent = !c.silent
	case n < 87:
		c.lazy = !c.lazy
		if !c.lazy && c.joined {
			c.holds, c.mustReport = c.holds.and(c.target), true
		}
	case n < 89: // it leaves
		if c.silent || !c.joined {
			return
		}
		req := &HeartbeatRequest{MemberID: c.id, MemberEpoch: LeaveEpoch, InstanceID: c.instance}
		again := c.instance != "" && w.rng.IntN(2) == 0
		if again {
			req.MemberEpoch = StaticLeaveEpoch
		}
		c.lose() // it stops first
		if _, err := w.g.heartbeat(w.now, req); err != nil && !errors.Is(err, ErrUnknownMember) {
			w.fail("leave: %v", err)
		}
		w.note("%s left with %d", c.id, req.MemberEpoch)
		if again { // and comes back as another process
			w.takenOver++
			c.id = fmt.Sprintf("m%d", w.nextID)
			w.nextID++
			return
		}
		w.clients = slices.DeleteFunc(w.clients, func(o *modelMember) bool { return o == c })
	case n < 91:
		c.topics = w.subscription()
	case n < 93:
		w.newView(func(byName map[string]viewTopic) { // grown
			for name, t := range byName {
				if w.rng.IntN(4) == 0 {
					t.partitions += int32(w.rng.IntN(3))
					byName[name] = t
				}
			}
		})
	case n < 94:
		name := []string{"a", "b", "bb", "c", "d"}[w.rng.IntN(5)]
		w.newView(func(byName map[string]viewTopic) { // deleted, and perhaps made again as another topic
			delete(byName, name)
			if w.rng.IntN(3) > 0 {
				byName[name] = viewTopic{id: w.topicID(), name: name, partitions: int32(1 + w.rng.IntN(6))}
			}
		})
	case n < 97:
		w.g.setTopics(w.view)
	}
}

func (w *groupWorld) subscription() []string {
	all := []string{"a", "b", "c", "d", "not made yet"}
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return slices.Clone(all[:1+w.rng.IntN(len(all))])
}

// check is what must hold at every moment.
func (w *groupWorld) check() {
	owner := map[topicPart]string{}
	for _, c := range w.clients {
		c.holds.each(func(p topicPart) {
			if other, taken := owner[p]; taken {
				w.fail("%v is held by %s and %s", p, other, c.id)
			}
			owner[p] = c.id
			if o := w.g.owners[p]; o.member != c.id {
				w.fail("%v is held by %s, and the coordinator takes it for %q's", p, c.id, o.member)
			}
		})
	}
	n := 0
	for id, m := range w.g.members {
		m.assigned.or(m.revoking).each(func(p topicPart) {
			if n++; w.g.owners[p].member != id {
				w.fail("%v is in %s's sets and owned by %q", p, id, w.g.owners[p].member)
			}
		})
		if m.epoch > w.g.epoch {
			w.fail("%s has epoch %d, the group %d", id, m.epoch, w.g.epoch)
		}
		if m.left && len(m.revoking) > 0 {
			w.fail("%s is away and is waited for", id)
		}
	}
	if n != len(w.g.owners) {
		w.fail("%d partitions in members' sets, %d owners", n, len(w.g.owners))
	}
	if w.stops > 0 {
		w.fail("a member had to give up %d partitions that are for it", w.stops)
	}
}

// settle lets everybody who is not dead call a few times: all reach their target,
// which covers everything.
func (w *groupWorld) settle() {
	w.clients = slices.DeleteFunc(w.clients, func(c *modelMember) bool { return c.silent || c.lazy })
	w.clock(20 * time.Second) // longer than any session: the others are gone
	for _, c := range w.clients {
		if c.joined {
			w.fail("%s outlived its session", c.id)
		}
	}
	for range 4 {
		for _, c := range w.clients {
			w.call(c, false)
			w.check()
		}
	}
	if len(w.clients) > 0 && w.g.state() != GroupStable {
		w.fail("state is %s after four rounds", w.g.state())
	}
	want := groupParts{}
	for _, c := range w.clients {
		m := w.g.members[c.id]
		if m == nil || !c.holds.equal(m.target) || c.epoch != w.g.epoch {
			w.fail("%s is not at its target: %+v, %+v", c.id, c, m)
		}
		for _, id := range m.subscribed {
			for p := range w.view.byID[id].partitions {
				want = want.or(groupParts{id: {p}})
			}
		}
	}
	if got := len(w.g.owners); got != want.count() {
		w.fail("%d partitions are owned, %d subscribed to", got, want.count())
	}
}

func TestGroupModel(t *testing.T) {
	var sum groupWorld
	for seed := range uint64(testcount.N(400)) {
		w := &groupWorld{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Time{}.Add(time.Hour)}
		w.view = testView(1)
		w.newView(func(byName map[string]viewTopic) {
			for _, name := range []string{"a", "b", "bb", "c"} {
				byName[name] = viewTopic{id: w.topicID(), name: name, partitions: int32(1 + w.rng.IntN(8))}
			}
		})
		w.g = newGroupState("g", int32(seed), w.view)
		for range 400 {
			w.step()
			w.check()
		}
		w.settle()
		sum.lost, sum.expired, sum.fenced = sum.lost+w.lost, sum.expired+w.expired, sum.fenced+w.fenced
		sum.moved, sum.takenOver = sum.moved+w.moved, sum.takenOver+w.takenOver
	}
	t.Logf("lost %d, expired %d, fenced %d, partitions given up %d, taken over %d", sum.lost, sum.expired, sum.fenced, sum.moved, sum.takenOver)
	if min(sum.lost, sum.expired, sum.moved, sum.takenOver) == 0 {
		t.Fatal("something never happened: the test shows nothing")
	}
}
