package embedlog_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// Who has an id keeps it for many transactions, until another one takes it over; then it has lost it for good.
func TestTransactorIsFencedForGood(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, &embedlogtest.Options{DB: embedlog.Options{AutoCreateTopics: true}})
	begin := func(tr *embedlog.Transactor) (*embedlog.Txn, error) {
		x, err := tr.Begin(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := x.Produce(ctx, embedlog.Record{Topic: "t", Value: []byte("v")}); err != nil {
			return x, err
		}
		return x, nil
	}
	commit := func(tr *embedlog.Transactor) error {
		x, err := begin(tr)
		if err != nil {
			return err
		}
		return x.Commit(ctx)
	}
	first, err := db.Transactor(ctx, embedlog.TxnOptions{ID: "task 0"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := commit(first); err != nil {
			t.Fatal(err)
		}
	}
	open, err := begin(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Begin(ctx); !errors.Is(err, embedlog.ErrConcurrentTransactions) {
		t.Errorf("two at a time: %v", err)
	}
	second, err := db.Transactor(ctx, embedlog.TxnOptions{ID: "task 0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := commit(second); err != nil {
		t.Fatal(err)
	}
	if err := open.Commit(ctx); !errors.Is(err, embedlog.ErrFenced) {
		t.Errorf("the commit of one whose id was taken over: %v", err)
	}
	if err := commit(first); !errors.Is(err, embedlog.ErrTransactorEnded) {
		t.Errorf("and its next transaction: %v", err)
	}
	if err := commit(second); err != nil {
		t.Errorf("the new one's: %v", err)
	}
	topic, err := db.Topic("t")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range topic.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d records, want 5", n)
	}
}

// A transaction that is aborted is followed by the next one; an id is needed.
func TestTransactorGoesOnAfterAnAbort(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, &embedlogtest.Options{DB: embedlog.Options{AutoCreateTopics: true}})
	if _, err := db.Transactor(ctx, embedlog.TxnOptions{}); err == nil {
		t.Error("a transactor without an id")
	}
	tr, err := db.Transactor(ctx, embedlog.TxnOptions{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		x, err := tr.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := x.Produce(ctx, embedlog.Record{Topic: "t", Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			err = x.Abort(ctx)
		} else {
			err = x.Commit(ctx) // of nothing
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Begin(ctx); !errors.Is(err, embedlog.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A commit that nobody waited for is decided when the id was taken over: all of it is seen, or none.
func TestTransactorSeesWhatWasCommitted(t *testing.T) {
	db := embedlogtest.Open(t, &embedlogtest.Options{DB: embedlog.Options{AutoCreateTopics: true}})
	count := func(name string) (n int) {
		topic, err := db.Topic(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range topic.Scan(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	topics := []string{"a", "b", "c", "d"}
	for i := range testcount.N(400) {
		tr, err := db.Transactor(t.Context(), embedlog.TxnOptions{ID: "task"})
		if err != nil {
			t.Fatal(err)
		}
		first := count(topics[0])
		for _, name := range topics[1:] {
			if n := count(name); n != first {
				t.Fatalf("after %d transactions: %d records in %s, %d in %s", i, first, topics[0], n, name)
			}
		}
		x, err := tr.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range topics {
			if _, err := x.Produce(t.Context(), embedlog.Record{Topic: name, Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(300))*time.Microsecond)
		if err := x.Commit(ctx); err != nil && !errors.Is(err, embedlog.ErrUnknownOutcome) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
}
