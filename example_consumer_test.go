package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/x/embedlog"
)

// Seek goes back, or on, in one partition; what is committed follows.
func ExampleConsumer_Seek() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	c, err := db.Consumer(&embedlog.ConsumerConfig{Topics: []string{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		recs, err := c.Poll(ctx, 0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(recs), "from offset", recs[0].Offset)
		if err := c.Seek(embedlog.Position{Topic: "orders", Partition: 0, Offset: 1}); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// 3 from offset 0
	// 2 from offset 1
}

// A partition that is paused keeps its place, and its owner; nothing of it is read.
func ExampleConsumer_Pause() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	jobs, err := db.EnsureTopic(ctx, "jobs", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		log.Fatal(err)
	}
	for p := range int32(2) {
		if _, err := jobs.ProduceTo(ctx, p, embedlog.Record{Value: []byte("job")}); err != nil {
			log.Fatal(err)
		}
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Topics: []string{"jobs"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Pause("jobs", 0); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		recs, err := c.Poll(ctx, 0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("partition", recs[0].Partition)
		if err := c.Resume("jobs", 0); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// partition 1
	// partition 0
}

// With ManualCommit only what is marked, and committed, is done.
func ExampleConsumer_Commit() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}, ManualCommit: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	recs, err := c.Poll(ctx, 0) // the offsets 1 and 2
	if err != nil {
		log.Fatal(err)
	}
	c.Mark(recs[0])
	if err := c.Commit(ctx); err != nil { // durable now
		log.Fatal(err)
	}
	committed, err := c.Committed(ctx)
	fmt.Println(committed[0].Offset, err)
	// Output: 2 <nil>
}

func ExampleConsumer_Lag() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "orders", Offset: 1}}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	lags, err := c.Lag(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range lags {
		fmt.Printf("%s/%d is at %d of %d, %d behind\n", l.Topic, l.Partition, l.Offset, l.End, l.Lag)
	}
	// Output: orders/0 is at 1 of 3, 2 behind
}

// What a consumer keeps for each partition is made and given up in the hooks. With
// an InstanceID it gets the same partitions again when its program restarts.
func ExampleConsumerConfig() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	c, err := db.Consumer(&embedlog.ConsumerConfig{
		Group: "billing", Topics: []string{"orders"}, InstanceID: "till 1",
		OnAssigned: func(_ context.Context, _ *embedlog.Consumer, partitions []embedlog.Position) {
			fmt.Println("assigned", partitions[0].Topic, partitions[0].Partition, "from offset", partitions[0].Offset)
		},
		OnRevoked: func(_ context.Context, c *embedlog.Consumer, partitions []embedlog.Position) {
			fmt.Println("given up", partitions[0].Topic, partitions[0].Partition) // marks until here are committed
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Poll(ctx, 1); err != nil { // joins the group
		log.Fatal(err)
	}
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// assigned orders 0 from offset 1
	// given up orders 0
}

// A consumer whose records were deleted goes on at the first there is, and says so.
func ExampleReset() {
	ctx := context.Background()
	db := threeOrders(ctx) // the group "billing" goes on at offset 1
	defer db.Close()
	orders, err := db.Topic("orders")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.DeleteRecords(ctx, 0, 2); err != nil {
		log.Fatal(err)
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{
		Group: "billing", Topics: []string{"orders"},
		OnReset: func(_ context.Context, _ *embedlog.Consumer, r embedlog.Reset) {
			// After a power cut at a weak level From is the larger one, and the cause is
			// a *PositionLostError.
			var lost *embedlog.PositionLostError
			fmt.Printf("%s/%d: from %d to %d, deleted: %t, lost: %t\n", r.Topic, r.Partition, r.From, r.To,
				errors.Is(r.Cause, embedlog.ErrOffsetOutOfRange), errors.As(r.Cause, &lost))
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	recs, err := c.Poll(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("reads", recs[0].Offset)
	// Output:
	// orders/0: from 1 to 2, deleted: true, lost: false
	// reads 2
}
