package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// openClassicDB is an engine in memory whose clock is the bubble's.
func openClassicDB(t *testing.T, fs vfs.FS, edit func(*Options)) *Engine {
	t.Helper()
	o := &Options{FS: fs, MaintenanceInterval: -1}
	if edit != nil {
		edit(o)
	}
	e, err := Open("mem", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// call is an answer that is waited for.
type call[T any] struct {
	done chan struct{}
	resp T
	err  error
	at   time.Time // when it was answered
}

func begin[T any](f func() (T, error)) *call[T] {
	c := &call[T]{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.resp, c.err = f()
		c.at = time.Now()
	}()
	return c
}

// waits fails when there is an answer already.
func (c *call[T]) waits(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case <-c.done:
		t.Fatalf("it should wait, and was answered: %+v, %v", c.resp, c.err)
	default:
	}
}

// get waits for an answer without an error.
func (c *call[T]) get(t *testing.T) T {
	t.Helper()
	if <-c.done; c.err != nil {
		t.Fatal(c.err)
	}
	return c.resp
}

// subscription is a consumer's metadata.
func subscription(version int16, topics []string, owned ...namedParts) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(len(topics)))
	for _, t := range topics {
		b = appendInt16String(b, t)
	}
	b = binary.BigEndian.AppendUint32(b, math.MaxUint32)
	if version == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(owned)))
	for _, o := range owned {
		b = appendInt16String(b, o.topic)
		b = binary.BigEndian.AppendUint32(b, uint32(len(o.partitions)))
		for _, p := range o.partitions {
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		}
	}
	return b
}

func rangeOver(topics ...string) []GroupProtocol {
	return []GroupProtocol{{"range", subscription(1, topics)}}
}

// member is a classic member of group "g" in tests, with the id and the generation
// that it was told.
type member struct {
	t      *testing.T
	e      *Engine
	req    JoinRequest
	gen    int32
	leader bool
	others []JoinMember
	got    []byte
}

func newMember(t *testing.T, e *Engine, name string) *member {
	return &member{t: t, e: e, req: JoinRequest{
		Group: "g", ClientID: name, ClientHost: "/127.0.0.1", ProtocolType: "consumer", Protocols: rangeOver("orders"),
		SessionTimeout: 10 * time.Second, RebalanceTimeout: 30 * time.Second,
	}}
}

func (m *member) join() *call[JoinResponse] {
	req := m.req
	return begin(func() (JoinResponse, error) { return m.e.Groups().Join(context.Background(), req) })
}

// took takes an answer to a Join over.
func (m *member) took(c *call[JoinResponse]) JoinResponse {
	m.t.Helper()
	r := c.get(m.t)
	m.req.MemberID, m.gen, m.leader, m.others = r.MemberID, r.Generation, r.Leader == r.MemberID, r.Members
	return r
}

func (m *member) sync(assignments ...SyncAssignment) *call[SyncResponse] {
	req := SyncRequest{Group: "g", MemberID: m.req.MemberID, InstanceID: m.req.InstanceID, Generation: m.gen, Assignments: assignments}
	return begin(func() (SyncResponse, error) { return m.e.Groups().Sync(context.Background(), req) })
}

func (m *member) heartbeat() error {
	return m.e.Groups().ClassicHeartbeat(context.Background(), ClassicHeartbeatRequest{
		Group: "g", MemberID: m.req.MemberID, InstanceID: m.req.InstanceID, Generation: m.gen,
	})
}

func (m *member) leave() {
	m.t.Helper()
	errs, err := m.e.Groups().Leave(context.Background(), LeaveRequest{Group: "g", Members: []LeavingMember{{MemberID: m.req.MemberID}}})
	if err != nil || errs[0] != nil {
		m.t.Fatal(errs, err)
	}
}

