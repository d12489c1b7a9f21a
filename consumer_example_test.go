package embedlog_test

import (
	"context"
	"fmt"
	"log"

	"github.com/x/embedlog"
)

// A group's consumer reads on where the group has come to.
func ExampleConsumer_Records() {
	ctx := context.Background()
	db := threeOrders(ctx) // the group "billing" has read the first
	defer db.Close()
	billing, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	defer billing.Close()
	for rec, err := range billing.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s/%d@%d %s\n", rec.Topic, rec.Partition, rec.Offset, rec.Value)
		if rec.Offset == 2 {
			billing.Mark(rec) // otherwise the next loop would begin with it again
			break
		}
	}
	committed, err := billing.Committed(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("committed:", committed[0].Offset)
	// Output:
	// orders/0@1 b
	// orders/0@2 c
	// committed: 3
}

// Partitions assigned by hand need no group.
func ExampleConsumer_Poll() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "orders", Offset: 1}}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	list, err := c.Poll(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, rec := range list {
		fmt.Printf("%d %s\n", rec.Offset, rec.Value)
	}
	// Output:
	// 1 b
	// 2 c
}

// Batches are read as they are stored, which is the fastest.
func ExampleConsumer_Batches() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	c, err := db.Consumer(&embedlog.ConsumerConfig{Topics: []string{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for batch, err := range c.Batches(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		for rec, err := range batch.Records() {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("%d %s\n", rec.Offset, rec.Value)
		}
		if batch.LastOffset == 2 {
			break
		}
	}
	// Output:
	// 0 a
	// 1 b
	// 2 c
}
