package embedlog

import (
	"context"
	"fmt"
	"testing"
)

// A producer does not keep what it had for topics that are gone.
func TestProducerForgetsDeletedTopics(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, &Options{AutoCreateTopics: true, TopicDefaults: TopicConfig{Durability: OS}})
	p, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		name := fmt.Sprintf("session-%d", i)
		if _, err := p.Produce(ctx, Record{Topic: name}, Record{Topic: "stays"}); err != nil {
			t.Fatal(err)
		}
		if err := db.DeleteTopic(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	p.topics.Range(func(any, any) bool { kept++; return true })
	if kept > 2*fewTopics {
		t.Errorf("it keeps %d topics, of which one is there", kept)
	}
	if _, ok := p.topics.Load("stays"); !ok {
		t.Error("it has forgotten one that is there")
	}
}

// Nor does what one transaction leaves to the next.
func TestTransactionsForgetDeletedTopics(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, &Options{AutoCreateTopics: true})
	for i := range 3 * fewTopics {
		name := fmt.Sprintf("session-%d", i)
		err := db.Update(ctx, func(txn *Txn) error {
			_, err := txn.Produce(ctx, Record{Topic: name}, Record{Topic: "stays"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.DeleteTopic(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range db.sessions.free {
		if len(s.topics) > 2*fewTopics {
			t.Errorf("it keeps %d topics, of which one is there", len(s.topics))
		}
	}
}
