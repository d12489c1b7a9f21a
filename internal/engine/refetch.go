package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A replica whose files are damaged has stopped, and its partition with it; the others of
// this node go on. When a majority of its group goes on without it, it is given up and
// fetched again, as another replica of its group:
//
//	damage            the group stops here; Status says why
//	ask the others    one says that it leads, and that a majority has just agreed
//	Renewer.Renew     from here on the old files are nobody's
//	rename, remove    a crash in between: the files that are left do not run, and go
//	bring             an empty log, which the leader makes a member and sends what it has
//
// Without a majority nothing is removed: what is left here may be all there is. Neither is
// it where this node is the only one that is assigned.

// ReplaceNode is what a person does about a node that has lost what makes it itself: its votes, its metadata,
// the count of its starts. None of these is fetched again: without them nobody knows
// what the node has promised in its groups.
const ReplaceNode = "Replace the node: start one with another number, an empty directory and --join. On a node that runs then, with N for the number of this one: " +
	"embedlog cluster add for the new one; embedlog cluster drain N; and when embedlog cluster status shows no replica on N any more, embedlog cluster remove N"

// damaged is why the metadata on this node has stopped for good; nil when it is well. What this node knows of
// topics and nodes is what it knew then: the others go on, and what it leads it gives to them.
func (g *metaGroup) damaged() error {
	d, ok := g.log.(Damageable)
	if !ok || d.Damaged() == nil {
		return nil
	}
	return fmt.Errorf("the metadata on this node is damaged, and has stopped; the other nodes go on: %w. Stop this node. %s", d.Damaged(), ReplaceNode)
}

// giveAllAway has other replicas lead what this node leads: it hears nothing of the metadata any more, and who leads
// has to know which replicas there are to be.
func (r *replicas) giveAllAway() {
	for _, t := range r.e.view.Load().byID {
		for _, p := range t.partitions {
			if y, ok := p.repl.(Yielder); ok {
				y.Yield() // or it would be given back, as to the preferred leader
			}
			if !p.Leads() || len(p.repl.Status().Members) < 2 {
				continue
			}
			r.task("give the lead of "+p.String()+" away", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, peerTimeout)
				defer cancel()
				return p.repl.Transfer(ctx, 0)
			})
		}
	}
}

// withAdvice says what to do about damage that keeps a node from starting.
func (e *Engine) withAdvice(err error) error {
	if e.cluster == nil || strings.Contains(err.Error(), ReplaceNode) {
		return err
	}
	switch {
	case errors.Is(err, ErrWrongDirectory):
		return fmt.Errorf("%w. If it is a node's that has lost files: put them back if they were moved away. If they are gone: %s", err, ReplaceNode)
	case errors.Is(err, log.ErrCorrupt), errors.Is(err, ErrReplicaLost):
		return fmt.Errorf("%w. %s", err, ReplaceNode)
	}
	return err
}

const refetchService = "replica.refetch"

// What keeps a disk that damages all it is given from being filled again and again.
const (
	refetchAgain   = 10 * time.Minute // before a second fetch, doubled by each
	refetchAtMost  = 24 * time.Hour
	refetchForgets = 2 * refetchAtMost // a log that was well for so long
)

// refetched is how often a log was fetched again, and when it was last.
type refetched struct {
	times int
	last  time.Time
}

// damage is why this node's replica of the partition has to be fetched again; nil when it is well, or
// when this node has none.
func (p *Partition) damage() error {
	if p.engine.cluster == nil || p.elsewhere {
		return nil
	}
	if d, ok := p.repl.(Damageable); ok {
		return d.Damaged()
	}
	if err := p.Err(); p.repl == nil && (errors.Is(err, log.ErrCorrupt) || errors.Is(err, ErrReplicaLost)) {
		return err
	}
	return nil
}

// mayRefetch says whether a log may be fetched again now, and when if not.
func (r *replicas) mayRefetch(id LogID, now time.Time) (at time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, was := r.refetched[id]
	if !was {
		return now, true
	}
	at = h.last.Add(min(refetchAgain<<min(h.times-1, 10), refetchAtMost))
	return at, !now.Before(at)
}

