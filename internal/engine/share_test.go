package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// shareBed is a database with a topic and a share group with one member, in virtual time.
type shareBed struct {
	t      testing.TB
	e      *Engine
	topic  *Topic
	epochs map[string]int32
}

const shareGroupName = "q"

func newShareBed(t testing.TB, fs vfs.FS, settings map[string]string) *shareBed {
	t.Helper()
	b := &shareBed{t: t, epochs: map[string]int32{}}
	var err error
	if b.e, err = Open("db", &Options{FS: fs, MaintenanceInterval: -1}); err != nil {
		t.Fatal(err)
	}
	if b.topic, err = b.e.Topic("orders"); errors.Is(err, ErrUnknownTopic) {
		b.topic, err = b.e.CreateTopic(ctx, TopicSpec{Name: "orders", Partitions: 1, Settings: settings})
	}
	if err != nil {
		t.Fatal(err)
	}
	b.set(shareSettingReset, "earliest")
	return b
}

func (b *shareBed) set(name, value string) {
	b.t.Helper()
	err := b.e.Shares().AlterSettings(ctx, shareGroupName, false, func(set map[string]string) (map[string]string, error) {
		set[name] = value
		return set, nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// join makes members of the group.
func (b *shareBed) join(members ...string) {
	b.t.Helper()
	for _, m := range members {
		r, err := b.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: m, Topics: []string{"orders"}})
		if err != nil {
			b.t.Fatal(err)
		}
		b.epochs[m] = r.MemberEpoch
	}
}

func (b *shareBed) produce(n int) {
	b.t.Helper()
	p, err := b.topic.Partition(0)
	if err == nil {
		recs := make([]log.Record, n)
		for i := range recs {
			recs[i] = log.Record{Timestamp: b.e.Now().UnixMilli(), Key: fmt.Append(nil, p.LogEnd()+int64(i)), Value: []byte("v")}
		}
		_, err = p.Append(ctx, recs, nil)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// acquire returns what a member gets, as "0-4:1 7:2", offsets and delivery counts.
func (b *shareBed) acquire(member string, limit int) string {
	b.t.Helper()
	res, err := b.e.Shares().Acquire(ctx, ShareRequest{Group: shareGroupName, MemberID: member, Topic: b.topic.ID(), MaxRecords: limit, Strict: limit > 0})
	if err != nil {
		return err.Error()
	}
	if len(res.Acquired) > 0 && len(res.Batches) == 0 {
		b.t.Errorf("%s has acquired %v, and no batches", member, res.Acquired)
	}
	return acquiredText(res.Acquired)
}

func acquiredText(list []AcquiredRecords) string {
	var words []string
	for _, a := range list {
		words = append(words, fmt.Sprintf("%s:%d", spanText(a.First, a.Last), a.DeliveryCount))
	}
	return strings.Join(words, " ")
}

func spanText(first, last int64) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func (b *shareBed) ack(member string, first, last int64, types ...AckType) error {
	return b.e.Shares().Acknowledge(ctx, AckRequest{Group: shareGroupName, MemberID: member, Topic: b.topic.ID(), Acks: []Ack{{first, last, types}}})
}

// state is the share partition as text: its start, then runs with the first letter of
// their state and their count.
func (b *shareBed) state() string {
	b.t.Helper()
	g, err := b.e.Shares().group(ctx, shareGroupName, false)
	if err != nil {
		b.t.Fatal(err)
	}
	sp := g.find(topicPart{b.topic.ID(), 0})
	if sp == nil {
		return "none"
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return stateText(&sp.state)
}

func stateText(s *shareState) string {
	words := []string{fmt.Sprint(s.start)}
	at := s.start
	for i := range s.runs {
		r := &s.runs[i]
		word := map[deliveryState]string{shareAvailable: "free", shareAcquired: r.holder, shareAccepted: "accepted", shareSettling: "settling", shareArchived: "archived"}[r.state]
		if !r.there() {
			word = "gap"
		}
		words = append(words, fmt.Sprintf("%s:%s", spanText(at, r.end-1), word))
		at = r.end
	}
	return strings.Join(words, " ")
}

func (b *shareBed) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: got %q, want %q (state %s)", what, got, want, b.state())
	}
}

func (b *shareBed) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Error(err)
	}
}

