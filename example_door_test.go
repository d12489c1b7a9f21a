package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// A database in memory, for the examples; Open(dir, nil) is one on the disk.
func openExample() *embedlog.DB {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	return db
}

func ExampleOpenMemory() {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	positions, err := orders.Produce(ctx, embedlog.Record{Key: []byte("ann"), Value: []byte("450")})
	fmt.Println(positions[0].Topic, positions[0].Partition, positions[0].Offset, err)
	// Output: orders 0 0 <nil>
}

func ExampleDB_EnsureTopic() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	if _, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 4, Retention: 24 * time.Hour}); err != nil {
		log.Fatal(err)
	}
	// It is there now, and differs from what is asked for here.
	_, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Retention: time.Hour})
	fmt.Println(err)
	// Output: ensure topic orders: topic orders is there and differs; retention.ms is 86400000, not 3600000
}

func ExampleTopic_Produce() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 3})
	if err != nil {
		log.Fatal(err)
	}
	positions, err := orders.Produce(ctx,
		embedlog.Record{Key: []byte("ann"), Value: []byte("450")},
		embedlog.Record{Key: []byte("bob"), Value: []byte("120"), Headers: []embedlog.Header{{Key: "source", Value: []byte("web")}}},
		embedlog.Record{Key: []byte("ann"), Value: nil}, // a tombstone
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ann stays in one partition:", positions[0].Partition == positions[2].Partition)
	// Output: ann stays in one partition: true
}

// Of two that read the same and decide what to write, one wins.
func ExampleTopic_ProduceAt() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	account, err := db.EnsureTopic(ctx, "account", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, first := account.ProduceAt(ctx, 0, 0, embedlog.Record{Value: []byte("ann takes 10")})
	_, second := account.ProduceAt(ctx, 0, 0, embedlog.Record{Value: []byte("bob takes 10")})
	fmt.Println(first)
	fmt.Println(second)
	fmt.Println(errors.Is(second, embedlog.ErrUnexpectedOffset))
	// Output:
	// <nil>
	// append account/0: append expected offset 0, the log ends at 1
	// true
}

func ExampleTopic_Scan() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range []string{"one", "two", "three"} {
		if _, err := orders.Produce(ctx, embedlog.Record{Value: []byte(v)}); err != nil {
			log.Fatal(err)
		}
	}
	for rec, err := range orders.Scan(ctx, &embedlog.ScanOptions{From: embedlog.AtOffset(1)}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s/%d@%d %s\n", rec.Topic, rec.Partition, rec.Offset, rec.Value)
	}
	// Output:
	// orders/0@1 two
	// orders/0@2 three
}

func ExampleTopic_ListOffsets() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for hour := range 3 {
		if _, err := orders.Produce(ctx, embedlog.Record{Timestamp: noon.Add(time.Duration(hour) * time.Hour)}); err != nil {
			log.Fatal(err)
		}
	}
	for _, at := range []embedlog.OffsetSpec{embedlog.Earliest, embedlog.AtTime(noon.Add(time.Minute)), embedlog.Latest} {
		positions, err := orders.ListOffsets(ctx, at)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(at, positions[0].Offset)
	}
	// Output:
	// earliest 0
	// 2026-01-01T12:01:00Z 1
	// latest 3
}

func ExampleProducer() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	producer, err := db.Producer(&embedlog.ProducerConfig{Linger: 5 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 1000 {
		// Send waits only when 32 MiB are on their way.
		err := producer.Send(ctx, embedlog.Record{Topic: "orders", Value: fmt.Append(nil, i)}, func(at embedlog.Position, err error) {
			if err != nil {
				log.Print(err)
			}
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := producer.Close(); err != nil { // sends what is left
		log.Fatal(err)
	}
	ends, err := orders.ListOffsets(ctx, embedlog.Latest)
	fmt.Println(ends[0].Offset, err)
	// Output: 1000 <nil>
}

func ExampleTyped() {
	type order struct{ Cents int }
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	topic, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	orders := embedlog.Typed(topic, codec.String, codec.JSON[order]{})
	if _, err := orders.Produce(ctx, "ann", order{Cents: 450}); err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Delete(ctx, "ann"); err != nil {
		log.Fatal(err)
	}
	for rec, err := range orders.Scan(ctx, nil) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(rec.Position.Offset, rec.Key, rec.Value.Cents, rec.Tombstone)
	}
	// Output:
	// 0 ann 450 false
	// 1 ann 0 true
}

func ExampleIsRetriable() {
	full := fmt.Errorf("append orders/3: %w", embedlog.ErrNoSpace)
	unknown := &embedlog.UnknownOutcomeError{BaseOffset: 7, LastOffset: 9, Err: context.DeadlineExceeded}
	fmt.Println(embedlog.IsRetriable(full), embedlog.IsRetriable(unknown))
	fmt.Println(unknown)
	// Output:
	// true false
	// outcome of the append of offsets 7 to 9 unknown: context deadline exceeded
}

func ExampleProduceError() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	small, err := db.EnsureTopic(ctx, "small", &embedlog.TopicConfig{Partitions: 2, MaxRecordBytes: 1000})
	if err != nil {
		log.Fatal(err)
	}
	positions, err := small.Produce(ctx,
		embedlog.Record{Key: []byte("a"), Value: []byte("fits")},
		embedlog.Record{Key: []byte("b"), Value: make([]byte, 2000)},
	)
	var some *embedlog.ProduceError
	if errors.As(err, &some) {
		for i, err := range some.Errs {
			fmt.Println(i, positions[i].Offset, err == nil, errors.Is(err, embedlog.ErrRecordTooLarge))
		}
	}
	// Output:
	// 0 0 true false
	// 1 -1 false true
}

func ExampleDB_Stats() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.ProduceTo(ctx, 1, embedlog.Record{}, embedlog.Record{}); err != nil {
		log.Fatal(err)
	}
	stats := db.Stats()
	fmt.Println(stats.Partitions, stats.Records, stats.Failed)
	// Output: 2 2 0
}

func ExampleDB_Verify() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	if _, err := db.EnsureTopic(ctx, "orders", nil); err != nil {
		log.Fatal(err)
	}
	report, err := db.Verify(ctx)
	fmt.Println(report.Partitions, report.OK(), err)
	// Output: 1 true <nil>
}

func ExampleDB_Compact() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	state, err := db.EnsureTopic(ctx, "state", &embedlog.TopicConfig{Cleanup: embedlog.Compact})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 5 {
		if _, err := state.Produce(ctx, embedlog.Record{Key: []byte("counter"), Value: fmt.Append(nil, i)}); err != nil {
			log.Fatal(err)
		}
	}
	if err := db.Compact(ctx, "state"); err != nil {
		log.Fatal(err)
	}
	for rec, err := range state.Scan(ctx, nil) {
		fmt.Println(rec.Offset, string(rec.Value), err)
	}
	// Output: 4 4 <nil>
}

func ExampleTopic_Alter() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(orders.Alter(ctx, map[string]string{"retention.ms": "86400000"}))
	fmt.Println(orders.Alter(ctx, nil, "retention.ms")) // back to the default
	fmt.Println(orders.AddPartitions(ctx, 8), orders.Partitions())
	// Output:
	// <nil>
	// <nil>
	// <nil> 8
}

func ExampleKeyPartition() {
	fmt.Println(embedlog.KeyPartition([]byte("foobar"), 8))
	// Output: 6
}
