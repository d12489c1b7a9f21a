package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog/partition"
)

// Who leads a partition is the first of its replicas, the preferred leader, where that is possible:
// so leaders are where they were meant to be. After a failure another one leads; who leads
// instead gives that back, asked to (ElectPreferred, TransferLeadership, from any node), or by
// itself when the preferred leader has been well for a while.

const (
	// preferredPause is for how long the preferred leader has to be in sync before it is given the lead, where
	// Options.PreferredLeaders is zero.
	preferredPause = 30 * time.Second
	// preferredRate is how often this node gives a lead away by itself, one at a time.
	preferredRate = time.Second
)

const serviceLead = "lead"

// leadCall asks who leads a partition to give that to another node. Preferred asks for the first of
// its replicas, if that is in sync.
type leadCall struct {
	Topic     TopicID
	Partition int32
	To        int32
	Preferred bool
}

// leadGiven is the answer.
type leadGiven struct{ Moved bool }

func (e *Engine) serveLead(ctx context.Context, c *leadCall) (leadGiven, error) {
	p, err := e.partitionAsked(ctx, c.Topic, c.Partition)
	if err != nil {
		return leadGiven{}, err
	}
	moved, err := p.giveLead(ctx, c)
	return leadGiven{moved}, err
}

// giveLead has another node lead the partition, which this one leads.
func (p *Partition) giveLead(ctx context.Context, c *leadCall) (moved bool, err error) {
	if err := p.leads(); err != nil {
		return false, err
	}
	self, to := p.engine.identity.node, c.To
	members := p.repl.Status().Members
	find := func(node int32) *MemberStatus {
		if i := slices.IndexFunc(members, func(m MemberStatus) bool { return m.Node == node }); i >= 0 {
			return &members[i]
		}
		return nil
	}
	if c.Preferred {
		t, err := p.engine.TopicByID(p.topicID)
		if err != nil {
			return false, err
		}
		replicas := t.Replicas(p.id)
		if len(replicas) == 0 {
			return false, nil
		}
		to = replicas[0]
		if m := find(to); m == nil || !m.Voter || !m.InSync {
			return false, nil
		}
	}
	if to == self {
		return false, nil
	}
	if to != 0 {
		refuse := func(why string) (bool, error) {
			return false, &InvalidAssignmentError{Topic: p.topic, Partition: p.id, Reason: fmt.Sprintf("node %d %s", to, why)}
		}
		switch m := find(to); {
		case m == nil:
			return refuse("has no replica, so it cannot lead")
		case !m.Voter:
			return refuse("gets the log and has no vote yet, so it cannot lead")
		}
	} else if len(members) < 2 {
		return false, &InvalidAssignmentError{Topic: p.topic, Partition: p.id, Reason: "there is no other replica that could lead"}
	}
	err = p.repl.Transfer(ctx, to)
	if no := (*InvalidAssignmentError)(nil); errors.As(err, &no) {
		err = &InvalidAssignmentError{Topic: p.topic, Partition: p.id, Reason: no.Reason}
	}
	return err == nil, err
}

// lead has whoever leads the partition answer c.
func (p *Partition) lead(ctx context.Context, c leadCall) (moved bool, err error) {
	c.Topic, c.Partition = p.topicID, p.id
	r := p.route("transfer leadership of")
	r.again, r.firm = true, true
	err = r.run(ctx, func(ctx context.Context) (err error) {
		moved, err = p.Current().giveLead(ctx, &c)
		return err
	}, func(ctx context.Context, node int32) error {
		a, err := callStruct[leadCall, leadGiven](ctx, p.engine, node, serviceLead, &c)
		moved = a.Moved
		return err
	})
	return moved, err
}

// GiveLead has whoever leads a partition give that to a node, 0 for any. (ElectLeaders)
func (e *Engine) GiveLead(ctx context.Context, p *Partition, to int32) error {
	err := e.replicatedError()
	if err == nil {
		_, err = p.lead(ctx, leadCall{To: to})
	}
	return err
}

// ElectLeader is GiveLead that says whether another node has come to lead: not when the node leads already. (ElectLeaders)
func (e *Engine) ElectLeader(ctx context.Context, p *Partition, to int32) (moved bool, err error) {
	if err := e.replicatedError(); err != nil {
		return false, err
	}
	return p.lead(ctx, leadCall{To: to})
}

// TransferLeadership has another replica lead a partition: node to, or with 0 one that the
// group chooses. Any node may be asked: it is done by the one that leads the partition. A
// node that has no replica is an *InvalidAssignmentError.
func (e *Engine) TransferLeadership(ctx context.Context, topic string, n, to int32) error {
	err := e.replicatedError()
	if err == nil {
		var p *Partition
		if _, p, err = e.FindPartition(ctx, topic, n); err == nil {
			err = e.GiveLead(ctx, p, to)
		}
	}
	if err != nil {
		return fmt.Errorf("transfer leadership of %s/%d: %w", topic, n, err)
	}
	return nil
}

// ElectPreferred has the first replica of every partition lead it, on whatever node that is, where
// it is in sync, and returns how many were handed over. Those that failed are joined in the
// error. (ElectLeaders)
func (e *Engine) ElectPreferred(ctx context.Context) (moved int, err error) {
	if err := e.replicatedError(); err != nil {
		return 0, fmt.Errorf("elect preferred leaders: %w", err)
	}
	var errs []error
	for _, t := range e.Topics() {
		for n, p := range t.partitions {
			replicas := t.meta.replicasOf(n).nodes
			if len(replicas) == 0 {
				continue
			}
			// Who has no replica knows only who led when it last asked.
			if node, _ := p.Leader(); p.repl != nil && node == replicas[0] {
				continue
			}
			did, err := p.lead(ctx, leadCall{Preferred: true})
			if err != nil {
				errs = append(errs, err)
			}
			if did {
				moved++
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return moved, fmt.Errorf("elect preferred leaders: %w", err)
	}
	return moved, nil
}

// givesBack gives one partition that this node leads to its preferred leader, when that has been in sync for
// long enough. (auto.leader.rebalance.enable)
func (r *replicas) givesBack() {
	e, now := r.e, time.Now()
	pause := e.options.PreferredLeaders
	if pause == 0 {
		pause = preferredPause
	}
	r.mu.Lock()
	due := pause > 0 && now.Sub(r.gaveAt) >= preferredRate
	if due {
		r.gaveAt = now
	}
	r.mu.Unlock()
	if !due {
		return
	}
	well := make(map[LogID]time.Time)
	var give *Partition
	var since time.Time
	for _, t := range e.view.Load().byID {
		for n, p := range t.partitions {
			a := t.meta.replicasOf(n)
			if p.repl == nil || len(a.nodes) == 0 || a.nodes[0] == e.identity.node || !a.has(e.identity.node) || !p.Leads() {
				continue
			}
			ready := slices.ContainsFunc(p.repl.Status().Members, func(m MemberStatus) bool { return m.Node == a.nodes[0] && m.Voter && m.InSync })
			if !ready {
				continue
			}
			id := LogID{t.meta.id, int32(n)}
			at, ok := r.well[id]
			if !ok {
				at = now
			}
			well[id] = at
			if now.Sub(at) >= pause && (give == nil || at.Before(since)) {
				give, since = p, at
			}
		}
	}
	r.well = well
	if give == nil {
		return
	}
	// One that fails is waited for anew.
	delete(r.well, LogID{give.topicID, give.id})
	r.task("give leads back", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		_, err := give.giveLead(ctx, &leadCall{Preferred: true})
		if errors.Is(err, partition.ErrNotLeader) {
			return nil
		}
		return err
	})
}
