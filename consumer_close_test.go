package embedlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Close may be called by the hooks of a consumer: by one that Close itself calls, too.
// A call that waits for itself would end the bubble as a deadlock.
func TestCloseFromHooks(t *testing.T) {
	for _, where := range []string{"assigned", "revoked by Close", "revoked by the group", "loop", "revoked by DB.Close"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { closeFromHook(t, where) })
		})
	}
}

func closeFromHook(t *testing.T, where string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	top, err := db.CreateTopic(ctx, "t", &TopicConfig{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(2) {
		if _, err := top.ProduceTo(ctx, p, Record{Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	closed := 0
	shut := func(_ context.Context, c *Consumer, _ []Position) {
		closed++
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	cfg := &ConsumerConfig{Group: "g", Topics: []string{"t"}}
	if where == "assigned" {
		cfg.OnAssigned = shut
	} else if where != "loop" {
		cfg.OnRevoked = shut
	}
	c, err := db.Consumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Poll(ctx, 1)
	switch where {
	case "assigned":
		if !errors.Is(err, ErrClosed) {
			t.Errorf("a poll whose OnAssigned closes the consumer: %v", err)
		}
	case "revoked by Close":
		err = c.Close()
	case "loop":
		for _, e := range c.Records(ctx) {
			if e != nil {
				err = nil
				break
			}
			closed++
			err = c.Close()
		}
	case "revoked by the group":
		other, e := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}})
		if e != nil {
			t.Fatal(e)
		}
		defer other.Close()
		done := make(chan error, 1)
		go func() {
			_, err := other.Poll(ctx, 1)
			done <- err
		}()
		for err == nil {
			_, err = c.Poll(ctx, 1)
		}
		if !errors.Is(err, ErrClosed) {
			t.Errorf("a poll whose OnRevoked closes the consumer: %v", err)
		}
		for p := range int32(2) { // the other one has them all, and reads on
			if _, err := top.ProduceTo(ctx, p, Record{Value: []byte("more")}); err != nil {
				t.Fatal(err)
			}
		}
		err = <-done
	case "revoked by DB.Close":
		err = db.Close()
	}
	if where != "assigned" && err != nil {
		t.Errorf("%v", err)
	}
	if closed == 0 {
		t.Error("the hook was not called")
	}
	if err := c.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if _, err := c.Poll(ctx, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("poll after Close: %v", err)
	}
}
