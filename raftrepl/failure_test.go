package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// alone makes n's log one that it had for itself, with these records.
func (n *testNode) alone(values ...string) {
	n.c.t.Helper()
	p, err := partition.Open("", &partition.Options{FS: n.vfs, Config: n.c.cfg})
	if err != nil {
		n.c.t.Fatal(err)
	}
	for _, v := range values {
		if _, err := p.Append(context.Background(), record(v), nil); err != nil {
			n.c.t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		n.c.t.Fatal(err)
	}
}

func TestLocalLogBecomesAGroup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		defer c.stop()
		n := c.node(1)
		want := numbered("alone", 30)
		n.alone(want...)
		n.start()
		if got := n.values(); !slices.Equal(got, want) { // at once: nobody else has a say
			t.Fatalf("%q", got)
		}
		n = c.leader()
		n.mustAppend("in a group")
		want = append(want, "in a group")
		c.add().start()
		c.add().start()
		c.setMembers(1, 2, 3)
		c.settle()
		if c.net.installs == 0 {
			// The entries are there, but the newcomers know the term of the first one only.
			c.same()
		}
		for _, n := range c.nodes {
			if got := n.values(); !slices.Equal(got, want) {
				t.Errorf("node %d: %q, want %q", n.id, got, want)
			}
		}
		n.stop()
		c.leader().mustAppend("without the first")
		n.start()
		c.settle()
		c.same()
		n.stop()
		if _, err := partition.Open("", &partition.Options{FS: n.fs, Config: c.cfg}); !errors.Is(err, partition.ErrReplicated) {
			t.Errorf("opened alone: %v", err)
		}
	})
}

// A crash at any operation of the change from alone to a group.
func TestConversionCrashes(t *testing.T) {
	for _, which := range []string{"log", "votes"} {
		for k := 0; ; k++ {
			crashed := false
			bubble(t, func(t *testing.T) {
				c := newTestCluster(t, 1)
				defer c.stop()
				n := c.node(1)
				want := numbered("alone", 12)
				n.alone(want...)
				fs, votes := n.fs.AfterKill(), n.votes.AfterKill()
				if which == "log" {
					fs = n.fs.AfterKill(vfs.CrashAt(k))
				} else {
					votes = n.votes.AfterKill(vfs.CrashAt(k))
				}
				n.fs, n.vfs, n.votes = fs, fs, votes
				err := n.tryStart()
				if err == nil {
					n.up = true
					time.Sleep(2 * time.Second)
				}
				crashed = fs.Crashed() || votes.Crashed()
				n.up = true
				after := func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(vfs.Random(uint64(k))) }
				if err != nil {
					n.fs, n.votes = after(fs), after(votes)
					n.vfs = n.fs
					n.up = false
				} else {
					n.crash(after)
				}
				n.start()
				c.leader().mustAppend("in a group")
				if got := n.values(); !slices.Equal(got, append(want, "in a group")) {
					t.Errorf("%q", got)
				}
			})
			if t.Failed() {
				t.Fatalf("%s: crash at operation %d", which, k)
			}
			if !crashed {
				t.Logf("%s: less than %d operations", which, k)
				break
			}
		}
	}
}

func TestWhatIsLostKeepsANodeOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		c.leader().mustAppend(numbered("a", 10)...)
		c.settle()
		n := c.node(1)
		n.stop()
		fs, votes := n.fs, n.votes
		n.votes = vfs.NewMem()
		if err := n.tryStart(); !errors.Is(err, ErrVotesLost) {
			t.Errorf("without votes: %v", err)
		}
		if r := n.g.Status().Reason; !strings.Contains(r, "votes are lost") {
			t.Errorf("reason %q", r)
		}
		// The votes of a while ago: the term has moved on since, and the log with it.
		n.votes = votes.AfterKill()
		n.start()
		old := n.votes.AfterKill()
		n.up = false
		n.g.Stop()
		n.p.Close()
		n.fs, n.votes = fs.AfterKill(), votes.AfterKill()
		n.vfs = n.fs
		n.start()
		for range 2 {
			l := c.leader()
			l.kill()
			c.leader().mustAppend("next")
			l.start()
			c.settle()
		}
		n.stop()
		now := n.votes
		n.votes = old
		if err := n.tryStart(); !errors.Is(err, ErrVotesBehind) {
			t.Errorf("with older votes: %v", err)
		}
		n.votes = now
		// The log's directory was emptied: nothing may be begun there again.
		whole := n.vfs
		n.vfs = vfs.NewMem()
		if err := n.tryStart(); !errors.Is(err, ErrGroupLost) {
			t.Errorf("without the log: %v", err)
		}
		n.vfs = whole
		n.start()
		c.settle()
		c.same()
		// Let go by its group, it may begin again, and gets the log as a new member does.
		c.setMembers(2, 3)
		n.stop()
		c.initial = []int32{2, 3}
		n.fs = vfs.NewMem()
		n.vfs = n.fs
		v, err := OpenVotesIn(n.votes, "raft")
		if err != nil {
			t.Fatal(err)
		}
		before, _ := v.get(testLog)
		if err := v.LetGo(testLog); err != nil {
			t.Fatal(err)
		}
		v.Close()
		n.start()
		if after, _ := n.v.get(testLog); after.term < before.term || after.candidate != before.candidate {
			t.Errorf("votes %+v, they were %+v", after, before)
		}
		c.setMembers(1, 2, 3)
		c.settle()
		c.same()
	})
}

func TestProposalForAnotherPlaceIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		l.mustAppend("a", "b")
		ctx := context.Background()
		batch := func(v string) []byte {
			h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
			b, err := log.AppendBatch(nil, &h, record(v))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		epoch, _ := l.g.LeaderEpoch()
		var leads *partition.NotLeaderError
		for name, err := range map[string]error{
			"another offset": func() error { _, err := l.g.Propose(ctx, epoch, 5, [][]byte{batch("x")}); return err }(),
			"an old epoch":   func() error { _, err := l.g.Propose(ctx, epoch-1, 2, [][]byte{batch("x")}); return err }(),
			"a follower": func() error {
				_, err := c.node(l.id%3+1).g.Propose(ctx, epoch, 2, [][]byte{batch("x")})
				return err
			}(),
		} {
			if !errors.As(err, &leads) || errors.Is(err, partition.ErrUnknownOutcome) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// One that comes to the main loop in another term than it was made for.
		inst := l.g.instance()
		p := &proposal{inst: inst, epoch: epoch, n: 1, stored: make(chan struct{}, 1), done: make(chan struct{})}
		if !inst.register(p) {
			t.Fatal("not registered")
		}
		p.epoch++
		b := batch("late")
		log.SetBatchOffset(b, 2, epoch)
		inst.raft.ApplyLog(raft.Log{Data: b, Extensions: append(make([]byte, 7), byte(p.id), 0, 0, 0, 0)}, 0)
		<-p.done
		if _, err := p.result(); !errors.As(err, &leads) {
			t.Errorf("in another term: %v", err)
		}
		// And two of which the second does not fit: part of it is there.
		_, err := l.g.Propose(ctx, epoch, 2, [][]byte{batch("first"), batch("second")})
		if err != nil {
			t.Errorf("two that fit: %v", err)
		}
		l.mustAppend("c")
		c.settle()
		c.same()
		if got, want := c.node(l.id%3+1).values(), []string{"a", "b", "first", "second", "c"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// What is committed is not taken back, whoever wants it, also where it holds no offset: the replica stops.
func TestCommittedIsNotTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.settle()
		inst := l.g.instance()
		st, _ := l.p.Group()
		last, _ := l.p.LastEntry()
		if st.Index != last || l.p.HighWatermark() != 0 {
			t.Fatalf("%d of %d entries are committed, with %d records", st.Index, last, l.p.HighWatermark())
		}
		if err := inst.store.DeleteRange(last, last); !errors.Is(err, log.ErrCorrupt) {
			t.Fatalf("the last committed entry: %v", err) // nothing ends the instance
		}
		<-inst.done
		synctest.Wait()
		if now, _ := l.p.LastEntry(); now != last {
			t.Errorf("the log ends at entry %d, it ended at %d", now, last)
		}
		if err := l.g.Damaged(); !errors.Is(err, log.ErrCorrupt) {
			t.Errorf("it goes on: %v", err)
		}
	})
}

func TestFullDiskHeals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		c.start()
		defer c.stop()
		l := c.leader()
		l.mustAppend(numbered("a", 10)...)
		c.settle()
		full := c.node(l.id%3 + 1)
		full.fs.SetCapacity(0)
		want := append(numbered("a", 10), numbered("b", 100)...)
		l.mustAppend(numbered("b", 100)...)
		time.Sleep(20 * time.Second)
		if full.p.LogEnd() == l.p.LogEnd() {
			t.Fatal("the disk was not full")
		}
		if r := full.g.Status().Reason; r == "" && full.p.Err() == nil {
			t.Logf("between two tries: %+v", full.g.Status())
		}
		full.fs.SetCapacity(-1)
		c.settle()
		c.same()
		if got := full.values(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		// The leader's disk: another leads, and nothing that was acknowledged is missing.
		l = c.leader()
		l.fs.SetCapacity(0)
		for i := 0; ; i++ {
			if _, err := l.append(strings.Repeat("x", 1000)); err != nil {
				if !errors.Is(err, log.ErrNoSpace) && !errors.Is(err, partition.ErrNotLeader) {
					t.Errorf("append on a full disk: %v", err)
				}
				break
			}
		}
		for i := 0; ; i++ {
			time.Sleep(time.Second)
			if _, err := c.leader().append("goes on"); err == nil {
				break
			} else if i == 20 {
				t.Fatalf("with two disks that are not full: %v", err)
			}
		}
		l.fs.SetCapacity(-1)
		c.settle()
		c.same()
	})
}

