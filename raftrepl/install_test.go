package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func numbered(what string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s %d", what, i))
	}
	return list
}

// A follower that was away gets entries as long as there are any, and one install when
// what it needs is gone.
func TestLaggingFollowerGetsOneInstall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		away := c.node(l.id%3 + 1)
		l.mustAppend(numbered("before", 10)...)
		c.settle()
		away.stop()
		l = c.leader()
		l.mustAppend(numbered("meanwhile", 100)...)
		away.start()
		c.settle()
		if c.net.installs != 0 {
			t.Errorf("%d installs although the log has all entries", c.net.installs)
		}
		away.stop()
		l = c.leader()
		l.mustAppend(numbered("later", 100)...)
		start, err := l.p.DeleteRecords(context.Background(), l.p.HighWatermark()-5)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := func() (*partition.Reader, error) {
			away.start()
			return away.p.ReadFrom(away.p.HighWatermark(), nil)
		}()
		if err != nil {
			t.Fatal(err)
		}
		l = c.settle()
		if c.net.installs != 1 {
			t.Errorf("%d installs, want 1", c.net.installs)
		}
		if _, err := reader.TryNext(); err == nil {
			t.Error("a reader got records that were deleted")
		}
		c.same()
		for _, n := range c.nodes {
			if n.p.LogStart() != start {
				t.Errorf("node %d: log start %d, want %d", n.id, n.p.LogStart(), start)
			}
			if got, want := n.values(), numbered("later", 100)[95:]; !slices.Equal(got, want) {
				t.Errorf("node %d: %q, want %q", n.id, got, want)
			}
		}
		// It leads as well as any other.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if l != away {
			if err := l.g.Transfer(ctx, away.id); err != nil {
				t.Fatal(err)
			}
		}
		if l = c.leader(); l != away {
			t.Fatalf("node %d leads", l.id)
		}
		l.mustAppend("as a leader")
		c.settle()
		away.kill()
		away.start()
		c.settle()
		c.same()
		if c.net.installs != 1 {
			t.Errorf("%d installs, want 1", c.net.installs)
		}
	})
}

// A crash of the follower at any file operation of an install: it comes back with the
// old log or the new one, and ends up with what the others have.
func TestInstallCrashes(t *testing.T) {
	for k := 0; ; k++ {
		crashed := false
		bubble(t, func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.net.latency = 100 * time.Microsecond
			c.start()
			defer c.stop()
			l := c.leader()
			away := c.node(l.id%3 + 1)
			l.mustAppend(numbered("before", 5)...)
			c.settle()
			away.stop()
			l = c.leader()
			l.mustAppend(numbered("later", 60)...)
			if _, err := l.p.DeleteRecords(context.Background(), l.p.HighWatermark()-3); err != nil {
				t.Fatal(err)
			}
			away.fs = away.fs.AfterKill(vfs.CrashAt(k))
			away.vfs = away.fs
			err := away.tryStart()
			if err == nil {
				for range 300 {
					if time.Sleep(10 * time.Millisecond); away.fs.Crashed() || away.p.HighWatermark() == l.p.HighWatermark() {
						break
					}
				}
			}
			crashed = away.fs.Crashed()
			away.up = true
			if err != nil {
				away.up = false
				away.fs = away.fs.AfterCrash(vfs.Random(uint64(k)))
				away.vfs = away.fs
			} else {
				away.crash(func(m *vfs.Mem) *vfs.Mem {
					if m == away.votes {
						return m.AfterKill() // its own crashes are another test's
					}
					return m.AfterCrash(vfs.Random(uint64(k)))
				})
			}
			away.start()
			c.settle()
			c.same()
			if c.net.installs == 0 {
				t.Error("nothing was installed")
			}
		})
		if t.Failed() {
			t.Fatalf("crash at operation %d", k)
		}
		if !crashed {
			t.Logf("the run needs less than %d operations", k)
			break
		}
	}
}

