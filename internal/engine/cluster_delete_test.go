package engine_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
)

// The files of a deleted topic go when its partitions are closed, and not before: a node that is
// closed between the two closes partitions whose files are there.
func TestFilesOfDeletedTopicStayWhileItIsOpen(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeers(t, 3)
			defer p.stopAll()
			id := p.create("orders", 1, 3).ID()
			p.known("orders")
			p.lead("orders", 0, 1)
			top, err := p.open[1].Topic("orders")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := top.Partitions()[0].Append(ctx, []log.Record{{Value: []byte("a")}}, nil); err != nil {
				t.Fatal(err)
			}
			there := func(node int32) bool {
				_, err := p.files[node].Stat("topics/" + id.String())
				return err == nil
			}
			lead := p.leader()
			held := lead.NodeID()%3 + 1
			release := sync.OnceFunc(p.open[held].HoldAdmin()) // whoever applies the deletion there waits
			defer release()
			if err := lead.DeleteTopic(ctx, "orders"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // deleted topics are looked for every second
			if !there(held) {
				t.Error("files went while the partitions are open")
			}
			if !closes {
				release()
				p.until("the files go", func() bool { return !there(1) && !there(2) && !there(3) && len(p.leader().Info().Deleting) == 0 })
				return
			}
			closed := make(chan error, 1)
			go func(e *Engine) { closed <- e.Close() }(p.open[held])
			synctest.Wait()
			release()
			if err := <-closed; err != nil {
				t.Errorf("close: %v", err)
			}
			p.start(held)
			p.until("the files go", func() bool { return !there(held) && len(p.leader().Info().Deleting) == 0 })
		})
	}
}