func (m *member) commit(offset int64) error {
	return m.e.Groups().Commit(context.Background(), CommitRequest{
		Group: "g", MemberID: m.req.MemberID, MemberEpoch: m.gen, InstanceID: m.req.InstanceID, Offsets: []OffsetCommit{at("orders", 0, offset)},
	})
}

// together has members join, and the leader give each its name and the generation as
// the assignment.
func together(members ...*member) {
	t := members[0].t
	t.Helper()
	var joins []*call[JoinResponse]
	for _, m := range members {
		joins = append(joins, m.join())
		synctest.Wait() // in this order
	}
	for i, m := range members {
		m.took(joins[i])
	}
	var syncs []*call[SyncResponse]
	for _, m := range members {
		var list []SyncAssignment
		if m.leader {
			for _, o := range m.others {
				list = append(list, SyncAssignment{o.MemberID, fmt.Appendf(nil, "%d:%s", m.gen, o.MemberID)})
			}
		}
		syncs = append(syncs, m.sync(list...))
	}
	for i, m := range members {
		m.got = syncs[i].get(t).Assignment
		if want := fmt.Sprintf("%d:%s", m.gen, m.req.MemberID); string(m.got) != want {
			t.Fatalf("%s was assigned %q, want %q", m.req.ClientID, m.got, want)
		}
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func (m *member) wantState(want GroupState, members int) GroupDescription {
	m.t.Helper()
	d, err := m.e.Groups().Describe(context.Background(), "g")
	if err != nil {
		m.t.Fatal(err)
	}
	if d.State != want || len(d.Members) != members || d.Type != GroupTypeClassic {
		m.t.Fatalf("a %s group, %s, with %d members, want a classic one, %s, with %d", d.Type, d.State, len(d.Members), want, members)
	}
	return d
}

// What members of a group go through, from the first to the last.
func TestClassicGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		a, b, c := newMember(t, e, "a"), newMember(t, e, "b"), newMember(t, e, "c")
		began := time.Now()
		ja := a.join()
		ja.waits(t)
		a.wantState(GroupPreparingRebalance, 1)
		time.Sleep(60 * time.Millisecond)
		jb := b.join()
		jb.waits(t)
		ra, rb := a.took(ja), b.took(jb)
		if d := time.Since(began); d != 2*defaultInitialDelay {
			t.Fatalf("the first generation began after %v: who comes during the delay lengthens it once", d)
		}
		if ra.Generation != 1 || ra.Leader != ra.MemberID || ra.Protocol != "range" || ra.ProtocolType != "consumer" || len(ra.Members) != 2 {
			t.Fatalf("the first one: %+v", ra)
		}
		if rb.Generation != 1 || rb.Leader != ra.MemberID || rb.Members != nil {
			t.Fatalf("the second one: %+v", rb)
		}
		a.wantState(GroupCompletingRebalance, 2)
		if err := a.heartbeat(); err != nil {
			t.Fatal("a heartbeat before Sync:", err)
		}
		wantErr(t, "a commit before Sync", b.commit(1), ErrRebalancing)
		sb := b.sync()
		sb.waits(t)
		sa := a.sync(SyncAssignment{a.req.MemberID, []byte("x")}, SyncAssignment{"nobody", []byte("y")})
		if got := sa.get(t); string(got.Assignment) != "x" || got.Protocol != "range" || got.ProtocolType != "consumer" {
			t.Fatalf("the leader is assigned %+v", got)
		}
		if got := sb.get(t); len(got.Assignment) != 0 {
			t.Fatalf("who was given nothing is assigned %q", got.Assignment)
		}
		if again := b.sync().get(t); len(again.Assignment) != 0 {
			t.Fatalf("and again: %+v", again)
		}
		d := a.wantState(GroupStable, 2)
		if d.Protocol != "range" || d.ProtocolType != "consumer" || string(d.Members[0].Assignment)+string(d.Members[1].Assignment) != "x" || d.Members[0].Metadata == nil {
			t.Fatalf("described: %+v", d)
		}
		// A third one.
		jc := c.join()
		jc.waits(t)
		wantErr(t, "heartbeat", a.heartbeat(), ErrRebalancing)
		wantErr(t, "sync", a.sync().err2(), ErrRebalancing)
		together2 := []*call[JoinResponse]{a.join(), b.join()}
		a.took(together2[0])
		b.took(together2[1])
		c.took(jc)
		if a.gen != 2 || b.gen != 2 || c.gen != 2 || !a.leader {
			t.Fatalf("second generation: %+v %+v %+v", a, b, c)
		}
		together(a, b, c) // a leader that joins again makes another one
		// One leaves, others go on.
		c.leave()
		wantErr(t, "heartbeat of who left", c.heartbeat(), ErrUnknownMember)
		wantErr(t, "heartbeat", b.heartbeat(), ErrRebalancing)
		together(a, b)
		a.leave()
		together(b)
		if !b.leader || len(b.others) != 1 {
			t.Fatalf("the last one: %+v", b)
		}
		b.leave()
		d = b.wantState(GroupEmpty, 0)
		if d.ProtocolType != "consumer" || d.Protocol != "" {
			t.Fatalf("when it is empty: %+v", d)
		}
		list, err := e.Groups().List(t.Context())
		want := []GroupListing{{Group: "g", Type: GroupTypeClassic, ProtocolType: "consumer", State: GroupEmpty}}
		if err != nil || !reflect.DeepEqual(list, want) {
			t.Fatalf("listed: %+v, %v", list, err)
		}
	})
}

