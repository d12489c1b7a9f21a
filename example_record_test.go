package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// Headers go with a record and are not part of its key or value. A record without a
// value is a tombstone.
func ExampleRecord() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	prices, err := db.EnsureTopic(ctx, "prices", &embedlog.TopicConfig{Cleanup: embedlog.Compact})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := prices.Produce(ctx,
		embedlog.Record{Key: []byte("tea"), Value: []byte("3.20"), Headers: []embedlog.Header{{Key: "source", Value: []byte("shop")}}},
		embedlog.Record{Key: []byte("tea")}, // deletes the key
	); err != nil {
		log.Fatal(err)
	}
	for rec, err := range prices.Scan(ctx, nil) {
		if err != nil {
			log.Fatal(err)
		}
		source, ok := rec.Header("source")
		fmt.Printf("%s tombstone: %t, source %q %t\n", rec.Key, rec.Value == nil, source, ok)
	}
	// Output:
	// tea tombstone: false, source "shop" true
	// tea tombstone: true, source "" false
}

func ExampleTopic_DeleteRecords() {
	ctx := context.Background()
	db := threeOrders(ctx)
	defer db.Close()
	orders, err := db.Topic("orders")
	if err != nil {
		log.Fatal(err)
	}
	start, err := orders.DeleteRecords(ctx, 0, 2) // the offsets 0 and 1
	fmt.Println(start, err)
	for rec, err := range orders.Scan(ctx, nil) {
		fmt.Println(rec.Offset, string(rec.Value), err)
	}
	// Output:
	// 2 <nil>
	// 2 c <nil>
}

// Records that were not written are known one by one: done is called for each.
func ExampleProducer_Send() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	if _, err := db.EnsureTopic(ctx, "small", &embedlog.TopicConfig{MaxRecordBytes: 1000}); err != nil {
		log.Fatal(err)
	}
	producer, err := db.Producer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	for _, size := range []int{10, 5000} {
		err := producer.Send(ctx, embedlog.Record{Topic: "small", Value: make([]byte, size)}, func(at embedlog.Position, err error) {
			fmt.Println(size, "bytes, too large:", errors.Is(err, embedlog.ErrRecordTooLarge))
		})
		if err != nil { // it was not taken, and done is not called
			log.Fatal(err)
		}
		// Flush waits until done was called for all that were sent before.
		if err := producer.Flush(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Without a function, Flush has the error of the first that failed.
	if err := producer.Send(ctx, embedlog.Record{Topic: "small", Value: make([]byte, 5000)}, nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(producer.Flush(ctx), embedlog.ErrRecordTooLarge))
	// Output:
	// 10 bytes, too large: false
	// 5000 bytes, too large: true
	// true
}

// decimal is a codec: numbers as text.
type decimal struct{}

func (decimal) Append(dst []byte, v int) ([]byte, error) {
	return strconv.AppendInt(dst, int64(v), 10), nil
}
func (decimal) Decode(b []byte) (int, error) { return strconv.Atoi(string(b)) }

func ExampleCodec() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	topic, err := db.EnsureTopic(ctx, "stock", nil)
	if err != nil {
		log.Fatal(err)
	}
	stock := embedlog.Typed(topic, codec.String, embedlog.Codec[int](decimal{}))
	if _, err := stock.Produce(ctx, "tea", 12); err != nil {
		log.Fatal(err)
	}
	for rec, err := range stock.Scan(ctx, nil) {
		fmt.Println(rec.Key, rec.Value+1, err)
	}
	// Output: tea 13 <nil>
}
