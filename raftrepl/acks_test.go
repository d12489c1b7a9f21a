package raftrepl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Who acknowledges before it may loses nothing by that unless a power cut follows at once. These tests hold
// the disk where it has written and not synced yet, and look at who says what meanwhile.

// heldDisk is a log's disk whose syncs wait until they are let go.
type heldDisk struct {
	held    atomic.Bool
	waiting atomic.Bool  // a sync does
	writes  atomic.Int64 // that were begun
	let     chan struct{}
	once    sync.Once
}

// of puts it under a process whose group does not take part yet.
func (d *heldDisk) of(r *simRun) {
	d.let = make(chan struct{})
	r.g.stall = func(sync bool) {
		if !sync {
			d.writes.Add(1)
		} else if d.held.Load() {
			d.waiting.Store(true)
			<-d.let
			d.waiting.Store(false)
		}
	}
}

// next lets the sync go that waits.
func (d *heldDisk) next(t *testing.T) {
	t.Helper()
	select {
	case d.let <- struct{}{}:
	case <-time.After(time.Second):
		t.Fatal("nothing is synced")
	}
}

// release lets all go, from now on.
func (d *heldDisk) release() {
	d.held.Store(false)
	d.once.Do(func() { close(d.let) })
}

// scripted is a replica whose leader is the test: what it answers is what a leader would count.
type scripted struct {
	t    *testing.T
	c    *simCluster
	n    *simNode
	disk heldDisk
	term uint64
	end  int64 // offset behind the last record that was sent
}

// script starts the second of three nodes, which hears of nobody else. close ends it.
func script(t *testing.T) *scripted {
	s := &scripted{t: t, c: newSimCluster(t, 3, 3), term: 2}
	s.n = s.c.nodes[1]
	s.c.opened = func(r *simRun) { s.disk.of(r) }
	if err := s.n.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// reply comes for a message of the leader's that is on its way.
type reply chan raft.RPCResponse

func (s *scripted) close() {
	s.disk.release()
	s.c.close()
}

// message is one of the leader's, with entries behind prev. Each is a record.
func (s *scripted) message(prev, prevTerm, commit uint64, records ...string) *raft.AppendEntriesRequest {
	m := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("1"), Addr: []byte("1")},
		Term:      s.term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: commit,
	}
	for i, text := range records {
		b, err := log.AppendBatch(nil, &log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, []log.Record{{Value: []byte(text)}})
		if err != nil {
			s.t.Fatal(err)
		}
		log.SetBatchOffset(b, s.end, int32(s.term))
		s.end++
		m.Entries = append(m.Entries, &raft.Log{Index: prev + uint64(i) + 1, Term: s.term, Type: raft.LogCommand, Data: b})
	}
	return m
}

// take gives the replica a message. What it returns waits for the answer.
func (s *scripted) take(m any) answering { return s.n.run.Load().g.gate.take(raft.RPC{Command: m}) }

// send gives the replica a message, and time to write.
func (s *scripted) send(prev, prevTerm, commit uint64, records ...string) reply {
	return s.give(s.message(prev, prevTerm, commit, records...))
}

func (s *scripted) give(m any) reply {
	wait := s.take(m)
	a := make(reply, 1)
	go func() {
		resp, err := wait()
		a <- raft.RPCResponse{Response: resp, Error: err}
	}()
	time.Sleep(time.Millisecond)
	return a
}

// yes waits for an answer that a leader counts.
func (s *scripted) yes(a reply) {
	s.t.Helper()
	select {
	case r := <-a:
		if m, ok := r.Response.(*raft.AppendEntriesResponse); !ok || r.Error != nil || !m.Success {
			s.t.Fatalf("it answers %+v, %v", r.Response, r.Error)
		}
	case <-time.After(time.Second):
		s.t.Fatal("it does not answer")
	}
}

// not finds that there is no answer yet.
func (s *scripted) not(a reply, what string) {
	s.t.Helper()
	if time.Sleep(time.Millisecond); len(a) > 0 {
		s.t.Fatalf("%s is answered before it is synced", what)
	}
}

