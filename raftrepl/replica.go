package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A replica is a member of a group under a name of its own, the library's server id: the
// number of its node, "2". When the node has given up its files, it comes back as another
// replica, "2.1" and so on: what the one before had acknowledged and whom it had voted for
// is nobody's any more. The number after the dot is its life. It is in the stable store,
// beside the vote, and only grows; the members of a group have the name.
//
//	files damaged       the group stops here; another node leads, or goes on to
//	Votes.Renew         life 2 -> 2.1, in one write: 2 never speaks again
//	files removed       a crash before that is seen: Run refuses with ErrReplicaGone
//	Run, empty          2.1 is no member, so nobody asks it for a vote
//	leader              its message for 2 is refused, with the name of 2.1: it removes 2, adds
//	                    2.1 without a vote, and gives it one when it has the log

// replicaID is a replica's name.
func replicaID(node int32, life uint32) raft.ServerID {
	if life == 0 {
		return memberID(node)
	}
	return memberID(node) + "." + raft.ServerID(strconv.FormatUint(uint64(life), 10))
}

// parseReplica is the inverse. It takes what replicaID makes and nothing else.
func parseReplica(id raft.ServerID) (node int32, life uint32, ok bool) {
	number, rest, _ := strings.Cut(string(id), ".")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 1 {
		return -1, 0, false
	}
	if rest != "" {
		l, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return -1, 0, false
		}
		life = uint32(l)
	}
	if replicaID(int32(n), life) != id {
		return -1, 0, false
	}
	return int32(n), life, true
}

// lostError is a replica that has to be fetched again.
type lostError string

func (e lostError) Error() string { return string(e) }

// Is matches engine.ErrReplicaLost.
func (e lostError) Is(target error) bool { return target == engine.ErrReplicaLost }

// ErrReplicaGone says that a log's files are of a replica that this node has given up.
var ErrReplicaGone error = lostError("embedlog: the files are of an earlier replica, which was given up")

// Renew has the node's next replica of a group be another one than the last, whose files
// are about to be removed: durable, in one step. Term and vote are still remembered.
func (v *Votes) Renew(id engine.LogID) error {
	return v.change(id, func(g *vote) { g.life, g.joined, g.empty = g.life+1, false, true })
}

var _ engine.Renewer = (*Node)(nil)

// Renew implements engine.Renewer.
func (n *Node) Renew(id engine.LogID) error {
	n.mu.Lock()
	v := n.votes
	n.mu.Unlock()
	if v == nil {
		return errors.New("raftrepl: the node was not started")
	}
	return v.Renew(id)
}

// Damaged is why this replica has stopped for good and has to be fetched again; nil when
// it has not, or when that would not help: a failed disk is no damage.
func (g *Group) Damaged() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.damaged
}

// renewals are the replicas that have taken the place of members, as far as the members
// themselves have said.
type renewals struct {
	newest map[int32]raft.ServerID
	busy   bool
}

// renewed notes, on the leader, that another replica answers where a member was, and has
// the members changed. Whoever says so is the node itself: its connection is its own.
func (g *Group) renewed(inst *instance, old raft.ServerID, now string) {
	node, life, ok := parseReplica(raft.ServerID(now))
	was, lived, _ := parseReplica(old)
	if !ok || node != was || life <= lived {
		return // a copy of an older state: the group does not go back
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known, _ := parseReplica(g.renewals.newest[node]); known < life {
		if g.renewals.newest == nil {
			g.renewals.newest = make(map[int32]raft.ServerID)
		}
		g.renewals.newest[node] = raft.ServerID(now)
	}
	if g.renewals.busy || g.stopped || g.inst != inst {
		return
	}
	g.renewals.busy = true
	g.work.Go(func() {
		g.replace(inst)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.renewals.busy = false
	})
}

// newest is the replica that a node has said to have; empty when it has not said.
func (g *Group) newest(node int32) raft.ServerID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.renewals.newest[node]
}

// superseded says whether a member is not there any more, and another replica of its node is.
func (g *Group) superseded(id raft.ServerID) bool {
	node, life, _ := parseReplica(id)
	_, newest, ok := parseReplica(g.newest(node))
	return ok && newest > life
}

// replacePause is between two attempts to give a node's new replica the place of the old one.
const replacePause = time.Second

// replace gives new replicas the places of old ones, as long as this instance leads. One
// that fails has removed the old one perhaps, and nobody else would add the new one.
func (g *Group) replace(inst *instance) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g.work.Go(func() {
		select {
		case <-g.stopping:
		case <-inst.done:
		case <-ctx.Done():
		}
		cancel()
	})
	var nodes []int32
	for _, s := range inst.raft.GetConfiguration().Configuration().Servers {
		nodes = append(nodes, memberNode(s.ID))
	}
	slices.Sort(nodes)
	for {
		err := g.setMembers(ctx, slices.Compact(nodes), true)
		if err == nil || ctx.Err() != nil {
			return
		}
		if _, err := g.LeaderEpoch(); err != nil {
			return // the next leader hears of it, and changes the members to those assigned
		}
		g.cfg.Logger.Warn("a new replica is no member yet; tried again", "error", err)
		select {
		case <-time.After(replacePause):
		case <-ctx.Done():
		}
	}
}

// otherReplica is what a message for another replica is answered.
func otherReplica(node int32, to, here raft.ServerID) error {
	return &RemoteError{Node: node, Replica: string(here), Text: fmt.Sprintf("it is for replica %s, here is %s", to, here)}
}

var (
	_ engine.Damageable       = (*Group)(nil)
	_ partition.DamageWatcher = (*Group)(nil)
)

// ReadFailed implements partition.DamageWatcher. What a reader saw may have been a file that
// was going; what is read twice at one place is not.
func (g *Group) ReadFailed(err error) {
	var bad *log.CorruptionError
	if !errors.As(err, &bad) || bad.FirstOffset < 0 {
		return
	}
	g.mu.Lock()
	inst := g.inst
	if inst == nil || g.stopped || g.looking {
		g.mu.Unlock()
		return
	}
	g.looking = true
	g.work.Go(func() {
		again := g.readAgain(inst, bad.FirstOffset)
		g.mu.Lock()
		g.looking = false
		g.mu.Unlock()
		if again != nil {
			inst.fail(fmt.Errorf("read offset %d: %w", bad.FirstOffset, again))
		}
	})
	g.mu.Unlock()
}

// readAgain looks at a place where damage was seen.
func (g *Group) readAgain(inst *instance, offset int64) error {
	p := inst.store.p
	r, err := p.Log().ReadFrom(max(offset, p.LogStart()))
	if err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, log.ErrCorrupt) || p.LogStart() > offset {
		return nil
	}
	return err
}
