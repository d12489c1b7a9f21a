package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

var ctx = context.Background()

func openEngine(t *testing.T, fs vfs.FS, options ...func(*Options)) *Engine {
	t.Helper()
	o := &Options{FS: fs}
	for _, f := range options {
		f(o)
	}
	e, err := Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func mustTopic(t *testing.T, e *Engine, name string, partitions int) *Topic {
	t.Helper()
	topic, err := e.CreateTopic(ctx, TopicSpec{Name: name, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func mustAppend(t *testing.T, p *Partition, value string) {
	t.Helper()
	if _, err := p.Append(ctx, []log.Record{{Value: []byte(value)}}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestTopicsSurviveAReopen(t *testing.T) {
	fs := vfs.NewMem()
	e := openEngine(t, fs)
	orders := mustTopic(t, e, "orders", 4)
	mustAppend(t, orders.Partitions()[3], "a")
	if err := e.AddPartitions(ctx, "orders", 6); err != nil {
		t.Fatal(err)
	}
	if err := e.AlterTopic(ctx, "orders", map[string]string{"retention.ms": "1000"}, nil); err != nil {
		t.Fatal(err)
	}
	gone := mustTopic(t, e, "gone", 2)
	if err := e.DeleteTopic(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	again := mustTopic(t, e, "gone", 1)
	first, err := e.AllocateProducerID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, fs)
	got, err := e.Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	retention, explicit := got.Settings().Get("retention.ms")
	if got.ID() != orders.ID() || len(got.Partitions()) != 6 || retention != "1000" || !explicit {
		t.Errorf("orders has id %s, %d partitions, retention %s", got.ID(), len(got.Partitions()), retention)
	}
	if end := got.Partitions()[3].LogEnd(); end != 1 {
		t.Errorf("orders/3 ends at %d", end)
	}
	if other, err := e.Topic("gone"); err != nil || other.ID() != again.ID() || other.ID() == gone.ID() {
		t.Errorf("gone: %v", err)
	}
	if id, err := e.AllocateProducerID(ctx); err != nil || id <= first {
		t.Errorf("producer id %d after %d: %v", id, first, err)
	}
}

func TestDeleteWakesReaders(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	p := mustTopic(t, e, "orders", 1).Partitions()[0]
	r, err := p.ReadFrom(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 2)
	go func() {
		_, err := r.Next(ctx)
		read <- err
	}()
	go func() {
		_, err := p.Fetch(ctx, partition.FetchRequest{MinBytes: 1, MaxWait: 1 << 50})
		read <- err
	}()
	if err := e.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	_, appendErr := p.Append(ctx, []log.Record{{}}, nil)
	for _, err := range []error{<-read, <-read, appendErr} {
		if !errors.Is(err, ErrUnknownTopic) || !errors.Is(err, log.ErrClosed) {
			t.Errorf("got %v, want an unknown topic and closed", err)
		}
	}
	if _, err := e.Topic("orders"); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("after its deletion: %v", err)
	}
}
