package query_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

type order struct {
	Customer string
	Item     string
	Cents    int64
}

// shop has a topic of orders by their number, and one of customers by their name.
func shop(ctx context.Context) (db *embedlog.DB, orders, customers *embedlog.TypedTopic[string, order]) {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	typed := func(name string) *embedlog.TypedTopic[string, order] {
		top, err := db.EnsureTopic(ctx, name, nil)
		if err != nil {
			log.Fatal(err)
		}
		return embedlog.Typed(top, codec.String, codec.JSON[order]{})
	}
	orders, customers = typed("orders"), typed("customers")
	for key, o := range map[string]order{"1": {"ann", "lamp", 450}, "2": {"bob", "desk", 9900}, "3": {"ann", "chair", 5000}} {
		if _, err := orders.Produce(ctx, key, o); err != nil {
			log.Fatal(err)
		}
	}
	return db, orders, customers
}

func ordersOf(t *embedlog.TypedTopic[string, order]) *query.Stream[string, order] {
	return query.From(t.Topic, codec.String, codec.JSON[order]{})
}

func customer(_ string, o order) string { return o.Customer }
func cents(_ string, o order) int64     { return o.Cents }

// show prints a view in the order of its keys.
func show[K, V any](ctx context.Context, v *query.View[K, V]) {
	for row, err := range v.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Key, row.Value)
	}
}

// run starts a view of a table under its name.
func run[K, V any](name string, t *query.Table[K, V]) *query.View[K, V] {
	v, err := query.Materialize(name, t)
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// The first view: a fold over each key's records.
func ExampleAggregate() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	byCustomer := query.Rekey(ordersOf(orders), codec.String, customer)
	spent, err := query.Aggregate(byCustomer, "spent", func(total int64, _ string, o order) int64 { return total + o.Cents })
	if err != nil {
		log.Fatal(err)
	}
	total, found, err := spent.Get(ctx, "ann")
	fmt.Println(total, found, err)
	orders.Produce(ctx, "4", order{"ann", "pen", 50})
	total, found, err = spent.Get(ctx, "ann") // what was acknowledged is there
	fmt.Println(total, found, err)
	// Output:
	// 5450 true <nil>
	// 5500 true <nil>
}

// Orders are a table here: one that changes leaves its customer's sum, and one that is deleted, too.
func ExampleGroupBy() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	table := query.TableFrom(orders.Topic, codec.String, codec.JSON[order]{})
	owed := run("owed", query.Sum(query.GroupBy(table, codec.String, customer), cents))
	orders.Produce(ctx, "3", order{"bob", "chair", 4000}) // it was ann's
	orders.Delete(ctx, "1")
	show(ctx, owed)
	// Output:
	// bob 13900
}

func ExampleCount() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	show(ctx, run("orders-of", query.Count(query.GroupBy(ordersOf(orders), codec.String, customer))))
	// Output:
	// ann 2
	// bob 1
}

func ExampleAverage() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	show(ctx, run("mean", query.Average(query.GroupBy(ordersOf(orders), codec.String, customer), cents)))
	// Output:
	// ann 2725
	// bob 9900
}

func ExampleMax() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	show(ctx, run("largest", query.Max(query.GroupBy(ordersOf(orders), codec.String, customer), cents)))
	// Output:
	// ann 5000
	// bob 9900
}

func ExampleMin() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	show(ctx, run("smallest", query.Min(query.GroupBy(ordersOf(orders), codec.String, customer), cents)))
	// Output:
	// ann 450
	// bob 9900
}

func ExampleTopN() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	all := query.GroupBy(ordersOf(orders), codec.String, func(string, order) string { return "all" })
	show(ctx, run("top", query.TopN(all, 2, cents)))
	// Output:
	// all [{bob desk 9900} {ann chair 5000}]
}

func ExampleCountDistinct() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	all := query.GroupBy(ordersOf(orders), codec.String, func(string, order) string { return "customers" })
	show(ctx, run("how-many", query.CountDistinct(all, codec.String, customer)))
	// Output:
	// customers 2
}

func ExampleReduce() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	dearest := func(a, b order) order {
		if b.Cents > a.Cents {
			return b
		}
		return a
	}
	show(ctx, run("dearest", query.Reduce(query.Rekey(ordersOf(orders), codec.String, customer), dearest)))
	// Output:
	// ann {ann chair 5000}
	// bob {bob desk 9900}
}

// A fold with an inverse can be of a table.
func ExampleFold() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	table := query.TableFrom(orders.Topic, codec.String, codec.JSON[order]{})
	letters := query.Fold(query.GroupBy(table, codec.String, customer), codec.Int64,
		func(n int64, _ string, o order) int64 { return n + int64(len(o.Item)) },
		func(n int64, _ string, o order) int64 { return n - int64(len(o.Item)) })
	show(ctx, run("letters", letters))
	// Output:
	// ann 9
	// bob 4
}

