package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// groupModel does random things to a cluster and knows what must be true afterwards.
type groupModel struct {
	*testCluster
	seed    uint64
	rnd     *rand.Rand
	sent    int
	acked   map[int64]string // offset to value
	maybe   map[string]bool  // values whose outcome is not known
	start   int64            // log start, as far as it was confirmed
	leaders map[uint64]raft.ServerAddress
	hw      map[*partition.Partition]int64
	ops     []string
	away    map[int32]bool
	wrong   string // noted under the net's lock
}

func (m *groupModel) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d: %s\noperations: %q", m.seed, fmt.Sprintf(format, args...), m.ops)
}

func (m *groupModel) log(format string, args ...any) {
	m.ops = append(m.ops, fmt.Sprintf(format, args...))
}

// saw is told of every message: a term has one leader.
func (m *groupModel) saw(from, _ raft.ServerAddress, msg any) {
	if a, ok := msg.(*raft.AppendEntriesRequest); ok {
		if was, known := m.leaders[a.Term]; known && was != from && m.wrong == "" {
			m.wrong = fmt.Sprintf("%s and %s lead in term %d", was, from, a.Term)
		}
		m.leaders[a.Term] = from
	}
}

func (m *groupModel) watermarks() {
	m.t.Helper()
	for _, n := range m.nodes {
		if !n.up {
			continue
		}
		if hw := n.p.HighWatermark(); hw < m.hw[n.p] {
			m.fatalf("node %d: the high watermark went from %d to %d", n.id, m.hw[n.p], hw)
		} else {
			m.hw[n.p] = hw
		}
	}
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if m.wrong != "" {
		m.fatalf("%s", m.wrong)
	}
}

func (m *groupModel) append() {
	n := m.nodes[m.rnd.IntN(len(m.nodes))]
	for _, other := range m.nodes {
		if other.up {
			if _, err := other.g.LeaderEpoch(); err == nil {
				n = other
			}
		}
	}
	if !n.up {
		return
	}
	count := 1 + m.rnd.IntN(3)
	type outcome struct {
		value  string
		offset int64
		err    error
	}
	results := make(chan outcome, count)
	for range count {
		m.sent++
		v := fmt.Sprintf("value %d %s", m.sent, make([]byte, m.rnd.IntN(200)))
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			r, err := n.p.Append(ctx, record(v), nil)
			results <- outcome{v, r.BaseOffset, err}
		}()
	}
	for range count {
		switch o := <-results; {
		case o.err == nil:
			if was, ok := m.acked[o.offset]; ok {
				m.fatalf("%q and %q were both acknowledged at offset %d", was, o.value, o.offset)
			}
			m.acked[o.offset] = o.value
		case errors.Is(o.err, partition.ErrUnknownOutcome):
			m.maybe[o.value] = true
		}
	}
	m.log("append %d at %d", count, n.id)
}

// down says whether another node may be taken away.
func (m *groupModel) spare() *testNode {
	gone := 0
	for _, n := range m.nodes {
		if !n.up || m.away[n.id] {
			gone++
		}
	}
	n := m.nodes[m.rnd.IntN(len(m.nodes))]
	if !n.up || m.away[n.id] || gone > 0 && m.rnd.IntN(5) > 0 {
		return nil
	}
	return n
}

func (m *groupModel) step() {
	switch k := m.rnd.IntN(20); {
	case k < 9:
		m.append()
	case k < 12:
		if n := m.spare(); n != nil {
			switch m.rnd.IntN(3) {
			case 0:
				m.log("stop %d", n.id)
				n.stop()
			case 1:
				m.log("kill %d", n.id)
				n.kill()
			default:
				seed := m.rnd.Uint64()
				m.log("crash %d", n.id)
				n.crash(func(fs *vfs.Mem) *vfs.Mem { return fs.AfterCrash(vfs.Random(seed)) })
			}
		}
	case k < 15:
		for _, n := range m.nodes {
			if !n.up && m.rnd.IntN(2) == 0 {
				m.log("start %d", n.id)
				n.start()
			}
		}
	case k == 15:
		if n := m.spare(); n != nil {
			m.log("isolate %d", n.id)
			m.away[n.id] = true
			m.net.isolate(n.id, true)
		}
	case k == 16:
		m.heal()
	case k == 17:
		time.Sleep(time.Duration(m.rnd.IntN(2000)) * time.Millisecond)
	case k == 18:
		for _, n := range m.nodes {
			if !n.up {
				continue
			}
			if _, err := n.g.LeaderEpoch(); err == nil {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				if m.rnd.IntN(2) == 0 {
					m.log("transfer from %d", n.id)
					n.g.Transfer(ctx, 0)
				} else if hw := n.p.HighWatermark(); hw > 0 {
					to := m.rnd.Int64N(hw)
					m.log("delete to %d at %d", to, n.id)
					if start, err := n.p.DeleteRecords(ctx, to); err == nil {
						m.start = max(m.start, start)
					}
				}
				cancel()
			}
		}
	default:
		if n := m.nodes[m.rnd.IntN(len(m.nodes))]; n.up {
			m.log("compact %d", n.id)
			n.p.Roll(context.Background())
			n.p.Compact(context.Background(), log.CompactPolicy{DeleteRetention: -1})
		}
	}
	m.watermarks()
}

