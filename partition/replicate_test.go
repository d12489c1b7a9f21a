package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// cluster is a naive replication of one partition over peers in memory, all in one
// goroutine: entries travel when the test says so. What a node's log holds is also
// kept in a slice, which is compared with the partition's.
type cluster struct {
	t      testing.TB
	seed   uint64
	rnd    *rand.Rand
	nodes  []*node
	leader int // -1: none
	term   uint64
	// committed is what a majority has had in a leader's term: it may never change.
	committed []Entry
	acked     []ackedAppend
	ops       []string
}

type node struct {
	c      *cluster
	id     int
	fs     *vfs.Mem
	p      *Partition
	log    []Entry // index i+1
	term   uint64  // the newest one it has voted in
	commit uint64
	hw     int64
}

type ackedAppend struct {
	value  string
	offset int64
}

// LeaderEpoch and Propose make a node the Replicator of its own partition.
func (n *node) LeaderEpoch() (int32, error) {
	if n.c.leader != n.id {
		return 0, &NotLeaderError{Leader: int32(n.c.leader), LeaderEpoch: int32(n.c.term)}
	}
	return int32(n.c.term), nil
}

func (n *node) Propose(_ context.Context, epoch int32, base int64, batches [][]byte) (Proposal, error) {
	if n.c.leader != n.id || uint64(epoch) != n.c.term || base != n.p.LogEnd() {
		return nil, &NotLeaderError{Leader: int32(n.c.leader), LeaderEpoch: int32(n.c.term)}
	}
	var entries []Entry
	for i, b := range batches {
		entries = append(entries, Entry{Kind: log.KindData, Index: uint64(len(n.log) + i + 1), Epoch: n.c.term, Data: bytes.Clone(b)})
	}
	if err := n.store(entries); err != nil {
		return nil, err
	}
	return &clusterProposal{n.c, n.c.term, entries[len(entries)-1].Index}, nil
}

func (n *node) store(entries []Entry) error {
	if err := n.p.Store(entries); err != nil {
		return err
	}
	n.log = append(n.log, entries...)
	return nil
}

type clusterProposal struct {
	c     *cluster
	term  uint64
	index uint64
}

// Wait replicates to a random majority, or to nobody.
func (q *clusterProposal) Wait(context.Context) error {
	c := q.c
	if c.rnd.IntN(4) == 0 {
		return errors.New("no answer from the others")
	}
	first := c.rnd.IntN(len(c.nodes))
	for i := range c.nodes {
		if c.rnd.IntN(3) > 0 || i < 2 {
			c.send((first + i) % len(c.nodes))
		}
	}
	c.advance()
	c.tell(c.leader)
	if uint64(len(c.committed)) < q.index {
		return errors.New("no majority")
	}
	return nil
}

func (c *cluster) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("seed %d: %s\nlast operations: %q", c.seed, fmt.Sprintf(format, args...), c.ops[max(0, len(c.ops)-15):])
}

func (n *node) open() {
	p, err := Open("", &Options{FS: n.fs, Replicator: n, Config: Config{Log: log.Config{SegmentBytes: 2 << 10, IndexIntervalBytes: 200, SegmentAge: -1}}})
	if err != nil {
		n.c.fatalf("node %d: %v", n.id, err)
	}
	n.p = p
}

// send brings a follower's log to the leader's.
func (c *cluster) send(to int) {
	if c.leader < 0 || to == c.leader {
		return
	}
	l, f := c.nodes[c.leader], c.nodes[to]
	f.term = max(f.term, c.term)
	same := 0
	for same < min(len(l.log), len(f.log)) && l.log[same].Epoch == f.log[same].Epoch {
		same++
	}
	if same < len(f.log) {
		if err := f.p.TruncateFrom(uint64(same + 1)); err != nil {
			c.fatalf("node %d: truncate from %d: %v", to, same+1, err)
		}
		c.ops = append(c.ops, fmt.Sprintf("node %d truncated from %d", to, same+1))
		f.log = f.log[:same]
	}
	if same == len(l.log) {
		return
	}
	upTo := same + 1 + c.rnd.IntN(len(l.log)-same)
	if c.rnd.IntN(2) == 0 {
		upTo = len(l.log)
	}
	var entries []Entry
	for _, e := range l.log[same:upTo] {
		e.Data = bytes.Clone(e.Data)
		entries = append(entries, e)
	}
	if err := f.store(entries); err != nil {
		c.fatalf("node %d: store %d to %d: %v", to, same+1, upTo, err)
	}
}

