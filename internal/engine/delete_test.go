package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// The files of a deleted topic are not taken away while its partitions are still
// being closed: an append that is under way must not find its directory gone, and
// be taken for a disk that fails.
func TestFilesOfADeletedTopicGoWhenItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		fault := vfs.NewFault(vfs.NewMem())
		e, err := Open("mem", &Options{FS: fault, MaintenanceInterval: -1, Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		topic, err := e.CreateTopic(ctx, TopicSpec{Name: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := topic.Partitions()[0].Append(ctx, []log.Record{{Value: []byte("v")}}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var removed atomic.Bool
		fault.OnOp(func(op vfs.Op, name string) {
			if op == vfs.OpRemove && strings.HasSuffix(name, "/0/00000000000000000000.log") {
				removed.Store(true)
			}
		})
		// Closing takes its time: the end of the log is synced.
		gate := make(chan struct{})
		fault.Add(vfs.Rule{Op: vfs.OpCreate, Glob: "topics/*/0/checkpoint.tmp", Effect: vfs.Call(func() { <-gate })})
		deleted := make(chan error)
		go func() { deleted <- e.DeleteTopic(ctx, "t") }()
		time.Sleep(3 * time.Second) // the ticker looks for deleted topics meanwhile
		if removed.Load() {
			t.Error("files were removed while the partition was being closed")
		}
		close(gate)
		if err := <-deleted; err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if !removed.Load() || e.hasDeletions() {
			t.Error("the files are still there")
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if logged.Len() > 0 {
			t.Error(logged.String())
		}
	})
}
