package raftrepl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A leader whose files are damaged does not send copies of the damage to a follower that needs an install: it comes upon it, stops, and
// another one leads and sends what is whole.
func TestLeaderSendsNoDamage(t *testing.T) {
	for name, at := range map[string]int64{"segment header": 30, "frame header": segmentHeader + 9, "record bytes": segmentHeader + 180} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newTestCluster(t, 3).start()
				defer c.stop()
				l := c.leader()
				var want []string
				add := func(n int) {
					for range n {
						v := fmt.Sprintf("%d %s", len(want), strings.Repeat("x", 300))
						l.mustAppend(v)
						want = append(want, v)
					}
				}
				add(2)
				c.settle()
				away := c.node(l.id%3 + 1)
				away.stop()
				add(70)
				start, err := l.p.DeleteRecords(context.Background(), 20)
				if err != nil {
					t.Fatal(err)
				}
				c.settle()
				turnBit(t, l.fs, segments(t, l.fs)[1], at)
				away.start()
				for range 600 {
					if time.Sleep(100 * time.Millisecond); l.g.Damaged() != nil {
						break
					}
				}
				if err := l.g.Damaged(); err == nil {
					t.Fatalf("the leader has not come upon the damage: %+v", l.g.Status())
				}
				l.up = false
				l.g.Stop()
				l.p.Close()
				l.v.Close()
				l = c.settle()
				for _, n := range []*testNode{l, away} {
					if got := n.values(); n.p.LogStart() != start || !slices.Equal(got, want[start:]) {
						t.Errorf("node %d has %d records from %d, want %d from %d", n.id, len(got), n.p.LogStart(), len(want[start:]), start)
					}
					if report, err := n.p.Log().Verify(context.Background()); err != nil || len(report.Problems) > 0 {
						t.Errorf("node %d: %v, %v", n.id, report.Problems, err)
					}
				}
				c.same()
			})
		})
	}
}
