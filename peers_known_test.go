package embedlog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
)

// later runs f beside, while the test goes on, and returns its error when it is through.
func later(f func() error) (through func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() error { return <-done }
}

// A node that has not heard of a topic yet does not call it unknown: handles, consumers and what makes topics wait
// until it has.
func TestPeersDoNotCallUnknownWhatTheyHaveNotHeardOf(t *testing.T) {
	ctx := context.Background()
	p := openPeers(t, 3)
	if err := p.net.Elect(engine.LogID{}, 1); err != nil {
		t.Fatal(err)
	}
	hear := p.net.Deafen(engine.LogID{}, 3)
	orders, err := p.dbs[0].EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := orders.ProduceTo(ctx, 1, value("x")); err != nil {
		t.Fatal(err)
	}
	db := p.dbs[2]
	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := db.EnsureTopic(soon, "orders", nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, embedlog.ErrUnknownTopic) {
		t.Errorf("ensure topic: %v", err)
	}
	if err := db.DeleteGroupOffsets(soon, "g", "orders"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, embedlog.ErrUnknownTopic) {
		t.Errorf("delete offsets: %v", err)
	}
	topic := later(func() error { _, err := db.Topic("orders"); return err })
	consumer := later(func() error {
		c, err := db.Consumer(&embedlog.ConsumerConfig{Topics: []string{"orders"}})
		if err == nil {
			err = c.Close()
		}
		return err
	})
	assigned := later(func() error {
		c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "orders", Partition: 1, Offset: embedlog.OffsetEarliest}}})
		if err != nil {
			return err
		}
		defer c.Close()
		recs, err := c.Poll(ctx, 1)
		if err == nil && (len(recs) != 1 || string(recs[0].Value) != "x") {
			t.Errorf("the consumer read %v", recs)
		}
		return err
	})
	none := later(func() error { _, err := db.Topic("none"); return err })
	hear()
	if err := topic(); err != nil {
		t.Errorf("topic: %v", err)
	}
	if err := consumer(); err != nil {
		t.Errorf("consumer: %v", err)
	}
	if err := assigned(); err != nil {
		t.Errorf("assigned by hand: %v", err)
	}
	if err := none(); !errors.Is(err, embedlog.ErrUnknownTopic) {
		t.Errorf("a topic that there is not: %v", err)
	}
}

// Where records end is said by a leader that is sure to lead: not by a replica that lags behind, and not by one
// that was elected and does not know yet what its predecessor has committed.
func TestPeersSeekToTheEndOfTheLeader(t *testing.T) {
	ctx := context.Background()
	p := openPeers(t, 3)
	p.topic("a", 1, 3)
	top, _ := p.dbs[0].Engine().Topic("a")
	id := engine.LogID{Topic: top.ID()}
	if err := p.net.Elect(id, 1); err != nil {
		t.Fatal(err)
	}
	assign := func(node int, offset int64) (*embedlog.Consumer, error) {
		return p.dbs[node].Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "a", Offset: offset}}})
	}
	early, err := assign(2, embedlog.OffsetEarliest)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	hear := p.net.Deafen(id, 3)
	for range 5 {
		if _, err := p.handle(0, "a").Produce(ctx, value("x")); err != nil {
			t.Fatal(err)
		}
	}
	at := func(c *embedlog.Consumer) int64 {
		pos, _ := c.Position("a", 0)
		return pos.Offset
	}
	if err := early.Seek(embedlog.Position{Topic: "a", Offset: embedlog.OffsetLatest}); err != nil || at(early) != 5 {
		t.Errorf("seek to the end: %v, at %d", err, at(early))
	}
	if err := early.Seek(embedlog.Position{Topic: "a", Offset: 5}); err != nil || at(early) != 5 {
		t.Errorf("seek to offset 5: %v, at %d", err, at(early))
	}
	if err := early.Seek(embedlog.Position{Topic: "a", Offset: 6}); !errors.Is(err, embedlog.ErrOffsetOutOfRange) {
		t.Errorf("seek behind the end: %v", err)
	}
	late, err := assign(2, embedlog.OffsetLatest)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if at(late) != 5 {
		t.Errorf("assigned at %d", at(late))
	}
	list, err := p.handle(2, "a").ListOffsets(ctx, embedlog.Latest)
	if err != nil || list[0].Offset != 5 {
		t.Errorf("list offsets: %v, %v", list, err)
	}
	// The lagging replica is elected: it has the records, and does not know that they are committed.
	sure := p.net.Doubt(id)
	if err := p.net.Elect(id, 3); err != nil {
		t.Fatal(err)
	}
	sought := later(func() error { return early.Seek(embedlog.Position{Topic: "a", Offset: embedlog.OffsetLatest}) })
	outside := later(func() error { return late.Seek(embedlog.Position{Topic: "a", Offset: 6}) })
	hear()
	sure()
	if err := sought(); err != nil || at(early) != 5 {
		t.Errorf("seek to the end of a new leader: %v, at %d", err, at(early))
	}
	if err := outside(); !errors.Is(err, embedlog.ErrOffsetOutOfRange) {
		t.Errorf("seek behind the end of a new leader: %v", err)
	}
	// Without a leader the beginning is that of the replica here, which can be read.
	p.net.Depose(id)
	if err := early.Seek(embedlog.Position{Topic: "a", Offset: embedlog.OffsetEarliest}); err != nil || at(early) != 0 {
		t.Errorf("seek to the start without a leader: %v, at %d", err, at(early))
	}
	recs, err := early.Poll(ctx, 5)
	if err != nil || len(recs) == 0 {
		t.Errorf("read without a leader: %d records, %v", len(recs), err)
	}
}