// bubble runs f in virtual time with a bed of its own.
func bubble(t *testing.T, f func(b *shareBed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newShareBed(t, vfs.NewMem(), nil)
		defer b.e.Close()
		f(b)
	})
}

func TestShareGroupDelivers(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a", "b")
		b.produce(10)
		b.want("a", b.acquire("a", 4), "0-3:1")
		b.want("b", b.acquire("b", 0), "4-9:1")
		b.want("a again", b.acquire("a", 4), "")
		b.ok(b.ack("a", 0, 1, AckAccept))
		b.want("state", b.state(), "2 2-3:a 4-9:b")
		if err := b.ack("a", 4, 4, AckAccept); !errors.Is(err, ErrNotAcquired) {
			t.Errorf("acknowledging what b has: %v", err)
		}
		if err := b.ack("a", 3, 4, AckAccept); !errors.Is(err, ErrNotAcquired) {
			t.Errorf("acknowledging what b has, in part: %v", err)
		}
		b.ok(b.ack("a", 2, 3, AckRelease, AckReject))
		b.want("state", b.state(), "2 2:free 3:archived 4-9:b")
		b.want("released", b.acquire("b", 0), "2:2")
		b.ok(b.ack("b", 2, 2, AckAccept))
		b.want("state", b.state(), "4 4-9:b")
		b.ok(b.ack("a", 0, 3, AckAccept)) // long done
	})
}

func TestShareLocksRunOut(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.set(shareSettingLock, "10000")
		b.set(shareSettingLimit, "2")
		b.join("a", "b")
		b.produce(3)
		b.want("a", b.acquire("a", 0), "0-2:1")
		time.Sleep(6 * time.Second)
		b.ok(b.ack("a", 1, 1, AckRenew))
		time.Sleep(5 * time.Second)
		b.want("the lock is over", b.acquire("b", 0), "0:2 2:2")
		if err := b.ack("a", 0, 0, AckAccept); !errors.Is(err, ErrNotAcquired) {
			t.Errorf("after the lock: %v", err)
		}
		b.ok(b.ack("a", 1, 1, AckAccept))
		b.ok(b.ack("b", 0, 0, AckRelease)) // the second time: it is archived
		b.want("state", b.state(), "2 2:b")
		time.Sleep(20 * time.Second)
		b.want("delivered twice", b.acquire("a", 0), "")
		b.want("state", b.state(), "3")
	})
}

func TestShareAwait(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a", "b")
		parts := []TopicPartitions{{b.topic.ID(), []int32{0}}}
		await := func(max time.Duration) time.Duration {
			began := time.Now()
			b.ok(b.e.Shares().Await(ctx, shareGroupName, parts, max))
			return time.Since(began)
		}
		b.want("nothing", b.acquire("a", 0), "")
		if d := await(2 * time.Second); d != 2*time.Second {
			t.Errorf("without records it waited for %v", d)
		}
		go func() {
			time.Sleep(time.Second)
			b.produce(1)
		}()
		if d := await(time.Minute); d != time.Second {
			t.Errorf("for a record it waited for %v", d)
		}
		b.want("a", b.acquire("a", 0), "0:1")
		if d := await(time.Minute); d > 30*time.Second || d < 29*time.Second {
			t.Errorf("for the end of a lock it waited for %v", d)
		}
		b.want("b", b.acquire("b", 0), "0:2")
		go func() {
			time.Sleep(time.Second)
			b.e.Shares().Disconnected("nobody")
			b.e.Shares().releaseMember(shareGroupName, "b")
		}()
		if d := await(time.Minute); d != time.Second {
			t.Errorf("for a release it waited for %v", d)
		}
	})
}

// Members that go, by themselves or by silence, leave their records to others.
func TestShareMembersLeave(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a", "b")
		b.produce(4)
		b.set(shareSettingLock, "3600000")
		b.want("a", b.acquire("a", 2), "0-1:1")
		b.want("b", b.acquire("b", 2), "2-3:1")
		if _, err := b.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: "a", MemberEpoch: LeaveEpoch}); err != nil {
			t.Fatal(err)
		}
		b.want("b gets what a had", b.acquire("b", 0), "0-1:2")
		time.Sleep(50 * time.Second)
		d, err := b.e.Groups().Describe(ctx, shareGroupName)
		if err != nil || len(d.Members) != 0 || d.State != GroupEmpty || d.Type != GroupTypeShare {
			t.Errorf("after silence: %+v, %v", d, err)
		}
		b.want("state", b.state(), "0 0-1:free 2-3:free")
	})
}

