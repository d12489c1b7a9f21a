package query_test

import (
	"context"
	"fmt"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

func ExampleGrouped_Repartition() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		panic(err)
	}
	for _, customer := range []string{"ann", "bob", "eve"} {
		if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte(customer), Value: []byte("jumper")}); err != nil {
			panic(err)
		}
	}
	// Orders are in partitions by customer. Counts by product are computed by four tasks of their own.
	product := func(_ string, product string) string { return product }
	g := query.NewGraph(db, "shop", nil)
	perProduct := query.GroupBy(query.From(orders, codec.String, codec.String), codec.String, product).Repartition("by-product", 4)
	sold := query.Add(g, "sold", query.Count(perProduct))
	if err := g.Start(ctx); err != nil {
		panic(err)
	}
	n, _, err := sold.Get(ctx, "jumper")
	fmt.Println(n, err, g.Stats().Tasks)
	fmt.Print(g.Describe())
	// Output:
	// 3 <nil> 6
	// 1 stream orders
	// 2 group by <- 1
	// 3 repartition by-product into 4 <- 2
	// 4 count <- 3
	// view sold <- 4
}
