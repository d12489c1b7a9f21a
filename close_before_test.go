package embedlog_test

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/embedlogtest"
)

// What Close calls before it ends anything can still do all that the database can, also register more.
func TestBeforeCloseComesFirst(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top, err := db.EnsureTopic(t.Context(), "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var calls []string
	var errs []error
	last := func() {
		_, err := top.Produce(ctx, embedlog.Record{Value: []byte("last")})
		calls, errs = append(calls, "last"), append(errs, err)
	}
	first := func() {
		x, err := db.Begin(ctx, nil)
		if err == nil {
			_, err = x.Produce(ctx, embedlog.Record{Topic: "t", Value: []byte("first")})
			err = errors.Join(err, x.Commit(ctx))
		}
		_, more := db.BeforeClose(last)
		calls, errs = append(calls, "first"), append(errs, err, more)
	}
	never, err := db.BeforeClose(func() { t.Error("called although it was taken back") })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.BeforeClose(first); err != nil {
		t.Fatal(err)
	}
	never()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(errs...); err != nil || len(calls) != 2 || calls[0] != "first" {
		t.Fatalf("called %v: %v", calls, err)
	}
	if _, err := db.BeforeClose(first); !errors.Is(err, embedlog.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}
