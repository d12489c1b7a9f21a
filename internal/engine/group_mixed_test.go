package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// A transaction may commit a group's offsets without naming a member, whoever assigns
// there; one that names a member is fenced by it, and so is a producer of this process.
func TestTxnCommitOfNobody(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.produce(db.topic("orders", 2), 9)
	m := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}, SessionTimeout: time.Minute})
	for _, row := range []struct {
		name string
		req  CommitRequest
		want error
	}{
		{"nobody's", CommitRequest{MemberEpoch: -1}, nil},
		{"nobody's, of this process", CommitRequest{MemberEpoch: -1, Local: true}, ErrGroupNotEmpty},
		{"the member's", CommitRequest{MemberID: m.MemberID, MemberEpoch: m.MemberEpoch}, nil},
		{"the member's, with another epoch", CommitRequest{MemberID: m.MemberID, MemberEpoch: m.MemberEpoch + 1}, ErrRebalance},
		{"the member's, without an epoch", CommitRequest{MemberID: m.MemberID, MemberEpoch: -1}, ErrRebalance},
		{"a member's that there is not", CommitRequest{MemberID: "x", MemberEpoch: m.MemberEpoch}, ErrUnknownMember},
		{"an instance's", CommitRequest{InstanceID: "i", MemberEpoch: -1}, ErrGroupNotEmpty},
		{"with an epoch and no member", CommitRequest{MemberEpoch: m.MemberEpoch}, ErrUnknownMember},
	} {
		row.req.Group, row.req.Offsets = "g", []OffsetCommit{at("orders", 1, 5)}
		wantErr(t, row.name, db.Groups().TxnCommit(context.Background(), row.req, 4711, 0), row.want)
	}
	simple := CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 1, 5)}}
	wantErr(t, "without a transaction", db.Groups().Commit(context.Background(), simple), ErrGroupNotEmpty)
	part, err := db.Groups().OffsetsPartition(context.Background(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.EndTransaction(context.Background(), 4711, 0, true, 0, false); err != nil {
		t.Fatal(err)
	}
	db.Txns().ended(context.Background(), part, 4711, true)
	db.wantCommitted("g", "orders/1@5")
}

// mixedMember is a member of group "g" of any kind, which does as it is told.
type mixedMember struct {
	kind    byte // 'c': classic, 'k': with an epoch, 'l': of this process
	classic *member
	join    *call[JoinResponse]
	sync    *call[SyncResponse]
	id      string
	epoch   int32
	has     []int32 // partitions of orders
}

type mixedGroup struct {
	t       *testing.T
	e       *Engine
	topic   *Topic
	members map[string]*mixedMember
}

func (g *mixedGroup) add(name string) {
	m := &mixedMember{kind: name[0], id: name}
	if m.kind == 'c' {
		m.classic = newMember(g.t, g.e, name)
		m.join = m.classic.join()
	}
	g.members[name] = m
}

// remove has a member leave.
func (g *mixedGroup) remove(name string) {
	g.t.Helper()
	m := g.members[name]
	delete(g.members, name)
	if m.kind == 'c' {
		m.classic.leave()
	} else if _, err := g.e.Groups().Heartbeat(g.t.Context(), HeartbeatRequest{Group: "g", MemberID: m.id, MemberEpoch: LeaveEpoch}); err != nil {
		g.t.Fatal(err)
	}
}

// step is one call of a member.
func (g *mixedGroup) step(m *mixedMember) {
	g.t.Helper()
	if m.kind == 'c' {
		g.stepClassic(m)
		return
	}
	req := HeartbeatRequest{Group: "g", MemberID: m.id, MemberEpoch: m.epoch, Local: m.kind == 'l'}
	if m.epoch == JoinEpoch {
		req.Topics, req.SessionTimeout = []string{"orders"}, time.Minute
	} else {
		req.Owned = []TopicPartitions{{g.topic.ID(), m.has}}
	}
	resp, err := g.e.Groups().Heartbeat(g.t.Context(), req)
	if err != nil {
		g.t.Fatalf("%s: %v", m.id, err)
	}
	if m.epoch = resp.MemberEpoch; resp.Assignment != nil {
		if m.has = nil; len(resp.Assignment) > 0 {
			m.has = resp.Assignment[0].Partitions
		}
	}
}

func done[T any](c *call[T]) bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (g *mixedGroup) stepClassic(m *mixedMember) {
	g.t.Helper()
	switch {
	case m.join != nil && done(m.join):
		if m.join.err != nil && errors.Is(m.join.err, ErrRebalancing) {
			m.join = m.classic.join()
			return
		}
		m.classic.took(m.join)
		m.join = nil
		var list []SyncAssignment
		for i, o := range m.classic.others { // it leads: each gets every so-manieth
			var mine []int32
			for p := range int32(len(g.topic.Partitions())) {
				if int(p)%len(m.classic.others) == i {
					mine = append(mine, p)
				}
			}
			list = append(list, SyncAssignment{o.MemberID, appendConsumerAssignment(nil, 1, []namedParts{{"orders", mine}})})
		}
		m.sync = m.classic.sync(list...)
	case m.sync != nil && done(m.sync):
		call := m.sync
		if m.sync = nil; errors.Is(call.err, ErrRebalancing) {
			m.has, m.join = nil, m.classic.join()
			return
		}
		list, err := parseConsumerAssignment(call.get(g.t).Assignment)
		if err != nil {
			g.t.Fatal(err)
		}
		if m.has = nil; len(list) > 0 {
			m.has = list[0].partitions
		}
	case m.join == nil && m.sync == nil:
		err := m.classic.heartbeat()
		if errors.Is(err, ErrRebalancing) {
			m.has, m.join = nil, m.classic.join() // an eager one gives all up
		} else if err != nil {
			g.t.Fatalf("heartbeat of %s: %v", m.classic.req.ClientID, err)
		}
	}
}

// settle lets all do what they are told until nobody is told any more. At every moment a
// partition has one owner at most.
func (g *mixedGroup) settle() {
	g.t.Helper()
	for range 30 {
		for _, m := range g.members {
			g.step(m)
			synctest.Wait()
			owner := map[int32]string{}
			for name, o := range g.members {
				for _, p := range o.has {
					if other := owner[p]; other != "" {
						g.t.Fatalf("partition %d is %s's and %s's", p, other, name)
					}
					owner[p] = name
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// shares says how many partitions each member has, by name, and the group's type.
func (g *mixedGroup) shares() string {
	g.t.Helper()
	var out []string
	for name, m := range g.members {
		out = append(out, fmt.Sprintf("%s:%d", name, len(m.has)))
	}
	slices.Sort(out)
	d, err := g.e.Groups().Describe(g.t.Context(), "g")
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.Join(append(out, string(d.Type), string(d.State)), " ")
}

// Members of all kinds in one group: it is the server's while one of them has an epoch,
// and each partition is somebody's, whoever comes and goes.
func TestMixedGroup(t *testing.T) {
	for _, row := range []struct{ name, script string }{
		{"classic first", "+c1=c1:6,classic +k1=c1:3,k1:3,consumer +l1=c1:2,k1:2,l1:2,consumer -k1=c1:3,l1:3,consumer -l1=c1:6,classic"},
		{"classic last", "+l1=l1:6,consumer +k1=k1:3,l1:3,consumer +c1=c1:2,k1:2,l1:2,consumer -l1=c1:3,k1:3,consumer -c1=k1:6,consumer"},
		{"two classic ones are left", "+c1=c1:6,classic +c2=c1:3,c2:3,classic +l1=c1:2,c2:2,l1:2,consumer -l1=c1:3,c2:3,classic +k1=c1:2,c2:2,k1:2,consumer"},
		{"empty in between", "+k1=k1:6,consumer -k1= +c1=c1:6,classic -c1= +l1=l1:6,consumer"},
		{"more members than partitions", "+c1 +c2 +k1 +k2 +l1 +l2=c1:1,c2:1,k1:1,k2:1,l1:1,l2:1,consumer +k3 -c1 -l2=c2:1,k1:2,k2:1,k3:1,l1:1,consumer"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := openClassicDB(t, vfs.NewMem(), nil)
				g := &mixedGroup{t: t, e: e, topic: newTopic(t, e, "orders", 6), members: map[string]*mixedMember{}}
				for _, step := range strings.Fields(row.script) {
					what, want, check := strings.Cut(step, "=")
					if what[0] == '+' {
						g.add(what[1:])
					} else {
						g.remove(what[1:])
					}
					g.settle()
					if !check || want == "" {
						continue
					}
					sum := func(s string) string { // which of equals has one more is nobody's promise
						return strings.NewReplacer(":1", ":n", ":2", ":n").Replace(s)
					}
					want = strings.ReplaceAll(want, ",", " ") + " Stable"
					got := g.shares()
					if len(g.members) < 5 && got != want || sum(got) != sum(want) {
						t.Fatalf("after %s: %s, want %s", what, got, want)
					}
				}
			})
		})
	}
}

// What the server cannot assign to stays a classic group, and says why.
func TestGroupType(t *testing.T) {
	for _, row := range []struct {
		name string
		edit func(*JoinRequest) // of the classic member that is there
		want error
	}{
		{"consumers", func(*JoinRequest) {}, nil},
		{"others", func(r *JoinRequest) { r.ProtocolType = "connect" }, ErrGroupType},
		{"consumers whose subscription cannot be read", func(r *JoinRequest) { r.Protocols = []GroupProtocol{{"own", []byte("?")}} }, ErrGroupType},
	} {
		for kind, local := range map[string]bool{"with an epoch": false, "of this process": true} {
			t.Run(row.name+", a member "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := openClassicDB(t, vfs.NewMem(), nil)
					newTopic(t, e, "orders", 1)
					a := newMember(t, e, "a")
					row.edit(&a.req)
					a.took(a.join())
					a.sync(SyncAssignment{a.req.MemberID, appendConsumerAssignment(nil, 1, nil)}).get(t)
					_, err := e.Groups().Heartbeat(t.Context(), HeartbeatRequest{Group: "g", MemberID: "k", Topics: []string{"orders"}, Local: local})
					wantErr(t, "it joins", err, row.want)
					var typed *GroupTypeError
					if row.want != nil && (!errors.As(err, &typed) || typed.Reason == "" || a.heartbeat() != nil) {
						t.Errorf("refused with %v, and the classic member is told %v", err, a.heartbeat())
					}
				})
			})
		}
	}
	// The other way round it is the classic member that is refused.
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		newTopic(t, e, "orders", 1)
		if _, err := e.Groups().Heartbeat(t.Context(), HeartbeatRequest{Group: "g", MemberID: "k", Topics: []string{"orders"}, Local: true}); err != nil {
			t.Fatal(err)
		}
		a := newMember(t, e, "a")
		a.req.ProtocolType = "connect"
		wantErr(t, "join", a.join().err2(), ErrInconsistentProtocol)
	})
}

