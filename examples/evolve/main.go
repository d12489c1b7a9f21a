// Command evolve goes the four steps from events to something that can be asked: broadcast, retain, evolve, recast.
//
//	go run ./examples/evolve
//	go run ./examples/evolve -keep DIR
//
// Sensors report temperatures. (1) Each report is broadcast to whoever listens. (2) The log retains them, so that one who comes later
// has them all, and one who comes back goes on. (3) The stream is evolved: a function makes warnings of it, which are a topic like any
// other. (4) Instead of caching what came by, the stream is recast as views: the latest report of each sensor, and the mean of each room. They
// survive the process by themselves. With -keep the database is in DIR and stays open until Ctrl-C, so that `embedlog view` can look at the views.
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
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	keep := flag.String("keep", "", "have the database in this directory, and keep it open")
	flag.Parse()
	if err := start(ctx, os.Stdout, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "evolve:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, out io.Writer, keep string) (err error) {
	dir := keep
	if keep == "" {
		if dir, err = os.MkdirTemp("", "embedlog-evolve-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	lives := []func(context.Context, io.Writer, string) error{first, second}
	if keep != "" {
		lives = append(lives, offer)
	}
	for _, life := range lives {
		if err := life(ctx, out, dir); err != nil {
			return err
		}
	}
	return nil
}

// offer is the life of a program that offers its views: whoever has the command line can look at them.
func offer(ctx context.Context, out io.Writer, dir string) (err error) {
	db, err := embedlog.Open(dir, &embedlog.Options{Socket: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sensors, err := open(ctx, db)
	if err != nil {
		return err
	}
	if _, err := define(ctx, db, sensors); err != nil {
		return err
	}
	fmt.Fprintf(out, "the views can be looked at until Ctrl-C, for example by\n   embedlog --data %s view watch climate/mean\n", dir)
	<-ctx.Done()
	return nil
}

type report struct {
	Room    string
	Celsius float64
}

var reports = []struct {
	sensor string
	report report
}{
	{"s1", report{"kitchen", 21}}, {"s2", report{"kitchen", 23}}, {"s3", report{"cellar", 12}},
	{"s1", report{"kitchen", 31}}, {"s3", report{"cellar", 11}}, {"s1", report{"kitchen", 25}},
}

// first is the first life of the process: all four steps.
func first(ctx context.Context, out io.Writer, dir string) (err error) {
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sensors, err := open(ctx, db)
	if err != nil {
		return err
	}

	fmt.Fprintln(out, "1. broadcast: every listener gets every report")
	for _, r := range reports {
		if _, err := sensors.Produce(ctx, r.sensor, r.report); err != nil {
			return err
		}
	}
	for _, listener := range []string{"display", "archive"} {
		if err := listen(ctx, out, db, sensors, listener, len(reports)); err != nil {
			return err
		}
	}

	fmt.Fprintln(out, "2. retain: one who comes later gets them all, one who was there what is new")
	if _, err := sensors.Produce(ctx, "s2", report{"kitchen", 24}); err != nil {
		return err
	}
	if err := listen(ctx, out, db, sensors, "newcomer", len(reports)+1); err != nil {
		return err
	}
	if err := listen(ctx, out, db, sensors, "display", 1); err != nil {
		return err
	}

	fmt.Fprintln(out, "3. evolve: a function makes warnings of reports")
	views, err := define(ctx, db, sensors)
	if err != nil {
		return err
	}
	if err := views.graph.CatchUp(ctx); err != nil {
		return err
	}
	if err := views.graph.Close(); err != nil { // commits the warnings
		return err
	}
	for w, err := range views.warnings.Scan(ctx, nil) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "   %s: %s\n", w.Key, w.Value)
	}
	return nil
}

// second is the life after a restart: the views are there.
func second(ctx context.Context, out io.Writer, dir string) (err error) {
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sensors, err := open(ctx, db)
	if err != nil {
		return err
	}
	views, err := define(ctx, db, sensors)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "4. recast: after a restart the views are what they were, and go on")
	if err := views.show(ctx, out); err != nil {
		return err
	}
	if _, err := sensors.Produce(ctx, "s3", report{"cellar", 35}); err != nil {
		return err
	}
	fmt.Fprintln(out, "   the cellar gets warm:")
	return views.show(ctx, out)
}

func open(ctx context.Context, db *embedlog.DB) (*embedlog.TypedTopic[string, report], error) {
	top, err := db.EnsureTopic(ctx, "reports", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		return nil, err
	}
	return embedlog.Typed(top, codec.String, codec.JSON[report]{}), nil
}

// listen has a group read n reports.
func listen(ctx context.Context, out io.Writer, db *embedlog.DB, sensors *embedlog.TypedTopic[string, report], group string, n int) (err error) {
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: group, Topics: []string{sensors.Name()}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	heard := 0
	for rec, err := range c.Records(ctx) {
		if err != nil {
			return err
		}
		c.Mark(rec)
		if heard++; heard == n {
			break
		}
	}
	fmt.Fprintf(out, "   %s heard %d\n", group, heard)
	return nil
}

type views struct {
	graph    *query.Graph
	warnings *embedlog.TypedTopic[string, string]
	latest   *query.View[string, report]
	mean     *query.View[string, float64]
}

// define says what is made of the reports, and has it run.
func define(ctx context.Context, db *embedlog.DB, sensors *embedlog.TypedTopic[string, report]) (*views, error) {
	top, err := db.EnsureTopic(ctx, "warnings", nil)
	if err != nil {
		return nil, err
	}
	v := &views{graph: query.NewGraph(db, "climate", nil), warnings: embedlog.Typed(top, codec.String, codec.String)}
	stream := query.From(sensors.Topic, codec.String, codec.JSON[report]{})
	hot := stream.Filter(func(_ string, r report) bool { return r.Celsius > 30 })
	query.To(v.graph, query.MapValues(hot, func(_ string, r report) string { return fmt.Sprintf("%v degrees in the %s", r.Celsius, r.Room) }), top)
	table := query.TableFrom(sensors.Topic, codec.String, codec.JSON[report]{})
	v.latest = query.Add(v.graph, "latest", table)
	byRoom := query.GroupBy(table, codec.String, func(_ string, r report) string { return r.Room })
	v.mean = query.Add(v.graph, "mean", query.Average(byRoom, func(_ string, r report) float64 { return r.Celsius }))
	return v, v.graph.Start(ctx)
}

// show reads both views.
func (v *views) show(ctx context.Context, out io.Writer) error {
	for row, err := range v.latest.All(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "   %s in the %s: %v\n", row.Key, row.Value.Room, row.Value.Celsius)
	}
	for row, err := range v.mean.All(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "   mean of the %s: %v\n", row.Key, row.Value)
	}
	return nil
}