// err2 waits for an answer that is an error.
func (c *call[T]) err2() error {
	<-c.done
	return c.err
}

// Members that are silent or late do not hold the others up longer than they may.
func TestClassicTimeouts(t *testing.T) {
	for _, row := range []struct {
		name string
		late func(e *Engine, b *member) // what the second member does instead of joining again
		want time.Duration
	}{
		{"it dies: until its session ends", func(*Engine, *member) {}, 10 * time.Second},
		{"it heartbeats: until the rebalance timeout", func(e *Engine, b *member) {
			go func() {
				for !errors.Is(b.heartbeat(), ErrUnknownMember) {
					time.Sleep(3 * time.Second)
				}
			}()
		}, 30 * time.Second},
		{"it leaves after 1.234 s", func(e *Engine, b *member) {
			go func() {
				time.Sleep(1234 * time.Millisecond)
				b.leave()
			}()
		}, 1234 * time.Millisecond},
		{"it was given an id, and does not come with it", func(e *Engine, b *member) {
			b.leave()
			b.req.MemberID, b.req.RequireMemberID, b.req.SessionTimeout = "", true, 7*time.Second
			wantErr(b.t, "join", b.join().err2(), ErrMemberIDRequired)
		}, 7 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := openClassicDB(t, vfs.NewMem(), nil)
				a, b := newMember(t, e, "a"), newMember(t, e, "b")
				together(a, b)
				time.Sleep(300 * time.Millisecond) // between two ticks
				if err := b.heartbeat(); err != nil {
					t.Fatal(err)
				}
				row.late(e, b)
				began := time.Now()
				a.took(a.join())
				if d := time.Since(began); d != row.want {
					t.Fatalf("the Join was answered after %v, want %v", d, row.want)
				}
				if a.gen != 2 || len(a.others) != 1 {
					t.Fatalf("generation %d with %d members", a.gen, len(a.others))
				}
				time.Sleep(5 * time.Second) // the other one hears of it
			})
		})
	}
}