// Among what is left when the members with an epoch have gone, a classic member commits
// with the epoch that it knows, and for what it had then only.
func TestCommitsAfterADowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		g := &mixedGroup{t: t, e: e, topic: newTopic(t, e, "orders", 2), members: map[string]*mixedMember{}}
		g.add("l1")
		g.settle()
		g.add("c1")
		g.settle()
		c := g.members["c1"]
		if len(c.has) != 1 {
			t.Fatalf("it has %v", c.has)
		}
		mine, other := c.has[0], 1-c.has[0]
		commit := func(partition, epoch int32) error {
			return e.Groups().Commit(t.Context(), CommitRequest{Group: "g", MemberID: c.classic.req.MemberID, MemberEpoch: epoch, Offsets: []OffsetCommit{at("orders", partition, 0)}})
		}
		wantErr(t, "before, its own", commit(mine, c.classic.gen), nil)
		wantErr(t, "before, the other's", commit(other, c.classic.gen), ErrRebalance)
		g.remove("l1")
		if d, err := e.Groups().Describe(t.Context(), "g"); err != nil || d.Type != GroupTypeClassic || d.State != GroupPreparingRebalance {
			t.Fatalf("the group is %+v, %v", d, err)
		}
		wantErr(t, "after it, its own", commit(mine, c.classic.gen), nil)
		wantErr(t, "after it, what was the other's", commit(other, c.classic.gen), ErrIllegalGeneration)
		wantErr(t, "after it, with another epoch", commit(mine, c.classic.gen+1), ErrIllegalGeneration)
		before := c.classic.gen
		g.settle()
		wantErr(t, "in its own generation, all", errors.Join(commit(0, c.classic.gen), commit(1, c.classic.gen)), nil)
		wantErr(t, "with the epoch of before", commit(mine, before), ErrIllegalGeneration)
	})
}