// A leader that was deposed while it sent its log must not have it put in place of what
// was acknowledged to the next.
func TestLateInstallIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		l.mustAppend(numbered("a", 20)...)
		c.settle()
		inst := l.g.instance()
		meta, stream, err := (&snapshots{inst}).Open("")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(stream)
		if err != nil || int64(len(b)) != meta.Size {
			t.Fatalf("%d bytes of %d: %v", len(b), meta.Size, err)
		}
		stream.Close()
		req := &raft.InstallSnapshotRequest{RPCHeader: l.g.gate.header(), Term: inst.raft.CurrentTerm(), LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size}
		other := c.node(l.id%3 + 1)
		// What it has already is not taken.
		if resp, err := other.g.Install(req, bytes.NewReader(b)); err != nil || !resp.Success || resp.Term != req.Term {
			t.Errorf("install of what is there: %+v, %v", resp, err)
		}
		late := *req
		late.LastLogIndex += 1000
		if _, err := other.g.Install(&late, bytes.NewReader(b)); err == nil {
			t.Error("another log than was announced was installed")
		}
		for _, n := range []int{0, 5, 30, len(b) / 2, len(b) - 1} {
			if _, err := other.g.Install(&late, bytes.NewReader(b[:n])); err == nil {
				t.Errorf("%d of %d bytes were installed", n, len(b))
			}
		}
		late.Term--
		if resp, err := other.g.Install(&late, bytes.NewReader(b)); err != nil || resp.Success || resp.Term != req.Term {
			t.Errorf("install of an old leader: %+v, %v", resp, err)
		}
		// The term moves on while the log is under way.
		late = *req
		late.LastLogIndex++
		if _, err := func() (*raft.InstallSnapshotResponse, error) {
			return other.g.Install(&late, io.MultiReader(bytes.NewReader(b[:10]), &moveOn{c: c, l: l}, bytes.NewReader(b[10:])))
		}(); err == nil {
			t.Error("installed under another index than it has")
		}
		c.settle()
		c.same()
	})
}

// moveOn deposes a leader when it is read from.
type moveOn struct {
	c *testCluster
	l *testNode
}

func (m *moveOn) Read([]byte) (int, error) {
	m.c.net.isolate(m.l.id, true)
	time.Sleep(3 * time.Second)
	m.c.net.isolate(m.l.id, false)
	return 0, io.EOF
}

// What producers have sent, and which transactions are open, comes with an install: a replica that got one leads as any other does.
func TestInstallBringsProducersAndTransactions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := context.Background()
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		l.mustAppend("first")
		c.settle()
		away := c.node(l.id%3 + 1)
		away.stop()
		l = c.leader()
		for i := range 60 {
			l.mustAppend(fmt.Sprintf("%d %s", i, strings.Repeat("x", 300)))
		}
		send := func(n *testNode, sequence int32) (partition.Result, error) {
			return n.p.Append(ctx, record(fmt.Sprint(sequence)), &partition.AppendOptions{Producer: &partition.Producer{ID: 9, Epoch: 1, Sequence: sequence}})
		}
		var offsets []int64
		for i := range int32(3) {
			r, err := send(l, i)
			if err != nil {
				t.Fatal(err)
			}
			offsets = append(offsets, r.BaseOffset)
		}
		open, err := l.p.Append(ctx, record("undecided"), &partition.AppendOptions{Producer: &partition.Producer{ID: 8, Epoch: 0, Transactional: true, TxnV2: true}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.p.DeleteRecords(ctx, 50); err != nil {
			t.Fatal(err)
		}
		away.start()
		l = c.settle()
		if c.net.installs != 1 {
			t.Fatalf("%d installs", c.net.installs)
		}
		if got := away.p.LastStable(); got != open.BaseOffset {
			t.Errorf("it is stable up to %d, a transaction is open from %d on", got, open.BaseOffset)
		}
		for range 20 {
			if l = c.leader(); l == away {
				break
			}
			wait, cancel := context.WithTimeout(ctx, 5*time.Second)
			l.g.Transfer(wait, away.id)
			cancel()
		}
		if l != away {
			t.Fatalf("node %d leads", l.id)
		}
		for i, want := range offsets {
			if r, err := send(l, int32(i)); err != nil || !r.Duplicate || r.BaseOffset != want {
				t.Errorf("batch %d again: %+v, %v, want offset %d", i, r, err, want)
			}
		}
		if r, err := send(l, 3); err != nil || r.Duplicate {
			t.Errorf("the next one: %+v, %v", r, err)
		}
		if _, err := l.p.EndTransaction(ctx, 8, 1, true, 0, true); err != nil {
			t.Errorf("the end of the transaction: %v", err)
		}
		c.settle()
		for _, n := range c.nodes {
			if n.p.LastStable() != n.p.HighWatermark() {
				t.Errorf("node %d is stable up to %d of %d", n.id, n.p.LastStable(), n.p.HighWatermark())
			}
		}
	})
}

