package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

type order struct {
	Who   string
	Cents int64
}

// viewed are databases whose views run in this process, by their directory.
var viewed sync.Map // to func() error

// viewing DIR opens a database as a program would that computes views; unview DIR closes it.
func viewingScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: viewing DIR")
	}
	stop, err := computeViews(context.Background(), ts.MkAbs(args[0]))
	ts.Check(err)
	viewed.Store(ts.MkAbs(args[0]), stop)
}

func unviewScript(ts *testscript.TestScript, neg bool, args []string) {
	stop, ok := viewed.LoadAndDelete(ts.MkAbs(args[0]))
	if neg || !ok {
		ts.Fatalf("%v: nobody computes views there", args)
	}
	ts.Check(stop.(func() error)())
}

// await GRAPH GENERATION waits until a generation of a graph answers, and none is being computed.
func awaitScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await GRAPH GENERATION")
	}
	for range 2000 {
		ts.Check(ts.Exec("embedlog", "view", "describe", args[0], "--format", "json"))
		if out := ts.ReadFile("stdout"); strings.Contains(out, `"generation":`+args[1]+`,`) && !strings.Contains(out, `"rebuilding"`) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	ts.Fatalf("%s does not come to generation %s", args[0], args[1])
}

func computeViews(ctx context.Context, dir string) (stop func() error, err error) {
	db, err := embedlog.Open(dir, &embedlog.Options{Socket: true})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	top, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		return nil, err
	}
	large, err := db.EnsureTopic(ctx, "large", nil)
	if err != nil {
		return nil, err
	}
	orders := query.From(top, codec.String, codec.JSON[order]{})
	shop := query.NewGraph(db, "shop", &query.Options{OneTask: true})
	all := query.Add(shop, "orders", query.TableFrom(top, codec.String, codec.JSON[order]{}))
	query.AddIndex(all, "by-customer", codec.String, func(_ string, o order) []string { return []string{o.Who} })
	query.Add(shop, "spent", query.Sum(query.Rekey(orders, codec.String, func(_ string, o order) string { return o.Who }), func(_ string, o order) int64 { return o.Cents })).
		Retain(query.Retention{Versions: 100})
	query.Add(shop, "sizes", query.Count(query.Rekey(orders, codec.Int64, func(_ string, o order) int64 { return o.Cents / 100 })))
	alerts := query.NewGraph(db, "alerts", nil)
	query.To(alerts, orders.Filter(func(_ string, o order) bool { return o.Cents > 1000 }), large)
	query.Add(alerts, "orders", query.TableFrom(top, codec.String, codec.JSON[order]{}))
	for _, g := range []*query.Graph{shop, alerts} {
		if err := g.Start(ctx); err != nil {
			return nil, err
		}
	}
	return func() error {
		for _, g := range []*query.Graph{shop, alerts} {
			if err := g.CatchUp(ctx); err != nil {
				return err
			}
			if err := g.Close(); err != nil {
				return err
			}
		}
		return db.Close()
	}, nil
}

// watch prints rows, and ends with the program that computes them.
func TestViewWatchEndsWithTheProgram(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the path of a test's directory may be too long for a socket here")
	}
	dir := filepath.Join(t.TempDir(), "d")
	stop, err := computeViews(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if r := runHere(t, "1:{\"Who\":\"ann\",\"Cents\":450}\n", "--data", dir, "produce", "orders", "-K", ":"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	done := make(chan error, 1)
	go func() {
		a := &app{stdin: strings.NewReader(""), stdout: in, stderr: in}
		err := a.execute(t.Context(), []string{"--data", dir, "view", "watch", "shop/spent"})
		in.Close()
		done <- err
	}()
	var b [len("ann\t450\n")]byte
	if _, err := out.Read(b[:]); err != nil || string(b[:]) != "ann\t450\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; exitCode(err) != exitFailure || !strings.Contains(err.Error(), "went away") {
		t.Errorf("%v", err)
	}
}
