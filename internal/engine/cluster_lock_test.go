package engine_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
)

// Who waits for producer ids that the metadata's leader does not give holds up nobody
// longer than he has patience.
func TestProducerIDsAreWaitedForWithPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		defer p.stopAll()
		release := p.net.Hold(meta)
		first := make(chan error, 1)
		go func() {
			_, err := p.open[2].AllocateProducerID(ctx)
			first <- err
		}()
		synctest.Wait()
		hurried, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := p.open[2].AllocateProducerID(hurried); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		release()
		if err := <-first; err != nil {
			t.Errorf("the first: %v", err)
		}
	})
}

// A leader that has just been elected does not know yet what the one before it has
// acknowledged. Who asks it for the newest waits until it does.
func TestReadIndexAtANewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		defer p.stopAll()
		top := p.create("orders", 1, 3)
		p.known("orders")
		id := LogID{Topic: top.ID()}
		p.lead("orders", 0, 1)
		release := p.net.Deafen(id, 2)
		defer release()
		at := func(node int32) *Partition {
			top, err := p.open[node].Topic("orders")
			if err != nil {
				t.Fatal(err)
			}
			return top.Partitions()[0]
		}
		if _, err := at(1).Append(ctx, []log.Record{{Value: []byte("a")}, {Value: []byte("b")}}, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.net.Elect(id, 2); err != nil {
			t.Fatal(err)
		}
		type answer struct {
			bounds Bounds
			err    error
		}
		got := make(chan answer, 1)
		go func() {
			b, err := at(3).ReadIndex(ctx)
			got <- answer{b, err}
		}()
		synctest.Wait()
		select {
		case a := <-got:
			t.Fatalf("the new leader says %+v, %v, before it knows", a.bounds, a.err)
		default:
		}
		release()
		if a := <-got; a.err != nil || a.bounds.HighWatermark != 2 {
			t.Errorf("%+v, %v: want the two records that were acknowledged", a.bounds, a.err)
		}
	})
}

// A coordinator that has not heard of a topic yet does not take it for one that was
// deleted: partitions of the topic are part of a transaction when it has.
func TestPartitionsThatTheCoordinatorDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		defer p.stopAll()
		c := &txnClient{p: p, id: "t", v2: true}
		if err := c.init(ctx); err != nil {
			t.Fatal(err)
		}
		p.known("__transaction_state")
		p.lead("__transaction_state", 0, 1)
		if err := c.init(ctx); err != nil { // it has read its log
			t.Fatal(err)
		}
		if err := p.net.Elect(meta, 2); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		release := p.net.Deafen(meta, 1)
		defer release()
		top, err := p.open[2].CreateTopic(ctx, TopicSpec{Name: "fresh", Partitions: 1, ReplicationFactor: 1})
		if err != nil {
			t.Fatal(err)
		}
		added := make(chan error, 1)
		go func() {
			added <- p.open[2].Txns().AddPartitions(ctx, "t", c.pid, c.epoch, []TopicPartitions{{Topic: top.ID(), Partitions: []int32{0}}})
		}()
		synctest.Wait()
		select {
		case err := <-added:
			t.Fatalf("added to the transaction before its coordinator knows the topic: %v", err)
		default:
		}
		release()
		if err := <-added; err != nil {
			t.Error(err)
		}
		d, err := p.open[1].Txns().Describe("t")
		if err != nil || len(d.Partitions) != 1 || d.Partitions[0].Topic != top.ID() {
			t.Errorf("the transaction is %+v, %v", d, err)
		}
	})
}
