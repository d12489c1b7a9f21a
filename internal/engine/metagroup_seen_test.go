package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// Who waits for the metadata may look at it when it is there to be seen: not in the moment in
// which all of the log is applied again and no topic is shown yet.
func TestMetadataIsAwaitedUntilItIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, l := context.Background(), &loneLog{leads: true, epoch: 1}
		m, err := openMetaLog(vfs.NewMem(), false, log.NewFileCache(4), discard, time.Now, l)
		if err != nil {
			t.Fatal(err)
		}
		defer m.part.Close()
		life, end := context.WithCancel(ctx)
		g := newMetaGroup(m, l, life)
		var seen atomic.Bool
		g.act = func(*command, SecurityChange) {}
		g.caught = func() {
			time.Sleep(time.Second) // opening what a thousand topics have takes its time
			seen.Store(true)
		}
		m.group = g
		waited := make(chan error, 1)
		go func() {
			err := g.await(ctx, 0)
			if !seen.Load() {
				t.Error("it was waited for, and is not to be seen yet")
			}
			waited <- err
		}()
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; err != nil {
			t.Error(err)
		}
		end()
		g.stop()
	})
}
