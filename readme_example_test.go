package embedlog_test

import (
	"context"
	"fmt"
	"os"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// run is the program that the README shows.
func run(ctx context.Context, dir string) error {
	db, err := embedlog.Open(dir, nil) // makes the directory if there is none
	if err != nil {
		return err
	}
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 4})
	if err != nil {
		return err
	}
	// Produce returns once the record is on the disk.
	if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte("ann"), Value: []byte("450")}); err != nil {
		return err
	}
	billing, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}})
	if err != nil {
		return err
	}
	defer billing.Close()
	for rec, err := range billing.Records(ctx) { // waits for more; asking for the next marks the last as done
		if err != nil {
			return err
		}
		fmt.Printf("%s@%d %s=%s\n", rec.Topic, rec.Offset, rec.Key, rec.Value)
		billing.Mark(rec) // a loop that is left marks its last record by hand
		break
	}
	return nil
}

// The README's program.
func Example_readme() {
	dir, err := os.MkdirTemp("", "embedlog")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	fmt.Println(run(context.Background(), dir))
	// Output:
	// orders@0 ann=450
	// <nil>
}

// Order is what the README's view is of.
type Order struct{ Cents int64 }

// spentBy is the view that the README shows.
func spentBy(ctx context.Context, orders *embedlog.Topic, customer string) (int64, error) {
	spent, err := query.Aggregate(query.From(orders, codec.String, codec.JSON[Order]{}), "spent",
		func(total int64, _ string, o Order) int64 { return total + o.Cents })
	if err != nil {
		return 0, err
	}
	total, _, err := spent.Get(ctx, customer) // has every order that was acknowledged before the call
	return total, err
}

// The README's view.
func Example_view() {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	ctx := context.Background()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, cents := range []string{`{"Cents":450}`, `{"Cents":50}`} {
		if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte("ann"), Value: []byte(cents)}); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(spentBy(ctx, orders, "ann"))
	// Output:
	// 500 <nil>
}
