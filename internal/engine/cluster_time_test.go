package engine_test

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

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/partition"
)

// A transaction that is open too long is aborted by whoever coordinates it then, and
// its client hears that. The clock of where it was begun does not count there.
func TestTransactionTimesOutAtTheNextCoordinator(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprint("ahead=", ahead), func(t *testing.T) { timesOut(t, ahead) })
	}
}

func timesOut(t *testing.T, ahead time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		defer p.stopAll()
		p.stop(1)
		p.ahead = map[int32]time.Duration{1: ahead}
		p.start(1)
		p.create("orders", 1, 0)
		c := &txnClient{p: p, id: "t", v2: true}
		if err := c.init(ctx); err != nil {
			t.Fatal(err)
		}
		p.known("__transaction_state")
		p.known("orders")
		p.lead("__transaction_state", 0, 1)
		if err := c.write(ctx, "orders", 0, "late"); err != nil {
			t.Fatal(err)
		}
		p.lead("orders", 0, 3)
		p.lead("__transaction_state", 0, 2)
		time.Sleep(62 * time.Second) // its timeout is a minute, by the bubble's clock
		synctest.Wait()
		top, err := p.open[3].Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		if part := top.Partitions()[0]; part.LastStable() != part.HighWatermark() || part.HighWatermark() != 2 {
			t.Errorf("last stable offset %d, high watermark %d: want the record and its marker", part.LastStable(), part.HighWatermark())
		}
		if err := c.end(ctx, true); !errors.Is(err, ErrTxnAborted) && !errors.Is(err, partition.ErrFenced) {
			t.Errorf("the end of a transaction that timed out: %v", err)
		}
		if got := p.committed("orders", 0); len(got) != 0 {
			t.Errorf("committed: %q", got)
		}
	})
}

// Members of the classic protocol go on with their generation at the next coordinator,
// and one that is silent there loses its place.
func TestClassicGenerationMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		defer p.stopAll()
		join := JoinRequest{
			Group: "g", ProtocolType: "x", Protocols: []GroupProtocol{{Name: "p", Metadata: []byte("m")}}, SessionTimeout: 10 * time.Second, RebalanceTimeout: 10 * time.Second,
		}
		var joined JoinResponse
		err := p.somewhere(ctx, func(e *Engine) (err error) {
			joined, err = e.Groups().Join(ctx, join)
			return err
		})
		if err == nil {
			err = p.somewhere(ctx, func(e *Engine) error {
				_, err := e.Groups().Sync(ctx, SyncRequest{
					Group: "g", MemberID: joined.MemberID, Generation: joined.Generation, Assignments: []SyncAssignment{{joined.MemberID, []byte("all")}},
				})
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		p.known("__consumer_offsets")
		beat := func() error {
			return p.somewhere(ctx, func(e *Engine) error {
				return e.Groups().ClassicHeartbeat(ctx, ClassicHeartbeatRequest{Group: "g", MemberID: joined.MemberID, Generation: joined.Generation})
			})
		}
		for i := range int32(6) {
			p.lead("__consumer_offsets", 0, i%3+1)
			if err := beat(); err != nil {
				t.Fatalf("heartbeat after move %d: %v", i, err)
			}
			time.Sleep(4 * time.Second)
		}
		// A join that waits ends when the coordinator goes.
		p.lead("__consumer_offsets", 0, 2)
		if err := beat(); err != nil {
			t.Fatal(err)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := p.open[2].Groups().Join(ctx, join) // it waits for the other one's next heartbeat
			waiting <- err
		}()
		synctest.Wait()
		p.lead("__consumer_offsets", 0, 3)
		if err := <-waiting; !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("a join that waited at a coordinator that is none any more: %v", err)
		}
		p.lead("__consumer_offsets", 0, 1)
		synctest.Wait()
		time.Sleep(12 * time.Second)
		if err := beat(); !errors.Is(err, ErrUnknownMember) {
			t.Errorf("heartbeat after 12 s of silence: %v", err)
		}
	})
}

