package raftrepl

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// P18: the leader's disk hangs in the middle of a write. Its heartbeats stop, another node leads, and
// what it had begun is one append of which nobody knows. In real time: who waits for a lock that is
// held over the write would stop a bubble's clock.
func TestLeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	c := newSimCluster(t, 3, 3)
	defer c.close()
	c.mustStart()
	l := c.mustSettle()
	if _, err := l.p.Append(t.Context(), record("before"), nil); err != nil {
		t.Fatal(err)
	}
	hangs, release := make(chan struct{}), make(chan struct{})
	l.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.Call(func() {
		close(hangs)
		<-release
	})})
	begun := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := l.p.Append(ctx, record("begun"), nil)
		begun <- err
	}()
	<-hangs
	var next *simRun
	for start := time.Now(); next == nil; time.Sleep(10 * time.Millisecond) {
		if r := c.leader(); r != nil && r != l {
			next = r
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("nobody else leads: %+v", l.g.Status())
		}
	}
	for i := range 3 {
		if _, err := next.p.Append(t.Context(), record(fmt.Sprint("after ", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	if err := <-begun; err != nil {
		t.Logf("the append that was begun: %v", err)
	}
	l = c.mustSettle()
	if err := c.same(l); err != nil {
		t.Error(err)
	}
	if hw := l.p.HighWatermark(); hw != 4 && hw != 5 {
		t.Errorf("%d records, want 4, or 5 with the one that was begun", hw)
	}
}