// survives takes the power away, and all that was not synced.
func (s *scripted) survives(index uint64) {
	s.t.Helper()
	r := s.n.run.Load()
	fs := s.n.disk.Load().AfterCrash(nil)
	s.n.die(r, false, 0)
	s.disk.release()
	r.end()
	s.n.disk.Store(fs)
	if err := s.n.start(); err != nil {
		s.t.Fatal(err)
	}
	if last, _ := s.n.run.Load().p.LastEntry(); last < index {
		s.t.Errorf("it has acknowledged entry %d, and after a power cut it ends with %d", index, last)
	}
}

// What an instance has written and not synced when it ended is not taken for synced by the next one.
func TestNextInstanceSyncsBeforeItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(t)
		defer s.close()
		s.yes(s.send(1, 1, 0, "a"))
		written := s.take(s.message(2, 2, 0, "b"))
		time.Sleep(time.Millisecond)
		// The disk has no room for a new term, for a moment: the instance ends before somebody has looked
		// whether the answer is true.
		s.n.disk.Load().SetCapacity(0)
		s.term = 3
		if r := <-s.send(3, 2, 0); r.Error == nil {
			t.Errorf("a term that is not stored is answered: %+v", r.Response)
		}
		if resp, err := written(); err == nil {
			t.Errorf("an instance that has ended answers %+v", resp)
		}
		s.n.disk.Load().SetCapacity(-1)
		time.Sleep(2 * firstRestart)
		s.yes(s.send(3, 2, 0))
		s.survives(3)
	})
}

// A follower answers for an entry when a sync has ended that began behind its write, and not before.
func TestFollowerAnswersWhenItHasSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(t)
		defer s.close()
		s.disk.held.Store(true)
		one := s.send(1, 1, 0, "a")
		s.not(one, "one entry")
		// These are written while the sync runs, which says nothing about them.
		two := s.send(2, 2, 0, "b", "c")
		again := s.send(3, 2, 0) // for the first of the two
		s.disk.next(t)
		s.yes(one)
		s.not(two, "what came during a sync")
		s.not(again, "an entry that another message has brought")
		s.disk.next(t)
		s.yes(two)
		s.yes(again)
		// What is committed is on this disk before it is shown, too.
		last := s.send(4, 2, 5, "d")
		s.not(last, "a committed entry")
		if hw := s.n.run.Load().p.HighWatermark(); hw > 3 {
			t.Errorf("the high watermark is %d, and the disk has 3 records", hw)
		}
		s.disk.next(t)
		s.yes(last)
		s.survives(5)
	})
}

// An answer says that the entries are in the log of the term in which it goes out: a newer leader may have had them
// taken back while their sync ran.
func TestAnswerOfAnOldTermIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(t)
		defer s.close()
		s.yes(s.send(1, 1, 0, "a"))
		s.disk.held.Store(true)
		old := s.send(2, 2, 0, "b")
		s.term, s.end = 3, s.end-1
		newer := s.send(2, 2, 0, "B") // which replaces it
		s.disk.next(t)                // the sync of what is gone by now
		s.not(newer, "what has another's place")
		s.disk.release()
		s.yes(newer)
		if r := <-old; r.Error == nil {
			t.Errorf("an entry that was taken back is answered: %+v", r.Response)
		}
		s.survives(3)
	})
}