// advance commits what a majority has, if it is of the leader's own term.
func (c *cluster) advance() {
	if c.leader < 0 {
		return
	}
	l := c.nodes[c.leader]
	matches := make([]int, 0, len(c.nodes))
	for _, f := range c.nodes {
		same := 0
		for same < min(len(l.log), len(f.log)) && l.log[same].Epoch == f.log[same].Epoch {
			same++
		}
		matches = append(matches, same)
	}
	slices.Sort(matches)
	have := matches[len(matches)/2]
	if have == 0 || l.log[have-1].Epoch != c.term {
		return
	}
	if have > len(c.committed) {
		c.committed = slices.Clone(l.log[:have])
	}
	for i, f := range c.nodes {
		if f.id == c.leader || c.rnd.IntN(3) > 0 {
			c.tell(i)
		}
	}
}

// tell lets a node know what is committed of the log it has.
func (c *cluster) tell(i int) {
	f := c.nodes[i]
	same := 0
	for same < min(len(c.committed), len(f.log)) && c.committed[same].Epoch == f.log[same].Epoch {
		same++
	}
	if uint64(same) > f.commit {
		f.commit = uint64(same)
		if err := f.p.Commit(f.commit); err != nil {
			c.fatalf("node %d: commit %d: %v", i, f.commit, err)
		}
	}
	if hw := f.p.HighWatermark(); hw < f.hw {
		c.fatalf("node %d: high watermark went from %d to %d", i, f.hw, hw)
	} else {
		f.hw = hw
	}
}

// elect makes a node leader whose log is as new as a majority's.
func (c *cluster) elect() {
	i := c.rnd.IntN(len(c.nodes))
	l := c.nodes[i]
	last := func(n *node) (uint64, int) {
		if len(n.log) == 0 {
			return 0, 0
		}
		return n.log[len(n.log)-1].Epoch, len(n.log)
	}
	votes := 0
	for _, f := range c.nodes {
		le, ln := last(l)
		fe, fn := last(f)
		if le > fe || le == fe && ln >= fn {
			votes++
		}
	}
	if votes <= len(c.nodes)/2 {
		return
	}
	c.term++
	c.leader, l.term = i, c.term
	c.ops = append(c.ops, fmt.Sprintf("node %d leads in %d", i, c.term))
	// As in Raft: an entry of the new term, so that older ones can be committed.
	if err := l.store([]Entry{{Kind: log.KindNoop, Index: uint64(len(l.log) + 1), Epoch: c.term, Data: []byte("lead")}}); err != nil {
		c.fatalf("noop: %v", err)
	}
}

// view is what a reader gets below an offset, as encoded.
func view(p *Partition, i Isolation, from, to int64) (out []byte, err error) {
	r, err := p.ReadFrom(from, &ReaderOptions{Isolation: i, Control: true})
	if err != nil {
		return nil, err
	}
	for {
		b, err := r.TryNext()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if h, err := b.Header(); err != nil || h.BaseOffset >= to {
			return out, err
		}
		out = append(out, b...)
	}
}

// check compares the replicas with each other and with what was acknowledged.
func (c *cluster) check() {
	for _, a := range c.nodes {
		for _, b := range c.nodes[:a.id] {
			from := max(a.p.LogStart(), b.p.LogStart())
			to := min(a.p.HighWatermark(), b.p.HighWatermark())
			stable := min(a.p.LastStable(), b.p.LastStable())
			if from < to {
				va, erra := view(a.p, ReadUncommitted, from, to)
				vb, errb := view(b.p, ReadUncommitted, from, to)
				if erra != nil || errb != nil || !bytes.Equal(va, vb) {
					c.fatalf("nodes %d and %d differ in %d to %d: %d and %d bytes, %v %v", a.id, b.id, from, to, len(va), len(vb), erra, errb)
				}
			}
			if from < stable {
				va, erra := view(a.p, ReadCommitted, from, stable)
				vb, errb := view(b.p, ReadCommitted, from, stable)
				if erra != nil || errb != nil || !bytes.Equal(va, vb) {
					c.fatalf("nodes %d and %d show other committed records in %d to %d: %v %v", a.id, b.id, from, stable, erra, errb)
				}
			}
			if slices.EqualFunc(a.log, b.log, func(x, y Entry) bool { return x.Epoch == y.Epoch }) {
				pa, pb := a.p.Producers(), b.p.Producers()
				if !slices.Equal(pa, pb) {
					c.fatalf("nodes %d and %d know other producers:\n%+v\n%+v", a.id, b.id, pa, pb)
				}
			}
		}
		for _, x := range c.acked {
			if x.offset < a.p.LogStart() || x.offset >= a.p.HighWatermark() {
				continue
			}
			res, err := a.p.Fetch(context.Background(), FetchRequest{Offset: x.offset, MaxBytes: 1})
			if err != nil || len(res.Batches) != 1 {
				c.fatalf("node %d: acknowledged offset %d: %v", a.id, x.offset, err)
			}
			ok := false
			for rec := range log.Batch(res.Batches[0]).Records(0) {
				ok = ok || rec.Offset == x.offset && string(rec.Value) == x.value
			}
			if !ok {
				c.fatalf("node %d: offset %d does not hold %q, which was acknowledged there", a.id, x.offset, x.value)
			}
		}
	}
}

