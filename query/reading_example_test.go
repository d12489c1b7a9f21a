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
