package engine

import (
	"fmt"
	"maps"
	"slices"
)

// The part of the metadata that says which nodes there are and which of them have
// what. Alone there is none of it.

// checkCluster says why a command about nodes and replicas does not hold.
func (m *metadata) checkCluster(c *command) error {
	switch c.kind {
	case registerNodeCommand:
		return m.checkNode(&c.node)
	case removeNodeCommand:
		return m.checkRemoveNode(c.node.id)
	case drainNodeCommand:
		if m.nodes[c.node.id] == nil {
			return &UnknownNodeError{c.node.id}
		}
	case createReplicatedCommand:
		if err := m.checkCreate(&c.topic); err != nil {
			return err
		}
		return m.checkPlaced(c.topic.name, c.factor, c.placed)
	case addReplicatedCommand:
		t, err := m.topic(c.topic.id)
		if err != nil {
			return err
		}
		if err := checkGrows(t, c.total); err != nil {
			return err
		}
		if len(c.placed) != c.total-t.partitions {
			// Somebody else has added some since replicas were chosen.
			return &InvalidTopicError{Name: t.name, Reason: fmt.Sprintf("replicas for %d more partitions, it has %d", len(c.placed), t.partitions)}
		}
		return m.checkPlaced(t.name, t.factor, c.placed)
	case assignCommand:
		return m.checkAssign(c)
	case movedCommand:
		t, err := m.topic(c.topic.id)
		if err != nil {
			return err
		}
		if n := len(c.placed); n > 0 && c.placed[n-1].partition >= len(t.replicas) {
			return &UnknownPartitionError{Topic: t.name, Partition: int32(c.placed[n-1].partition), Partitions: t.partitions}
		}
	case topicGoneCommand:
		if t := m.deleting[c.topic.id]; t == nil || !slices.Contains(t.waiting, c.node.id) {
			return &UnknownTopicError{ID: c.topic.id}
		}
	case clusterSnapshotCommand:
		if m.parts == nil {
			return errNoFirstPart
		}
		return m.parts.checkClusterPart(c)
	}
	return nil
}

func (m *metadata) checkNode(n *nodeMeta) error {
	has := m.nodes[n.id]
	switch {
	case n.id < 1:
		return &InvalidNodeError{Node: n.id, Reason: "its number must be 1 or more"}
	case len(n.address) > maxAddress || len(n.endpoints) > maxEndpoints:
		return &InvalidNodeError{Node: n.id, Reason: "its addresses are too long"}
	case m.wasRemoved(n.directory):
		return &NodeRemovedError{Node: n.id}
	case has == nil && len(m.nodes) >= maxNodes:
		return &InvalidNodeError{Node: n.id, Reason: fmt.Sprintf("there are %d nodes, no more can be registered", maxNodes)}
	case has == nil && !n.directory.IsZero() && m.begun():
		return &InvalidNodeError{Node: n.id, Reason: "it is not known: it was removed, or has to be added first"}
	case has != nil && !has.directory.IsZero() && !n.directory.IsZero() && has.directory != n.directory:
		return &InvalidNodeError{Node: n.id, Reason: fmt.Sprintf("it is registered with directory %s, this is %s: two directories must not speak for one node. Remove the node first, or give this directory another number", has.directory, n.directory)}
	}
	for _, p := range n.endpoints {
		if len(p.Listener) > maxAddress || len(p.Host) > maxAddress {
			return &InvalidNodeError{Node: n.id, Reason: "its addresses are too long"}
		}
	}
	if n.directory.IsZero() {
		return nil
	}
	for _, other := range m.nodes {
		if other.id != n.id && other.directory == n.directory {
			return &InvalidNodeError{Node: n.id, Reason: fmt.Sprintf("its directory %s is node %d's", n.directory, other.id)}
		}
	}
	return nil
}

// wasRemoved says that a directory was a node's that was removed.
func (m *metadata) wasRemoved(directory TopicID) bool {
	return !directory.IsZero() && slices.ContainsFunc(m.removed, func(r removed) bool { return r.directory == directory })
}

