package query_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// sold is a sale with the minute that it was made in.
func sold(key, value string, minute int) embedlog.Record {
	at := time.Date(2026, 1, 1, 12, minute, 0, 0, time.UTC)
	return embedlog.Record{Key: []byte(key), Value: []byte(value), Timestamp: at}
}

func ExampleWindowed() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	sales, err := db.EnsureTopic(ctx, "sales", nil)
	if err != nil {
		log.Fatal(err)
	}
	late, err := db.EnsureTopic(ctx, "late-sales", nil)
	if err != nil {
		log.Fatal(err)
	}

	stream := query.From(sales, codec.String, codec.String)
	perHalfHour := query.Tumbling(30 * time.Minute).Grace(5 * time.Minute).Retain(24 * time.Hour)
	counts := query.Count(query.Windowed(stream, perHalfHour))
	g := query.NewGraph(db, "shop", nil)
	view := query.Add(g, "sold", counts)                // changes with every sale
	final := query.Add(g, "final", query.Final(counts)) // has each window once, when it is over
	query.To(g, query.Late(stream, perHalfHour), late)
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}

	if _, err := sales.Produce(ctx, sold("tea", "a", 1), sold("tea", "b", 29), sold("tea", "c", 34), sold("tea", "d", 28), sold("tea", "e", 35), sold("tea", "f", 27)); err != nil {
		log.Fatal(err)
	}
	for row, err := range view.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Key.Key, row.Key.Start.Format("15:04"), row.Value)
	}
	for row, err := range final.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("final:", row.Key.Key, row.Key.Start.Format("15:04"), row.Value)
	}
	fmt.Println("late:", g.Stats().Late)
	// Output:
	// tea 12:00 3
	// tea 12:30 2
	// final: tea 12:00 3
	// late: 1
}

func ExampleFoldSessions() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	clicks, err := db.EnsureTopic(ctx, "clicks", nil)
	if err != nil {
		log.Fatal(err)
	}
	visits, err := query.Materialize("visits", query.FoldSessions(
		query.From(clicks, codec.String, codec.String), query.Session(5*time.Minute), codec.String,
		func(pages string, _ string, page string) string { return pages + page },
		func(_ string, earlier, later string) string { return earlier + later }))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := clicks.Produce(ctx, sold("ann", "a", 0), sold("ann", "b", 4), sold("ann", "c", 12), sold("ann", "d", 8)); err != nil {
		log.Fatal(err)
	}
	for row, err := range visits.All(ctx) { // the last one has made one of two
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Key.Key, row.Key.Start.Format("15:04"), row.Key.End.Format("15:04"), row.Value)
	}
	// Output:
	// ann 12:00 12:12 abcd
}

func ExampleJoinStreams() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	orders, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	payments, err := db.EnsureTopic(ctx, "payments", nil)
	if err != nil {
		log.Fatal(err)
	}
	paid := query.JoinStreams(query.From(orders, codec.String, codec.String), query.From(payments, codec.String, codec.String),
		query.Within(time.Hour).Before(0), func(_ string, order, payment string) string { return order + " " + payment })
	view, err := query.Materialize("paid", query.Reduce(paid, func(a, b string) string { return a + ", " + b }))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Produce(ctx, sold("ann", "tea", 10), sold("bob", "milk", 10)); err != nil {
		log.Fatal(err)
	}
	if _, err := payments.Produce(ctx, sold("ann", "4.50", 12), sold("bob", "0.90", 9)); err != nil {
		log.Fatal(err)
	}
	for row, err := range view.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Key, row.Value)
	}
	// Output:
	// ann tea 4.50
}

// Three failed logins of a user within ten minutes, wherever an hour begins.
func ExampleSliding() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	logins, err := db.EnsureTopic(ctx, "failed-logins", nil)
	if err != nil {
		log.Fatal(err)
	}
	tenMinutes := query.Sliding(10 * time.Minute).Grace(time.Minute)
	counts := query.Count(query.Windowed(query.From(logins, codec.String, codec.String), tenMinutes))
	view, err := query.Materialize("attacks", counts.Filter(func(_ query.WindowKey[string], n int64) bool { return n >= 3 }))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := logins.Produce(ctx, sold("ann", "", 1), sold("bob", "", 2), sold("ann", "", 8), sold("bob", "", 11), sold("bob", "", 12), sold("ann", "", 14)); err != nil {
		log.Fatal(err)
	}
	for row, err := range view.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Key.Key, row.Key.Start.Format("15:04"), row.Key.End.Format("15:04"), row.Value)
	}
	// Output:
	// bob 12:02 12:12 3
}
