package kafka_test

import (
	"context"
	"fmt"
	"log"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/kafka"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A program lets Kafka clients in beside its own code.
func ExampleServe() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	orders, err := db.CreateTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	server, err := kafka.Serve(db, &kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		log.Fatal(err)
	}

	// Any Kafka client, in any language.
	client, err := kgo.NewClient(kgo.SeedBrokers(server.Addrs()[0].String()))
	if err != nil {
		log.Fatal(err)
	}
	err = client.ProduceSync(ctx, &kgo.Record{Topic: "orders", Key: []byte("ann"), Value: []byte("450")}).FirstErr()
	if err != nil {
		log.Fatal(err)
	}
	client.Close()

	for rec, err := range orders.Scan(ctx, nil) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s/%d@%d %s=%s\n", rec.Topic, rec.Partition, rec.Offset, rec.Key, rec.Value)
	}
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: orders/0@0 ann=450
}
