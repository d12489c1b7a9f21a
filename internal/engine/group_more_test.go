package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

func TestStaticMember(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 4)
	join := func(member, instance string) (HeartbeatResponse, error) {
		return db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", MemberID: member, InstanceID: instance, Topics: []string{"orders"}, SessionTimeout: 10 * time.Second})
	}
	a, err := join("a", "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join("b", "one"); !errors.Is(err, ErrInstanceInUse) {
		t.Fatalf("the same instance twice: %v", err)
	}
	db.beat(HeartbeatRequest{Group: "g", MemberID: "a", InstanceID: "one", MemberEpoch: StaticLeaveEpoch})
	d, err := db.Groups().Describe(ctx, "g")
	if err != nil || len(d.Members) != 1 || d.Members[0].Epoch != StaticLeaveEpoch || newGroupParts(d.Members[0].Assigned).count() != 4 {
		t.Fatalf("while it is away: %+v %v", d, err)
	}
	if err := db.Groups().Commit(ctx, CommitRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch, Offsets: []OffsetCommit{at("orders", 0, 0)}}); !errors.Is(err, ErrRebalance) {
		t.Fatalf("a commit of who left: %v", err)
	}
	b, err := join("b", "one")
	if err != nil || b.MemberEpoch != a.MemberEpoch || newGroupParts(b.Assignment).count() != 4 {
		t.Fatalf("the next process of the instance: %+v %v", b, err)
	}
	for name, err := range map[string]error{
		"heartbeat": heartbeatError(db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", MemberID: "a", InstanceID: "one", MemberEpoch: a.MemberEpoch})),
		"commit":    db.Groups().Commit(ctx, CommitRequest{Group: "g", MemberID: "a", InstanceID: "one", MemberEpoch: a.MemberEpoch, Offsets: []OffsetCommit{at("orders", 0, 0)}}),
	} {
		if !errors.Is(err, ErrFencedInstance) {
			t.Errorf("%s of the process before: %v", name, err)
		}
	}
	// It does not come back in time.
	db.beat(HeartbeatRequest{Group: "g", MemberID: "b", InstanceID: "one", MemberEpoch: StaticLeaveEpoch})
	db.clock.Add(9 * time.Second)
	db.Tick(ctx)
	c, err := join("c", "two")
	if err != nil || newGroupParts(c.Assignment).count() != 2 {
		t.Fatalf("another one takes its half at once, the rest waits for who is away: %+v %v", c, err)
	}
	db.clock.Add(time.Second)
	db.Tick(ctx)
	if c = db.beat(HeartbeatRequest{Group: "g", MemberID: "c", InstanceID: "two", MemberEpoch: c.MemberEpoch}); newGroupParts(c.Assignment).count() != 4 {
		t.Fatalf("after its session: %+v", c)
	}
}

func heartbeatError(_ HeartbeatResponse, err error) error { return err }

func TestRegexSubscription(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders.eu", 1)
	db.topic("old-orders.eu", 1)
	a := db.beat(HeartbeatRequest{Group: "g", Regex: `orders\..*|.*offsets`, Local: true})
	if got := newGroupParts(a.Assignment); got.count() != 1 || len(got[db.topicID("orders.eu")]) != 1 {
		t.Fatalf("the whole name has to match, and no internal topic does: %+v", a)
	}
	news := db.Groups().Changed("g", a.MemberID)
	db.topic("orders.us", 2)
	<-news
	if a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch}); newGroupParts(a.Assignment).count() != 3 {
		t.Fatalf("a topic that was made later: %+v", a)
	}
	if err := db.DeleteTopic(ctx, "orders.us"); err != nil {
		t.Fatal(err)
	}
	<-news
	if a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch}); newGroupParts(a.Assignment).count() != 1 {
		t.Fatalf("a topic that was deleted: %+v", a)
	}
	a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch, Owned: a.Assignment})
	for _, bad := range []string{"(", "a)(b", `[`} {
		if _, err := db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", Regex: bad}); !errors.Is(err, ErrInvalidRegex) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch, NoRegex: true, Topics: []string{"old-orders.eu"}})
	a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch, Owned: []TopicPartitions{}})
	if got := newGroupParts(a.Assignment); got.count() != 1 || len(got[db.topicID("old-orders.eu")]) != 1 {
		t.Fatalf("another subscription: %+v", a)
	}
}

