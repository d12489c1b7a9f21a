package kafka

import (
	"context"
	"testing"
	"testing/synctest"
)

// Who comes first is served first, who gives up does not hold up the others, and
// nothing is lost.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		ctx, cancel := context.WithCancel(t.Context())
		if err := b.reserve(ctx, 60); err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 3)
		wait := func(name string, ctx context.Context, n int64) {
			go func() {
				if b.reserve(ctx, n) == nil {
					got <- name
				} else {
					got <- name + " gave up"
				}
			}()
			synctest.Wait()
		}
		wait("large", ctx, 90)
		wait("small", t.Context(), 10) // would fit, but large was first
		if len(got) != 0 {
			t.Fatalf("%q has passed large", <-got)
		}
		cancel()
		synctest.Wait()
		if first, second := <-got, <-got; first+second != "large gave upsmall" && first+second != "smalllarge gave up" {
			t.Fatalf("%q and %q", first, second)
		}
		if got := b.take(100, 0); got != 30 {
			t.Errorf("took %d, want the 30 that are left", got)
		}
		if got := b.take(10, 10); got != 10 || b.used() != 110 {
			t.Errorf("took %d, used %d: want 10 more than there are", got, b.used())
		}
		b.release(110)
		if b.used() != 0 {
			t.Errorf("%d are used", b.used())
		}
	})
}
