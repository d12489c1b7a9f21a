package kafka

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Answers are lost that the leader of a partition and the coordinator of a transaction give
// each other: the client is told to try again, and does.
func TestTransactionWhileAnswersAreLost(t *testing.T) {
	c := openTrio(t)
	if _, err := kadm.NewClient(c.client()).CreateTopic(t.Context(), 1, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	cl := c.client(kgo.DefaultProduceTopic("orders"), kgo.TransactionalID("id"), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))
	do := func(value string) error {
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
		return cl.EndTransaction(t.Context(), kgo.TryCommit)
	}
	if err := do("first"); err != nil { // the topic of the coordinators is there now
		t.Fatal(err)
	}
	for coordinator := range int32(3) {
		c.lead("orders", 0, (coordinator+1)%3+1)
		c.lead("__transaction_state", 0, coordinator+1)
		var lost atomic.Int32
		for _, n := range c.nodes {
			n.Lose(func(service string) bool { return (service == "txn" || service == "txn.marker") && lost.Add(1) == 1 })
		}
		if err := do(fmt.Sprint("value ", coordinator)); err != nil {
			t.Errorf("coordinator %d: %v", coordinator+1, err)
		}
		if lost.Load() == 0 {
			t.Errorf("coordinator %d: no answer was lost", coordinator+1)
		}
		for _, n := range c.nodes {
			n.Lose(nil)
		}
	}
}
