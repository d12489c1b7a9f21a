package embedlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// DB.Close waits for the functions that it, its producers and its consumers call. From
// within one of them it fails at once, where it would wait for itself, which would end
// the bubble, and the database stays open.
func TestCloseOfTheDatabaseFromWithin(t *testing.T) {
	type run struct {
		t      *testing.T
		db     *DB
		topic  *Topic
		called func() // closes the database
	}
	consumer := func(r *run, cfg ConsumerConfig) *Consumer {
		cfg.Group, cfg.Topics = "g", []string{"t"}
		c, err := r.db.Consumer(&cfg)
		if err != nil {
			r.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := c.Poll(ctx, 1); err != nil {
			r.t.Error(err)
		}
		return c
	}
	for _, row := range []struct {
		name string
		do   func(*run)
	}{
		{"Send's done", func(r *run) {
			p, err := r.db.Producer(nil)
			if err != nil {
				r.t.Fatal(err)
			}
			if err := p.Send(context.Background(), Record{Topic: "t"}, func(Position, error) { r.called() }); err != nil {
				r.t.Fatal(err)
			}
			if err := p.Flush(context.Background()); err != nil {
				r.t.Error(err)
			}
		}},
		{"OnAssigned", func(r *run) {
			consumer(r, ConsumerConfig{OnAssigned: func(context.Context, *Consumer, []Position) { r.called() }})
		}},
		{"OnRevoked", func(r *run) {
			c := consumer(r, ConsumerConfig{OnRevoked: func(context.Context, *Consumer, []Position) { r.called() }})
			if err := c.Close(); err != nil {
				r.t.Error(err)
			}
		}},
		{"OnReset", func(r *run) {
			if err := r.db.CommitPositions(context.Background(), "g", Position{Topic: "t", Offset: 0}); err != nil {
				r.t.Fatal(err)
			}
			if _, err := r.topic.DeleteRecords(context.Background(), 0, 1); err != nil {
				r.t.Fatal(err)
			}
			consumer(r, ConsumerConfig{OnReset: func(context.Context, *Consumer, Reset) { r.called() }})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				other := openMemory(t, nil)
				r := &run{t: t, db: db, topic: makeTopic(t, db, "t", nil)}
				for range 2 {
					if _, err := r.topic.Produce(context.Background(), Record{Value: []byte("v")}); err != nil {
						t.Fatal(err)
					}
				}
				calls := 0
				r.called = func() {
					calls++
					if err := db.Close(); !errors.Is(err, ErrReentrant) {
						t.Errorf("got %v", err)
					}
					if err := other.Close(); err != nil { // nobody waits for us there
						t.Errorf("another database: %v", err)
					}
				}
				row.do(r)
				if calls == 0 {
					t.Error("it was not called")
				}
				if _, err := r.topic.Produce(context.Background(), Record{}); err != nil {
					t.Errorf("the database is not open: %v", err)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