// Who joins and does not ask for its assignment is out.
func TestClassicSyncTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		a, b := newMember(t, e, "a"), newMember(t, e, "b")
		ja, jb := a.join(), b.join()
		a.took(ja)
		b.took(jb)
		if !a.leader {
			a, b = b, a
		}
		sb := b.sync() // the leader is silent
		began := time.Now()
		stop := make(chan struct{})
		go func() {
			for a.heartbeat() == nil {
				time.Sleep(3 * time.Second)
			}
			close(stop)
		}()
		wantErr(t, "sync without a leader", sb.err2(), ErrRebalancing)
		if d := time.Since(began); d != 30*time.Second {
			t.Fatalf("it waited for %v, want the rebalance timeout", d)
		}
		<-stop
		together(b)
		if !b.leader {
			t.Fatal("who is left does not lead")
		}
	})
}

func TestClassicMemberIDRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		a := newMember(t, e, "app")
		a.req.RequireMemberID = true
		err := a.join().err2()
		var need *MemberIDRequiredError
		if !errors.As(err, &need) || need.MemberID == "" || !errors.Is(err, ErrMemberIDRequired) {
			t.Fatalf("a first call: %v", err)
		}
		if _, err := e.Groups().Describe(t.Context(), "g"); !errors.Is(err, ErrUnknownGroup) {
			t.Fatalf("an id makes no group: %v", err)
		}
		a.req.MemberID = need.MemberID
		if r := a.took(a.join()); r.MemberID != need.MemberID {
			t.Fatalf("the second call: %+v", r)
		}
		b := newMember(t, e, "app")
		b.req.MemberID = "app-of-my-own"
		wantErr(t, "an id that nobody gave out", b.join().err2(), ErrUnknownMember)
		b.req.MemberID, b.req.RequireMemberID = "", true
		if err = b.join().err2(); !errors.As(err, &need) {
			t.Fatal(err)
		}
		b.req.MemberID = need.MemberID
		time.Sleep(b.req.SessionTimeout + time.Second)
		wantErr(t, "an id that was not used in time", b.join().err2(), ErrUnknownMember)
	})
}

// A static member that comes back stops nobody.
func TestClassicStaticMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		e := openClassicDB(t, fs, nil)
		newTopic(t, e, "orders", 4)
		lead, s := newMember(t, e, "lead"), newMember(t, e, "static")
		lead.req.InstanceID, s.req.InstanceID = "l", "s"
		together(lead, s)
		old, got := *s, s.got
		s.req.MemberID = ""
		s.req.Protocols = []GroupProtocol{{"range", subscription(1, []string{"orders"}, namedParts{"orders", []int32{1}})}} // what it had is no other subscription
		r := s.took(s.join())
		if r.Generation != old.gen || r.MemberID == old.req.MemberID || r.Members != nil || r.SkipAssignment {
			t.Fatalf("it comes back: %+v", r)
		}
		if again := s.sync().get(t); string(again.Assignment) != string(got) {
			t.Fatalf("it had %q and has %q", got, again.Assignment)
		}
		if err := lead.heartbeat(); err != nil {
			t.Fatal("the other one is stopped:", err)
		}
		for what, err := range map[string]error{
			"heartbeat": old.heartbeat(), "sync": old.sync().err2(), "join": old.join().err2(), "commit": old.commit(1),
		} {
			wantErr(t, "the old one: "+what, err, ErrFencedInstance)
		}
		errs, err := e.Groups().Leave(t.Context(), LeaveRequest{Group: "g", Members: []LeavingMember{
			{MemberID: old.req.MemberID, InstanceID: "s"}, {InstanceID: "nobody"}, {MemberID: "nobody"}, {},
		}})
		if err != nil || !errors.Is(errs[0], ErrFencedInstance) || !errors.Is(errs[1], ErrUnknownMember) || !errors.Is(errs[2], ErrUnknownMember) || !errors.Is(errs[3], ErrUnknownMember) {
			t.Fatalf("leave: %v, %v", errs, err)
		}
		// Its new id is on disk before it knows it.
		e.Close()
		e = openClassicDB(t, fs, nil)
		lead.e, s.e, old.e = e, e, e
		wantErr(t, "the old one after a restart", old.heartbeat(), ErrFencedInstance)
		if err := s.heartbeat(); err != nil {
			t.Fatal(err)
		}
		// The leader comes back: it must not assign.
		lead.req.MemberID = ""
		if r := lead.took(lead.join()); r.Leader == r.MemberID || r.Generation != s.gen || r.Members != nil {
			t.Fatalf("the leader comes back and does not know of KIP-814: %+v", r)
		}
		lead.req.MemberID, lead.req.SkipAssignment = "", true
		if r := lead.took(lead.join()); r.Leader != r.MemberID || !r.SkipAssignment || len(r.Members) != 2 {
			t.Fatalf("the leader comes back: %+v", r)
		}
		if err := s.heartbeat(); err != nil {
			t.Fatal(err)
		}
		// Another subscription does stop them.
		s.req.MemberID, s.req.Protocols = "", rangeOver("orders", "more")
		js := s.join()
		js.waits(t)
		wantErr(t, "heartbeat", lead.heartbeat(), ErrRebalancing)
		lead.took(lead.join())
		s.took(js)
		// While the leader assigns, an id that it does not know may not come in.
		old = *s
		s.req.MemberID = ""
		js = s.join()
		js.waits(t)
		wantErr(t, "the leader's sync", lead.sync().err2(), ErrRebalancing)
		lead.took(lead.join())
		s.took(js)
		// It is gone for longer than its session: away with it. By then it is waited for.
		lead.sync().get(t)
		s.sync().get(t)
		jl := lead.join()
		jl.waits(t)
		lead.took(jl)
		if len(lead.others) != 1 {
			t.Fatalf("members: %+v", lead.others)
		}
		errs, err = e.Groups().Leave(t.Context(), LeaveRequest{Group: "g", Members: []LeavingMember{{InstanceID: "l"}}})
		if err != nil || errs[0] != nil {
			t.Fatal(errs, err)
		}
		lead.wantState(GroupEmpty, 0)
	})
}