// By the clock of a bubble: two clients' transactions, with records and offsets, while leads
// move at any moment and logs stop committing for a while.
func TestCoordinatorsOverEverything(t *testing.T) {
	seed := rand.Uint64() >> 1
	for i := range testcount.N(3) {
		synctest.Test(t, func(t *testing.T) { everything(t, seed+uint64(i)) })
	}
}

func everything(t *testing.T, seed uint64) {
	p := newPeers(t, 3)
	defer p.stopAll()
	const parts = 3
	id := p.create("orders", parts, 0).ID()
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	clients := []*txnClient{{p: p, id: "a", v2: true}, {p: p, id: "b"}}
	for _, c := range clients {
		if err := c.init(ctx); err != nil {
			t.Fatalf("seed %d: init: %v", seed, err)
		}
		if err := c.offsets(ctx, "g "+c.id, id, 1); err != nil {
			t.Fatalf("seed %d: offsets: %v", seed, err)
		}
		if err := c.end(ctx, true); err != nil {
			t.Fatalf("seed %d: end: %v", seed, err)
		}
	}
	logs := map[string]TopicID{}
	for _, name := range []string{"orders", "__consumer_offsets", "__transaction_state"} {
		logs[name] = p.known(name).ID()
	}
	var working sync.WaitGroup
	moving, stop := context.WithCancel(ctx)
	working.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 4))
		for moving.Err() == nil {
			name := []string{"orders", "__consumer_offsets", "__transaction_state"}[rnd.IntN(3)]
			n := int32(0)
			if name == "orders" {
				n = rnd.Int32N(parts)
			}
			at := LogID{Topic: logs[name], Partition: n}
			var release func()
			if rnd.IntN(3) == 0 {
				release = p.net.Hold(at) // what is appended stays undecided for a while
			}
			time.Sleep(time.Duration(rnd.IntN(10)) * time.Millisecond)
			p.net.Elect(at, rnd.Int32N(3)+1)
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
			if release != nil {
				release()
			}
		}
	})
	want := make([]map[string]bool, len(clients))
	last := make([]int64, len(clients))
	var clientsDone sync.WaitGroup
	for i, c := range clients {
		want[i], last[i] = map[string]bool{}, 1
		clientsDone.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 5+uint64(i)))
			for step := range 25 {
				commit := rnd.IntN(3) > 0
				for j := range 1 + rnd.IntN(3) {
					value := fmt.Sprint(c.id, " ", step, " ", j)
					if err := c.write(ctx, "orders", rnd.Int32N(parts), value); err != nil {
						t.Errorf("seed %d: client %s, step %d: write: %v", seed, c.id, step, err)
						return
					}
					want[i][value] = commit
				}
				if rnd.IntN(2) == 0 {
					if err := c.offsets(ctx, "g "+c.id, id, int64(step+2)); err != nil {
						t.Errorf("seed %d: client %s, step %d: offsets: %v", seed, c.id, step, err)
						return
					}
					if commit {
						last[i] = int64(step + 2)
					}
				}
				if err := c.end(ctx, commit); err != nil {
					t.Errorf("seed %d: client %s, step %d: end (commit %t): %v", seed, c.id, step, commit, err)
					return
				}
				time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond)
			}
		})
	}
	clientsDone.Wait()
	stop()
	working.Wait()
	var got, all []string
	for n := range int32(parts) {
		got = append(got, p.committed("orders", n)...)
	}
	for i := range clients {
		for v, there := range want[i] {
			if there {
				all = append(all, v)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(all)
	if !slices.Equal(got, all) {
		t.Errorf("seed %d: committed are\n%q\nwant\n%q", seed, got, all)
	}
	for i, c := range clients {
		var offsets []CommittedOffset
		if err := p.somewhere(ctx, func(e *Engine) (err error) {
			offsets, err = e.Groups().Committed(ctx, "g "+c.id, nil, true)
			return err
		}); err != nil || len(offsets) != 1 || offsets[0].Offset != last[i] {
			t.Errorf("seed %d: committed offsets of %s: %+v, %v, want %d", seed, c.id, offsets, err, last[i])
		}
	}
}
