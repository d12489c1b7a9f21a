package raftrepl

import (
	"fmt"
	"testing"
	"time"
)

// A follower that was away for long gets what it lacks within a second of its return, whether entries were
// to be sent meanwhile or not.
func TestReturnedFollower(t *testing.T) {
	for _, away := range []time.Duration{2 * time.Second, time.Minute, 5 * time.Minute} {
		for _, how := range []string{"killed", "cut off"} {
			t.Run(fmt.Sprintf("%v/%s", away, how), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := newSimCluster(t, 3, 3)
					defer c.close()
					c.mustStart()
					l := c.mustSettle()
					follower := c.nodes[l.n.id%3]
					other := c.nodes[(l.n.id+1)%3]
					if how == "killed" {
						follower.crash(false, 0)
					} else {
						c.net.CutBoth(hostName(follower.id), hostName(l.n.id))
						c.net.CutBoth(hostName(follower.id), hostName(other.id))
					}
					for began := time.Now(); time.Since(began) < away; time.Sleep(away / 50) {
						if _, err := l.p.Append(t.Context(), record("a"), nil); err != nil {
							t.Fatal(err)
						}
					}
					if how == "killed" {
						if err := follower.start(); err != nil {
							t.Fatal(err)
						}
					} else {
						c.net.HealAll()
					}
					back := time.Now()
					for r := follower.run.Load(); ; time.Sleep(time.Millisecond) {
						last, _ := l.p.LastEntry()
						if have, _ := r.p.LastEntry(); have == last && r.p.HighWatermark() == l.p.LogEnd() {
							break
						}
						if took := time.Since(back); took > time.Second {
							t.Fatalf("it is behind %v after its return", took)
						}
					}
					t.Logf("after %v", time.Since(back))
				})
			})
		}
	}
}
