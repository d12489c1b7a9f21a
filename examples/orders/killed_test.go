package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
)

// Instances are killed or ended, one after another and in the end all at once, and come back, while the orders are posted by which the original's tests judge it.
// Whatever is killed: they become what they must, in their order; in the end each was decided once, nothing is reserved twice, and each payment has one mail.
//
// EMBEDLOG_SHOP_ROUNDS=n is how many rounds there are.
func TestKilledInstances(t *testing.T) {
	rounds := testcount.N(2)
	if text := os.Getenv("EMBEDLOG_SHOP_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithCancel(t.Context())
	i, err := newInstances(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = i.killAll()
	})
	s := newStory(i, io.Discard)
	if err := errors.Join(s.startAll(ctx), s.fill(ctx)); err != nil {
		t.Fatal(err)
	}
	for n := range rounds {
		began := time.Now()
		if err := s.round(ctx, r, n); err != nil {
			t.Fatalf("round %d: %v", n, err)
		}
		t.Logf("round %d took %v, %d requests were made again so far", n, since(began), s.again.Load())
	}
	if err := errors.Join(s.killAll(), s.startAll(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := s.ten(ctx, "after", "UNDERPANTS", validated); err != nil {
		t.Fatal(err)
	}
	if err := s.check(ctx); err != nil {
		t.Fatal(err)
	}
}

// round has all the acceptance data through, with products and customers of the round's own, while an instance is killed.
func (s *story) round(ctx context.Context, r *rand.Rand, n int) error {
	name := func(what string) string { return fmt.Sprintf("%s-%d", what, n) }
	underpants, jumpers := product(name("UNDERPANTS")), product(name("JUMPERS"))
	for p, stock := range map[product]int{underpants: 75, jumpers: 1} {
		if err := s.ask(ctx, "PUT", "/v1/stock/"+string(p), stock, nil); err != nil {
			return err
		}
	}
	node := r.Int32N(s.n) + 1
	if n%2 == 0 {
		var err error
		if node, _, err = s.busiest(ctx); err != nil {
			return err
		}
	}
	end := s.kill
	if n%3 == 2 {
		end = s.stop
	}
	soon, back := r.IntN(8), r.IntN(8)
	rush := s.rush(ctx, name("rush"), underpants, 2, 8)
	var all sync.WaitGroup
	var errs [5]error
	all.Go(func() { // after some orders, and until some more that came later were answered
		errs[0] = errors.Join(rush.after(ctx, time.Time{}, soon), end(node))
		killed := time.Now()
		errs[0] = errors.Join(errs[0], rush.after(ctx, killed, back), s.start(ctx, node))
	})
	all.Go(func() { errs[1] = s.ten(ctx, name("good"), underpants, validated) })
	all.Go(func() { errs[2] = s.ten(ctx, name("none"), "STOCKINGS", failed) })
	all.Go(func() { _, errs[3] = s.frauds(ctx, name("fraud"), underpants, int64(1000*(n+1))) })
	all.Go(func() { errs[4] = s.stock(ctx, name("stock"), underpants, jumpers) })
	all.Wait()
	return errors.Join(append(errs[:], rush.wait())...)
}

// stock has two orders reserved, and a third one that finds nothing left.
func (s *story) stock(ctx context.Context, name string, underpants, jumpers product) error {
	for i, o := range []order{{Product: underpants, Quantity: 3}, {Product: jumpers, Quantity: 1}, {Product: jumpers, Quantity: 1}} {
		o.ID, o.Customer = fmt.Sprintf("%s-%d", name, i), 7
		if became, err := s.order(ctx, o); err != nil || (became == validated) != (i < 2) {
			return errors.Join(err, fmt.Errorf("order %s is %s", o.ID, became))
		}
	}
	return nil
}
