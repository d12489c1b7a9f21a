package query_test

import (
	"context"
	"fmt"
	"log"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// A secondary index: the orders of a customer, in a view of orders by their number.
func ExampleAddIndex() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	g := query.NewGraph(db, "shop", nil)
	all := query.Add(g, "orders", query.TableFrom(orders.Topic, codec.String, codec.JSON[order]{}))
	byCustomer := query.AddIndex(all, "by-customer", codec.String, func(_ string, o order) []string { return []string{o.Customer} })
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	for row, err := range byCustomer.Get(ctx, "ann") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Key, row.Value.Item)
	}
	// Output:
	// 1 lamp
	// 3 chair
}

// An index has what its view has, in a snapshot as well.
func ExampleIndex_Range() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	g := query.NewGraph(db, "shop", nil)
	all := query.Add(g, "orders", query.TableFrom(orders.Topic, codec.String, codec.JSON[order]{}))
	byItem := query.AddIndex(all, "by-item", codec.String, func(_ string, o order) []string { return []string{o.Item} })
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	for row, err := range byItem.Range(ctx, "c", "e") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Index, row.Key, row.Value.Customer)
	}
	// Output:
	// chair 3 ann
	// desk 2 bob
}

// How far a graph is behind its sources.
func ExampleGraph_Lag() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	spent := run("spent", query.Count(ordersOf(orders)))
	if err := spent.Graph().CatchUp(ctx); err != nil {
		log.Fatal(err)
	}
	lag, err := spent.Graph().Lag(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range lag {
		fmt.Printf("%s/%d at %d of %d, %d records behind\n", l.Topic, l.Partition, l.Position, l.LastStable, l.Records)
	}
	// Output: orders/0 at 3 of 3, 0 records behind
}

// A view as it was.
func ExampleGraph_SnapshotAt() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	g := query.NewGraph(db, "shop", nil)
	count := query.Add(g, "count", query.Count(query.Rekey(ordersOf(orders), codec.String, customer))).Retain(query.Retention{Versions: 100})
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := g.CatchUp(ctx); err != nil {
		log.Fatal(err)
	}
	version, err := g.Version(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Produce(ctx, "4", order{"ann", "pen", 50}); err != nil {
		log.Fatal(err)
	}
	now, _, err := count.Get(ctx, "ann")
	if err != nil {
		log.Fatal(err)
	}
	s, err := g.SnapshotAt(ctx, version)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Release()
	then, _, err := count.In(s).Get("ann")
	fmt.Println(now, then, s.Version(), err)
	// Output: 3 2 orders/0@3 <nil>
}
