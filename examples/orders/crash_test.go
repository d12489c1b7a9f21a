package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog/embedlogtest"
)

// The shop is killed, or loses its power, again and again while orders come in, some of them twice. In the end each has one verdict and one answer of each
// check, and what is reserved is what was sold.
func TestShopCrashes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	ctx := t.Context()
	open := func() *ordersService {
		s, err := newShop(ctx, db.DB)
		if err != nil {
			t.Fatal(err)
		}
		o, err := s.startAll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o := open()
	if _, err := o.shop.stock.Produce(ctx, "JUMPERS", 9); err != nil {
		t.Fatal(err)
	}
	orders := 0
	for range 5 {
		for range r.IntN(4) + 1 {
			orders++
			in := order{ID: fmt.Sprint(orders), Customer: r.Int64N(3), State: created, Product: "JUMPERS", Quantity: r.Int64N(4), Price: float64(r.IntN(900))}
			for range r.IntN(2) + 1 {
				if _, err := o.shop.requests.Produce(ctx, in.ID, in); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Duration(r.IntN(12)) * time.Millisecond) // somewhere in the middle of it
		old := o
		if r.IntN(2) == 0 {
			db.Crash()
		} else {
			db.Kill()
		}
		_ = old.shop.close() // its database is gone
		o = open()
	}
	done := func() {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			a, err := o.shop.audit(ctx, o.reserved)
			if err == nil && len(a.Wrong) == 0 && len(a.Orders) == orders {
				return
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("seed %d: %d orders: %+v, %v", seed, orders, a, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	done()
	if err := o.shop.close(); err != nil {
		t.Fatal(err)
	}
	o = open()
	done() // nothing comes behind it: what was decided twice would be seen
	if err := o.shop.close(); err != nil {
		t.Fatal(err)
	}
}
