package engine_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/x/embedlog/internal/engine"
)

// A transaction is complete when its markers are committed, not when they lie in a leader's log: that
// leader may be replaced by one that does not have them, and what comes next would end the transaction the other way.
func TestMarkerIsCommitted(t *testing.T) { synctest.Test(t, testMarkerIsCommitted) }

func testMarkerIsCommitted(t *testing.T) {
	for _, v2 := range []bool{true, false} {
		p := newPeers(t, 3)
		id := LogID{Topic: p.create("orders", 1, 0).ID()}
		p.agree()
		c := &txnClient{p: p, id: "writer", v2: v2}
		if err := c.init(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.write(ctx, "orders", 0, "a"); err != nil {
			t.Fatal(err)
		}
		states := func() (list []string) { // as those say that coordinate it
			for _, e := range p.open {
				for _, x := range e.Txns().List() {
					list = append(list, x.State)
				}
			}
			return list
		}
		release := p.net.Hold(id) // what is proposed lies in the log, and is not committed
		ended := make(chan error, 1)
		go func() { ended <- c.end(ctx, true) }()
		for range 60 { // the coordinator gives up and tries again
			time.Sleep(time.Second)
			if got := states(); !slices.Equal(got, []string{"PrepareCommit"}) {
				t.Errorf("second protocol %t: with its marker not committed the transaction is %v", v2, got)
				break
			}
		}
		release()
		if err := <-ended; err != nil && !errors.Is(err, ErrConcurrentTransactions) {
			t.Errorf("second protocol %t: %v", v2, err)
		}
		p.until("the transaction is complete", func() bool { return slices.Equal(states(), []string{"CompleteCommit"}) })
		if got := p.committed("orders", 0); !slices.Equal(got, []string{"a"}) {
			t.Errorf("second protocol %t: committed are %q", v2, got)
		}
		p.stopAll()
	}
}
