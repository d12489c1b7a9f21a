package raftrepl

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A leader whose disk hangs lets go: others lead, and who waits for it is told that the
// outcome is not known.
func TestHungDiskMovesTheLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		faults := map[int32]*vfs.Fault{}
		for _, n := range c.nodes {
			faults[n.id] = vfs.NewFault(n.fs)
			n.vfs = faults[n.id]
		}
		c.start()
		defer c.stop()
		l := c.leader()
		l.mustAppend("a")
		c.settle()
		goOn := make(chan struct{})
		faults[l.id].Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Count: 1, Effect: vfs.Call(func() { <-goOn })})
		var wg sync.WaitGroup
		began := time.Now()
		wg.Go(func() {
			if _, err := l.p.Append(context.Background(), record("hangs"), nil); !errors.Is(err, partition.ErrUnknownOutcome) {
				t.Errorf("append on a disk that hangs: %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it was told after %v", took)
			}
		})
		time.Sleep(3 * time.Second)
		if _, err := l.g.LeaderEpoch(); err == nil {
			t.Error("it says that it leads")
		}
		if l.g.StoreHung() < time.Second || !strings.Contains(l.g.Status().Reason, "one write") {
			t.Errorf("hung for %v, %+v", l.g.StoreHung(), l.g.Status())
		}
		wg.Wait()
		next := c.leader()
		if next == l {
			t.Fatal("it leads")
		}
		next.mustAppend("b")
		close(goOn)
		c.settle()
		c.same()
	})
}

// Followers' readers see a record a round trip after its append, not when Raft next says
// something.
func TestCommitNotesReachFollowers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		l.mustAppend("a")
		c.settle()
		for range 5 {
			l.mustAppend("b")
			time.Sleep(10 * time.Millisecond)
			for _, n := range c.nodes {
				if n.p.HighWatermark() != l.p.HighWatermark() {
					t.Errorf("node %d: high watermark %d, the leader's %d", n.id, n.p.HighWatermark(), l.p.HighWatermark())
				}
			}
			time.Sleep(3 * time.Second)
		}
	})
}

// Retention is decided by the leader, and every replica follows.
func TestRetentionIsReplicated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		l.mustAppend(numbered("a", 150)...)
		c.settle()
		ctx := context.Background()
		policy := log.RetentionPolicy{Bytes: 6 << 10}
		follower := c.node(l.id%3 + 1)
		if n, _, err := follower.p.Retain(ctx, policy); n != 0 || err != nil || follower.p.LogStart() != 0 {
			t.Errorf("a follower deletes %d segments by itself: %v", n, err)
		}
		n, freed, err := l.p.Retain(ctx, policy)
		if err != nil || n == 0 || freed == 0 || l.p.LogStart() == 0 {
			t.Fatalf("%d segments, %d bytes, %v, log start %d", n, freed, err, l.p.LogStart())
		}
		c.settle()
		time.Sleep(10 * time.Millisecond)
		for _, n := range c.nodes {
			if n.p.LogStart() != l.p.LogStart() || n.p.Log().Boundary() != l.p.Log().Boundary() {
				t.Errorf("node %d: log start %d, boundary %+v; the leader's %d, %+v", n.id, n.p.LogStart(), n.p.Log().Boundary(), l.p.LogStart(), l.p.Log().Boundary())
			}
		}
		if _, err := follower.p.DeleteRecords(ctx, follower.p.HighWatermark()); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("records are deleted at a follower: %v", err)
		}
		for _, n := range c.nodes {
			n.kill()
			n.start()
		}
		c.settle()
		c.same()
	})
}

// On a disk without room a leader leads on, from the reserve, and refuses records.
func TestFullDiskRefusesBeforeItStores(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		c.cfg.Log.ReserveBytes = 64 << 10
		n := c.node(1)
		n.start()
		defer c.stop()
		c.leader().mustAppend("a")
		fill(t, n.fs)
		var err error
		for range 100 {
			if _, err = n.append(strings.Repeat("x", 1000)); err != nil {
				break
			}
		}
		if !errors.Is(err, log.ErrNoSpace) {
			t.Errorf("append on a full disk: %v", err)
		}
		time.Sleep(time.Second)
		c.leader() // its first entry is in the reserve
		for range 3 {
			if _, err := n.append("y"); !errors.Is(err, log.ErrNoSpace) {
				t.Errorf("append on a full disk: %v", err)
			}
		}
		if _, err := n.g.LeaderEpoch(); err != nil {
			t.Errorf("it leads no more: %v", err)
		}
		if _, err := n.p.DeleteRecords(context.Background(), -1); err != nil {
			t.Errorf("nothing can be deleted on a full disk: %v", err)
		}
		n.fs.SetCapacity(-1)
		time.Sleep(fullFor)
		n.mustAppend("b")
	})
}