func TestShareStateIsKept(t *testing.T) {
	for _, kill := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { shareStateIsKept(t, kill) })
	}
}

func shareStateIsKept(t *testing.T, kill bool) {
	fs := vfs.NewMem()
	b := newShareBed(t, fs, nil)
	b.join("a")
	b.produce(10)
	b.want("a", b.acquire("a", 8), "0-7:1")
	b.ok(b.ack("a", 0, 1, AckAccept))
	b.ok(b.ack("a", 4, 5, AckAccept, AckReject))
	b.ok(b.ack("a", 7, 7, AckRelease))
	b.want("7 again", b.acquire("a", 1), "7:2")
	before := b.e
	if kill {
		fs = fs.AfterKill()
		before.Close() // of a process that is no more
	} else {
		b.ok(before.Close())
	}
	b = newShareBed(t, fs, nil)
	defer b.e.Close()
	b.join("b")
	if kill {
		b.want("after a kill", b.acquire("b", 0), "2-3:2 6-7:2 8-9:1")
	} else {
		b.want("after a close", b.acquire("b", 0), "2-3:2 6:2 7:3 8-9:1")
	}
	b.ok(b.ack("b", 2, 3, AckAccept))
	b.ok(b.ack("b", 7, 7, AckAccept))
	b.want("state", b.state(), "6 6:b 7:accepted 8-9:b")
}

func TestShareStartsWhereItIsToldTo(t *testing.T) {
	for _, row := range []struct{ reset, want string }{
		{"earliest", "0-3:1"}, {"latest", ""}, {"by_duration:PT1M", "2-3:1"}, {"by_duration:PT1H", "0-3:1"}, {"by_duration:PT1S", ""},
	} {
		t.Run(row.reset, func(t *testing.T) {
			bubble(t, func(b *shareBed) {
				b.set(shareSettingReset, row.reset)
				b.produce(2)
				time.Sleep(2 * time.Minute)
				b.produce(2)
				time.Sleep(30 * time.Second)
				b.join("a")
				b.want("a", b.acquire("a", 0), row.want)
			})
		})
	}
}

func TestShareFollowsTheLogStart(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a")
		b.produce(10)
		b.want("a", b.acquire("a", 6), "0-5:1")
		p, _ := b.topic.Partition(0)
		if _, err := p.DeleteRecords(ctx, 4); err != nil {
			t.Fatal(err)
		}
		b.ok(b.ack("a", 0, 4, AckAccept))
		b.want("state", b.state(), "5 5:a")
		if _, err := p.DeleteRecords(ctx, 8); err != nil {
			t.Fatal(err)
		}
		b.want("a", b.acquire("a", 0), "8-9:1")
		b.want("state", b.state(), "8 8-9:a")
	})
}

func TestShareReadsCommitted(t *testing.T) {
	for _, isolation := range []string{"read_committed", "read_uncommitted"} {
		t.Run(isolation, func(t *testing.T) {
			bubble(t, func(b *shareBed) {
				b.set(shareSettingIsolation, isolation)
				b.join("a")
				p, _ := b.topic.Partition(0)
				for i, commit := range []bool{true, false, true} {
					producer := &partition.Producer{ID: 7, Epoch: int16(i), Sequence: 0, Transactional: true}
					if _, err := p.Append(ctx, []log.Record{{Value: []byte("t")}, {Value: []byte("t")}}, &partition.AppendOptions{Producer: producer}); err != nil {
						t.Fatal(err)
					}
					if i == 2 {
						break
					}
					if _, err := p.EndTransaction(ctx, 7, int16(i), commit, 0, false); err != nil {
						t.Fatal(err)
					}
				}
				// 0-1 committed, 2 marker, 3-4 aborted, 5 marker, 6-7 open
				if isolation == "read_committed" {
					b.want("committed", b.acquire("a", 0), "0-1:1")
					b.ok(b.ack("a", 0, 1, AckAccept))
					b.want("state", b.state(), "6")
					if _, err := p.EndTransaction(ctx, 7, 2, true, 0, false); err != nil {
						t.Fatal(err)
					}
					b.want("committed", b.acquire("a", 0), "6-7:1")
				} else {
					b.want("all", b.acquire("a", 0), "0-1:1 3-4:1 6-7:1")
					b.want("state", b.state(), "0 0-1:a 2:gap 3-4:a 5:gap 6-7:a")
				}
			})
		})
	}
}