func newTopic(t *testing.T, e *Engine, name string, partitions int) *Topic {
	t.Helper()
	topic, err := e.CreateTopic(context.Background(), TopicSpec{Name: name, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// Each member votes for the first of its protocols that all have.
func TestClassicProtocols(t *testing.T) {
	for _, row := range []struct {
		members []string // the protocols of each, as letters
		want    string
	}{
		{[]string{"abc"}, "a"},
		{[]string{"abc", "bac", "bca"}, "b"},
		{[]string{"abc", "bc", "cb"}, "b"}, // b b c: nobody can vote for a
		{[]string{"ba", "ab"}, "a"},        // by name
		{[]string{"a", "b"}, ""},
		{[]string{"ab", "bc", "ca"}, ""}, // pairs only
	} {
		g := newClassicState("g", classicLimits{maxSession: time.Hour, members: 9}, new(int32))
		var err error
		for i, names := range row.members {
			req := &JoinRequest{ProtocolType: "t", SessionTimeout: time.Second}
			for _, name := range names {
				req.Protocols = append(req.Protocols, GroupProtocol{Name: string(name)})
			}
			if _, _, err = g.join(time.Unix(int64(i), 0), req, fmt.Sprint(i)); err != nil {
				break
			}
		}
		if row.want == "" {
			if !errors.Is(err, ErrInconsistentProtocol) {
				t.Errorf("%q: got %v", row.members, err)
			}
		} else if got := g.selectProtocol(); err != nil || got != row.want {
			t.Errorf("%q: got %q, %v, want %q", row.members, got, err, row.want)
		}
	}
}

func TestClassicRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), func(o *Options) { o.GroupMaxSize = 2 })
		a, b := newMember(t, e, "a"), newMember(t, e, "b")
		together(a, b)
		for _, row := range []struct {
			name string
			edit func(r *JoinRequest)
			want error
		}{
			{"no protocol", func(r *JoinRequest) { r.Protocols = nil }, ErrInconsistentProtocol},
			{"no protocol type", func(r *JoinRequest) { r.ProtocolType = "" }, ErrInconsistentProtocol},
			{"another protocol type", func(r *JoinRequest) { r.ProtocolType = "connect" }, ErrInconsistentProtocol},
			{"another protocol", func(r *JoinRequest) { r.Protocols[0].Name = "roundrobin" }, ErrInconsistentProtocol},
			{"a short session", func(r *JoinRequest) { r.SessionTimeout = 6*time.Second - 1 }, ErrSessionTimeout},
			{"a long session", func(r *JoinRequest) { r.SessionTimeout = 30*time.Minute + 1 }, ErrSessionTimeout},
			{"a member id that is no text", func(r *JoinRequest) { r.MemberID = "\xff" }, ErrInvalidMember},
			{"an instance id that is too long", func(r *JoinRequest) { r.InstanceID = string(make([]byte, 1<<15)) }, ErrInvalidMember},
			{"a protocol without a name", func(r *JoinRequest) { r.Protocols[0].Name = "" }, ErrInvalidMember},
			{"no group", func(r *JoinRequest) { r.Group = "" }, ErrInvalidGroup},
		} {
			req := a.req
			req.Protocols = slices.Clone(req.Protocols)
			row.edit(&req)
			_, err := e.Groups().Join(t.Context(), req)
			wantErr(t, row.name, err, row.want)
		}
		wantErr(t, "a third member of two", newMember(t, e, "c").join().err2(), ErrGroupMaxSize)
		if err := a.heartbeat(); err != nil {
			t.Fatal("what was refused stops nobody:", err)
		}
		wrong := *a
		wrong.gen = 7
		wantErr(t, "heartbeat of another generation", wrong.heartbeat(), ErrIllegalGeneration)
		wantErr(t, "sync of another generation", wrong.sync().err2(), ErrIllegalGeneration)
		wantErr(t, "commit of another generation", wrong.commit(1), ErrIllegalGeneration)
		_, err := e.Groups().Sync(t.Context(), SyncRequest{Group: "g", MemberID: a.req.MemberID, Generation: a.gen, Protocol: "roundrobin"})
		wantErr(t, "sync with another protocol", err, ErrInconsistentProtocol)
		_, err = e.Groups().Sync(t.Context(), SyncRequest{Group: "g", MemberID: a.req.MemberID, Generation: a.gen, ProtocolType: "connect"})
		wantErr(t, "sync with another protocol type", err, ErrInconsistentProtocol)
		_, err = e.Groups().Leave(t.Context(), LeaveRequest{Group: "nobody's"})
		wantErr(t, "leave a group that there is not", err, ErrUnknownMember)
		// The names of clients are for people: what cannot be stored is left out.
		b.req.ClientID = "b\xff"
		b.req.RequireMemberID = true
		b.leave()
		b.req.MemberID = ""
		var need *MemberIDRequiredError
		if err := b.join().err2(); !errors.As(err, &need) {
			t.Fatal(err)
		}
	})
}

