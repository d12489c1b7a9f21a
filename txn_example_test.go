package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/x/embedlog"
)

// A transfer is two records in two topics: both or none.
func ExampleDB_Update() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(&embedlog.Options{AutoCreateTopics: true})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	transfer := func(cents string, veto error) error {
		return db.Update(ctx, func(tx *embedlog.Txn) error {
			if _, err := tx.Produce(ctx,
				embedlog.Record{Topic: "withdrawals", Key: []byte("ann"), Value: []byte(cents)},
				embedlog.Record{Topic: "deposits", Key: []byte("bob"), Value: []byte(cents)},
			); err != nil {
				return err
			}
			return veto // nil commits
		})
	}
	fmt.Println(transfer("450", nil))
	fmt.Println(transfer("999", errors.New("ann has no more")))
	for _, name := range []string{"withdrawals", "deposits"} {
		topic, err := db.Topic(name)
		if err != nil {
			log.Fatal(err)
		}
		for rec, err := range topic.Scan(ctx, nil) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("%s: %s %s\n", rec.Topic, rec.Key, rec.Value)
		}
	}
	// Output:
	// <nil>
	// ann has no more
	// withdrawals: ann 450
	// deposits: bob 450
}

// What is read, what is made of it, and how far it was read, count together: each
// order is billed once, whatever happens in between.
func ExampleTxn_CommitOffsets() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(&embedlog.Options{AutoCreateTopics: true})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte("ann"), Value: []byte("450")}); err != nil {
		log.Fatal(err)
	}
	billing, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}, ManualCommit: true})
	if err != nil {
		log.Fatal(err)
	}
	defer billing.Close()
	read, err := billing.Poll(ctx, 100)
	if err != nil {
		log.Fatal(err)
	}
	err = db.Update(ctx, func(tx *embedlog.Txn) error {
		for _, order := range read {
			bill := embedlog.Record{Topic: "bills", Key: order.Key, Value: append([]byte("pay "), order.Value...)}
			if _, err := tx.Produce(ctx, bill); err != nil {
				return err
			}
			billing.Mark(order)
		}
		return tx.CommitOffsets(ctx, billing)
	})
	if err != nil {
		log.Fatal(err)
	}
	committed, err := billing.Committed(ctx)
	fmt.Println(committed[0].Offset, err)
	// Output: 1 <nil>
}

// A name has one transaction at a time: to begin another ends the first.
func ExampleDB_Begin() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(&embedlog.Options{AutoCreateTopics: true})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	nightly := &embedlog.TxnOptions{ID: "nightly report"}
	first, err := db.Begin(ctx, nightly)
	if err != nil {
		log.Fatal(err)
	}
	defer first.Abort(ctx)
	second, err := db.Begin(ctx, nightly)
	if err != nil {
		log.Fatal(err)
	}
	defer second.Abort(ctx)
	_, err = first.Produce(ctx, embedlog.Record{Topic: "reports", Value: []byte("a")})
	fmt.Println(errors.Is(err, embedlog.ErrFenced))
	_, err = second.Produce(ctx, embedlog.Record{Topic: "reports", Value: []byte("b")})
	fmt.Println(err, second.Commit(ctx))
	// Output:
	// true
	// <nil> <nil>
}