// A producer keeps sending each record until it is acknowledged, to whoever leads.
// All replicas hold the same, nothing acknowledged is lost or there twice.
func TestReplicasAgree(t *testing.T) {
	base := rand.Uint64() >> 1
	acked, duplicates, changes := 0, 0, 0
	for i := range testcount.N(60) {
		a, d, e := runCluster(t, base+uint64(i))
		acked, duplicates, changes = acked+a, duplicates+d, changes+e
	}
	t.Logf("%d acknowledged, %d of them recognised as repetitions, %d elections", acked, duplicates, changes)
	if testcount.N(60) == 60 && (acked < 500 || duplicates < 20 || changes < 100) {
		t.Errorf("too little happened to prove anything")
	}
}

func runCluster(t testing.TB, seed uint64) (acked, duplicates, elections int) {
	c := &cluster{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 3)), leader: -1}
	for i := range 3 {
		n := &node{c: c, id: i, fs: vfs.NewMem()}
		n.open()
		c.nodes = append(c.nodes, n)
	}
	defer func() {
		for _, n := range c.nodes {
			n.p.Close()
		}
	}()
	type sender struct {
		seq  int32
		open bool
	}
	senders := make([]sender, 3)
	for step := range 70 {
		// A repetition waits for the original, which may be on its way for ever.
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		switch k := c.rnd.IntN(20); {
		case k < 11 && c.leader >= 0:
			id := c.rnd.IntN(len(senders))
			s := &senders[id]
			p := c.nodes[c.leader].p
			if s.open && c.rnd.IntN(3) == 0 {
				commit := c.rnd.IntN(2) == 0
				_, err := p.EndTransaction(ctx, int64(id), 0, commit, 0, false)
				c.ops = append(c.ops, fmt.Sprintf("end %d: %v", id, err))
				s.open = err != nil
				break
			}
			v := fmt.Sprintf("%d.%d", id, s.seq)
			o := &AppendOptions{Producer: &Producer{ID: int64(id), Sequence: s.seq, Transactional: id > 0}}
			res, err := p.Append(ctx, []log.Record{{Value: []byte(v), Timestamp: int64(step)}}, o)
			c.ops = append(c.ops, fmt.Sprintf("append %s to node %d: %d %t %v", v, c.leader, res.BaseOffset, res.Duplicate, err))
			if err != nil {
				if !errors.Is(err, ErrUnknownOutcome) && err != context.DeadlineExceeded {
					c.fatalf("append %s: %v", v, err)
				}
				break // and it is sent again, with the same sequence
			}
			acked++
			if res.Duplicate {
				duplicates++
			}
			s.seq++
			s.open = id > 0
			c.acked = append(c.acked, ackedAppend{v, res.BaseOffset})
		case k < 13:
			term := c.term
			c.elect()
			elections += int(c.term - term)
		case k < 16:
			c.send(c.rnd.IntN(len(c.nodes)))
			c.advance()
		case k < 17:
			c.tell(c.rnd.IntN(len(c.nodes)))
		case k < 18:
			n := c.nodes[c.rnd.IntN(len(c.nodes))]
			to := n.p.LogStart() + c.rnd.Int64N(n.p.HighWatermark()-n.p.LogStart()+1)
			c.ops = append(c.ops, fmt.Sprintf("node %d deletes to %d", n.id, to))
			if start, err := n.p.DeleteRecords(context.Background(), to); err != nil || start != to {
				c.fatalf("node %d: delete to %d: %d, %v", n.id, to, start, err)
			}
		default:
			n := c.nodes[c.rnd.IntN(len(c.nodes))]
			c.ops = append(c.ops, fmt.Sprintf("node %d restarts", n.id))
			if c.rnd.IntN(2) == 0 {
				if err := n.p.Close(); err != nil {
					c.fatalf("close: %v", err)
				}
				n.fs = n.fs.AfterKill()
			} else {
				n.fs = n.fs.AfterKill()
				n.p.Close()
			}
			n.open()
			if n.id == c.leader {
				c.leader = -1
			}
			// What is committed it learns again.
			n.hw, n.commit = n.p.HighWatermark(), 0
		}
		cancel()
		if step%10 == 9 {
			c.check()
		}
	}
	for c.leader < 0 {
		c.elect()
	}
	for range 100 {
		for i := range c.nodes {
			c.send(i)
		}
	}
	c.advance()
	for i := range c.nodes {
		c.tell(i)
	}
	c.check()
	// Each record once, and all that was acknowledged, at the end.
	for _, n := range c.nodes {
		if n.p.HighWatermark() != n.p.LogEnd() {
			c.fatalf("node %d: high watermark %d, log end %d", n.id, n.p.HighWatermark(), n.p.LogEnd())
		}
		seen := map[string]bool{}
		for _, v := range readAll(t, n.p, ReadUncommitted) {
			if seen[v] {
				c.fatalf("node %d holds %q twice", n.id, v)
			}
			seen[v] = true
		}
		for _, x := range c.acked {
			if x.offset >= n.p.LogStart() && !seen[x.value] {
				c.fatalf("node %d lost %q, acknowledged at %d", n.id, x.value, x.offset)
			}
		}
	}
	return acked, duplicates, elections
}