func TestFailedSyncStopsForGood(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		bad := c.node(2)
		fault := vfs.NewFault(bad.fs)
		bad.vfs = fault
		c.start()
		defer c.stop()
		c.leader().mustAppend("a")
		c.settle()
		fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Effect: vfs.FailSync()})
		for i := range 20 {
			c.leader().append(fmt.Sprintf("b %d", i)) // the leader may be the bad one
		}
		time.Sleep(30 * time.Second)
		if st := bad.g.Status(); !strings.Contains(st.Reason, "storage failed") || bad.g.instance() != nil {
			t.Errorf("after a failed sync: %+v", st)
		}
		if l := c.leader(); l == bad {
			t.Error("it leads")
		} else {
			l.mustAppend("c")
		}
		bad.crash(func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(nil) })
		bad.start()
		c.settle()
		c.same()
	})
}

// What a producer has sent is known to the next leader.
func TestProducersSurviveTheirLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		ctx := context.Background()
		send := func(n *testNode, sequence int32) (partition.Result, error) {
			return n.p.Append(ctx, record(fmt.Sprint(sequence)), &partition.AppendOptions{Producer: &partition.Producer{ID: 9, Epoch: 1, Sequence: sequence}})
		}
		var offsets []int64
		for i := range int32(4) {
			r, err := send(c.leader(), i)
			if err != nil {
				t.Fatal(err)
			}
			offsets = append(offsets, r.BaseOffset)
		}
		c.leader().kill()
		l := c.leader()
		for i := range int32(4) {
			if r, err := send(l, i); err != nil || !r.Duplicate || r.BaseOffset != offsets[i] {
				t.Errorf("again %d: %+v, %v", i, r, err)
			}
		}
		if _, err := send(l, 7); !errors.Is(err, partition.ErrOutOfOrderSequence) {
			t.Errorf("a gap: %v", err)
		}
		if r, err := send(l, 4); err != nil || r.Duplicate {
			t.Errorf("the next one: %+v, %v", r, err)
		}
	})
}

// A replica that has lost what it had acknowledged has no vote before it has it back.
func TestDoubtfulReplicaHasNoVote(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		c.cfg.Log.Level = log.OS
		c.start()
		defer c.stop()
		l := c.leader()
		l.mustAppend("a")
		c.settle()
		forgets, behind := c.node(l.id%3+1), c.node((l.id+1)%3+1)
		c.net.isolate(behind.id, true)
		l.mustAppend(numbered("b", 5)...)
		want := append([]string{"a"}, numbered("b", 5)...)
		end := forgets.p.LogEnd()
		forgets.crash(func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(nil) })
		l.stop()
		c.net.isolate(behind.id, false)
		forgets.start()
		if forgets.p.LogEnd() >= end {
			t.Fatal("nothing was lost")
		}
		if st, _ := forgets.p.Group(); !st.Doubtful {
			t.Fatal("it does not doubt")
		}
		// The two that are left are a majority, and neither has what was acknowledged.
		time.Sleep(20 * time.Second)
		for _, n := range []*testNode{forgets, behind} {
			if node, _ := n.g.Leader(); node != -1 {
				t.Fatalf("node %d says that %d leads", n.id, node)
			}
		}
		if r := forgets.g.Status().Reason; !strings.Contains(r, "may have lost records") {
			t.Errorf("reason %q", r)
		}
		// A clean stop does not end the doubt.
		forgets.stop()
		forgets.start()
		if st, _ := forgets.p.Group(); !st.Doubtful {
			t.Error("a clean stop has ended the doubt")
		}
		l.start()
		c.settle()
		for _, n := range c.nodes {
			if got := n.values(); !slices.Equal(got, want) {
				t.Errorf("node %d: %q, want %q", n.id, got, want)
			}
		}
		l = c.leader()
		l.mustAppend("more")
		c.settle()
		if st, _ := forgets.p.Group(); st.Doubtful {
			t.Error("it is up to date and doubts")
		}
	})
}

// When all have lost what they had acknowledged, somebody has to say who goes on.
func TestOperatorEndsADoubt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		c.cfg.Log.Level = log.OS
		c.start()
		defer c.stop()
		c.leader().mustAppend(numbered("a", 5)...)
		c.settle()
		for _, n := range c.nodes {
			n.crash(func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(nil) })
		}
		for _, n := range c.nodes {
			n.start()
		}
		time.Sleep(20 * time.Second)
		for _, n := range c.nodes {
			if node, _ := n.g.Leader(); node != -1 {
				t.Fatalf("node %d leads", node)
			}
		}
		// Two are a majority: the one that is chosen, and one that believes it.
		c.node(1).g.EndDoubt()
		c.node(2).g.EndDoubt()
		l := c.leader()
		if l.id == 3 {
			t.Error("who doubts leads")
		}
		l.mustAppend("goes on")
		c.settle()
		c.same()
		if st, _ := c.node(3).p.Group(); st.Doubtful {
			t.Error("node 3 is up to date and doubts")
		}
	})
}