// Who may commit when.
func TestClassicCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		orders := newTopic(t, e, "orders", 1)
		for range 9 {
			if _, err := orders.Partitions()[0].Append(t.Context(), []log.Record{{Value: []byte("v")}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		simple := func(offset int64) error {
			return e.Groups().Commit(t.Context(), CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, offset)}})
		}
		txn := func(m *member, offset int64) error {
			req := CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, offset)}}
			if m != nil {
				req.MemberID, req.MemberEpoch = m.req.MemberID, m.gen
			}
			return e.Groups().TxnCommit(t.Context(), req, 4711, 0)
		}
		if err := simple(1); err != nil {
			t.Fatal("before there are members:", err)
		}
		a, b := newMember(t, e, "a"), newMember(t, e, "b")
		together(a)
		if err := a.commit(2); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "nobody's commit to a group with members", simple(3), ErrGroupNotEmpty)
		if err := txn(a, 2); err != nil {
			t.Fatal("within a transaction:", err)
		}
		if err := txn(nil, 2); err != nil {
			t.Fatal("within a transaction of before KIP-447:", err)
		}
		wrong := *a
		wrong.gen--
		wantErr(t, "within a transaction, of another generation", txn(&wrong, 2), ErrIllegalGeneration)
		jb := b.join()
		jb.waits(t)
		if err := a.commit(3); err != nil {
			t.Fatal("while others join:", err)
		}
		old := *a
		a.took(a.join())
		b.took(jb)
		wantErr(t, "with the generation before", old.commit(4), ErrIllegalGeneration)
		wantErr(t, "before Sync", a.commit(4), ErrRebalancing)
		a.sync().get(t)
		b.sync().get(t)
		if err := b.commit(4); err != nil {
			t.Fatal(err)
		}
		// A commit is a sign of life.
		for range 4 {
			time.Sleep(9 * time.Second)
			if err := b.commit(5); err != nil {
				t.Fatal(err)
			}
			if b.heartbeat() != nil { // the other one is out by now
				together(b)
			}
		}
		b.leave()
		wantErr(t, "of a member that left", b.commit(6), ErrUnknownMember)
		if err := simple(6); err != nil {
			t.Fatal("when the group is empty:", err)
		}
		list, err := e.Groups().Committed(t.Context(), "g", nil, false)
		if err != nil || len(list) != 1 || list[0].Offset != 6 {
			t.Fatalf("committed: %+v, %v", list, err)
		}
	})
}