func (r *replicas) noteRefetch(id LogID, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.refetched[id]
	if now.Sub(h.last) > refetchForgets {
		h.times = 0
	}
	if r.refetched == nil {
		r.refetched = make(map[LogID]refetched)
	}
	r.refetched[id] = refetched{h.times + 1, now}
}

// refetch gives a damaged replica up and fetches it again, when the others do without it.
func (r *replicas) refetch(ctx context.Context, p *Partition, a assignment, damage error) error {
	e, id := r.e, LogID{p.topicID, p.id}
	if _, ok := r.mayRefetch(id, time.Now()); !ok {
		return nil
	}
	w := wire{}
	w.id(p.topicID)
	w.number(uint64(p.id))
	w.number(uint64(a.epoch))
	var errs []error
	for _, node := range a.nodes {
		if node == e.identity.node {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		answer, err := e.cluster.Call(ctx, node, refetchService, w.b)
		cancel()
		if err == nil && len(answer) == 1 && answer[0] == 1 {
			return r.giveUp(p, node, damage)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrPeerUnreachable, err)
	}
	return &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}
}

// serveRefetch answers 1 when this node leads the log and a majority has said since that
// it does: the one that asks, whose group has stopped, is not among them.
func (e *Engine) serveRefetch(ctx context.Context, from int32, req []byte) ([]byte, error) {
	d := decoder{b: req}
	id := LogID{Topic: d.id(), Partition: int32(d.number(maxPartitions))}
	assigned := int32(d.number(maxNodeID))
	if d.failed {
		return nil, errors.New("malformed request")
	}
	no := []byte{0}
	t := e.view.Load().byID[id.Topic]
	if t == nil || int(id.Partition) >= len(t.partitions) {
		return no, nil
	}
	p, a := t.partitions[id.Partition], t.meta.replicasOf(int(id.Partition))
	if p.repl == nil || a.epoch < assigned || !a.has(from) || !p.Leads() || p.damage() != nil || p.repl.Confirm(ctx) != nil {
		return no, nil
	}
	return []byte{1}, nil
}

// giveUp removes a damaged replica and begins an empty one.
func (r *replicas) giveUp(p *Partition, leader int32, damage error) error {
	e, id := r.e, LogID{p.topicID, p.id}
	renewer, ok := e.cluster.(Renewer)
	if !ok {
		return nil
	}
	e.admin <- struct{}{}
	defer e.endAdmin()
	if err := e.closedError(); err != nil {
		return err
	}
	t := e.view.Load().byID[p.topicID]
	if t == nil || t.partitions[p.id] != p || p.damage() == nil {
		return nil // it was deleted or fetched meanwhile
	}
	e.logger.Warn("a damaged replica is given up and fetched again", "partition", p.String(), "leader", leader, "damage", damage)
	p.stop()
	if err := p.Partition.CloseFor(&partition.NotLeaderError{Leader: leader, LeaderEpoch: -1, Address: e.addressOf(leader)}); err != nil {
		e.logger.Warn("a damaged replica did not close", "partition", p.String(), "error", err)
	}
	// Calls go to the others from here on, also when what follows fails.
	now := *t
	now.partitions = slices.Clone(t.partitions)
	now.partitions[p.id] = e.elsewhere(&now, int(p.id))
	e.publish(t, &now)
	e.replicas.again(p.topicID)
	if err := renewer.Renew(id); err != nil {
		return err
	}
	r.noteRefetch(id, time.Now())
	if err := e.removeReplica(p.topicID, int(p.id)); err != nil {
		return err
	}
	return e.bringTopic(p.topicID)
}

// damageReason says what is wrong with a replica and what becomes of it.
func (e *Engine) damageReason(p *Partition, replicas []int32, err error) string {
	what := "the replica on this node is damaged and has stopped: " + err.Error()
	if len(replicas) < 2 {
		return what + ". There is no other replica: what lies before and behind the damage can still be read, and written to another topic; or restore a backup"
	}
	if at, ok := e.replicas.mayRefetch(LogID{p.topicID, p.id}, time.Now()); !ok {
		return fmt.Sprintf("%s. It was fetched from the others a short while ago, and is fetched again after %s: its disk may be failing", what, at.UTC().Format(time.RFC3339))
	}
	return what + ". It is fetched from the others as soon as one of them leads with a majority"
}
