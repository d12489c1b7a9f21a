package query_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// What a graph keeps is computed anew, beside what there is, and nothing is appended twice.
func ExampleGraph_Rebuild() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	spent := run("spent", query.Sum(query.GroupBy(ordersOf(orders), codec.String, customer), cents))
	err := spent.Graph().Rebuild(ctx)
	switch unknown := (*query.SinkError)(nil); {
	case errors.Is(err, query.ErrRebuilding):
		fmt.Println("somebody else does it")
	case errors.As(err, &unknown):
		fmt.Println(unknown.Sink, errors.Is(err, query.ErrSink))
	case err != nil:
		log.Fatal(err)
	}
	show(ctx, spent)
	// Output:
	// ann 5450
	// bob 9900
}