// After a restart members go on where they were.
func TestClassicRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		e := openClassicDB(t, fs, nil)
		newTopic(t, e, "orders", 1)
		a, b := newMember(t, e, "a"), newMember(t, e, "b")
		together(a, b)
		reopen := func() {
			t.Helper()
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = openClassicDB(t, fs, nil)
			a.e, b.e = e, e
		}
		time.Sleep(9 * time.Second) // nearly a session
		reopen()
		time.Sleep(2 * time.Second) // it begins anew
		for _, m := range []*member{a, b} {
			if err := m.heartbeat(); err != nil {
				t.Fatal(err)
			}
			if err := m.commit(0); err != nil {
				t.Fatal(err)
			}
			if got := m.sync().get(t).Assignment; string(got) != string(m.got) {
				t.Fatalf("assigned %q, before the restart %q", got, m.got)
			}
		}
		d := a.wantState(GroupStable, 2)
		if d.Protocol != "range" || d.Epoch != a.gen || d.Members[0].ClientHost != "/127.0.0.1" {
			t.Fatalf("described: %+v", d)
		}
		// A generation that nobody was assigned anything in is not told again.
		a.took2(b)
		if a.gen != 2 {
			t.Fatalf("generation %d", a.gen)
		}
		reopen()
		wantErr(t, "a member of a generation that was not made", a.heartbeat(), ErrIllegalGeneration)
		together(a, b)
		if a.gen != 3 {
			t.Fatalf("generation %d is told a second time", a.gen)
		}
		// Who left, or died, does not come back.
		b.leave()
		time.Sleep(20 * time.Second)
		a.wantState(GroupEmpty, 0)
		reopen()
		a.wantState(GroupEmpty, 0)
		wantErr(t, "heartbeat", a.heartbeat(), ErrUnknownMember)
		a.req.MemberID = ""
		together(a)
		if a.gen <= 3 {
			t.Fatalf("generation %d after 3", a.gen)
		}
		a.leave()
		if err := e.Groups().Delete(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
		reopen()
		if list, err := e.Groups().List(t.Context()); err != nil || len(list) != 0 {
			t.Fatalf("after it was deleted: %+v, %v", list, err)
		}
	})
}

