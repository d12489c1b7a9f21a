package engine

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// await returns for how long Await waited, in virtual time.
func (b *shareBed) await(most time.Duration) time.Duration {
	b.t.Helper()
	began := time.Now()
	b.ok(b.e.Shares().Await(ctx, shareGroupName, shareParts(b.topic.ID(), 0), most))
	return time.Since(began)
}

// Records that were given back while they are not read any more, because the isolation
// level was raised, are nothing to come back for at once: that would be a loop without rest.
func TestShareAwaitOfWhatIsNotReadYet(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a")
		p, err := b.topic.Partition(0)
		if err != nil {
			t.Fatal(err)
		}
		open := &partition.AppendOptions{Producer: &partition.Producer{ID: 7, Epoch: 0, Sequence: 0, Transactional: true}}
		if _, err := p.Append(ctx, []log.Record{{Value: []byte("v")}, {Value: []byte("w")}}, open); err != nil {
			t.Fatal(err)
		}
		b.want("uncommitted", b.acquire("a", 0), "0-1:1")
		b.ok(b.ack("a", 0, 1, AckRelease))
		b.set(shareSettingIsolation, "read_committed")
		b.want("committed", b.acquire("a", 0), "")
		if d := b.await(5 * time.Second); d != 5*time.Second {
			t.Errorf("waited %v for a transaction that stays open, want 5s", d)
		}
		go func() {
			time.Sleep(time.Second)
			if _, err := p.EndTransaction(ctx, 7, 0, true, 0, false); err != nil {
				t.Error(err)
			}
		}()
		if d := b.await(5 * time.Second); d != time.Second {
			t.Errorf("waited %v, want 1s: the transaction ended then", d)
		}
		b.want("ended", b.acquire("a", 0), "0-1:2")
	})
}

// Who waits because the window is full learns when its records are deleted.
func TestShareAwaitOfRoomThatDeletionMakes(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.set(shareSettingRecords, "100")
		b.join("a", "b")
		b.produce(150)
		b.want("a", b.acquire("a", 100), "0-99:1")
		b.want("b", b.acquire("b", 100), "")
		p, err := b.topic.Partition(0)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(1500 * time.Millisecond)
			if _, err := p.DeleteRecords(ctx, 100); err != nil {
				t.Error(err)
			}
			b.e.Tick(ctx)
		}()
		if d := b.await(20 * time.Second); d > 3*time.Second {
			t.Errorf("waited %v, want until the records were deleted", d)
		}
		b.want("b", b.acquire("b", 100), "100-149:1")
	})
}

// What changed by itself in many share partitions is written side by side: one after the
// other, each with a sync, would hold up everything that is due.
func TestShareTickWritesSideBySide(t *testing.T) {
	fs := vfs.NewFault(vfs.NewMem())
	b := newShareBed(t, fs, nil)
	defer b.e.Close()
	topic, err := b.e.CreateTopic(ctx, TopicSpec{Name: "many", Partitions: 8})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: "a", Topics: []string{"many"}}); err != nil {
		t.Fatal(err)
	}
	for _, p := range topic.Partitions() {
		if _, err := p.Append(ctx, []log.Record{{Value: []byte("v")}}, nil); err != nil {
			t.Fatal(err)
		}
		res, err := b.e.Shares().Acquire(ctx, ShareRequest{Group: shareGroupName, MemberID: "a", Topic: topic.ID(), Partition: p.ID()})
		if err != nil || len(res.Acquired) != 1 {
			t.Fatalf("acquired %v: %v", res.Acquired, err)
		}
	}
	b.e.Shares().Release(shareGroupName, "a")
	g, err := b.e.Shares().group(ctx, shareGroupName, false)
	if err != nil {
		t.Fatal(err)
	}
	writing := func() (n int) {
		for _, sp := range g.list() {
			n += 1 - len(sp.writing)
		}
		return n
	}
	states, err := b.e.Topic(shareTopicName)
	if err != nil {
		t.Fatal(err)
	}
	var together, alone atomic.Int32
	fs.OnOp(func(op vfs.Op, name string) {
		if op != vfs.OpDatasync || !strings.Contains(name, states.ID().String()) || together.Load() > 0 {
			return
		}
		for deadline := time.Now().Add(10 * time.Second); writing() < 2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				alone.Add(1)
				return
			}
			if alone.Load() > 0 {
				return
			}
		}
		together.Add(1)
	})
	b.e.Tick(ctx)
	fs.OnOp(nil)
	if together.Load() == 0 || alone.Load() > 0 {
		t.Errorf("syncs beside which others wrote: %d, with nobody beside: %d", together.Load(), alone.Load())
	}
	for _, sp := range g.list() {
		if sp.dirty {
			t.Errorf("partition %d was not written", sp.at.partition)
		}
	}
}
