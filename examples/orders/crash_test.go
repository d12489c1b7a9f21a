package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog/embedlogtest"
)

// The shop is killed, or loses its power, again and again while orders come in. In the end each has one verdict and one answer of each check, and
// what is reserved is what was sold.
func TestShopCrashes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	ctx := t.Context()
	open := func() *shop {
		s, err := newShop(ctx, db.DB)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.startAll(ctx); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if _, err := s.stock.Produce(ctx, "JUMPERS", 9); err != nil {
		t.Fatal(err)
	}
	orders := 0
	for range 5 {
		for range r.IntN(4) + 1 {
			orders++
			o := order{ID: fmt.Sprint(orders), Customer: r.Int64N(3), Product: "JUMPERS", Quantity: r.Int64N(4), Price: float64(r.IntN(900))}
			s.place(t, o)
		}
		time.Sleep(time.Duration(r.IntN(12)) * time.Millisecond) // somewhere in the middle of it
		old := s
		if r.IntN(2) == 0 {
			db.Crash()
		} else {
			db.Kill()
		}
		_ = old.close() // its database is gone
		s = open()
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		found, err := s.audit(ctx)
		if err == nil && len(found.created) == orders {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("seed %d: %+v, %v", seed, found, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	// Nothing comes behind it: what was decided twice would be seen.
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	for {
		found, err := s.audit(ctx)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		rows := map[string]int64{}
		inventory, err := s.db.Topic("inventory-reserved-stock-changelog")
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range inventory.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if rec.Value != nil {
				rows[string(rec.Key)] = decode(t, rec.Value)
			}
		}
		if rows["JUMPERS"] == found.sold["JUMPERS"] {
			break // what failed last was given back
		}
		if time.Now().After(deadline) {
			t.Fatalf("seed %d: %v are reserved, %v were sold", seed, rows, found.sold)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}
