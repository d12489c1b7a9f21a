package query_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// Stock is reserved by orders, as far as there is some, and given back when nobody has paid for half an hour.
func ExampleProcess() {
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
	answers, err := db.EnsureTopic(ctx, "answers", nil)
	if err != nil {
		log.Fatal(err)
	}

	type context = query.Context[string, string]
	reserved := query.NewKeyValueStore("reserved", codec.String, codec.String) // order -> item
	expire := query.NewTimers("expire", codec.String, query.StreamTime, func(c *context, order string, _ time.Time) error {
		reserved.Delete(c, order)
		c.Forward(order, "expired")
		return nil
	})
	inventory := query.Process(query.From(orders, codec.String, codec.String), "inventory", codec.String,
		func(c *context, r query.Record[string, string]) error {
			if r.Value == "paid" {
				expire.Cancel(c, r.Key)
				return nil
			}
			taken := 0
			for _, item := range reserved.All(c) {
				if item == r.Value {
					taken++
				}
			}
			if taken == 2 { // there are two of each
				c.Forward(r.Key, "out of stock")
				return nil
			}
			reserved.Put(c, r.Key, r.Value)
			expire.Schedule(c, r.Key, r.Time.Add(30*time.Minute))
			return nil
		}, reserved, expire)

	g := query.NewGraph(db, "shop", nil)
	query.To(g, inventory, answers)
	view := query.Add(g, "reserved", query.StateTable(inventory, reserved))
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Produce(ctx, sold("1", "lamp", 0), sold("2", "lamp", 1), sold("3", "lamp", 2), sold("1", "paid", 3), sold("4", "desk", 40)); err != nil {
		log.Fatal(err)
	}
	show(ctx, view)
	if err := g.Close(); err != nil { // commits
		log.Fatal(err)
	}
	for rec, err := range answers.Scan(ctx, nil) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", rec.Key, rec.Value)
	}
	// Output:
	// 1 lamp
	// 4 desk
	// 3: out of stock
	// 2: expired
}

// Rows that keep their keys leave the graph a task for each partition.
func ExampleProcessValues() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	meters, err := db.EnsureTopic(ctx, "meters", &embedlog.TopicConfig{Partitions: 4})
	if err != nil {
		log.Fatal(err)
	}
	last := query.NewKeyValueStore("last", codec.String, codec.Int64)
	steps := query.ProcessValues(query.From(meters, codec.String, codec.Int64), "steps",
		func(c *query.Context[string, int64], r query.Record[string, int64]) error {
			was, found := last.Get(c, r.Key)
			last.Put(c, r.Key, r.Value)
			switch {
			case found && r.Value < was:
				return errors.New("a meter runs backwards")
			case found:
				c.Forward(r.Key, r.Value-was)
			}
			return nil
		}, last)
	view, err := query.Materialize("largest", query.Max(steps, func(_ string, n int64) int64 { return n }))
	if err != nil {
		log.Fatal(err)
	}
	typed := embedlog.Typed(meters, codec.String, codec.Int64)
	for i, n := range []int64{10, 12, 19, 21} {
		for _, key := range []string{"ann", "bob"} {
			if _, err := typed.Produce(ctx, key, n*int64(len(key)+i)); err != nil {
				log.Fatal(err)
			}
		}
	}
	show(ctx, view)
	// Output:
	// ann 47
	// bob 47
}

// Every task of the graph has all customers: orders find theirs by what they say of them.
func ExampleGlobalTable() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	levels, err := db.EnsureTopic(ctx, "levels", &embedlog.TopicConfig{Partitions: 5, Cleanup: embedlog.Compact})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := embedlog.Typed(levels, codec.String, codec.String).Produce(ctx, "ann", "gold"); err != nil {
		log.Fatal(err)
	}
	enriched := query.LeftJoinGlobal(ordersOf(orders), query.GlobalTable(levels, codec.String, codec.String), customer,
		func(_ string, o order, level *string) string {
			if level == nil {
				return o.Item + " for a new customer"
			}
			return o.Item + " for a customer of level " + *level
		})
	view, err := query.Materialize("enriched", query.Reduce(enriched, func(_, now string) string { return now }))
	if err != nil {
		log.Fatal(err)
	}
	defer view.Close()
	show(ctx, view)
	// Output:
	// 1 lamp for a customer of level gold
	// 2 desk for a new customer
	// 3 chair for a customer of level gold
}

// An alarm goes off by the clock of the machine, also after a restart, and counts once.
func ExampleNewTimers() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	doors, err := db.EnsureTopic(ctx, "doors", nil)
	if err != nil {
		log.Fatal(err)
	}
	alarm := query.NewTimers("alarm", codec.String, query.WallClockTime, func(c *query.Context[string, string], door string, _ time.Time) error {
		c.Forward(door, "is open still")
		return nil
	})
	alarms := query.Process(query.From(doors, codec.String, codec.String), "doors", codec.String,
		func(c *query.Context[string, string], r query.Record[string, string]) error {
			if r.Value == "closed" {
				alarm.Cancel(c, r.Key)
			} else {
				alarm.Schedule(c, r.Key, time.Now().Add(20*time.Millisecond))
			}
			return nil
		}, alarm)
	view, err := query.Materialize("alarms", query.Reduce(alarms, func(_, now string) string { return now }))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := doors.Produce(ctx, sold("front", "open", 0), sold("back", "open", 0), sold("back", "closed", 1)); err != nil {
		log.Fatal(err)
	}
	for change, err := range view.Watch(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if change.Version == nil {
			fmt.Println(change.Key, change.Value)
			break
		}
	}
	// Output:
	// front is open still
}
