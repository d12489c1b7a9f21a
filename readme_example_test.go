package embedlog_test

import (
	"context"
	"fmt"
	"os"

	"github.com/x/embedlog"
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
