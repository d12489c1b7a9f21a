package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A topic says how many replicas a partition is to have, and a node that is drained, that it is to have none. Both are
// intentions: whoever leads the metadata makes assignments follow them whenever there is a place, so that a drain that was
// interrupted goes on, and a partition that has too few replicas because a node went gets one as soon as another is there.
//
//	replica on a drained node, another node has room   -> it goes there
//	fewer replicas than the topic wants                -> one more
//	no other node has room                             -> it stays as it is, and status says so
//
// Room has a node that is registered, was heard of a short while ago, is not drained and has no replica of the partition.

// placeTries bounds how often assignments are looked at again that somebody else has changed meanwhile.
const placeTries = 10

// room are the nodes where a replica can go now, ascending.
func (m *metadata) room(alive func(int32) bool) (nodes []int32) {
	for _, id := range m.able() {
		if alive(id) {
			nodes = append(nodes, id)
		}
	}
	return nodes
}

// unplaced are the commands that make assignments follow what is wanted, a topic each. Replicas on the node leaves go even
// where there is no room elsewhere: those partitions have one less.
func (m *metadata) unplaced(alive func(int32) bool, leaves int32) (list []*command) {
	var room []int32
	var load map[int32]int
	for _, t := range inOrder(m.byID) {
		c := &command{kind: assignCommand, topic: topicMeta{id: t.id}}
		for n := range t.replicas {
			a := t.replicas[n]
			if len(a.nodes) >= t.factor && !slices.ContainsFunc(a.nodes, m.drained) {
				continue
			}
			if load == nil {
				load, room = m.load(), m.room(alive)
			}
			if nodes := m.placed(a.nodes, t.factor, room, load, leaves, alive); !slices.Equal(nodes, a.nodes) {
				c.placed = append(c.placed, placed{n, assignment{a.epoch + 1, nodes}})
			}
		}
		if len(c.placed) > 0 {
			list = append(list, c)
		}
	}
	return list
}

func (m *metadata) drained(node int32) bool {
	n := m.nodes[node]
	return n != nil && n.draining
}

// placed are the nodes that a partition is to have, as far as there is room. load counts what goes there.
func (m *metadata) placed(has []int32, factor int, room []int32, load map[int32]int, leaves int32, alive func(int32) bool) []int32 {
	nodes := slices.Clone(has)
	for at := 0; at < len(nodes); at++ {
		node := nodes[at]
		if !m.drained(node) || len(nodes) == 1 && !alive(node) && node != leaves {
			continue // what only a node has that is gone is not given up by itself
		}
		if other, ok := least(room, load, nodes); ok {
			nodes[at] = other
			load[other]++
		} else if node == leaves && len(nodes) > 1 {
			nodes = slices.Delete(nodes, at, at+1)
			at--
		}
	}
	for len(nodes) < factor {
		other, ok := least(room, load, nodes)
		if !ok {
			break
		}
		nodes = append(nodes, other)
		load[other]++
	}
	return nodes
}

// checkDrain says why the replicas of a node cannot all go elsewhere: then nothing is begun. lost says that the node is gone
// for good, with what only it has.
func (m *metadata) checkDrain(id int32, alive func(int32) bool, lost bool) error {
	if m.nodes[id] == nil {
		return &UnknownNodeError{id}
	}
	room := slices.DeleteFunc(m.room(alive), func(n int32) bool { return n == id })
	var only []string
	for _, t := range inOrder(m.byID) {
		for n := range t.replicas {
			if slices.Equal(t.replicas[n].nodes, []int32{id}) {
				only = append(only, fmt.Sprintf("%s/%d", t.name, n))
			}
		}
	}
	switch {
	case len(only) == 0:
		return nil
	case len(room) == 0:
		return &ReplicationFactorError{Factor: 1, Nodes: 0, Expected: m.neverCame()}
	case !alive(id) && !lost:
		return &InvalidNodeError{Node: id, Reason: fmt.Sprintf("it is not heard of, and has the only replica of %s: their records are there and nowhere else. Start it first; if its disk is gone for good, drain it as lost (`embedlog cluster drain %d --accept-loss`)", few(only), id)}
	}
	return nil
}

// neverCame is how many nodes were added and were never there.
func (m *metadata) neverCame() (n int) {
	for _, node := range m.nodes {
		if node.directory.IsZero() && !node.draining {
			n++
		}
	}
	return n
}

// few names some of a list.
func few(list []string) string {
	const shown = 3
	text := ""
	for i, s := range list[:min(len(list), shown)] {
		if i > 0 {
			text += ", "
		}
		text += s
	}
	if n := len(list) - shown; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// alive says which nodes were heard of a short while ago.
func (e *Engine) alive(node int32) bool {
	return node == e.identity.node || e.replicas.heardLately(node, e.now())
}

// place makes assignments follow what is wanted: see unplaced. It is for who administers.
func (e *Engine) place(ctx context.Context, leaves int32) error {
	for range placeTries {
		var list []*command
		e.meta.view(func(m *metadata) { list = m.unplaced(e.alive, leaves) })
		if len(list) == 0 {
			return nil
		}
		for _, c := range list {
			// Topics are deleted, and others assign, meanwhile: it is looked at again.
			if _, err := e.meta.do(ctx, c); err != nil && !errors.Is(err, ErrUnknownTopic) && !errors.Is(err, ErrInvalidAssignment) {
				return err
			}
		}
	}
	return nil
}

// places is what the leader of the metadata does about it by itself.
func (r *replicas) places() {
	e := r.e
	if leader, _ := e.meta.group.log.Leader(); leader != e.identity.node {
		return
	}
	var some bool
	e.meta.view(func(m *metadata) { some = len(m.unplaced(e.alive, 0)) > 0 })
	if some {
		r.task("replicas where there is a place for them", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, membersTimeout)
			defer cancel()
			return e.administer(ctx, "place replicas", func() error { return e.place(ctx, 0) })
		})
	}
}