// heldCluster is nodes with such disks, one of which leads.
func heldCluster(t *testing.T, nodes int) (c *simCluster, l *simRun, disks []*heldDisk) {
	c = newSimCluster(t, nodes, nodes)
	disks = make([]*heldDisk, nodes+1)
	c.opened = func(r *simRun) {
		disks[r.n.id] = new(heldDisk)
		disks[r.n.id].of(r)
	}
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := c.settle(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return c, l, disks
}

// appending appends a record, and says how that ended.
func (r *simRun) appending(text string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := r.p.Append(context.Background(), []log.Record{{Value: []byte(text)}}, nil)
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	return done
}

// A leader that has not synced does not count: neither for who appends, nor for followers, which would show records that a single
// disk has. All nodes but the two go on without them.
func TestLeaderCountsWhenItHasSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, disks := heldCluster(t, 3)
		defer c.close()
		f, third := c.nodes[l.n.id%3], c.nodes[(l.n.id+1)%3]
		for _, n := range []*simNode{l.n, f} {
			c.net.CutBoth(hostName(third.id), hostName(n.id))
		}
		before := l.p.LogEnd()
		disk := disks[l.n.id]
		defer disk.release()
		disk.held.Store(true)
		var appended []<-chan error
		for i := range 3 {
			appended = append(appended, l.appending(fmt.Sprint(i)))
		}
		for i, done := range appended {
			if len(done) > 0 {
				t.Errorf("record %d is answered before the leader has synced it", i)
			}
		}
		for _, n := range []*simNode{l.n, f} {
			r := n.run.Load()
			if hw := r.p.HighWatermark(); hw > before {
				t.Errorf("node %d shows %d records more than two disks have", n.id, hw-before)
			}
			if end := r.p.LogEnd(); end == before {
				t.Errorf("node %d was sent nothing", n.id)
			}
		}
		disk.release()
		for i, done := range appended {
			if err := <-done; err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		}
		end := l.p.HighWatermark()
		l.n.crash(true, 1)
		f.crash(true, 2)
		c.net.HealAll()
		for _, n := range []*simNode{l.n, f} {
			if err := n.start(); err != nil {
				t.Fatal(err)
			}
		}
		if l, err := c.settle(time.Minute); err != nil || l.p.HighWatermark() < end {
			t.Errorf("after a power cut of both: %v", err)
		}
	})
}

// An answer of a follower counts for what is on this disk of it: for the last entry of the message, and not for the first.
func TestAnswerCountsBehindTheLastEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, disks := heldCluster(t, 3)
		defer c.close()
		disk := disks[l.n.id]
		defer disk.release()
		disk.held.Store(true)
		first := l.appending("a")
		second := l.appending("b")
		last, term := l.p.LastEntry()
		inst := l.g.instance()
		counts := make(chan error, 1)
		m := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: last - 2, Entries: []*raft.Log{{Index: last - 1}, {Index: last}}}
		go func() {
			counts <- l.g.gate.transport(inst).took("9", m, &raft.AppendEntriesResponse{Success: true, Term: term}, nil)
		}()
		disk.next(t) // for the first: the second came during that sync
		time.Sleep(time.Millisecond)
		if len(counts) > 0 || !disk.waiting.Load() {
			t.Errorf("it counts for entry %d before that is synced", last)
		}
		disk.release()
		if err := <-counts; err != nil {
			t.Error(err)
		}
		<-first
		<-second
	})
}

// What is acknowledged where one voter is all of them, or became it, is on its disk.
func TestOnlyVoterSyncsBeforeItCounts(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			c, l, disks := heldCluster(t, nodes)
			defer c.close()
			disk := disks[l.n.id]
			defer disk.release()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if nodes > 1 {
				if err := l.g.SetMembers(ctx, []int32{l.n.id}); err != nil {
					t.Fatal(err)
				}
			}
			disk.held.Store(true)
			end := l.p.LogEnd()
			done := l.appending("a")
			fs := l.n.disk.Load().AfterCrash(nil)
			if len(done) == 1 && <-done == nil {
				end++
			}
			l.n.die(l, false, 0)
			disk.release()
			l.end()
			l.n.disk.Store(fs)
			if err := l.n.start(); err != nil {
				t.Fatal(err)
			}
			if l := l.n.run.Load(); l.p.LogEnd() < end {
				t.Errorf("of %d nodes: what was acknowledged ends at %d, after a power cut the log does at %d", nodes, end, l.p.LogEnd())
			}
		})
	}
}