// begun says that the nodes that begin the cluster are registered: the first one that was
// there comes after all others. From then on nodes are added before they come.
func (m *metadata) begun() bool {
	for _, n := range m.nodes {
		if !n.directory.IsZero() {
			return true
		}
	}
	return false
}

func (m *metadata) checkRemoveNode(id int32) error {
	if m.nodes[id] == nil {
		return &UnknownNodeError{id}
	}
	if len(m.nodes) == 1 {
		return &InvalidNodeError{Node: id, Reason: "it is the only node"}
	}
	for _, t := range inOrder(m.byID) {
		for n := range t.replicas {
			if t.replicas[n].has(id) {
				return &InvalidNodeError{Node: id, Reason: fmt.Sprintf("it has a replica of %s/%d: drain it first", t.name, n)}
			}
		}
	}
	return nil
}

// checkPlaced looks at the replicas of partitions, with a factor of 1 or more.
func (m *metadata) checkPlaced(name string, factor int, list []placed) error {
	if factor < 1 {
		return &ReplicationFactorError{Factor: factor, Nodes: len(m.nodes), Expected: len(m.nodes)}
	}
	for _, p := range list {
		if err := m.checkReplicas(name, &p); err != nil {
			return err
		}
	}
	return nil
}

func (m *metadata) checkReplicas(name string, p *placed) error {
	refuse := func(reason string) error {
		return &InvalidAssignmentError{Topic: name, Partition: int32(p.partition), Reason: reason}
	}
	if len(p.nodes) == 0 || len(p.nodes) > maxReplicas {
		return refuse(fmt.Sprintf("%d nodes: want 1 to %d", len(p.nodes), maxReplicas))
	}
	for i, n := range p.nodes {
		if m.nodes[n] == nil {
			return refuse(fmt.Sprintf("node %d is not registered", n))
		}
		if slices.Contains(p.nodes[:i], n) {
			return refuse(fmt.Sprintf("node %d is named twice", n))
		}
	}
	return nil
}

func (m *metadata) checkAssign(c *command) error {
	t, err := m.topic(c.topic.id)
	if err != nil {
		return err
	}
	for _, p := range c.placed {
		if p.partition >= len(t.replicas) {
			return &UnknownPartitionError{Topic: t.name, Partition: int32(p.partition), Partitions: t.partitions}
		}
		if has := t.replicas[p.partition].epoch; p.epoch != has+1 {
			return &InvalidAssignmentError{t.name, int32(p.partition), fmt.Sprintf("they were assigned anew meanwhile: epoch %d, this is %d", has, p.epoch)}
		}
		if err := m.checkReplicas(t.name, &p); err != nil {
			return err
		}
	}
	return nil
}

// checkClusterPart looks at a part of a snapshot; m is what there is of it.
func (m *metadata) checkClusterPart(c *command) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: snapshot: "+format, append([]any{errCommand}, args...)...)
	}
	if len(m.removed)+len(c.removed) > maxRemoved {
		return bad("%d removed nodes", len(m.removed)+len(c.removed))
	}
	seen := map[int32]bool{}
	for _, n := range c.nodes {
		if n.id < 1 || m.nodes[n.id] != nil || seen[n.id] || len(m.nodes)+len(c.nodes) > maxNodes {
			return bad("node %d", n.id)
		}
		seen[n.id] = true
	}
	at := map[TopicID]int{} // how many partitions have replicas
	for _, p := range c.placements {
		t := m.byID[p.topic]
		if t == nil {
			return bad("replicas of topic id %s", p.topic)
		}
		if _, ok := at[p.topic]; !ok {
			at[p.topic] = len(t.replicas)
		}
		if p.start != at[p.topic] || len(p.replicas) == 0 || p.start+len(p.replicas) > t.partitions {
			return bad("replicas of partitions from %d on of topic id %s", p.start, p.topic)
		}
		at[p.topic] += len(p.replicas)
	}
	type place struct {
		topic     TopicID
		partition int
	}
	moves := map[place]bool{}
	for _, x := range c.moves {
		t, p := m.byID[x.topic], place{x.topic, x.partition}
		if t == nil || x.partition >= t.partitions || len(x.nodes) == 0 || t.before[x.partition] != nil || moves[p] {
			return bad("a move of partition %d of topic id %s", x.partition, x.topic)
		}
		moves[p] = true
	}
	for _, w := range c.waiting {
		if t := m.deleting[w.topic]; t == nil || t.waiting != nil || len(w.nodes) == 0 {
			return bad("files of topic id %s", w.topic)
		}
	}
	return nil
}

