package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A group of which no majority has a vote any more waits for a person. Two things
// can be decided, and both may lose records that were acknowledged:
//
//	in doubt   a majority is there and stopped without order at a level below durable: so many get
//	           their votes again that there is just a majority of votes, those with the longest logs
//	           first. Who leads needs all of them, and so has the longest log; the others catch up
//	lost       the disks of so many are gone that no majority is left: this replica becomes
//	           the only member of its group, and the others are members again as they come

// ErrNotRecoverable says that a log's group does not need to be recovered, or not so, or
// not here; the text says which. Nothing was changed.
var ErrNotRecoverable = errors.New("embedlog: not to be recovered")

// Recoverable is what a ReplicatedLog may be, too.
type Recoverable interface {
	// Doubtful says that the replica may have lost what it had acknowledged, and has no vote.
	Doubtful() bool
	// EndDoubt gives it its vote again.
	EndDoubt()
	// Last is the log's last entry; ok is false when the replica does not take part.
	Last() (index, epoch uint64, ok bool)
	// TakeOver makes the replica the only member of its group, with all that it has.
	// It fails where somebody is known to lead.
	TakeOver() error
}

// Recovery is what a recovery was decided on.
type Recovery struct {
	// Doubted are the nodes whose replicas were in doubt and have their votes again: those with
	// the longest logs, as many as it takes for a majority.
	Doubted []int32
	// Alone says that this node's replica became the only member.
	Alone bool
	// Last is the last entry of this node's replica: what comes behind it is lost.
	Last uint64
}

const recoverService = "replica.recover"

// tail is where a node's replica ends.
type tail struct {
	node         int32
	index, epoch uint64
	doubtful     bool
}

// RecoverReplica is a person's decision about the log of partition n of a topic, or about the metadata when
// topic is empty, that has no leader and cannot get one. Without lost, the replicas that can be
// reached, a majority, go on with what they have. With lost, nodes whose disks are gone for good, this
// node's replica goes on without them; it must be the longest that is left. A node that is
// named lost must not come back with its old directory.
//
// It fails with ErrNotRecoverable where that is not so.
func (e *Engine) RecoverReplica(ctx context.Context, topic string, n int32, lost []int32) (Recovery, error) {
	name := "the metadata"
	if topic != "" {
		name = fmt.Sprintf("%s/%d", topic, n)
	}
	r, err := e.recoverReplica(ctx, topic, n, lost)
	if err != nil {
		return r, fmt.Errorf("recover %s: %w", name, err)
	}
	e.logger.Warn("a log was recovered by decision: acknowledged records may be lost", "log", name, "alone", r.Alone, "doubted", r.Doubted, "last", r.Last)
	return r, nil
}

