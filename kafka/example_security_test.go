package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/kafka"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Alice has to say who she is, and may write to the topics that begin with "order".
// On loopback this goes without TLS.
func ExampleServe_secured() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(&embedlog.Options{AutoCreateTopics: true})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.SetUser(ctx, "alice", "wonderland"); err != nil {
		log.Fatal(err)
	}
	err = db.CreateACLs(ctx,
		embedlog.ACL{Principal: "User:alice", Operation: embedlog.OpWrite, Resource: embedlog.ResourceTopic, Name: "order", Pattern: embedlog.PatternPrefixed},
		embedlog.ACL{Principal: "User:alice", Operation: embedlog.OpCreate, Resource: embedlog.ResourceTopic, Name: "order", Pattern: embedlog.PatternPrefixed},
	)
	if err != nil {
		log.Fatal(err)
	}
	server, err := kafka.Serve(db, &kafka.Options{
		Listeners:  []kafka.Listener{{Address: "127.0.0.1:0", SASL: &kafka.SASL{}}},
		Authorizer: db.Authorizer(nil),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	client, err := kgo.NewClient(
		kgo.SeedBrokers(server.Addrs()[0].String()),
		kgo.SASL(scram.Auth{User: "alice", Pass: "wonderland"}.AsSha512Mechanism()),
		kgo.AllowAutoTopicCreation(),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for _, topic := range []string{"orders", "payments"} {
		err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("450")}).FirstErr()
		fmt.Println(topic, "refused:", errors.Is(err, kerr.TopicAuthorizationFailed), "failed:", err != nil)
	}
	// Output:
	// orders refused: false failed: false
	// payments refused: true failed: true
}