// A classic member of a server-assigned group commits for nothing that is free: it may
// have had it in this very generation, and be late. One with an epoch may.
func TestClassicCommitsOfFreePartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		newTopic(t, e, "free", 1)
		g := &mixedGroup{t: t, e: e, topic: newTopic(t, e, "orders", 2), members: map[string]*mixedMember{}}
		g.add("l1")
		g.settle()
		g.add("c1")
		g.settle()
		c, l := g.members["c1"], g.members["l1"]
		commit := func(id string, epoch int32, topic string, partition int32) error {
			return e.Groups().Commit(t.Context(), CommitRequest{Group: "g", MemberID: id, MemberEpoch: epoch, Offsets: []OffsetCommit{at(topic, partition, 0)}})
		}
		wantErr(t, "its own", commit(c.classic.req.MemberID, c.classic.gen, "orders", c.has[0]), nil)
		wantErr(t, "nobody's", commit(c.classic.req.MemberID, c.classic.gen, "free", 0), ErrIllegalGeneration)
		wantErr(t, "nobody's, with an epoch", commit(l.id, l.epoch, "free", 0), nil)
	})
}

// A cooperative static member that dies between the two generations of a rebalance had
// partitions that its leader gave to nobody yet. Who takes its place has nothing to let
// go of, so the group must assign anew.
func TestStaticMemberThatDiedBeforeItRevoked(t *testing.T) {
	for _, row := range []struct {
		name    string
		given   []int32 // to the static member, which had 0 to 3
		rejoins bool    // who takes its place brings a new generation about
	}{
		{"all of it again", []int32{0, 1, 2, 3}, false},
		{"a part", []int32{0, 1}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := openClassicDB(t, vfs.NewMem(), nil)
				newTopic(t, e, "orders", 4)
				cooperative := func(owned ...int32) []GroupProtocol {
					return []GroupProtocol{{"cooperative-sticky", subscription(1, []string{"orders"}, namedParts{"orders", owned})}}
				}
				lead, s := newMember(t, e, "lead"), newMember(t, e, "static")
				s.req.InstanceID = "s"
				lead.req.Protocols, s.req.Protocols = cooperative(), cooperative(0, 1, 2, 3)
				jl, js := lead.join(), s.join()
				lead.took(jl)
				s.took(js)
				assignments := []SyncAssignment{
					{s.req.MemberID, appendConsumerAssignment(nil, 1, []namedParts{{"orders", row.given}})},
					{lead.req.MemberID, appendConsumerAssignment(nil, 1, nil)},
				}
				a, b := lead.sync(assignments...), s.sync(assignments...) // whichever leads
				a.get(t)
				b.get(t)
				// It dies, and another process takes its place.
				before := s.gen
				s.req.MemberID, s.req.Protocols = "", cooperative()
				back := s.join()
				synctest.Wait()
				if row.rejoins {
					back.waits(t)
					wantErr(t, "heartbeat", lead.heartbeat(), ErrRebalancing)
					lead.took(lead.join())
				}
				if s.took(back); (s.gen != before) != row.rejoins {
					t.Fatalf("generation %d after %d", s.gen, before)
				}
			})
		})
	}
}