// applyCluster makes a command so that holds.
func (m *metadata) applyCluster(c *command) {
	switch c.kind {
	case registerNodeCommand:
		m.register(c.node)
	case removeNodeCommand:
		n := m.nodes[c.node.id]
		m.bytes -= n.bytes()
		delete(m.nodes, n.id)
		if !n.directory.IsZero() {
			m.removed = append(slices.Clone(m.removed[max(0, len(m.removed)+1-maxRemoved):]), removed{n.id, n.directory})
		}
		for _, t := range inOrder(m.deleting) {
			m.gone(t, c.node.id)
		}
	case drainNodeCommand:
		n := *m.nodes[c.node.id]
		n.draining = c.flags&nodeDraining != 0
		m.nodes[n.id] = &n
	case createReplicatedCommand:
		t := c.topic
		t.settings, t.factor = maps.Clone(t.settings), c.factor
		for _, p := range c.placed {
			t.replicas = append(t.replicas, p.assignment)
		}
		m.add(&t)
	case addReplicatedCommand:
		t := *m.byID[c.topic.id]
		m.remove(&t)
		t.partitions, t.replicas = c.total, slices.Clone(t.replicas)
		for _, p := range c.placed {
			t.replicas = append(t.replicas, p.assignment)
		}
		m.add(&t)
	case assignCommand:
		t := *m.byID[c.topic.id]
		m.remove(&t)
		t.replicas, t.before = slices.Clone(t.replicas), maps.Clone(t.before)
		for _, p := range c.placed {
			t.moves(p.partition, p.nodes)
			t.replicas[p.partition] = p.assignment
		}
		if c.factor > 0 {
			t.factor = c.factor
		}
		m.add(&t)
	case movedCommand:
		t := *m.byID[c.topic.id]
		m.remove(&t)
		t.before = maps.Clone(t.before)
		for _, p := range c.placed {
			if t.replicas[p.partition].epoch == p.epoch { // else it was assigned anew meanwhile, and moves on
				delete(t.before, p.partition)
			}
		}
		m.add(&t)
	case topicGoneCommand:
		m.gone(m.deleting[c.topic.id], c.node.id)
	}
}

// moves notes what a partition has that gets other replicas: what it had when it began to move, where it moves already.
// Nothing moves when it is given back just those.
func (t *topicMeta) moves(n int, to []int32) {
	before := t.before[n]
	if before == nil {
		before = t.replicas[n].nodes
	}
	if sameNodes(before, to) {
		delete(t.before, n)
		return
	}
	if t.before == nil {
		t.before = make(map[int][]int32)
	}
	t.before[n] = before
}

// sameNodes says that two lists, in each of which nobody is named twice, name the same nodes.
func sameNodes(a, b []int32) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(n int32) bool { return !slices.Contains(b, n) })
}