// took2 has two members join again.
func (m *member) took2(o *member) {
	m.t.Helper()
	jm, jo := m.join(), o.join()
	m.took(jm)
	o.took(jo)
}

// A call that waits ends with its context, with the member and with the engine.
func TestClassicWaitsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		a, b, c := newMember(t, e, "a"), newMember(t, e, "b"), newMember(t, e, "c")
		together(a, b)
		ctx, cancel := context.WithCancel(context.Background())
		// A new member that gives up is no member.
		_, err := e.Groups().Join(timeout(t, time.Second), c.req)
		wantErr(t, "a Join whose context ends", err, context.DeadlineExceeded)
		a.wantState(GroupPreparingRebalance, 2)
		// One that knows its id may come again.
		c.req.RequireMemberID = true
		var need *MemberIDRequiredError
		if err := c.join().err2(); !errors.As(err, &need) {
			t.Fatal(err)
		}
		c.req.MemberID = need.MemberID
		jc := begin(func() (JoinResponse, error) { return e.Groups().Join(ctx, c.req) })
		jc.waits(t)
		cancel()
		wantErr(t, "a Join whose context ends", jc.err2(), context.Canceled)
		// Two calls of one member get one answer; the end of one of them is not the other's.
		jc = c.join()
		_, err = e.Groups().Join(timeout(t, time.Second), c.req)
		wantErr(t, "a Join whose context ends", err, context.DeadlineExceeded)
		jc.waits(t)
		a.took2(b)
		c.took(jc)
		sb := b.sync()
		_, err = e.Groups().Sync(timeout(t, time.Second), SyncRequest{Group: "g", MemberID: c.req.MemberID, Generation: c.gen})
		wantErr(t, "a Sync whose context ends", err, context.DeadlineExceeded)
		sb.waits(t)
		errs, err := e.Groups().Leave(t.Context(), LeaveRequest{Group: "g", Members: []LeavingMember{{MemberID: b.req.MemberID}}})
		if err != nil || errs[0] != nil {
			t.Fatal(errs, err)
		}
		wantErr(t, "a Sync of a member that is taken out", sb.err2(), ErrUnknownMember)
		ja := a.join()
		ja.waits(t)
		e.Close()
		wantErr(t, "a Join when the engine closes", ja.err2(), log.ErrClosed)
		wantErr(t, "a Join after it", a.join().err2(), log.ErrClosed)
	})
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// Offsets of what a member reads are not deleted.
func TestClassicDeleteOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openClassicDB(t, vfs.NewMem(), nil)
		orders, other := newTopic(t, e, "orders", 1), newTopic(t, e, "other", 1)
		parts := func(topic *Topic) []TopicPartitions { return []TopicPartitions{{topic.ID(), []int32{0}}} }
		a := newMember(t, e, "a")
		together(a)
		if err := a.commit(0); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "what it reads", e.Groups().DeleteOffsets(t.Context(), "g", parts(orders)), ErrGroupNotEmpty)
		if err := e.Groups().DeleteOffsets(t.Context(), "g", parts(other)); err != nil {
			t.Fatal("what it does not read:", err)
		}
		wantErr(t, "the group", e.Groups().Delete(t.Context(), "g"), ErrGroupNotEmpty)
		_, err := e.Groups().Reset(t.Context(), "g", ResetRequest{Kind: ResetEarliest})
		wantErr(t, "a reset", err, ErrGroupNotEmpty)
		a.leave()
		a.req.ProtocolType, a.req.MemberID, a.req.Protocols = "connect", "", []GroupProtocol{{"compatible", []byte("x")}}
		together(a)
		wantErr(t, "what nobody can know whether it reads", e.Groups().DeleteOffsets(t.Context(), "g", parts(other)), ErrGroupNotEmpty)
		wantErr(t, "nothing at all", e.Groups().DeleteOffsets(t.Context(), "g", nil), ErrGroupNotEmpty)
	})
}