// A group that is empty in memory only, because the disk was full when its last member
// left, takes nobody's commit before it is empty on the disk, too: after a crash the
// member would be back, and what was committed over its head with it.
func TestCommitWritesFirstThatMembersAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		fault := vfs.NewFault(fs)
		e, err := Open("mem", &Options{FS: fault, MaintenanceInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close() // which finds its disk gone
		newTopic(t, e, "orders", 1)
		a := newMember(t, e, "a")
		together(a)
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpAppend, vfs.OpZero} {
			fault.Add(vfs.Rule{Op: op, Count: -1, Effect: vfs.Fail(vfs.ErrNoSpace)})
		}
		a.leave()
		simple := CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 0)}}
		wantErr(t, "while the disk is full", e.Groups().Commit(t.Context(), simple), log.ErrNoSpace)
		fault.Clear()
		wantErr(t, "when there is room", e.Groups().Commit(t.Context(), simple), nil)
		again := openClassicDB(t, fs.AfterKill(), nil)
		d, err := again.Groups().Describe(t.Context(), "g")
		if err != nil || len(d.Members) != 0 || d.State != GroupEmpty || len(d.Partitions) != 1 || d.Partitions[0].Offset != 0 {
			t.Fatalf("after a kill: %+v, %v; want no member and the commit", d, err)
		}
	})
}