// register takes a node in. The first one has all that there is: the directory was
// used alone before.
func (m *metadata) register(n nodeMeta) {
	if has := m.nodes[n.id]; has != nil {
		m.bytes -= has.bytes()
		n.draining = has.draining
		if n.directory.IsZero() {
			n.directory = has.directory
		}
	}
	if len(m.nodes) == 0 {
		for _, old := range inOrder(m.byID) {
			t := *old
			m.remove(old)
			t.factor, t.replicas = 1, make([]assignment, t.partitions)
			for i := range t.replicas {
				t.replicas[i] = assignment{1, []int32{n.id}}
			}
			m.add(&t)
		}
		for _, old := range inOrder(m.deleting) {
			t := *old
			m.bytes -= old.bytes()
			t.waiting = []int32{n.id}
			m.deleting[t.id] = &t
			m.bytes += t.bytes()
		}
	}
	m.nodes[n.id] = &n
	m.bytes += n.bytes()
}

// gone notes that a node has no files of a deleted topic, or is not there any more.
// After the last one the topic is forgotten.
func (m *metadata) gone(old *topicMeta, node int32) {
	if !slices.Contains(old.waiting, node) {
		return
	}
	m.bytes -= old.bytes()
	t := *old
	t.waiting = slices.DeleteFunc(slices.Clone(t.waiting), func(n int32) bool { return n == node })
	if len(t.waiting) == 0 {
		delete(m.deleting, t.id)
		return
	}
	m.deleting[t.id] = &t
	m.bytes += t.bytes()
}

// nodeIDs are the numbers of all nodes, ascending.
func (m *metadata) nodeIDs() []int32 { return slices.Sorted(maps.Keys(m.nodes)) }

// clusterSnapshot is the part of the state that is about nodes and replicas, as
// commands that follow the other parts of a snapshot.
func (m *metadata) clusterSnapshot() (parts []*command) {
	if len(m.nodes) == 0 {
		return nil
	}
	c, size := &command{kind: clusterSnapshotCommand}, 0
	room := func(n int) {
		if size += n; size > snapshotPartBytes {
			parts = append(parts, c)
			c, size = &command{kind: clusterSnapshotCommand}, n
		}
	}
	for _, id := range m.nodeIDs() {
		room(m.nodes[id].bytes())
		c.nodes = append(c.nodes, m.nodes[id])
	}
	for _, t := range inOrder(m.byID) {
		for i := range t.replicas {
			room(32 + 5*len(t.replicas[i].nodes))
			last := len(c.placements) - 1
			if last < 0 || c.placements[last].topic != t.id {
				c.placements = append(c.placements, placement{topic: t.id, factor: t.factor, start: i})
				last++
			}
			c.placements[last].replicas = append(c.placements[last].replicas, t.replicas[i])
		}
	}
	for _, t := range inOrder(m.deleting) {
		if len(t.waiting) > 0 {
			room(24 + 5*len(t.waiting))
			c.waiting = append(c.waiting, waiting{t.id, t.waiting})
		}
	}
	room(18 * len(m.removed))
	c.removed = m.removed
	for _, t := range inOrder(m.byID) {
		for _, n := range slices.Sorted(maps.Keys(t.before)) {
			room(24 + 5*len(t.before[n]))
			c.moves = append(c.moves, move{t.id, n, t.before[n]})
		}
	}
	return append(parts, c)
}

// addClusterPart takes a part of a snapshot in; m is what there is of it.
func (m *metadata) addClusterPart(c *command) {
	for _, n := range c.nodes {
		m.nodes[n.id] = n
		m.bytes += n.bytes()
	}
	for _, p := range c.placements {
		t := *m.byID[p.topic]
		m.remove(&t)
		t.factor = p.factor
		t.replicas = append(slices.Clip(t.replicas), p.replicas...)
		m.add(&t)
	}
	m.removed = append(slices.Clip(m.removed), c.removed...)
	for _, x := range c.moves {
		t := *m.byID[x.topic]
		m.remove(&t)
		if t.before = maps.Clone(t.before); t.before == nil {
			t.before = make(map[int][]int32)
		}
		t.before[x.partition] = x.nodes
		m.add(&t)
	}
	for _, w := range c.waiting {
		t := *m.deleting[w.topic]
		m.bytes -= t.bytes()
		t.waiting = w.nodes
		m.deleting[t.id] = &t
		m.bytes += t.bytes()
	}
}