// Retention is decided by the leader and replicated: a follower deletes nothing by its own policy, and all begin where the
// leader's decision says, also after a restart.
func TestFollowersRetainNothingByThemselves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := context.Background()
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		for i := range 60 {
			l.mustAppend(fmt.Sprintf("%d %s", i, strings.Repeat("x", 300)))
		}
		c.settle()
		policy := log.RetentionPolicy{Bytes: 8 << 10}
		for _, n := range c.nodes {
			if n == l {
				continue
			}
			if _, _, err := n.p.Retain(ctx, policy); err != nil {
				t.Errorf("node %d: %v", n.id, err)
			}
			if start := n.p.LogStart(); start != 0 || n.p.Log().StartOffset() != 0 {
				t.Errorf("node %d, which does not lead, has its log begin at %d", n.id, start)
			}
		}
		if _, _, err := l.p.Retain(ctx, policy); err != nil {
			t.Fatal(err)
		}
		c.settle()
		start := l.p.LogStart()
		if start == 0 {
			t.Fatal("the leader has retained all")
		}
		other := c.node(l.id%3 + 1)
		other.stop()
		other.start()
		c.settle()
		for _, n := range c.nodes {
			if got := n.p.LogStart(); got != start {
				t.Errorf("node %d begins at %d, the leader has decided %d", n.id, got, start)
			}
		}
		c.same()
	})
}

// A follower that has all up to the very place where the leader's log begins needs no install: the leader knows the term there. A
// leader that was there when the follower went away holds the entries that it could not send; another one has to look.
func TestFollowerAtTheBoundaryGetsEntries(t *testing.T) {
	for name, another := range map[string]bool{"the same leader": false, "another leader": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx := context.Background()
				c := newTestCluster(t, 3).start()
				defer c.stop()
				l := c.leader()
				l.mustAppend(numbered("before", 30)...)
				c.settle()
				away, other := c.node(l.id%3+1), c.node((l.id+1)%3+1)
				away.stop()
				for _, n := range []*testNode{l, other} {
					if err := n.p.Roll(ctx); err != nil {
						t.Fatal(err)
					}
				}
				last, _ := l.p.LastEntry()
				if _, err := l.p.DeleteRecords(ctx, l.p.HighWatermark()); err != nil {
					t.Fatal(err)
				}
				for range 10 {
					l.mustAppend(strings.Repeat("x", 1000)) // more than the cache of entries holds
				}
				c.settle()
				if another {
					if err := l.g.Transfer(ctx, other.id); err != nil {
						t.Fatal(err)
					}
					l = c.settle()
				}
				if first := l.p.Log().FirstCompleteIndex(); first != last+1 {
					t.Fatalf("the log begins at entry %d, the follower has %d", first, last)
				}
				away.start()
				c.settle()
				c.same()
				if c.net.installs != 0 {
					t.Errorf("%d installs", c.net.installs)
				}
			})
		})
	}
}

// After an install nothing is compacted on the leader, so that the follower finds the entries behind it; but not for long, and
// not after one that was given up.
func TestCompactionWaitsForAnInstall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := context.Background()
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		for i := range 60 {
			l.mustAppend(fmt.Sprintf("%d %s", i, strings.Repeat("x", 300)))
		}
		c.settle()
		compact := func() error { _, err := l.p.Compact(ctx, log.CompactPolicy{}); return err }
		open := func() io.ReadCloser {
			_, stream, err := (&snapshots{l.g.instance()}).Open("")
			if err != nil {
				t.Fatal(err)
			}
			return stream
		}
		part := open()
		if _, err := io.ReadFull(part, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := compact(); !errors.Is(err, log.ErrHeld) {
			t.Errorf("while the log is sent: %v", err)
		}
		part.Close()
		if err := compact(); err != nil {
			t.Errorf("after one that was given up: %v", err)
		}
		whole := open()
		if _, err := io.ReadAll(whole); err != nil {
			t.Fatal(err)
		}
		whole.Close()
		time.Sleep(holdAfter - time.Second)
		if err := compact(); !errors.Is(err, log.ErrHeld) {
			t.Errorf("a moment after: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := compact(); err != nil {
			t.Errorf("long after: %v", err)
		}
	})
}

func FuzzInstallHead(f *testing.F) {
	h := installHead{index: 5, term: 2, segments: []log.CapturedSegment{{BaseOffset: 3, Tag: 4, Bytes: 200}}, ckpt: []byte("checkpoint")}
	f.Add(h.encode())
	f.Add([]byte(sendMagic + "\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x0f\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if h, err := readInstallHead(r); err == nil && !bytes.Equal(h.encode(), b[:len(b)-r.Len()]) {
			t.Fatalf("accepted %x and encoded %x", b, h.encode())
		}
	})
}