// A window that is full gets no more records until some are done.
func TestShareWindowIsBounded(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.set(shareSettingRecords, "100")
		b.join("a", "b")
		for range 30 {
			b.produce(10)
		}
		b.want("a", b.acquire("a", 60), "0-59:1")
		b.want("b", b.acquire("b", 60), "60-99:1")
		b.want("full", b.acquire("b", 60), "")
		b.ok(b.ack("b", 60, 99, AckAccept))
		b.want("full of what is done", b.acquire("b", 60), "")
		b.ok(b.ack("a", 0, 59, AckAccept))
		b.want("room", b.acquire("b", 0), "100-199:1")
	})
}

func TestShareGroupsAreNoOthers(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a")
		g := b.e.Groups()
		if _, err := g.Heartbeat(ctx, HeartbeatRequest{Group: shareGroupName, MemberID: "x", Topics: []string{"orders"}}); !errors.Is(err, ErrGroupType) {
			t.Errorf("a consumer joins: %v", err)
		}
		if err := g.Commit(ctx, CommitRequest{Group: shareGroupName, MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 1)}}); !errors.Is(err, ErrGroupType) {
			t.Errorf("a commit: %v", err)
		}
		if err := g.Commit(ctx, CommitRequest{Group: "c", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 0)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: "c", MemberID: "x", Topics: []string{"orders"}}); !errors.Is(err, ErrGroupType) {
			t.Errorf("a share member joins a group with offsets: %v", err)
		}
		if _, err := b.e.Shares().Acquire(ctx, ShareRequest{Group: "c", MemberID: "x", Topic: b.topic.ID()}); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("records for a group with offsets: %v", err)
		}
		list, err := g.List(ctx)
		if err != nil || len(list) != 2 || list[1].Type != GroupTypeShare || list[1].State != GroupStable {
			t.Errorf("groups %+v, %v", list, err)
		}
	})
}

func TestShareOffsetsAreAdministered(t *testing.T) {
	bubble(t, func(b *shareBed) {
		t := b.t
		b.produce(10)
		s := b.e.Shares()
		offset := func() string {
			list, err := s.Offsets(ctx, shareGroupName, nil)
			if err != nil {
				return err.Error()
			}
			var words []string
			for _, o := range list {
				words = append(words, fmt.Sprintf("%s/%d@%d-%d", o.Topic, o.Partition, o.Start, o.Lag))
			}
			return strings.Join(words, " ")
		}
		b.ok(s.SetOffset(ctx, shareGroupName, b.topic.ID(), 0, 4))
		b.want("set", offset(), "orders/0@4-6")
		b.join("a")
		if err := s.SetOffset(ctx, shareGroupName, b.topic.ID(), 0, 1); !errors.Is(err, ErrGroupNotEmpty) {
			t.Errorf("with a member: %v", err)
		}
		b.want("a", b.acquire("a", 0), "4-9:1")
		b.ok(b.ack("a", 5, 6, AckAccept))
		b.want("lag", offset(), "orders/0@4-4")
		d, err := b.e.Groups().Describe(ctx, shareGroupName)
		if err != nil || len(d.Partitions) != 1 || d.Partitions[0].Offset != 4 || d.Partitions[0].Lag != 4 || d.Partitions[0].HighWatermark != 10 || d.Assignor != "simple" {
			t.Errorf("described as %+v, %v", d, err)
		}
		if err := b.e.Groups().Delete(ctx, shareGroupName); !errors.Is(err, ErrGroupNotEmpty) {
			t.Errorf("deleted with a member: %v", err)
		}
		if _, err := b.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: "a", MemberEpoch: LeaveEpoch}); err != nil {
			t.Fatal(err)
		}
		b.ok(s.SetOffset(ctx, shareGroupName, b.topic.ID(), 0, 99))
		b.want("past the end", offset(), "orders/0@10-0")
		b.ok(s.DeleteOffsets(ctx, shareGroupName, b.topic.ID()))
		b.want("deleted", offset(), "")
		b.join("a")
		b.want("anew", b.acquire("a", 3), "0-2:1")
		if _, err := b.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: "a", MemberEpoch: LeaveEpoch}); err != nil {
			t.Fatal(err)
		}
		b.ok(b.e.Groups().Delete(ctx, shareGroupName))
		if _, err := s.Offsets(ctx, shareGroupName, nil); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("of a deleted group: %v", err)
		}
		b.want("state", b.state(), "none")
		b.e.Tick(ctx)
		b.want("with settings", fmt.Sprint(len(s.loadedGroups())), "1")
		b.ok(s.AlterSettings(ctx, shareGroupName, false, func(map[string]string) (map[string]string, error) { return nil, nil }))
		b.e.Tick(ctx)
		b.want("without", fmt.Sprint(len(s.loadedGroups())), "0")
		b.set(shareSettingReset, "earliest")
		b.join("a")
		b.want("anew", b.acquire("a", 1), "0:1")
	})
}