// follower is the replicator of a partition that never leads.
type follower struct{}

func (follower) LeaderEpoch() (int32, error) { return 0, &NotLeaderError{Leader: -1} }

func (follower) Propose(context.Context, int32, int64, [][]byte) (Proposal, error) {
	return nil, &NotLeaderError{Leader: -1}
}

// An entry without offsets lies below the high watermark by its offset and is not
// committed: what deletes or joins by offset alone leaves a log that cannot be
// truncated to what the next leader has. Found by TestReplicasAgree, seed
// 573415753812021753.
func TestUncommittedEntryWithoutOffsetsStays(t *testing.T) {
	ctx := context.Background()
	batch := func(key string, base int64) []byte {
		h := log.BatchHeader{BaseOffset: base, LeaderEpoch: 1, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		b, err := log.AppendBatch(nil, &h, []log.Record{{Key: []byte(key), Value: make([]byte, 1500), Timestamp: 1}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, clean := range map[string]func(p *Partition) error{
		"delete": func(p *Partition) error { _, err := p.DeleteRecords(ctx, -1); return err },
		"retain": func(p *Partition) error {
			_, _, err := p.Retain(ctx, log.RetentionPolicy{Bytes: 1})
			return err
		},
		"compact": func(p *Partition) error {
			_, err := p.Compact(ctx, log.CompactPolicy{DeleteRetention: -1})
			return err
		},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%t", name, restart), func(t *testing.T) {
				fs := vfs.NewMem()
				open := func() *Partition {
					p, err := Open("", &Options{FS: fs, Replicator: follower{}, Config: Config{Log: log.Config{SegmentBytes: 2 << 10, SegmentAge: -1}}})
					if err != nil {
						t.Fatal(err)
					}
					return p
				}
				p := open()
				defer func() { p.Close() }()
				// Segments: entries 1 | 2 3 | 4, of which 3 has no offset and is not committed.
				for i, e := range []Entry{
					{Kind: log.KindData, Index: 1, Epoch: 1, Data: batch("k", 0)},
					{Kind: log.KindData, Index: 2, Epoch: 1, Data: batch("k", 1)},
					{Kind: log.KindNoop, Index: 3, Epoch: 2, Data: []byte("lead")},
					{Kind: log.KindData, Index: 4, Epoch: 2, Data: batch("k", 2)},
				} {
					if err := p.Store([]Entry{e}); err != nil {
						t.Fatalf("entry %d: %v", i+1, err)
					}
				}
				if err := p.Commit(2); err != nil {
					t.Fatal(err)
				}
				if restart {
					if err := p.Close(); err != nil {
						t.Fatal(err)
					}
					p = open()
				}
				if p.HighWatermark() != 2 {
					t.Fatalf("high watermark %d, want 2", p.HighWatermark())
				}
				if err := clean(p); err != nil {
					t.Fatal(err)
				}
				if err := p.TruncateFrom(3); err != nil {
					t.Fatalf("truncate from the first entry that is not committed: %v", err)
				}
				if err := p.Store([]Entry{{Kind: log.KindData, Index: 3, Epoch: 3, Data: batch("k", 2)}}); err != nil {
					t.Fatal(err)
				}
				if err := p.Commit(3); err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, p, ReadUncommitted); len(got) == 0 || p.HighWatermark() != 3 {
					t.Fatalf("%d records, high watermark %d, want at least 1 and 3", len(got), p.HighWatermark())
				}
				// What is committed may go.
				if _, err := p.DeleteRecords(ctx, -1); err != nil {
					t.Fatal(err)
				}
				if start := p.LogStart(); start != 3 {
					t.Fatalf("log start offset %d after deletion, want 3", start)
				}
			})
		}
	}
}