func (m *groupModel) heal() {
	for id := range m.away {
		m.log("heal %d", id)
		m.net.isolate(id, false)
		delete(m.away, id)
	}
}

// check has everybody come back and looks at what is there.
func (m *groupModel) check() {
	m.t.Helper()
	m.log("check")
	m.heal()
	for _, n := range m.nodes {
		if !n.up {
			n.start()
		}
	}
	defer func() {
		if m.t.Failed() {
			m.t.Logf("seed %d, operations: %q", m.seed, m.ops)
		}
	}()
	l := m.settle()
	m.watermarks()
	m.same()
	got := map[int64]string{}
	r, err := l.p.ReadFrom(l.p.LogStart(), nil)
	if err != nil {
		m.fatalf("%v", err)
	}
	seen := map[string]int64{}
	for r.Offset() < l.p.HighWatermark() {
		b, err := r.TryNext()
		if err != nil {
			break
		}
		var rr log.RecordReader
		if err := rr.Reset(b, 0); err != nil {
			m.fatalf("%v", err)
		}
		for rr.Next() {
			v, at := string(rr.Record().Value), rr.Record().Offset
			if before, twice := seen[v]; twice {
				m.fatalf("%.20q lies at %d and %d", v, before, at)
			}
			seen[v], got[at] = at, v
		}
	}
	first := l.p.LogStart()
	if first < m.start {
		m.fatalf("the log starts at %d, it was said to start at %d", first, m.start)
	}
	for offset, v := range m.acked {
		// Compaction keeps the last record of the one key there is.
		if now, ok := got[offset]; ok && now != v || !ok && offset >= first && len(seen) > 0 && !m.compacted() {
			m.fatalf("offset %d: %.20q, %.20q was acknowledged there", offset, got[offset], v)
		}
	}
	for v := range seen {
		known := m.maybe[v]
		for _, a := range m.acked {
			known = known || a == v
		}
		if !known {
			m.fatalf("%.20q was refused and is there", v)
		}
	}
}

func (m *groupModel) compacted() bool {
	for _, n := range m.nodes {
		if n.up && n.p.Log().FirstCompleteIndex() > n.p.Log().Boundary().Index+1 {
			return true
		}
	}
	return false
}

func TestGroupModel(t *testing.T) {
	first := uint64(1)
	if s := os.Getenv("EMBEDLOG_GROUP_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
	}
	for i := range testcount.N(20) {
		seed := first + uint64(i)
		bubble(t, func(t *testing.T) {
			m := &groupModel{
				testCluster: newTestCluster(t, 3), seed: seed, rnd: rand.New(rand.NewPCG(seed, 5)), acked: map[int64]string{}, maybe: map[string]bool{},
				leaders: map[uint64]raft.ServerAddress{}, hw: map[*partition.Partition]int64{}, away: map[int32]bool{},
			}
			m.net.seen = m.saw
			m.testCluster.start()
			defer m.testCluster.stop()
			m.leader()
			for n := range 120 {
				m.step()
				if n%40 == 39 {
					m.check()
				}
			}
			t.Logf("seed %d: %d acknowledged, %d unknown, %d terms, %d installs, log start %d", seed, len(m.acked), len(m.maybe), len(m.leaders), m.net.installs, m.start)
			if len(m.acked) == 0 {
				m.fatalf("nothing was acknowledged")
			}
		})
		if t.Failed() {
			return
		}
	}
}