// Orders with their customer's address, which may come later, and change.
func ExampleForeignJoin() {
	ctx := context.Background()
	db, orders, customers := shop(ctx)
	defer db.Close()
	table := query.TableFrom(orders.Topic, codec.String, codec.JSON[order]{})
	labels := run("labels", query.ForeignJoin(table, query.TableFrom(customers.Topic, codec.String, codec.JSON[order]{}), customer,
		func(_ string, o, at order) string { return o.Item + " to " + at.Item }))
	customers.Produce(ctx, "ann", order{Item: "Bern"})
	customers.Produce(ctx, "ann", order{Item: "Rome"})
	show(ctx, labels)
	// Output:
	// 1 lamp to Rome
	// 3 chair to Rome
}

func ExampleLeftJoin() {
	ctx := context.Background()
	db, orders, customers := shop(ctx)
	defer db.Close()
	spent := query.Sum(query.GroupBy(ordersOf(orders), codec.String, customer), cents)
	limits := query.TableFrom(customers.Topic, codec.String, codec.JSON[order]{})
	customers.Produce(ctx, "bob", order{Cents: 10000})
	show(ctx, run("left", query.LeftJoin(spent, limits, func(_ string, spent int64, limit *order) string {
		if limit == nil {
			return "no limit"
		}
		return fmt.Sprint(limit.Cents-spent, " left")
	})))
	// Output:
	// ann no limit
	// bob 100 left
}

// A graph: a view, and a stream that goes to a topic, of one version.
func ExampleGraph() {
	ctx := context.Background()
	db, orders, customers := shop(ctx)
	defer db.Close()
	g := query.NewGraph(db, "audit", nil)
	large := ordersOf(orders).Filter(func(_ string, o order) bool { return o.Cents > 1000 })
	n := query.Add(g, "count", query.Count(query.GroupBy(large, codec.String, customer)))
	query.To(g, query.MapValues(large, func(_ string, o order) order { return order{Item: o.Item} }), customers.Topic)
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	show(ctx, n)
	fmt.Print(g.Describe())
	// Output:
	// ann 1
	// bob 1
	// 1 stream orders
	// 2 filter <- 1
	// 3 group by <- 2
	// 4 count <- 3
	// 5 map values <- 2
	// view count <- 4
	// sink customers <- 5
}

// A stream's records with what a table has for their key when they come.
func ExampleJoinTable() {
	ctx := context.Background()
	db, orders, customers := shop(ctx)
	defer db.Close()
	customers.Produce(ctx, "ann", order{Item: "Bern"})
	out, err := db.EnsureTopic(ctx, "out", nil)
	if err != nil {
		log.Fatal(err)
	}
	g := query.NewGraph(db, "g", nil)
	visits := query.From(customers.Topic, codec.String, codec.JSON[order]{})
	visited := query.Count(visits)
	query.To(g, query.JoinTable(visits, visited, func(_ string, at order, n int64) string { return fmt.Sprint(at.Item, " visit ", n) }), out)
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	customers.Produce(ctx, "ann", order{Item: "Rome"})
	if err := g.CatchUp(ctx); err != nil {
		log.Fatal(err)
	}
	g.Close() // it commits
	for rec, err := range out.Scan(ctx, nil) {
		fmt.Printf("%s %s %v\n", rec.Key, rec.Value, err)
	}
	_ = orders
	// Output:
	// ann Bern visit 1 <nil>
	// ann Rome visit 2 <nil>
}

// The rows that there are, then what changes.
func ExampleView_Watch() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	spent := run("spent", query.Sum(query.GroupBy(ordersOf(orders), codec.String, customer), cents))
	if err := spent.Graph().CatchUp(ctx); err != nil {
		log.Fatal(err)
	}
	marks := 0
	for c, err := range spent.Watch(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case c.Version == nil:
			fmt.Println(c.Key, c.Value)
		case marks == 1:
			return
		default:
			marks++
			fmt.Println("at", c.Version)
			orders.Produce(ctx, "5", order{"bob", "pen", 50})
		}
	}
	// Output:
	// ann 5450
	// bob 9900
	// at orders/0@3
	// bob 9950
}

// Two views at one version.
func ExampleGraph_Snapshot() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	g := query.NewGraph(db, "g", nil)
	grouped := query.GroupBy(ordersOf(orders), codec.String, customer)
	spent, n := query.Add(g, "spent", query.Sum(grouped, cents)), query.Add(g, "n", query.Count(grouped))
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	s, err := g.Snapshot(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Release()
	orders.Produce(ctx, "6", order{"ann", "pen", 50}) // the snapshot stays as it is
	for row, err := range spent.In(s).All() {
		count, _, err2 := n.In(s).Get(row.Key)
		fmt.Println(row.Key, row.Value, "in", count, err, err2)
	}
	fmt.Println(s.Version())
	// Output:
	// ann 5450 in 2 <nil> <nil>
	// bob 9900 in 1 <nil> <nil>
	// orders/0@3
}

func ExampleGraph_Mermaid() {
	ctx := context.Background()
	db, orders, _ := shop(ctx)
	defer db.Close()
	g := query.NewGraph(db, "g", nil)
	query.Add(g, "n", query.Count(ordersOf(orders)))
	fmt.Fprint(os.Stdout, g.Mermaid())
	// Output:
	// flowchart LR
	//   n1[("stream orders")]
	//   n2["count"]
	//   n1 --> n2
	//   v1(["n"])
	//   n2 --> v1
}