// What a disk has refused to sync is acknowledged by nobody, neither the leader nor a follower: the log may be without it.
func TestFailedSyncAcknowledgesNothing(t *testing.T) {
	fails := vfs.Rule{Op: vfs.OpDatasync, Glob: "log/*.log", Effect: vfs.FailSync()}
	t.Run("follower", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := script(t)
			defer s.close()
			s.yes(s.send(1, 1, 0, "a"))
			r := s.n.run.Load()
			r.fault.Add(fails)
			if a := <-s.send(2, 2, 0, "b"); a.Error == nil {
				t.Errorf("it answers %+v", a.Response)
			}
			if r.fault.Hits() == 0 || r.p.Err() == nil {
				t.Error("nothing was synced")
			}
			s.survives(2)
		})
	})
	t.Run("leader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, l, _ := heldCluster(t, 3)
			defer c.close()
			third := c.nodes[(l.n.id+1)%3]
			for _, n := range c.nodes {
				c.net.CutBoth(hostName(third.id), hostName(n.id))
			}
			before := l.p.LogEnd()
			l.fault.Add(fails)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := l.p.Append(ctx, []log.Record{{Value: []byte("a")}}, nil); !errors.Is(err, partition.ErrUnknownOutcome) {
				t.Errorf("an append that one disk has ends with %v", err)
			}
			for _, n := range c.nodes {
				if hw := n.run.Load().p.HighWatermark(); hw > before {
					t.Errorf("node %d shows it", n.id)
				}
			}
		})
	})
}

// A proposal of which a part is stored, and committed, is not over; and who leads does not before the first entry of its term is committed.
func TestHalfAProposalIsNotOver(t *testing.T) {
	inst := &instance{g: NewGroup(GroupConfig{Self: 1, Votes: &Votes{}}), leading: 1, proposals: make(map[uint64]*proposal), done: make(chan struct{})}
	p := &proposal{inst: inst, epoch: 1, n: 2, command: true, stored: make(chan struct{}, 1), done: make(chan struct{})}
	if !inst.register(p) {
		t.Fatal("it is not registered")
	}
	for i := range uint64(2) {
		ticket := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, p.id), uint32(i))
		if !inst.admit(&raft.Log{Index: 7 + i, Term: 1, Extensions: ticket}, 0) {
			t.Fatalf("entry %d is not admitted", i)
		}
		inst.stored(nil)
		inst.committed(7)
		if p.over {
			t.Fatalf("it is over when %d of its 2 entries are stored and one is committed", i+1)
		}
	}
	inst.ledFrom(1, 9)
	inst.ready = make(chan struct{})
	if inst.committed(8); inst.isReady {
		t.Error("it leads, and the first entry of its term is not committed")
	}
	if inst.committed(9); !inst.isReady {
		t.Error("it does not lead")
	}
	if !p.over || p.err != nil {
		t.Errorf("when all is committed: over %t, %v", p.over, p.err)
	}
}

// That an install is not needed, because its last entry is here, is an answer that the sender counts: it is true when the entry is
// synced.
func TestInstallOfWhatIsHereIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(t)
		defer s.close()
		s.disk.held.Store(true)
		s.send(1, 1, 0, "a")
		a := s.give(&raft.InstallSnapshotRequest{RPCHeader: s.n.run.Load().g.gate.header(), Term: s.term, LastLogIndex: 2, LastLogTerm: s.term})
		s.not(a, "an install of what is written")
		s.disk.next(t)
		if r := <-a; r.Error != nil || !r.Response.(*raft.InstallSnapshotResponse).Success {
			t.Errorf("it answers %+v, %v", r.Response, r.Error)
		}
		s.survives(2)
	})
}

// slowVotes is a disk of votes that takes its time.
type slowVotes struct {
	t  *testing.T
	mu sync.Mutex
	on map[engine.LogID]vote
}