func TestHeartbeatRefuses(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	id := db.topic("orders", 1).ID()
	db.beat(HeartbeatRequest{Group: "g", MemberID: "s", InstanceID: "i", Topics: []string{"orders"}})
	db.beat(HeartbeatRequest{Group: "g", MemberID: "d", Topics: []string{"orders"}})
	for _, row := range []struct {
		name string
		req  HeartbeatRequest
		want error
	}{
		{"no group", HeartbeatRequest{Topics: []string{"orders"}}, ErrInvalidGroup},
		{"no subscription", HeartbeatRequest{Group: "g"}, ErrInvalidMember},
		{"owns and joins", HeartbeatRequest{Group: "g", Topics: []string{"orders"}, Owned: []TopicPartitions{{id, []int32{0}}}}, ErrInvalidMember},
		{"no id", HeartbeatRequest{Group: "g", MemberEpoch: 1}, ErrInvalidMember},
		{"strange epoch", HeartbeatRequest{Group: "g", MemberID: "s", MemberEpoch: -3}, ErrInvalidMember},
		{"leaves for a while and is not static", HeartbeatRequest{Group: "g", MemberID: "d", MemberEpoch: -2}, ErrInvalidMember},
		{"joins with another instance", HeartbeatRequest{Group: "g", MemberID: "s", InstanceID: "j", Topics: []string{"orders"}}, ErrInvalidMember},
		{"assignor", HeartbeatRequest{Group: "g", Topics: []string{"orders"}, Assignor: "fair"}, ErrUnsupportedAssignor},
		{"unknown group", HeartbeatRequest{Group: "h", MemberID: "s", MemberEpoch: 1}, ErrUnknownMember},
		{"unknown member", HeartbeatRequest{Group: "g", MemberID: "x", MemberEpoch: 1}, ErrUnknownMember},
		{"another instance", HeartbeatRequest{Group: "g", MemberID: "s", InstanceID: "j", MemberEpoch: 1}, ErrUnknownMember},
		{"epoch from the future", HeartbeatRequest{Group: "g", MemberID: "s", MemberEpoch: 9}, ErrRebalance},
	} {
		if _, err := db.Groups().Heartbeat(ctx, row.req); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// Members come and go, commit and describe from many goroutines, while topics
// change. Who gets a partition reads on from where the one before has committed,
// and what is committed never goes back.
func TestGroupsConcurrently(t *testing.T) {
	var rebalances, commits int
	var hooks sync.Mutex
	db := openGroupDB(t, vfs.NewMem(), func(o *Options) {
		o.Hooks = &Hooks{
			OnRebalance: func(string, int32, int) { hooks.Lock(); rebalances++; hooks.Unlock() },
			OnCommit:    func(string, int, time.Duration, error) { hooks.Lock(); commits++; hooks.Unlock() },
		}
	})
	orders := db.topic("orders", 6)
	db.produce(orders, 100)
	var seen sync.Mutex
	highest := map[int32]int64{} // committed, of each partition
	owner := map[int32]string{}
	var members, others sync.WaitGroup
	done := make(chan struct{})
	for n := range 6 {
		members.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 1))
			for round := range testcount.N(30) {
				id := fmt.Sprintf("m%d.%d", n, round)
				holds := map[int32]int64{} // partition to where it is
				r, err := db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", MemberID: id, Topics: []string{"orders", "more"}, Local: true})
				for range 3 + rng.IntN(8) {
					if err != nil {
						t.Errorf("%s: %v", id, err)
						return
					}
					req := HeartbeatRequest{Group: "g", MemberID: id, MemberEpoch: r.MemberEpoch}
					if r.Assignment != nil {
						parts := newGroupParts(r.Assignment)[orders.ID()]
						req.Owned = r.Assignment
						seen.Lock()
						for p := range holds {
							if !slices.Contains(parts, p) {
								delete(holds, p)
								delete(owner, p)
							}
						}
						seen.Unlock()
						for _, p := range parts {
							if _, ok := holds[p]; ok {
								continue
							}
							seen.Lock()
							if owner[p] != "" {
								t.Errorf("%d is owned by %s and %s", p, owner[p], id)
							}
							owner[p] = id
							want := highest[p]
							seen.Unlock()
							list, err := db.Groups().Committed(ctx, "g", []TopicPartitions{{orders.ID(), []int32{p}}}, true)
							if err != nil {
								t.Error(err)
							}
							holds[p] = 0
							if len(list) == 1 {
								holds[p] = list[0].Offset
							}
							if holds[p] < want {
								t.Errorf("%s goes on at %d of partition %d, %d was committed", id, holds[p], p, want)
							}
						}
					}
					for p := range holds {
						next := min(holds[p]+1, 100)
						if err := db.Groups().Commit(ctx, CommitRequest{Group: "g", MemberID: id, MemberEpoch: r.MemberEpoch, Offsets: []OffsetCommit{at("orders", p, next)}}); err != nil {
							t.Errorf("%s commits %d: %v", id, p, err)
						}
						holds[p] = next
						seen.Lock()
						highest[p] = max(highest[p], next)
						seen.Unlock()
					}
					r, err = db.Groups().Heartbeat(ctx, req)
				}
				seen.Lock()
				for p := range owner {
					if owner[p] == id {
						delete(owner, p)
					}
				}
				seen.Unlock()
				if _, err := db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", MemberID: id, MemberEpoch: LeaveEpoch}); err != nil {
					t.Errorf("%s leaves: %v", id, err)
				}
			}
		})
	}
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if _, err := db.Groups().Describe(ctx, "g"); err != nil && !errors.Is(err, ErrUnknownGroup) {
				t.Error(err)
			}
			if _, err := db.Groups().List(ctx); err != nil {
				t.Error(err)
			}
			if i%10 == 0 {
				if _, err := db.CreateTopic(context.Background(), TopicSpec{Name: "more", Partitions: 2}); err != nil {
					t.Error(err)
				}
				if err := db.DeleteTopic(ctx, "more"); err != nil {
					t.Error(err)
				}
			}
			db.Tick(ctx)
		}
	})
	members.Wait()
	close(done)
	others.Wait()
	want := []string{}
	for p := range int32(6) {
		if highest[p] > 0 {
			want = append(want, fmt.Sprintf("orders/%d@%d", p, highest[p]))
		}
	}
	db.wantCommitted("g", want...)
	db.reopen(nil)
	db.wantCommitted("g", want...)
	t.Logf("%d commits, %d rebalances", commits, rebalances)
	if commits == 0 || rebalances == 0 {
		t.Fatal("the hooks saw nothing")
	}
}