// The state of a topic that is deleted goes with it, and is not that of one of the same name.
func TestShareForgetsDeletedTopics(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a")
		b.produce(3)
		b.want("a", b.acquire("a", 0), "0-2:1")
		b.ok(b.ack("a", 0, 2, AckAccept))
		b.ok(b.e.DeleteTopic(ctx, "orders"))
		if _, err := b.e.Shares().Acquire(ctx, ShareRequest{Group: shareGroupName, MemberID: "a", Topic: b.topic.ID()}); !errors.Is(err, ErrUnknownTopic) {
			t.Errorf("records of a deleted topic: %v", err)
		}
		b.e.Tick(ctx)
		b.want("state", b.state(), "none")
		var err error
		if b.topic, err = b.e.CreateTopic(ctx, TopicSpec{Name: "orders"}); err != nil {
			t.Fatal(err)
		}
		b.produce(2)
		b.want("a", b.acquire("a", 0), "0-1:1")
	})
}

// Compaction leaves holes, which count as done.
func TestShareSkipsHoles(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a")
		p, _ := b.topic.Partition(0)
		keys := []string{"k", "k", "x", "k", "y", "k", "k", "z"}
		for i, k := range keys {
			if _, err := p.Append(ctx, []log.Record{{Key: []byte(k), Value: fmt.Append(nil, i)}, {Key: []byte("q"), Value: []byte("q")}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := roll(p); err != nil {
			t.Fatal(err)
		}
		b.produce(1)
		if _, err := p.Compact(ctx, log.CompactPolicy{}); err != nil {
			t.Fatal(err)
		}
		b.want("what is left", b.acquire("a", 0), "4:1 8:1 12:1 14-16:1")
		b.ok(b.ack("a", 4, 4, AckAccept))
		b.want("state", b.state(), "8 8:a 9-11:gap 12:a 13:gap 14-16:a")
		b.ok(b.ack("a", 9, 11, AckGap))
	})
}

func roll(p *Partition) error {
	l := p.Log()
	l.Lock()
	defer l.Unlock()
	return l.Roll()
}

func TestShareSettings(t *testing.T) {
	for _, row := range []struct {
		name, value string
		ok          bool
	}{
		{shareSettingReset, "earliest", true}, {shareSettingReset, "by_duration:P1DT2H3M4.5S", true}, {shareSettingReset, "by_duration:P", false},
		{shareSettingReset, "by_duration:PT", false}, {shareSettingReset, "by_duration:PT1H1H", false}, {shareSettingReset, "by_duration:P1H", false},
		{shareSettingReset, "by_duration:PT1.5H", false}, {shareSettingReset, "by_duration:-PT1H", false}, {shareSettingReset, "none", false},
		{shareSettingReset, "by_duration:PT99999999999999H", false}, {shareSettingReset, "by_duration:PT1D", false}, {shareSettingReset, "by_duration:PT0S", false},
		{shareSettingIsolation, "read_committed", true}, {shareSettingIsolation, "serializable", false}, {shareSettingLock, "999", false},
		{shareSettingLimit, "10", true}, {shareSettingLimit, "11", false}, {shareSettingRecords, "x", false}, {shareSettingRenew, "yes", false},
		{shareSettingHeartbeat, "45000", false}, {"consumer.session.timeout.ms", "1", false},
	} {
		_, err := newShareSettings(map[string]string{row.name: row.value})
		if (err == nil) != row.ok || err != nil && !errors.Is(err, ErrInvalidSetting) {
			t.Errorf("%s=%s: %v", row.name, row.value, err)
		}
	}
	if r, err := parseShareReset("by_duration:P1DT2H3M4.5S"); err != nil || r.ago != 26*time.Hour+3*time.Minute+4500*time.Millisecond {
		t.Errorf("by_duration: %v, %v", r, err)
	}
}

func TestShareSettingsAreKept(t *testing.T) {
	fs := vfs.NewMem()
	b := newShareBed(t, fs, nil)
	b.set(shareSettingLimit, "3")
	err := b.e.Shares().AlterSettings(ctx, "other", false, func(set map[string]string) (map[string]string, error) {
		return map[string]string{shareSettingLimit: "99"}, nil
	})
	if !errors.Is(err, ErrInvalidSetting) {
		t.Errorf("a bad setting: %v", err)
	}
	b.ok(b.e.Close())
	b = newShareBed(t, fs, nil)
	defer b.e.Close()
	if set, err := b.e.Shares().Settings(ctx, shareGroupName); err != nil || set[shareSettingLimit] != "3" || len(set) != 2 {
		t.Errorf("settings %v, %v", set, err)
	}
	if names, err := b.e.Shares().WithSettings(ctx); err != nil || !slices.Equal(names, []string{shareGroupName}) {
		t.Errorf("groups with settings %v, %v", names, err)
	}
}

// When the log has lost its end with the power, what was acknowledged of it is not what is there now.
func TestShareStateOfALogThatLostItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		b := newShareBed(t, fs, map[string]string{settingDurability: "os"})
		b.join("a")
		b.produce(5)
		p, _ := b.topic.Partition(0)
		b.ok(p.Sync(ctx))
		b.produce(5)
		b.want("a", b.acquire("a", 0), "0-9:1")
		b.ok(b.ack("a", 0, 7, AckAccept))
		old := b.e
		fs = fs.AfterCrash(vfs.KeepNone)
		old.Close()
		b = newShareBed(t, fs, nil)
		defer b.e.Close()
		p, _ = b.topic.Partition(0)
		if p.LogEnd() != 5 {
			t.Fatalf("the log ends at %d", p.LogEnd())
		}
		b.produce(7) // before anybody asks
		b.join("a")
		b.want("a", b.acquire("a", 0), "5-11:1")
	})
}

