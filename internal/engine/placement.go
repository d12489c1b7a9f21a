package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog/log"
)

// defaultReplicationFactor is what a topic gets where nobody says it and there are so
// many nodes.
const defaultReplicationFactor = 3

// place chooses the replicas of n partitions as Kafka does without racks: first replicas
// go round the nodes, from a start that goes on from topic to topic; the others follow at a
// distance that grows with each round, so that a node's followers are spread.
//
//	3 nodes, 2 replicas, start 0:   0 -> 1,2   1 -> 2,3   2 -> 3,1   3 -> 1,3   4 -> 2,1
func place(nodes []int32, factor, n, start int) []placed {
	list := make([]placed, n)
	shift := start / len(nodes)
	for i := range list {
		at := start + i
		if i > 0 && at%len(nodes) == 0 {
			shift++
		}
		first := at % len(nodes)
		replicas := []int32{nodes[first]}
		for j := range factor - 1 {
			replicas = append(replicas, nodes[(first+1+(shift+j)%(len(nodes)-1))%len(nodes)])
		}
		list[i] = placed{i, assignment{1, replicas}}
	}
	return list
}

// able are the nodes that get new replicas, ascending. A node that was not there yet
// gets none: which directory speaks for it has to be known before it begins a group.
func (m *metadata) able() (nodes []int32) {
	for _, id := range m.nodeIDs() {
		if n := m.nodes[id]; !n.draining && !n.directory.IsZero() {
			nodes = append(nodes, id)
		}
	}
	return nodes
}

// wanted is how many replicas a partition gets where nobody says it: those of nodes that
// are still expected are not forgone.
func (m *metadata) wanted() int {
	return min(defaultReplicationFactor, max(m.expected(), 1))
}

// expected is how many nodes can have replicas when all are there that are known.
func (m *metadata) expected() (n int) {
	for _, node := range m.nodes {
		if !node.draining {
			n++
		}
	}
	return n
}

// tooFew says that there cannot be so many replicas.
func (m *metadata) tooFew(factor int) error {
	return &ReplicationFactorError{Factor: factor, Nodes: len(m.able()), Expected: m.expected()}
}

// place chooses replicas for n new partitions, or says why there cannot be so many.
func (m *metadata) place(factor, n int) ([]placed, error) {
	nodes := m.able()
	if factor < 1 || factor > min(len(nodes), maxReplicas) {
		return nil, m.tooFew(factor)
	}
	start := 0
	for _, t := range m.byID {
		start += t.partitions
	}
	return place(nodes, factor, n, start), nil
}

// creation is the command that makes a topic. In a cluster it says which nodes have it.
func (e *Engine) creation(t *Topic, spec TopicSpec) (c *command, err error) {
	c = &command{kind: createTopicCommand, topic: *t.meta}
	if e.cluster == nil {
		if f := spec.ReplicationFactor; f < 0 || f > 1 {
			return nil, &ReplicationFactorError{Factor: f, Nodes: 1, Expected: 1}
		}
		if spec.Replicas != nil {
			return nil, &InvalidAssignmentError{t.meta.name, 0, "the database is not replicated"}
		}
		return c, nil
	}
	c.kind, c.factor = createReplicatedCommand, spec.ReplicationFactor
	e.meta.view(func(m *metadata) {
		if spec.Replicas != nil {
			c.placed, err = given(t.meta, spec)
			c.factor = len(spec.Replicas[0])
			if err == nil { // all of it, for who only asks
				err = m.checkPlaced(t.meta.name, c.factor, c.placed)
			}
			return
		}
		if c.factor == 0 {
			c.factor = e.options.ReplicationFactor
		}
		if c.factor == 0 {
			c.factor = m.wanted()
		}
		c.placed, err = m.place(c.factor, t.meta.partitions)
	})
	for i := range c.placed {
		if err == nil && spec.Replicas != nil {
			err = e.neverThere(t.meta.name, int32(i), c.placed[i].nodes)
		}
	}
	return c, err
}

// nodesPatience is how long a new topic waits for nodes that are expected, and that it needs.
const nodesPatience = 10 * time.Second

