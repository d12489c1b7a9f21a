package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// mended is a graph whose function can be mended while it runs, and stopped for those who compute it anew.
type mended struct {
	t           *testing.T
	name        string
	db          *embedlog.DB
	factor      atomic.Int64
	gate        atomic.Pointer[chan struct{}] // who comes to one of the first twenty records waits for it
	fails       atomic.Bool
	orders, out *embedlog.Topic
	g           *Graph
	sums        *View[string, int64]
	count       int64

	checkpointAfter int64 // the graph's, or zero
}

// start starts it: with a sink, and, in stages, with a second one behind a repartition.
func (m *mended) start(stages bool, o *Options) {
	m.t.Helper()
	ctx := context.Background()
	if m.name == "" {
		m.name = "g"
	}
	var err error
	if m.orders, err = m.db.EnsureTopic(ctx, "orders"+m.name, &embedlog.TopicConfig{Partitions: 2}); err != nil {
		m.t.Fatal(err)
	}
	if m.out, err = m.db.EnsureTopic(ctx, "out"+m.name, nil); err != nil {
		m.t.Fatal(err)
	}
	m.g = NewGraph(m.db, m.name, o)
	s := From(m.orders, codec.String, codec.Int64).Filter(func(_ string, n int64) bool {
		if gate := m.gate.Load(); n <= 20 && gate != nil {
			<-*gate
		}
		if m.fails.Load() {
			panic("not mended")
		}
		return true
	})
	if stages {
		s = Rekey(s, codec.String, func(_ string, n int64) string { return fmt.Sprint("r", n%7) }).Repartition("r", 3)
	}
	m.sums = Add(m.g, "sums", Sum(s, func(_ string, n int64) int64 { return n * m.factor.Load() }))
	To(m.g, MapValues(s, func(_ string, n int64) string { return fmt.Sprint(n) }), m.out)
	m.g.checkpointAfter = cmp.Or(m.checkpointAfter, m.g.checkpointAfter)
	if err := m.g.Start(ctx); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mended) put(n int) {
	m.t.Helper()
	for range n {
		m.count++
		if _, err := m.orders.Produce(context.Background(), embedlog.Record{Key: fmt.Appendf(nil, "k%d", m.count%5), Value: mustInt(m.count)}); err != nil {
			m.t.Fatal(err)
		}
	}
}

// check looks at the view, and that each record was appended once.
func (m *mended) check(factor int64) {
	m.t.Helper()
	ctx := context.Background()
	total := int64(0)
	for row, err := range m.sums.All(ctx) {
		if err != nil {
			m.t.Fatal(err)
		}
		total += row.Value
	}
	if want := factor * m.count * (m.count + 1) / 2; total != want {
		m.t.Errorf("the sums come to %d, want %d", total, want)
	}
}

func (m *mended) checkOut() {
	m.t.Helper()
	seen, want := map[string]int{}, map[string]int{}
	for rec, err := range m.out.Scan(context.Background(), nil) {
		if err != nil {
			m.t.Fatal(err)
		}
		seen[string(rec.Value)]++
	}
	for n := range m.count {
		want[fmt.Sprint(n+1)] = 1
	}
	if !maps.Equal(seen, want) {
		m.t.Errorf("appended %v, want %d once each", seen, m.count)
	}
}

func (m *mended) topics() string {
	var names []string
	for _, info := range m.db.Topics() {
		if strings.HasPrefix(info.Name, "g") {
			names = append(names, info.Name)
		}
	}
	return strings.Join(names, " ")
}

