package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
)

// churn is a group whose members come and go while records are written, and what
// must hold of them.
type churn struct {
	t     *testing.T
	db    *DB
	where string
	parts int

	mu      sync.Mutex
	owner   map[int32]*Consumer // who has each partition by its hooks
	next    map[int32]int64     // the first offset that nobody has processed yet
	highest map[int32]int64     // committed, as seen
	seen    int                 // records that were processed, with repetitions
	again   int                 // of them, repetitions
}

func (x *churn) failf(format string, args ...any) {
	x.t.Helper()
	x.t.Errorf(x.where+": "+format, args...)
}

// member reads until it is told to end, in one of the ways there are.
func (x *churn) member(seed uint64, cfg ConsumerConfig, end <-chan struct{}) {
	rng := rand.New(rand.NewPCG(seed, 7))
	cfg.OnAssigned = func(_ context.Context, c *Consumer, list []Position) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, p := range list {
			if x.isOut(c) {
				continue // it was too slow to be told: the group has gone on, and OnLost follows
			}
			if o := x.owner[p.Partition]; o != nil && !x.isOut(o) {
				x.failf("partition %d is given to a second member", p.Partition)
			}
			x.owner[p.Partition] = c
			if p.Offset > x.next[p.Partition] {
				x.failf("partition %d goes on at %d, only what is below %d was processed", p.Partition, p.Offset, x.next[p.Partition])
			}
		}
	}
	gone := func(_ context.Context, c *Consumer, list []Position) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, p := range list {
			if x.owner[p.Partition] == c {
				delete(x.owner, p.Partition)
			}
		}
	}
	cfg.OnRevoked, cfg.OnLost = gone, gone
	c, err := x.db.Consumer(&cfg)
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			x.failf("consumer: %v", err)
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()
	last := map[int32]int64{}
	for rec, err := range c.Records(ctx) {
		if err != nil {
			if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
				x.failf("read: %v", err)
			}
			break
		}
		x.process(c, rec, last)
		if rng.IntN(10) == 0 {
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		}
	}
	if err := c.Close(); err != nil && !errors.Is(err, ErrRebalance) {
		x.failf("close: %v", err)
	}
}

// isOut says that the group goes on without c, which learns of it when it asks for
// the next record: it was too slow to do so, or to give up what another was to have.
func (x *churn) isOut(c *Consumer) bool {
	c.mu.Lock()
	out := c.lost
	c.mu.Unlock()
	if out {
		return true
	}
	g, err := x.db.DescribeGroup(context.Background(), "g")
	if err != nil {
		x.failf("describe: %v", err)
		return false
	}
	return !slices.ContainsFunc(g.Members, func(m GroupMember) bool { return m.MemberID == c.member.id })
}

func (x *churn) process(c *Consumer, rec Record, last map[int32]int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := rec.Partition
	if want := fmt.Sprint(p, "@", rec.Offset); string(rec.Value) != want {
		x.failf("record %q, want %q", rec.Value, want)
	}
	if x.owner[p] != c && !x.isOut(c) {
		x.failf("a record of partition %d for who does not have it", p)
	}
	x.seen++
	switch {
	case rec.Offset > x.next[p]:
		x.failf("partition %d: %d is processed, %d was not", p, rec.Offset, x.next[p])
	case rec.Offset < x.next[p]:
		x.again++
	}
	x.next[p] = max(x.next[p], rec.Offset+1)
}

// watch sees committed offsets that move back.
func (x *churn) watch(ctx context.Context) {
	w, err := x.db.Consumer(&ConsumerConfig{Group: "g", Assign: x.all(), ManualCommit: true})
	if err != nil {
		x.failf("watch: %v", err)
		return
	}
	defer w.Close()
	for ctx.Err() == nil {
		list, err := w.Committed(ctx)
		if err != nil {
			return
		}
		x.mu.Lock()
		for _, p := range list {
			if p.Offset < x.highest[p.Partition] {
				x.failf("partition %d: committed offset goes back from %d to %d", p.Partition, x.highest[p.Partition], p.Offset)
			}
			if p.Offset > x.next[p.Partition] {
				x.failf("partition %d: %d is committed, only what is below %d was processed", p.Partition, p.Offset, x.next[p.Partition])
			}
			x.highest[p.Partition] = p.Offset
		}
		x.mu.Unlock()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (x *churn) all() (list []Position) {
	for p := range x.parts {
		list = append(list, Position{Topic: "t", Partition: int32(p), Offset: OffsetEarliest})
	}
	return list
}

// Members that join and leave at random while records are written: each record is
// processed, in order within its partition, by who has it, and nothing is
// committed that was not processed.
func TestGroupChurn(t *testing.T) {
	seed := rand.Uint64()
	for run := range testcount.N(20) {
		synctest.Test(t, func(t *testing.T) { groupChurn(t, seed, run) })
	}
}

func groupChurn(t *testing.T, seed uint64, run int) {
	rng := rand.New(rand.NewPCG(seed, uint64(run)))
	parts := 1 + rng.IntN(6)
	x := &churn{
		t: t, db: memoryDB(t, map[string]int{"t": parts}), where: fmt.Sprintf("seed %d run %d", seed, run), parts: parts,
		owner: map[int32]*Consumer{}, next: map[int32]int64{}, highest: map[int32]int64{},
	}
	top, err := x.db.Topic("t")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all, watchers sync.WaitGroup
	watchers.Go(func() { x.watch(ctx) })
	end := make([]int64, parts)
	var running []chan struct{}
	start := func() {
		cfg := ConsumerConfig{Group: "g", Topics: []string{"t"}, MaxPollInterval: -1}
		if rng.IntN(3) == 0 {
			cfg.MaxPollInterval = 100 * time.Millisecond // some records take longer
		}
		stop := make(chan struct{})
		running = append(running, stop)
		s := rng.Uint64()
		all.Go(func() { x.member(s, cfg, stop) })
	}
	for range 60 {
		switch op := rng.IntN(8); {
		case op < 4:
			p := rng.IntN(parts)
			var recs []Record
			for range 1 + rng.IntN(20) {
				recs = append(recs, Record{Value: fmt.Append(nil, p, "@", end[p])})
				end[p]++
			}
			if _, err := top.ProduceTo(ctx, int32(p), recs...); err != nil {
				t.Fatal(err)
			}
		case op == 4 && len(running) < 5 || len(running) == 0:
			start()
		case op == 5:
			i := rng.IntN(len(running))
			close(running[i])
			running = append(running[:i], running[i+1:]...)
		default:
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
		}
	}
	start()
	for i := 0; ; i++ {
		x.mu.Lock()
		done := true
		for p := range end {
			done = done && x.next[int32(p)] == end[p]
		}
		x.mu.Unlock()
		if done {
			break
		}
		if i == 600 {
			x.failf("after 10 minutes up to %v was processed of %v", x.next, end)
			break
		}
		time.Sleep(time.Second)
	}
	for _, stop := range running {
		close(stop)
	}
	all.Wait()
	cancel()
	watchers.Wait()
	if len(x.owner) > 0 {
		x.failf("after all have left %d partitions have an owner", len(x.owner))
	}
}
