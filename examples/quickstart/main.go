// Command quickstart is embedlog in a minute: it opens a directory, produces,
// consumes in a group, stops in the middle, opens the directory again, goes on where
// it was, and counts that nothing is lost.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart --data ./mydata    # keeps the directory
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/x/embedlog"
)

func main() {
	data := flag.String("data", "", "`directory` of the database; it is kept (default: a temporary one, removed at the end)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "quickstart: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := start(ctx, os.Stdout, *data); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, out io.Writer, dir string) error {
	if dir == "" {
		temp, err := os.MkdirTemp("", "embedlog-quickstart-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		dir = temp
	}
	return run(ctx, out, dir)
}

const orders = 1000

// run is two lives of a program on one directory.
func run(ctx context.Context, out io.Writer, dir string) error {
	// What was done by whom; a real consumer would do its work instead.
	seen := make(map[string]int)

	fmt.Fprintf(out, "first life: open %s\n", dir)
	err := life(ctx, dir, func(db *embedlog.DB) error {
		if err := produce(ctx, out, db); err != nil {
			return err
		}
		return consume(ctx, out, db, seen, orders*4/10)
	})
	if err != nil {
		return err
	}

	fmt.Fprintln(out, "\nsecond life: open the same directory")
	err = life(ctx, dir, func(db *embedlog.DB) error {
		return consume(ctx, out, db, seen, orders-len(seen))
	})
	if err != nil {
		return err
	}

	for i := range orders {
		if seen[value(i)] != 1 {
			return fmt.Errorf("%s was consumed %d times", value(i), seen[value(i)])
		}
	}
	fmt.Fprintf(out, "\nall %d orders were consumed, each once: nothing is lost\n", orders)
	return nil
}

// life opens the database, does something with it, and closes it.
func life(ctx context.Context, dir string, do func(*embedlog.DB) error) (err error) {
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return do(db)
}

func value(i int) string { return fmt.Sprintf("order %d", i) }

func produce(ctx context.Context, out io.Writer, db *embedlog.DB) error {
	topic, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 4})
	if err != nil {
		return err
	}
	// Produce returns once the records are on the disk. One call for many records is one sync.
	for i := 0; i < orders; i += 100 {
		batch := make([]embedlog.Record, 100)
		for k := range batch {
			customer := fmt.Sprintf("customer-%d", (i+k)%25)
			batch[k] = embedlog.Record{Key: []byte(customer), Value: []byte(value(i + k))}
		}
		if _, err := topic.Produce(ctx, batch...); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "  produced %d records to 4 partitions of topic orders\n", orders)
	info, err := topic.Describe()
	if err != nil {
		return err
	}
	for _, p := range info.Partitions {
		fmt.Fprintf(out, "    partition %d: offsets %d to %d\n", p.Partition, p.LogStart, p.LogEnd)
	}
	return nil
}

// consume handles n records as a member of the group "billing".
func consume(ctx context.Context, out io.Writer, db *embedlog.DB, seen map[string]int, n int) (err error) {
	billing, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, billing.Close()) }() // commits what was marked
	done := 0
	for rec, err := range billing.Records(ctx) {
		if err != nil {
			return err
		}
		seen[string(rec.Value)]++
		done++
		if done == n {
			billing.Mark(rec) // the record that a loop ends on is marked by hand
			break
		}
	}
	fmt.Fprintf(out, "  group billing consumed %d records and committed its position\n", done)
	return nil
}