// While a graph is computed anew, what there is answers, and goes on. Then the new rows do.
func TestRebuildRunning(t *testing.T) {
	for _, stages := range []bool{false, true} {
		t.Run(fmt.Sprintf("stages=%v", stages), func(t *testing.T) {
			ctx, db := context.Background(), embedlogtest.Open(t, nil)
			m := &mended{t: t, db: db.DB}
			m.factor.Store(1)
			m.start(stages, &Options{CommitInterval: time.Millisecond})
			m.put(20)
			m.check(1)
			snapshot, err := m.g.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer snapshot.Release()
			watched, begun := make(chan error, 1), make(chan struct{})
			go func() {
				once := sync.OnceFunc(func() { close(begun) })
				for _, err := range m.sums.Watch(ctx) {
					once()
					if err != nil {
						watched <- err
					}
				}
			}()
			<-begun // otherwise it may be the new rows that it watches
			gate := make(chan struct{})
			m.gate.Store(&gate)
			done := make(chan error, 1)
			go func() { done <- m.g.Rebuild(ctx) }()
			for { // it has begun
				if s, err := m.g.generations(ctx); err != nil {
					t.Fatal(err)
				} else if s.Building != nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if err := m.g.Rebuild(ctx); !errors.Is(err, ErrRebuilding) {
				t.Errorf("a second one: %v", err)
			}
			m.put(20)
			m.check(1) // the old rows, with every record
			if err := m.g.CatchUp(ctx); err != nil {
				t.Error(err)
			}
			m.factor.Store(3)
			close(gate)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			m.check(3)
			m.put(20)
			m.check(3)
			if err := <-watched; !errors.Is(err, ErrInterrupted) {
				t.Errorf("watch: %v", err)
			}
			total := int64(0)
			for row, err := range m.sums.In(snapshot).All() {
				if err != nil {
					t.Fatal(err)
				}
				total += row.Value
			}
			if total != 210 {
				t.Errorf("the snapshot of before has %d", total)
			}
			if lag, err := m.g.Lag(ctx); err != nil || len(lag) != 2 {
				t.Errorf("%v, %v", lag, err)
			}
			if v, err := m.g.Version(ctx); err != nil || len(v) != 2 {
				t.Errorf("%v, %v", v, err)
			}
			if n := strings.Count(m.topics(), "g.gen2-"); n == 0 || strings.Contains(m.topics(), "g-progress") {
				t.Errorf("topics %s", m.topics())
			}
			// And once more, and from there at the next start.
			m.factor.Store(4)
			if err := m.g.Rebuild(ctx); err != nil {
				t.Fatal(err)
			}
			m.put(20)
			m.check(4)
			if err := m.g.Close(); err != nil {
				t.Fatal(err)
			}
			if err := m.g.Rebuild(ctx); !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			m.start(stages, nil)
			m.put(20)
			m.check(4)
			if err := m.g.Close(); err != nil {
				t.Fatal(err)
			}
			m.checkOut()
		})
	}
}

// Readers and writers never see anything but the old rows or the new ones.
func TestRebuildReads(t *testing.T) {
	ctx, db := context.Background(), embedlogtest.Open(t, nil)
	m := &mended{t: t, db: db.DB}
	m.factor.Store(1)
	m.start(false, &Options{CommitInterval: time.Millisecond})
	m.put(200)
	m.check(1)
	over := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if _, found, err := m.sums.Get(ctx, "k1"); !found || err != nil {
					t.Errorf("get: %v, %v", found, err)
					return
				}
				n := 0
				for _, err := range m.sums.All(ctx) {
					if err != nil {
						t.Errorf("all: %v", err)
						return
					}
					n++
				}
				if n != 5 {
					t.Errorf("%d rows", n)
				}
				if err := m.g.CatchUp(ctx); err != nil {
					t.Errorf("catch up: %v", err)
				}
				if n, err := m.sums.Len(ctx); n != 5 || err != nil {
					t.Errorf("len: %d, %v", n, err)
				}
			}
		})
	}
	for range 3 {
		m.put(20)
		if err := m.g.Rebuild(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(over)
	readers.Wait()
	m.check(1)
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	m.checkOut()
}

// What is under way when the graph is closed goes on at its next start, and what was asked for while nobody computed it begins then. What was there
// answers meanwhile.
func TestRebuildLater(t *testing.T) {
	ctx, db := context.Background(), embedlogtest.Open(t, nil)
	m := &mended{t: t, db: db.DB}
	m.factor.Store(1)
	m.start(false, nil)
	m.put(20)
	m.check(1)
	gate := make(chan struct{})
	m.gate.Store(&gate)
	waiting, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.g.Rebuild(waiting) }()
	for m.building() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for it: %v", err)
	}
	m.factor.Store(2)
	open := time.AfterFunc(time.Millisecond, func() { close(gate) }) // its task is in the function
	defer open.Stop()
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	m.gate.Store(nil)
	m.start(false, nil)
	until := func(number int) {
		t.Helper()
		for {
			s, err := m.g.generations(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.Serving.Number == number && s.Building == nil && m.building() == nil && m.g.serving().number == number {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	until(2)
	m.put(5)
	m.check(2)
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := m.g.generations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.Requested = true
	if err := m.g.writeGenerations(ctx, s); err != nil {
		t.Fatal(err)
	}
	m.factor.Store(3)
	m.start(false, nil)
	until(3)
	m.put(5)
	m.check(3)
	// It fails, and what there is stays.
	m.fails.Store(true)
	if err := m.g.Rebuild(ctx); err == nil || !strings.Contains(err.Error(), "not mended") {
		t.Errorf("a function that panics: %v", err)
	}
	m.fails.Store(false)
	m.put(5)
	m.check(3)
	if s, err := m.g.generations(ctx); err != nil || s.Building != nil || s.Serving.Number != 3 {
		t.Errorf("%+v, %v", s, err)
	}
	m.factor.Store(5)
	if err := m.g.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	m.put(5)
	m.check(5)
	// One that has stopped is mended.
	m.fails.Store(true)
	m.put(1)
	if _, _, err := m.sums.Get(ctx, "k1"); err == nil {
		t.Error("it goes on")
	}
	m.fails.Store(false)
	if err := m.g.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	m.put(5)
	m.check(5)
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	m.checkOut()
	if n := strings.Count(m.topics(), "-progress"); n != 1 {
		t.Errorf("topics %s", m.topics())
	}
}

func (m *mended) building() *rebuild {
	m.g.rebuildMu.Lock()
	defer m.g.rebuildMu.Unlock()
	return m.g.building()
}