// beginCreation is beginChange and creation. Where nodes are too few that can have replicas, and some are known that were
// not there yet, it waits for those: a cluster begins with nodes that come one after the other, and none of them is known at first.
func (e *Engine) beginCreation(ctx context.Context, t *Topic, spec TopicSpec) (*command, error) {
	deadline := time.Now().Add(nodesPatience)
	var why error // it waits
	for {
		if err := e.beginChange(ctx); err != nil {
			if why != nil && ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", why, err)
			}
			return nil, err
		}
		begun := e.cluster == nil
		e.meta.view(func(m *metadata) { begun = begun || m.begun() })
		c, err := e.creation(t, spec)
		if err == nil {
			return c, nil
		}
		e.endChange()
		var few *ReplicationFactorError
		if !errors.As(err, &few) || few.Factor < 1 || !time.Now().Before(deadline) {
			return nil, err
		}
		if begun && few.Expected < few.Factor {
			return nil, err
		}
		why = err
		select {
		case <-time.After(longestPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		case <-e.life.Done():
			return nil, log.ErrClosed
		}
	}
}

// given are the replicas that the caller has chosen, the same number for each partition.
func given(meta *topicMeta, spec TopicSpec) (list []placed, err error) {
	if len(spec.Replicas) != meta.partitions {
		return nil, &InvalidAssignmentError{meta.name, 0, fmt.Sprintf("for %d partitions, the topic has %d", len(spec.Replicas), meta.partitions)}
	}
	for i, nodes := range spec.Replicas {
		if len(nodes) != len(spec.Replicas[0]) || spec.ReplicationFactor != 0 && len(nodes) != spec.ReplicationFactor {
			return nil, &InvalidAssignmentError{meta.name, int32(i), fmt.Sprintf("%d of them, other partitions have %d", len(nodes), len(spec.Replicas[0]))}
		}
		list = append(list, placed{i, assignment{1, slices.Clone(nodes)}})
	}
	return list, nil
}

// factorWith is how many replicas the topic wants when some are chosen by hand: as many as all partitions then have, or
// not more than were chosen, so that none is added to them.
func (t *topicMeta) factorWith(list []placed) int {
	counts := make([]int, len(t.replicas))
	for n := range t.replicas {
		counts[n] = len(t.replicas[n].nodes)
	}
	fewest := max(t.factor, 1)
	for _, p := range list {
		if len(p.nodes) == 0 || p.partition >= len(counts) {
			return 0 // it is refused
		}
		counts[p.partition] = len(p.nodes)
		fewest = min(fewest, len(p.nodes))
	}
	if slices.Min(counts) == slices.Max(counts) {
		return min(counts[0], maxReplicas)
	}
	return fewest
}

// givenMore are the replicas that the caller has chosen for partitions that are added.
func (e *Engine) givenMore(t *Topic, total int, replicas [][]int32) (list []placed, err error) {
	has, factor := t.meta.partitions, t.ReplicationFactor()
	if len(replicas) != total-has {
		return nil, &InvalidAssignmentError{t.meta.name, int32(has), fmt.Sprintf("for %d partitions, %d are added", len(replicas), total-has)}
	}
	for i, nodes := range replicas {
		n := has + i
		if len(nodes) != factor {
			return nil, &InvalidAssignmentError{t.meta.name, int32(n), fmt.Sprintf("%d of them, the topic's replication factor is %d", len(nodes), factor)}
		}
		list = append(list, placed{n, assignment{1, slices.Clone(nodes)}})
	}
	e.meta.view(func(m *metadata) { err = m.checkPlaced(t.meta.name, factor, list) })
	for i := range list {
		if err == nil {
			err = e.neverThere(t.meta.name, int32(list[i].partition), list[i].nodes)
		}
	}
	return list, err
}

// replicatedAddition is the command that gives a topic more partitions in a cluster. replicas are the nodes of
// each that is added, where the caller has chosen them.
func (e *Engine) replicatedAddition(t *Topic, total int, replicas [][]int32) (c *command, err error) {
	c = &command{kind: addReplicatedCommand, topic: topicMeta{id: t.meta.id}, total: total}
	if len(replicas) > 0 {
		c.placed, err = e.givenMore(t, total, replicas)
		return c, err
	}
	e.meta.view(func(m *metadata) { c.placed, err = m.place(max(t.meta.factor, 1), total-t.meta.partitions) })
	for i := range c.placed {
		c.placed[i].partition += t.meta.partitions
	}
	return c, err
}
