package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// waitModel says what a Waiter must have told by now.
type waitModel struct {
	w     *Waiter
	parts []*Partition
	waits []*Wait
	woken map[*Wait]bool
}

// Random appends, transactions, deletions, closes, arms and disarms: a wait is
// woken exactly when its offset becomes readable or its partition closes.
func TestWaiterAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx := context.Background()
	for run := range testcount.N(200) {
		m := &waitModel{w: NewWaiter(), woken: map[*Wait]bool{}}
		for range 4 {
			m.parts = append(m.parts, openTest(t, vfs.NewMem(), Config{}))
		}
		closed := map[*Partition]bool{}
		txn := map[*Partition]int32{} // next sequence of its open transaction
		var epoch [4]int16
		for step := range 60 {
			i := rng.IntN(len(m.parts))
			p := m.parts[i]
			switch op := rng.IntN(12); {
			case op < 3:
				x := &Wait{Value: p}
				iso := Isolation(rng.IntN(2))
				offset := p.LogEnd() + int64(rng.IntN(3)) - 1
				if offset < 0 {
					continue
				}
				now := closed[p] || p.bound(iso) > offset
				if x.Arm(m.w, p, offset, iso) == now {
					t.Fatalf("seed %d run %d step %d: Arm(%d) is %v, readable %v", seed, run, step, offset, !now, now)
				}
				if !now {
					m.waits = append(m.waits, x)
				}
			case op < 6 && !closed[p]:
				mustAppend(t, p, nil, "a", "b")
			case op < 8 && !closed[p]:
				mustAppend(t, p, &AppendOptions{Producer: &Producer{ID: int64(i + 1), Epoch: epoch[i], Sequence: txn[p], Transactional: true}}, "t")
				txn[p]++
			case op == 8 && txn[p] > 0 && !closed[p]:
				if _, err := p.EndTransaction(ctx, int64(i+1), epoch[i], rng.IntN(2) == 0, 0, false); err != nil {
					t.Fatal(err)
				}
				txn[p] = 0
				epoch[i]++
			case op == 9 && !closed[p]:
				if _, err := p.DeleteRecords(ctx, -1); err != nil {
					t.Fatal(err)
				}
			case op == 10 && len(m.waits) > 0:
				k := rng.IntN(len(m.waits))
				x := m.waits[k]
				x.Disarm()
				m.waits = append(m.waits[:k], m.waits[k+1:]...)
			case op == 11 && rng.IntN(4) == 0:
				p.Close()
				closed[p] = true
			}
			if rng.IntN(3) == 0 {
				continue // several wakes between two looks
			}
			m.look(t, closed, fmt.Sprintf("seed %d run %d step %d", seed, run, step))
		}
		for _, p := range m.parts {
			p.Close()
			closed[p] = true
		}
		m.look(t, closed, fmt.Sprintf("seed %d run %d end", seed, run))
		if len(m.waits) > 0 {
			t.Fatalf("seed %d run %d: %d waits outlive their partitions", seed, run, len(m.waits))
		}
		for _, p := range m.parts {
			if n := p.waiters.waiting.Load(); n != 0 || len(p.waiters.list) != 0 {
				t.Fatalf("seed %d run %d: %d waits are left in a partition", seed, run, n)
			}
		}
	}
}

func (m *waitModel) look(t *testing.T, closed map[*Partition]bool, where string) {
	t.Helper()
	want := 0
	keep := m.waits[:0:0]
	due := map[*Wait]bool{}
	for _, x := range m.waits {
		if p := x.p; closed[p] || p.bound(x.isolation) > x.offset {
			want++
			due[x] = true
			continue
		}
		keep = append(keep, x)
	}
	if want > 0 {
		select {
		case <-m.w.C():
		default:
			t.Fatalf("%s: %d waits are due and there is no token", where, want)
		}
	}
	for x := m.w.Next(); x != nil; x = m.w.Next() {
		if !due[x] {
			t.Fatalf("%s: a wait for offset %d was woken, or woken twice", where, x.offset)
		}
		if x.Armed() {
			t.Fatalf("%s: a wait that was returned is armed", where)
		}
		delete(due, x)
	}
	for x := range due {
		t.Fatalf("%s: the wait for offset %d was not woken", where, x.offset)
	}
	m.waits = keep
}

