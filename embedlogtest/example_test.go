package embedlogtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/embedlogtest"
)

// An Example cannot have a testing.TB, so these are tests: each is what a test of
// yours may look like.

// What was acknowledged is there after a power cut.
func TestExampleCrash(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	orders, err := db.EnsureTopic(t.Context(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := orders.Produce(t.Context(), embedlog.Record{Value: []byte("450")}); err != nil {
		t.Fatal(err)
	}

	db.Crash() // handles of before are closed

	if orders, err = db.Topic("orders"); err != nil {
		t.Fatal(err)
	}
	n := 0
	for rec, err := range orders.Scan(t.Context(), nil) {
		if err != nil || string(rec.Value) != "450" {
			t.Fatal(string(rec.Value), err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

// A full disk fails what is produced, loses nothing, and heals.
func TestExampleInject(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	orders, err := db.EnsureTopic(t.Context(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := embedlog.Record{Value: make([]byte, 100<<10)}

	db.Inject("*.log", embedlogtest.NoSpace())
	if _, err := orders.Produce(t.Context(), rec); !errors.Is(err, embedlog.ErrNoSpace) {
		t.Fatalf("got %v, want ErrNoSpace", err)
	}
	db.Heal()
	if _, err := orders.Produce(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
}

// A day passes at once.
func TestExampleAdvance(t *testing.T) {
	db := embedlogtest.Open(t, &embedlogtest.Options{FakeClock: true})
	orders, err := db.EnsureTopic(t.Context(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	began := db.Clock().Now()
	db.Advance(24 * time.Hour)
	if _, err := orders.Produce(t.Context(), embedlog.Record{}); err != nil {
		t.Fatal(err)
	}
	for rec, err := range orders.Scan(t.Context(), nil) {
		if err != nil || rec.Timestamp.Sub(began) != 24*time.Hour {
			t.Errorf("a record of %v, %v", rec.Timestamp, err)
		}
	}
}
