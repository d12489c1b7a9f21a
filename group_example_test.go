package embedlog_test

import (
	"context"
	"fmt"
	"log"

	"github.com/x/embedlog"
)

// threeOrders is a database with three records, of which a group has read one.
func threeOrders(ctx context.Context) *embedlog.DB {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range []string{"a", "b", "c"} {
		if _, err := orders.Produce(ctx, embedlog.Record{Value: []byte(v)}); err != nil {
			log.Fatal(err)
		}
	}
	if err := db.CommitPositions(ctx, "billing", embedlog.Position{Topic: "orders", Offset: 1}); err != nil {
		log.Fatal(err)
	}
	return db
}

func ExampleDB_Groups() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	groups, err := db.Groups(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range groups {
		fmt.Println(g.Group, g.State, g.Members)
	}
	// Output: billing Empty 0
}

func ExampleDB_DescribeGroup() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	info, err := db.DescribeGroup(ctx, "billing")
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range info.Partitions {
		fmt.Printf("%s/%d: committed %d of %d, lag %d\n", p.Topic, p.Partition, p.Committed, p.HighWatermark, p.Lag)
	}
	// Output: orders/0: committed 1 of 3, lag 2
}

func ExampleDB_ResetGroup() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	for _, dry := range []bool{true, false} {
		results, err := db.ResetGroup(ctx, "billing", embedlog.ResetSpec{To: embedlog.AtOffset(9), DryRun: dry})
		if err != nil {
			log.Fatal(err)
		}
		for _, r := range results {
			fmt.Printf("%s/%d: %d to %d, clamped %t\n", r.Topic, r.Partition, r.Before, r.Committed, r.Clamped())
		}
	}
	// Output:
	// orders/0: 1 to 3, clamped true
	// orders/0: 1 to 3, clamped true
}

func ExampleDB_DeleteGroup() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	fmt.Println(db.DeleteGroup(ctx, "billing"))
	fmt.Println(db.DeleteGroup(ctx, "billing"))
	// Output:
	// <nil>
	// delete group "billing": embedlog: unknown group
}

func ExampleDB_DeleteGroupOffsets() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	fmt.Println(db.DeleteGroupOffsets(ctx, "billing", "orders"))
	// Output: <nil>
}

func ExampleDB_CommitPositions() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	// The next record that billing reads is the one at offset 2.
	fmt.Println(db.CommitPositions(ctx, "billing", embedlog.Position{Topic: "orders", Partition: 0, Offset: 2}))
	// Output: <nil>
}
