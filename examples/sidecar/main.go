// Command sidecar shows one database with two doors: a program that keeps its records
// itself, in its own process, and Kafka clients that it lets in beside its own code.
// What goes in at one door comes out at the other, and a group may have members at
// both.
//
//	go run ./examples/sidecar
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sidecar:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	db, err := embedlog.OpenMemory(nil) // Open("data", nil) keeps it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 4})
	if err != nil {
		return err
	}
	// On loopback anybody on this machine is let in; docs/kafka.md says how to go further.
	server, err := kafka.Serve(db, &kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Shutdown(context.WithoutCancel(ctx))) }()
	address := server.Addrs()[0].String()
	fmt.Fprintln(w, "this program has the database open, and lets Kafka clients in")

	if err := in(ctx, w, orders, address); err != nil {
		return err
	}
	if err := out(ctx, w, orders, address); err != nil {
		return err
	}
	return both(ctx, w, db, address)
}

// in: a Kafka client produces, this program reads.
func in(ctx context.Context, w io.Writer, orders *embedlog.Topic, address string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return err
	}
	defer client.Close()
	rec := &kgo.Record{Topic: "orders", Key: []byte("ann"), Value: []byte("450")}
	if err := client.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return err
	}
	for rec, err := range orders.Scan(ctx, nil) {
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "a Kafka client wrote, Go reads:  %s=%s\n", rec.Key, rec.Value)
	}
	return nil
}

// out: this program produces, a Kafka client reads.
func out(ctx context.Context, w io.Writer, orders *embedlog.Topic, address string) error {
	if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte("bob"), Value: []byte("200")}); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	for seen := false; !seen; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if string(r.Key) == "bob" {
				seen = true
				fmt.Fprintf(w, "Go wrote, a Kafka client reads:  %s=%s\n", r.Key, r.Value)
			}
		})
	}
	return nil
}

const jobs = 200

// both: a group with a member at each door. Between them they handle all jobs, and
// neither all alone.
func both(ctx context.Context, w io.Writer, db *embedlog.DB, address string) (err error) {
	topic, err := db.EnsureTopic(ctx, "jobs", &embedlog.TopicConfig{Partitions: 4})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var team sync.WaitGroup
	defer func() { cancel(); team.Wait() }() // before the database is closed
	handled := make(chan handling)
	failed := make(chan error, 2)
	team.Go(func() { failed <- goMember(ctx, db, handled) })
	team.Go(func() { failed <- kafkaMember(ctx, address, handled) })

	// Jobs are sent until both have work: the one who joins first has all partitions.
	counts := make(map[string]int)
	seen := make(map[string]bool)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < jobs || len(seen) < sent || len(counts) < 2; {
		select {
		case h := <-handled:
			counts[h.by]++
			seen[h.value] = true
		case <-tick.C:
			var batch []embedlog.Record
			for range 10 {
				batch = append(batch, embedlog.Record{Key: fmt.Appendf(nil, "key %d", sent), Value: fmt.Appendf(nil, "job %d", sent)})
				sent++
			}
			if _, err := topic.Produce(ctx, batch...); err != nil {
				return err
			}
		case err := <-failed:
			if err != nil {
				return err
			}
			return ctx.Err()
		}
	}
	fmt.Fprintln(w, "one group with a member in Go and a member that is a Kafka client: both had work, no job was left out")
	return nil
}

// handling is one job that a member did.
type handling struct{ by, value string }

// goMember is a member of the group in this process.
func goMember(ctx context.Context, db *embedlog.DB, handled chan<- handling) (err error) {
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: "workers", Topics: []string{"jobs"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }() // leaves the group
	for rec, err := range c.Records(ctx) {
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		if !tell(ctx, handled, handling{"Go", string(rec.Value)}) {
			return nil
		}
	}
	return nil
}

// kafkaMember is a member of the same group, as any Kafka client is.
func kafkaMember(ctx context.Context, address string, handled chan<- handling) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumerGroup("workers"), kgo.ConsumeTopics("jobs"))
	if err != nil {
		return err
	}
	defer client.Close() // leaves the group
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return ignoreEnd(ctx, err)
		}
		for _, r := range fetches.Records() {
			if !tell(ctx, handled, handling{"Kafka", string(r.Value)}) {
				return nil
			}
		}
	}
}

func tell(ctx context.Context, handled chan<- handling, h handling) bool {
	select {
	case handled <- h:
		return true
	case <-ctx.Done():
		return false
	}
}

// ignoreEnd is nil for an error that only says that the caller's context ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
