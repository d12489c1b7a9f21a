package raftrepl

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
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

// losing is a transport that loses one message with entries to a replica.
type losing struct {
	*groupTransport
	to atomic.Value // raft.ServerID; empty is none
}

func (l *losing) AppendEntries(id raft.ServerID, at raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(m.Entries) > 0 && l.to.CompareAndSwap(id, raft.ServerID("")) {
		return errors.New("lost")
	}
	return l.groupTransport.AppendEntries(id, at, m, resp)
}

// A follower whose term is newer refuses heartbeats, whose answers the library does not look at: what was
// lost on the way to it is sent again nevertheless, and tells the leader that its term is over.
func TestNewerTermIsHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 3)
		defer c.close()
		wires := make(map[int32]*losing)
		c.opened = func(r *simRun) {
			w := &losing{groupTransport: r.g.gate.trans.(*groupTransport)}
			w.to.Store(raft.ServerID(""))
			r.g.gate.trans, wires[r.n.id] = w, w
		}
		c.mustStart()
		l := c.mustSettle()
		_, epoch := l.p.LastEntry()
		follower, other := c.nodes[l.n.id%3], c.nodes[(l.n.id+1)%3]
		wires[l.n.id].to.Store(memberID(follower.id))
		follower.run.Load().g.instance().follow(raft.Server{ID: memberID(other.id)}, epoch+5)
		if _, err := l.p.Append(t.Context(), record("a"), nil); err != nil {
			t.Fatal(err)
		}
		if lost := wires[l.n.id].to.Load(); lost != raft.ServerID("") {
			t.Fatal("nothing was lost")
		}
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if now, _ := follower.run.Load().g.Leader(); now > 0 {
				break
			}
			if time.Since(began) > 30*time.Second {
				t.Fatalf("the follower in term %d hears of no leader", epoch+5)
			}
		}
		c.mustSettle()
	})
}
