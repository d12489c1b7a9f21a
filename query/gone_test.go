package query

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/vfs"
)

// A graph on a database whose disk is gone stops and says so, instead of beginning again for ever: reads end also without a deadline.
func TestDiskIsGone(t *testing.T) {
	for name, rule := range map[string]vfs.Rule{
		"everything fails": {Op: vfs.OpAny, Count: -1, Effect: vfs.Fail(syscall.EIO)},
		"a sync fails":     {Op: vfs.OpDatasync, Count: -1, Effect: vfs.FailSync()},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { diskGone(t, rule) }) })
	}
}

func diskGone(t *testing.T, rule vfs.Rule) {
	ctx := context.Background()
	fault := vfs.NewFault(vfs.NewMem())
	db, err := embedlog.OpenFS(fault, &embedlog.Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() // says what could not be written
	top, err := db.EnsureTopic(ctx, "t", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGraph(db, "g", &Options{CommitInterval: time.Second})
	v := Add(g, "v", Count(From(top, codec.String, codec.Bytes)))
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := top.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i), Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := v.Get(ctx, "k1"); !found || err != nil {
		t.Fatal(found, err)
	}
	fault.Add(rule) // before the commit
	began := time.Now()
	for err == nil {
		time.Sleep(time.Millisecond)
		_, _, err = v.Get(ctx, "k1")
	}
	if stopped := (*StoppedError)(nil); !errors.As(err, &stopped) || !errors.Is(err, embedlog.ErrStorageFailed) || time.Since(began) > time.Minute {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if !errors.Is(g.Err(), embedlog.ErrStorageFailed) {
		t.Errorf("the graph says %v", g.Err())
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// A view that keeps its past has its rows in memory, and Start says so.
func TestRetainWithAStore(t *testing.T) {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	top, err := db.EnsureTopic(ctx, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGraph(db, "g", &Options{Store: new(MemStores)})
	Add(g, "v", Count(From(top, codec.String, codec.Bytes))).Retain(Retention{})
	if err := g.Start(ctx); !errors.Is(err, ErrRetainOnDisk) {
		t.Errorf("Start says %v", err)
	}
	if err := g.Close(); !errors.Is(err, ErrNotStarted) {
		t.Errorf("Close says %v", err)
	}
}