func (b *slowVotes) load() ([]vote, error) { return nil, nil }
func (b *slowVotes) close() error          { return nil }
func (b *slowVotes) store(_, all []vote) error {
	time.Sleep(10 * time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range all {
		if g.candidate != "" && g.candidate != fmt.Sprint(g.voteTerm) {
			b.t.Errorf("the vote for %s is stored as one of term %d", g.candidate, g.voteTerm)
		}
		b.on[g.id] = g
	}
	return nil
}

// A term or a vote that is said to be stored is, also where it comes while others are written, and while the same is; and no write has half
// of a vote.
func TestVotesAreStoredWhenTheyAreSaidToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &slowVotes{t: t, on: make(map[engine.LogID]vote)}
		v, err := openVotes(b)
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range int32(5) {
			all.Go(func() {
				s := &stableStore{v: v, id: logID(i), lost: func(err error) { t.Error(err) }}
				is := func() vote {
					b.mu.Lock()
					defer b.mu.Unlock()
					return b.on[s.id]
				}
				time.Sleep(time.Duration(3*i) * time.Millisecond)
				for term := uint64(1); term <= 5; term++ {
					var same sync.WaitGroup
					for again := range 3 {
						same.Go(func() {
							time.Sleep(time.Duration(4*again) * time.Millisecond)
							if err := s.SetUint64([]byte(keyTerm), term); err != nil || is().term != term {
								t.Errorf("group %d: term %d is said to be stored, there is %+v: %v", i, term, is(), err)
							}
						})
					}
					same.Wait()
					err := s.SetUint64([]byte(keyVoteTerm), term)
					time.Sleep(12 * time.Millisecond) // others write meanwhile
					err = errors.Join(err, s.Set([]byte(keyCandidate), []byte(fmt.Sprint(term))))
					if g := is(); err != nil || g.voteTerm != term || g.candidate != fmt.Sprint(term) {
						t.Errorf("group %d: the vote of term %d is said to be stored, there is %+v: %v", i, term, g, err)
					}
				}
			})
		}
		all.Wait()
	})
}

// A message says nothing about what lies behind the entries that it compares: an old tail there is not committed by what the leader has
// committed at that place. And entries of a newer term than its own are none that it may carry.
func TestOldTailIsNotCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(t)
		defer s.close()
		s.yes(s.send(1, 1, 0, "a", "b", "c"))
		s.term = 3
		s.yes(s.send(2, 2, 4))
		r := s.n.run.Load()
		if hw := r.p.HighWatermark(); hw != 1 {
			t.Errorf("the high watermark is %d, one record has been compared", hw)
		}
		m := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1}
		if err := r.g.instance().store.fill(m, 4); !errors.Is(err, errDeposed) {
			t.Errorf("a message of term 1 with entries of term 2: %v, %d entries", err, len(m.Entries))
		}
	})
}

// termsOn is a log on its way during which the receiver hears of a newer term.
type termsOn struct {
	io.Reader
	do func()
}

func (r *termsOn) Read(b []byte) (int, error) {
	if r.do != nil {
		r.do()
		r.do = nil
	}
	return r.Reader.Read(b)
}

// An install comes with the term of its sender, which is stored, too; one that has been overtaken by a newer term is not put in place.
func TestInstallMindsTheTerm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		other := c.node(l.id%3 + 1)
		c.net.isolate(other.id, true)
		l.mustAppend(numbered("a", 20)...)
		meta, stream, err := (&snapshots{l.g.instance()}).Open("")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(stream)
		if err != nil {
			t.Fatal(err)
		}
		stream.Close()
		votes, id := other.g.cfg.Votes, other.g.cfg.ID
		last, _ := other.p.LastEntry()
		req := &raft.InstallSnapshotRequest{RPCHeader: l.g.gate.header(), Term: l.g.instance().raft.CurrentTerm() + 5, LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size}
		resp, err := other.g.Install(req, &termsOn{bytes.NewReader(b), func() {
			if err := votes.change(id, func(v *vote) { v.term = req.Term + 1 }); err != nil {
				t.Error(err)
			}
		}})
		if now, _ := other.p.LastEntry(); err != nil || resp.Success || resp.Term != req.Term+1 || now != last {
			t.Errorf("an install that was overtaken: %+v, %v, the log ends with entry %d", resp, err, now)
		}
		req.Term += 2
		if resp, err = other.g.Install(req, bytes.NewReader(b)); err != nil || !resp.Success {
			t.Fatalf("install: %+v, %v", resp, err)
		}
		if known, _ := votes.get(id); known.term < req.Term {
			t.Errorf("installed in term %d, term %d is stored", req.Term, known.term)
		}
		c.net.isolate(other.id, false)
		c.settle()
		c.same()
	})
}