func (e *Engine) recoverReplica(ctx context.Context, topic string, n int32, lost []int32) (out Recovery, err error) {
	if err := e.replicatedError(); err != nil {
		return out, err
	}
	id := LogID{}
	if topic != "" {
		t, err := e.Topic(topic)
		if err != nil {
			return out, err
		}
		if _, err := t.Partition(n); err != nil {
			return out, err
		}
		id = LogID{t.meta.id, n}
	}
	no := func(format string, args ...any) (Recovery, error) {
		return out, fmt.Errorf("%w: "+format, append([]any{ErrNotRecoverable}, args...)...)
	}
	l := e.replicatedLog(id)
	r, ok := l.(Recoverable)
	if !ok {
		return no("this node has no replica of it")
	}
	if leader, _ := l.Leader(); leader > 0 {
		return no("node %d leads it", leader)
	}
	index, epoch, ok := r.Last()
	if !ok {
		return no("the replica on this node does not take part: %s", l.Status().Reason)
	}
	out.Last = index
	var voters []int32
	for _, m := range l.Status().Members {
		if m.Voter {
			voters = append(voters, m.Node)
		}
	}
	majority := len(voters)/2 + 1
	self := e.identity.node
	if !slices.Contains(voters, self) {
		return no("the replica on this node is not a member with a vote")
	}
	here := []tail{{self, index, epoch, r.Doubtful()}}
	var silent []string
	left := 1
	for _, node := range voters {
		if node == self || slices.Contains(lost, node) {
			continue
		}
		left++
		t, err := e.askTail(ctx, node, id, false)
		if err != nil {
			silent = append(silent, fmt.Sprintf("node %d: %v", node, err))
			continue
		}
		here = append(here, t)
	}
	if len(lost) == 0 {
		doubted := slices.DeleteFunc(slices.Clone(here), func(t tail) bool { return !t.doubtful })
		slices.SortStableFunc(doubted, func(a, b tail) int {
			return cmp.Or(cmp.Compare(b.epoch, a.epoch), cmp.Compare(b.index, a.index))
		})
		sure := len(here) - len(doubted)
		switch {
		case len(here) < majority:
			return no("%d of %d replicas are there, and %d are needed: start the others, or name those whose disks are gone as lost (%s)", len(here), len(voters), majority, strings.Join(silent, "; "))
		case sure >= majority:
			return no("%d of %d replicas are there and not in doubt, a majority: a leader is elected by itself", sure, len(voters))
		}
		for _, t := range doubted[:majority-sure] {
			if t.node == self {
				r.EndDoubt()
			} else if _, err := e.askTail(ctx, t.node, id, true); err != nil {
				return out, err
			}
			out.Doubted = append(out.Doubted, t.node)
		}
		return out, nil
	}
	switch {
	case slices.Contains(lost, self):
		return no("node %d is this one", self)
	case left >= majority:
		return no("%d of %d replicas are not lost: a majority, which does without a decision", left, len(voters))
	case len(silent) > 0:
		return no("not all that are left can be asked: %s", strings.Join(silent, "; "))
	}
	for _, t := range here {
		if t.epoch > epoch || t.epoch == epoch && t.index > index {
			return no("node %d has more of it, up to entry %d of epoch %d; here it ends at %d of %d: recover it there", t.node, t.index, t.epoch, index, epoch)
		}
	}
	if err := r.TakeOver(); err != nil {
		return out, err
	}
	out.Alone = true
	return out, nil
}

// replicatedLog is this node's replica of a log; nil when it has none that runs.
func (e *Engine) replicatedLog(id LogID) ReplicatedLog {
	if id.IsMeta() {
		return e.meta.group.log
	}
	t := e.view.Load().byID[id.Topic]
	if t == nil || int(id.Partition) >= len(t.partitions) || t.partitions[id.Partition].repl == nil {
		return nil
	}
	return t.partitions[id.Partition].repl
}

// askTail asks a node where its replica ends, and with endDoubt to give it its vote again.
func (e *Engine) askTail(ctx context.Context, node int32, id LogID, endDoubt bool) (tail, error) {
	w := wire{}
	w.id(id.Topic)
	w.number(uint64(id.Partition))
	w.number(bit(endDoubt))
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	answer, err := e.cluster.Call(ctx, node, recoverService, w.b)
	if err != nil {
		return tail{}, err
	}
	d := decoder{b: answer}
	t := tail{node: node, index: d.number(1 << 62), epoch: d.number(1 << 62), doubtful: d.number(1) == 1}
	if d.failed {
		return tail{}, errors.New("malformed answer")
	}
	return t, nil
}

func bit(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// serveRecover answers askTail.
func (e *Engine) serveRecover(_ context.Context, from int32, req []byte) ([]byte, error) {
	d := decoder{b: req}
	id := LogID{Topic: d.id(), Partition: int32(d.number(maxPartitions))}
	end := d.number(1) == 1
	if d.failed {
		return nil, errors.New("malformed request")
	}
	l := e.replicatedLog(id)
	r, ok := l.(Recoverable)
	if !ok {
		return nil, errors.New("no replica is here")
	}
	if leader, _ := l.Leader(); leader > 0 {
		return nil, fmt.Errorf("node %d leads", leader)
	}
	index, epoch, ok := r.Last()
	if !ok {
		return nil, errors.New("the replica does not take part: " + l.Status().Reason)
	}
	doubtful := r.Doubtful()
	if end && doubtful {
		e.logger.Warn("the replica's doubt is ended by decision", "topic", id.Topic.String(), "partition", id.Partition, "asked_by", from)
		r.EndDoubt()
	}
	w := wire{}
	w.number(index)
	w.number(epoch)
	w.number(bit(doubtful))
	return w.b, nil
}