// One goroutine reads what many write to many partitions, and misses nothing.
func TestWaiterReadsAll(t *testing.T) {
	const partitions = 16
	each := testcount.N(2000)
	ctx := context.Background()
	w := NewWaiter()
	type source struct {
		Wait
		p *Partition
		r *Reader
	}
	var writers sync.WaitGroup
	var sources []*source
	for range partitions {
		p := openTest(t, vfs.NewMem(), Config{})
		r, err := p.ReadFrom(0, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &source{p: p, r: r}
		s.Value = s
		sources = append(sources, s)
		writers.Go(func() {
			recs := []log.Record{{Value: []byte("v")}}
			for range each {
				if _, err := p.Append(ctx, recs, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	ready := append([]*source(nil), sources...)
	for got := 0; got < partitions*each; {
		for len(ready) > 0 {
			s := ready[0]
			ready = ready[1:]
			for {
				_, err := s.r.TryNext()
				if err == nil {
					got++
					continue
				}
				if err != io.EOF {
					t.Fatal(err)
				}
				if !s.Arm(w, s.p, s.r.Offset(), ReadUncommitted) {
					continue
				}
				break
			}
		}
		if got == partitions*each {
			break
		}
		<-w.C()
		for x := w.Next(); x != nil; x = w.Next() {
			ready = append(ready, x.Value.(*source))
		}
	}
	writers.Wait()
	for _, s := range sources {
		s.Disarm()
		s.Disarm() // nothing more happens
		if n := s.p.waiters.waiting.Load(); n != 0 {
			t.Errorf("%d waits are left", n)
		}
	}
}

// Closing wakes who waits, and who would wait.
func TestWaiterClose(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	w := NewWaiter()
	var x, y Wait
	if !x.Arm(w, p, 0, ReadCommitted) {
		t.Fatal("there is nothing to read, and Arm says there is")
	}
	p.Close()
	<-w.C()
	if got := w.Next(); got != &x || w.Next() != nil {
		t.Fatalf("closing woke %p, want %p", got, &x)
	}
	if x.Arm(w, p, 0, ReadCommitted) || y.Arm(w, p, 0, ReadUncommitted) {
		t.Fatal("a wait for a closed partition")
	}
	if err := p.waitFor(context.Background(), 1, ReadUncommitted); !errors.Is(err, log.ErrClosed) {
		t.Fatalf("waiting for a closed partition: %v", err)
	}
	w.Wake()
	w.Wake()
	<-w.C()
	select {
	case <-w.C():
		t.Fatal("two tokens")
	default:
	}
}

// A wake allocates nothing, with one wait or with many of other partitions.
func TestWaiterAllocs(t *testing.T) {
	p := openDisk(t, Config{Log: log.Config{Level: log.OS, SegmentBytes: 256 << 20}})
	w := NewWaiter()
	for range 100 {
		o := openTest(t, vfs.NewMem(), Config{})
		if !new(Wait).Arm(w, o, 0, ReadCommitted) {
			t.Fatal("not armed")
		}
	}
	var x Wait
	recs := allocRecords(1)
	wantAllocs(t, 0, func() {
		if !x.Arm(w, p, p.HighWatermark(), ReadCommitted) {
			t.Fatal("not armed")
		}
		if _, err := p.Append(context.Background(), recs, nil); err != nil {
			t.Fatal(err)
		}
		<-w.C()
		if w.Next() != &x || w.Next() != nil {
			t.Fatal("somebody else was woken")
		}
	})
}

// BenchmarkWake is from before an append to when another goroutine, which waits
// for so many partitions, knows of it, and back: a round trip. channel is the same
// with two channels and nothing else.
func BenchmarkWake(b *testing.B) {
	b.Run("by=channel", func(b *testing.B) {
		there, back := make(chan struct{}), make(chan struct{})
		go func() {
			for range there {
				back <- struct{}{}
			}
		}()
		for b.Loop() {
			there <- struct{}{}
			<-back
		}
		close(there)
	})
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("by=waiter/partitions=%d", n), func(b *testing.B) {
			p := benchPartition(b, log.OS)
			w, back := NewWaiter(), make(chan struct{})
			for range n - 1 {
				o, err := Open("", &Options{FS: vfs.NewMem()})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { o.Close() })
				new(Wait).Arm(w, o, 0, ReadUncommitted)
			}
			var end atomic.Bool
			go func() {
				var x Wait
				for at := int64(0); !end.Load(); at++ {
					for x.Arm(w, p, at, ReadUncommitted) {
						<-w.C()
						w.Next()
					}
					back <- struct{}{}
				}
				close(back)
			}()
			recs, ctx := allocRecords(1), context.Background()
			one := func() {
				if _, err := p.Append(ctx, recs, nil); err != nil {
					b.Fatal(err)
				}
				<-back
			}
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
			end.Store(true)
			one()
			<-back
		})
	}
}