// fill makes a disk have no more room than what is taken.
func fill(t *testing.T, fs *vfs.Mem) {
	t.Helper()
	infos, err := fs.List(".")
	if err != nil {
		t.Fatal(err)
	}
	used := int64(0)
	for _, info := range infos {
		used += info.Allocated
	}
	fs.SetCapacity(used)
}

// A replica costs so many goroutines, whatever it holds.
func TestGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		c := newTestCluster(t, 3).start()
		defer c.stop()
		c.leader().mustAppend(numbered("a", 10)...)
		c.settle()
		time.Sleep(time.Second)
		synctest.Wait()
		// The leader has 9, and 1 for each heartbeat that is under way; a follower has 4.
		if n := runtime.NumGoroutine() - before; n > 9+2+2*4 {
			buf := make([]byte, 1<<16)
			t.Errorf("%d goroutines for three replicas\n%s", n, buf[:runtime.Stack(buf, true)])
		}
	})
}

// A new group has a leader at once: the first of those that it begins with, where it can.
func TestNewGroupHasALeaderAtOnce(t *testing.T) {
	for _, down := range []int32{0, 1, 2} {
		bubble(t, func(t *testing.T) {
			c := newTestCluster(t, 3)
			defer c.stop()
			c.initial = []int32{2, 1, 3}
			began := time.Now()
			for _, n := range c.nodes {
				if n.id != down {
					n.start()
				}
			}
			l := c.leader()
			took := time.Since(began)
			if down != 2 && (l.id != 2 || took > 100*time.Millisecond) {
				t.Errorf("without node %d, node %d leads after %v", down, l.id, took)
			}
			l.mustAppend("a")
			for _, n := range c.nodes {
				if n.id == down {
					n.start()
				}
			}
			c.settle()
			time.Sleep(5 * time.Second)
			if now := c.leader(); now != l {
				t.Errorf("node %d leads, it was %d", now.id, l.id)
			}
		})
	}
}

// Compaction goes on beside a leader that reads its log for a follower: what it rewrites
// is sent as an install, and no replica takes it for damage.
func TestCompactionBesideCatchUp(t *testing.T) {
	for range testcount.N(3) {
		bubble(t, func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.net.latency = time.Microsecond
			c.start()
			defer c.stop()
			l := c.leader()
			l.mustAppend(numbered("a", 10)...)
			c.settle()
			away := c.node(l.id%3 + 1)
			away.stop()
			l = c.leader()
			l.mustAppend(numbered("b", 200)...)
			if err := l.p.Roll(context.Background()); err != nil {
				t.Fatal(err)
			}
			away.start()
			for range 5 {
				if _, err := l.p.Compact(context.Background(), log.CompactPolicy{DeleteRetention: -1, Again: true}); err != nil && !errors.Is(err, log.ErrHeld) {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Microsecond)
			}
			c.settle()
			for _, n := range c.nodes {
				if n.g.instance() == nil {
					t.Errorf("node %d: %+v", n.id, n.g.Status())
				}
			}
		})
	}
}

// The leader keeps the byte cap, and its followers store what it has let in.
func TestByteCapIsTheLeaders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		c.cfg.Log.CapBytes = 64 << 10
		c.start()
		defer c.stop()
		l := c.leader()
		var err error
		for range 200 {
			if _, err = l.append(strings.Repeat("x", 1000)); err != nil {
				break
			}
		}
		var capped *log.CapError
		if !errors.As(err, &capped) {
			t.Fatalf("append: %v", err)
		}
		if now := c.settle(); now != l {
			t.Errorf("node %d leads, it was %d", now.id, l.id)
		}
		if _, _, err := l.p.Retain(context.Background(), log.RetentionPolicy{Room: 10 << 10}); err != nil {
			t.Fatal(err)
		}
		l.mustAppend(strings.Repeat("y", 1000))
		c.settle()
		c.same()
		if l.p.LogStart() == 0 {
			t.Error("nothing was deleted")
		}
	})
}