// Members at the same time get each record once.
func TestShareOfManyMembersAtOnce(t *testing.T) {
	b := newShareBed(t, vfs.NewMem(), nil)
	defer b.e.Close()
	const members, records = 8, 2000
	for range records / 50 {
		b.produce(50)
	}
	names := make([]string, members)
	for i := range names {
		names[i] = string(rune('a' + i))
	}
	b.join(names...)
	var mu sync.Mutex
	times := map[int64]int{}
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			for {
				res, err := b.e.Shares().Acquire(ctx, ShareRequest{Group: shareGroupName, MemberID: name, Topic: b.topic.ID(), MaxRecords: 7})
				if err != nil {
					t.Error(err)
					return
				}
				if len(res.Acquired) == 0 {
					mu.Lock()
					done := len(times) == records
					mu.Unlock()
					if done {
						return
					}
					if err := b.e.Shares().Await(ctx, shareGroupName, []TopicPartitions{{b.topic.ID(), []int32{0}}}, time.Millisecond); err != nil {
						t.Error(err)
						return
					}
					continue
				}
				for _, a := range res.Acquired {
					if err := b.ack(name, a.First, a.Last, AckAccept); err != nil {
						t.Error(err)
					}
					mu.Lock()
					for o := a.First; o <= a.Last; o++ {
						times[o]++
					}
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	for o, n := range times {
		if n != 1 {
			t.Errorf("record %d was delivered %d times", o, n)
		}
	}
	b.want("state", b.state(), fmt.Sprint(records))
}
