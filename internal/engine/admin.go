package engine

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// replicatedError is what administration of a cluster says after Close, and without one.
func (e *Engine) replicatedError() error {
	if err := e.closedError(); err != nil {
		return err
	}
	if e.cluster == nil {
		return &InvalidNodeError{Node: 0, Reason: "the database is not replicated"}
	}
	return nil
}

// administer runs f on the node that leads the metadata, alone among those who change
// topics here. Elsewhere it fails with a *partition.NotLeaderError.
func (e *Engine) administer(ctx context.Context, what string, f func() error) error {
	err := e.replicatedError()
	if err == nil {
		if err = e.beginChange(ctx); err == nil {
			defer e.endChange()
			err = f()
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// AddNode makes a node known, before it was there: where peers find it. It then gets the
// metadata, and replicas of what is made later; Reassign gives it those of what there is.
// It may be called again with another address.
func (e *Engine) AddNode(ctx context.Context, id int32, address string) error {
	return e.administer(ctx, fmt.Sprint("add node ", id), func() error {
		n := nodeMeta{id: id, address: address}
		var err error
		e.meta.view(func(m *metadata) {
			if has := m.nodes[id]; has != nil {
				n.directory, n.endpoints = has.directory, has.endpoints
			}
			if has := m.nodes[id]; has != nil && !has.directory.IsZero() && address != "" && has.address != address {
				err = &InvalidNodeError{Node: id, Reason: fmt.Sprintf("it is there already, at %s, and says itself where it is: a new node takes a number of its own", has.address)}
			}
			for _, other := range m.nodes {
				if address != "" && other.address == address && other.id != id {
					err = &InvalidNodeError{Node: id, Reason: fmt.Sprintf("%s is where node %d is", address, other.id)}
				}
			}
		})
		if err != nil {
			return err
		}
		_, err = e.meta.do(ctx, &command{kind: registerNodeCommand, node: n})
		return err
	})
}

// RemoveNode forgets a node that has no replicas any more: see DrainNode. It fails with
// an *InvalidNodeError while it has some, and where too few of the others are there to go on
// without it.
func (e *Engine) RemoveNode(ctx context.Context, id int32) error {
	return e.administer(ctx, fmt.Sprint("remove node ", id), func() error {
		err := e.mayRemove(id)
		if err == nil {
			err = e.stillMember(ctx, id)
		}
		if err != nil {
			return err
		}
		_, err = e.meta.do(ctx, &command{kind: removeNodeCommand, node: nodeMeta{id: id}})
		return err
	})
}

// mayRemove looks whether, without a node, a majority of those that are left is there. Otherwise removing it
// would be the last thing that the cluster does: those that are gone for good are to be removed first.
func (e *Engine) mayRemove(id int32) error {
	left, there, gone := 0, 0, int32(0)
	var known bool
	for _, n := range e.Nodes() {
		switch {
		case n.ID == id && !n.Alive:
			return nil // one that is gone is no part of a majority
		case n.ID == id:
			known = true
		case n.Directory.IsZero(): // it has no vote yet
		case n.Alive:
			left++
			there++
		default:
			left++
			gone = n.ID
		}
	}
	if known && there < left/2+1 && left > 0 {
		return &InvalidNodeError{Node: id, Reason: fmt.Sprintf("without it %d of %d nodes would be there, which is no majority: nothing could be decided any more. Remove a node first that is gone for good (node %d is not heard of), or have it come back", there, left, gone)}
	}
	return nil
}

// stillMember says of which groups a node is a member that has nothing assigned any more: they let it go when the others have
// all records, and until then may need its vote. Who leads them is asked. Of a group that nobody leads at the moment, or whose leader does not answer,
// nothing is known for sure: a node that is there waits until it is. One that is gone cannot help it.
func (e *Engine) stillMember(ctx context.Context, id int32) error {
	var of, unknown []string
	there := id == e.identity.node || e.replicas.heardLately(id, e.now())
	for _, s := range e.AskClusterStatus(ctx) {
		if s.Topic == "" || slices.Contains(s.Replicas, id) { // what is assigned is refused by the command
			continue
		}
		name := fmt.Sprintf("%s/%d", s.Topic, s.Partition)
		member := slices.ContainsFunc(s.Members, func(m MemberStatus) bool { return m.Node == id })
		switch led := s.InSync != nil; {
		case led && member:
			of = append(of, name)
		case !led && there && (member || len(s.Members) == 0):
			unknown = append(unknown, name)
		}
	}
	switch {
	case len(of) > 0:
		return &InvalidNodeError{Node: id, Reason: fmt.Sprintf("it is still a member of %s, until those that take its replicas over have all records: see `embedlog cluster status`, and remove it then",
			few(of)), Later: true}
	case len(unknown) > 0:
		return &InvalidNodeError{Node: id, Reason: fmt.Sprintf("nobody is known to lead %s at the moment, and its vote may be needed there: see `embedlog cluster status`, and remove it then",
			few(unknown)), Later: true}
	}
	return nil
}

// neverThere says of nodes that are to have replicas which of them was never there: it would be waited for, and
// which directory speaks for it is not known.
func (e *Engine) neverThere(topic string, n int32, nodes []int32) (err error) {
	e.meta.view(func(m *metadata) {
		for _, id := range nodes {
			if has := m.nodes[id]; has != nil && has.directory.IsZero() {
				err = &InvalidAssignmentError{topic, n, fmt.Sprintf("node %d was added and never came: start it first", id)}
			}
		}
	})
	return err
}

// DrainNode gives the replicas of a node to others, and none to it from now on. Where
// there is no other node for it, a partition has one replica less, until there is one: see place.go. The only one is moved, or
// it fails with a *ReplicationFactorError and nothing was changed; so it does, with an *InvalidNodeError, where the node is not
// heard of and has the only one. It returns when all is assigned: the data
// follows in the background, see ClusterStatus. Undrain takes the node back. It may be called again.
func (e *Engine) DrainNode(ctx context.Context, id int32) error { return e.drain(ctx, id, false) }

// DrainLostNode is DrainNode of a node that is gone for good: what only it had is lost.
func (e *Engine) DrainLostNode(ctx context.Context, id int32) error { return e.drain(ctx, id, true) }

func (e *Engine) drain(ctx context.Context, id int32, lost bool) error {
	return e.administer(ctx, fmt.Sprint("drain node ", id), func() (err error) {
		e.meta.view(func(m *metadata) { err = m.checkDrain(id, e.alive, lost) })
		if err != nil {
			return err
		}
		if _, err := e.meta.do(ctx, &command{kind: drainNodeCommand, node: nodeMeta{id: id}, flags: nodeDraining}); err != nil {
			return err
		}
		return e.place(ctx, id)
	})
}

// Undrain lets a node that was drained have replicas again.
func (e *Engine) Undrain(ctx context.Context, id int32) error {
	return e.administer(ctx, fmt.Sprint("undrain node ", id), func() error {
		_, err := e.meta.do(ctx, &command{kind: drainNodeCommand, node: nodeMeta{id: id}})
		return err
	})
}

// load is how many replicas each node has.
func (m *metadata) load() map[int32]int {
	load := make(map[int32]int)
	for _, t := range m.byID {
		for i := range t.replicas {
			for _, n := range t.replicas[i].nodes {
				load[n]++
			}
		}
	}
	return load
}

// least is the node with the fewest replicas that is none of except.
func least(nodes []int32, load map[int32]int, except []int32) (best int32, ok bool) {
	for _, n := range nodes {
		if !slices.Contains(except, n) && (!ok || load[n] < load[best]) {
			best, ok = n, true
		}
	}
	return best, ok
}

// Reassign gives a partition other replicas, the preferred leader first. It returns when
// that is decided: new replicas get the log in the background, and those that are not
// named go when the others have it. (AlterPartitionReassignments)
func (e *Engine) Reassign(ctx context.Context, topic string, n int32, replicas []int32) error {
	return e.administer(ctx, fmt.Sprintf("reassign %s/%d", topic, n), func() error {
		t, _, err := e.FindPartition(ctx, topic, n)
		if err != nil {
			return err
		}
		if err := e.neverThere(topic, n, replicas); err != nil {
			return err
		}
		if err := e.noteMoved(ctx, t, n); err != nil {
			return err
		}
		a := t.meta.replicasOf(int(n))
		c := &command{kind: assignCommand, topic: topicMeta{id: t.meta.id}}
		c.placed = []placed{{int(n), assignment{a.epoch + 1, slices.Clone(replicas)}}}
		c.factor = t.meta.factorWith(c.placed)
		_, err = e.meta.do(ctx, c)
		return err
	})
}

// SetReplicationFactor gives every partition of a topic so many replicas, and those that
// are added later. Replicas stay where they are as far as possible: the last ones go, and
// new ones are where there are the fewest.
func (e *Engine) SetReplicationFactor(ctx context.Context, topic string, factor int) error {
	return e.administer(ctx, "set replication factor of "+topic, func() error {
		t, err := e.FindTopic(ctx, topic)
		if err != nil {
			return err
		}
		c := &command{kind: assignCommand, topic: topicMeta{id: t.meta.id}, factor: factor}
		e.meta.view(func(m *metadata) { c.placed, err = m.resized(m.byID[t.meta.id], factor, e.alive) })
		if err != nil {
			return err
		}
		_, err = e.meta.do(ctx, c)
		return err
	})
}

// resized are the assignments of a topic with another number of replicas.
func (m *metadata) resized(t *topicMeta, factor int, alive func(int32) bool) (list []placed, err error) {
	able, room := m.able(), m.room(alive)
	if t == nil {
		return nil, &UnknownTopicError{}
	}
	if factor < 1 || factor > maxReplicas {
		return nil, m.tooFew(factor)
	}
	load := m.load()
	for n := range t.replicas {
		a := t.replicas[n]
		if len(a.nodes) == factor {
			continue
		}
		nodes := slices.Clone(a.nodes)
		for len(nodes) > factor {
			last := len(nodes) - 1
			for i, node := range slices.Backward(nodes) {
				if !slices.Contains(room, node) {
					last = i
					break
				}
			}
			nodes = slices.Delete(nodes, last, last+1)
		}
		for len(nodes) < factor {
			other, ok := least(room, load, nodes)
			if !ok {
				other, ok = least(able, load, nodes)
			}
			if !ok {
				return nil, m.tooFew(factor)
			}
			nodes = append(nodes, other)
			load[other]++
		}
		list = append(list, placed{n, assignment{a.epoch + 1, nodes}})
	}
	return list, nil
}

// ReplicaStatus describes one replicated log as this node sees it.
type ReplicaStatus struct {
	Topic         string // empty for the metadata
	Partition     int32
	Replicas      []int32 // those assigned, the preferred leader first
	Factor        int     // how many there are to be; 0 for the metadata
	Leader, Epoch int32   // -1 when nobody is known to lead
	// Members are those of the group: while replicas are being moved, others than Replicas.
	// It is empty where this node has no replica.
	Members []MemberStatus
	// InSync are the nodes that have what was committed a short while ago. Only the leader
	// knows; it is nil elsewhere.
	InSync []int32
	// Reason says in words what is not well; empty when all is.
	Reason string
}

// ClusterStatus describes the metadata's log and those of all topics, by name, as this
// node sees them. What is known of others is what each node says of its own logs.
func (e *Engine) ClusterStatus() (list []ReplicaStatus) {
	if e.cluster == nil {
		return nil
	}
	var nodes []int32
	e.meta.view(func(m *metadata) { nodes = m.nodeIDs() })
	list = append(list, replicaStatus("", 0, nodes, e.meta.group.log.Status(), e.identity.node))
	if len(nodes) == 0 {
		if has, ok := e.cluster.(PeerTroubles); ok && has.PeerTrouble(0) != "" {
			list[0].Reason += "; " + has.PeerTrouble(0)
		}
	}
	if why := e.noPart(nodes); why != "" {
		list[0].Reason = why
	}
	for _, t := range e.Topics() {
		for n, p := range t.partitions {
			list = append(list, e.partitionStatus(t, n, p))
		}
	}
	return list
}

// noPart says in words why this node has no part in the metadata; empty when it has. nodes are those that it knows of.
func (e *Engine) noPart(nodes []int32) string {
	e.meta.group.mu.Lock()
	failed := e.meta.group.failed
	e.meta.group.mu.Unlock()
	if err := e.Removed(); err != nil {
		return err.Error()
	}
	if len(nodes) > 0 && !slices.Contains(nodes, e.identity.node) {
		return fmt.Sprintf("node %d is not registered: it was removed, or is to be added", e.identity.node)
	}
	if id, ok := (host{e}).Directory(e.identity.node); ok && id != e.identity.directory {
		return fmt.Sprintf("this directory is %s, and node %d is registered with %s: it has no part. Remove the node and add it again, or open this directory under another number", e.identity.directory, e.identity.node, id)
	}
	if err := e.meta.group.damaged(); err != nil {
		return err.Error()
	}
	if failed != nil {
		return "metadata is not applied any more: " + failed.Error()
	}
	return ""
}

// Status describes the partition's group: see ClusterStatus. Alone there is none.
func (p *Partition) Status() ReplicaStatus {
	t, err := p.engine.TopicByID(p.topicID)
	if err != nil {
		return ReplicaStatus{Topic: p.topic, Partition: p.id, Leader: -1, Epoch: -1, Reason: err.Error()}
	}
	return p.engine.partitionStatus(t, int(p.id), p)
}

func (e *Engine) partitionStatus(t *Topic, n int, p *Partition) ReplicaStatus {
	s := e.ownStatus(t, n, p)
	s.Factor = t.meta.factor
	if few := len(s.Replicas); s.Reason == "" && few < t.meta.factor {
		s.Reason = fmt.Sprintf("it has %d of %d replicas: there is no other node that can have one. It gets one as soon as there is", few, t.meta.factor)
	}
	return s
}

func (e *Engine) ownStatus(t *Topic, n int, p *Partition) ReplicaStatus {
	replicas := t.meta.replicasOf(n).nodes
	if p.repl != nil {
		s := replicaStatus(t.meta.name, int32(n), replicas, p.repl.Status(), e.identity.node)
		if err := p.Err(); err != nil {
			s.Reason = "the replica on this node failed: " + err.Error()
		}
		if err := p.damage(); err != nil {
			s.Reason = e.damageReason(p, replicas, err)
		}
		return s
	}
	node, epoch := p.Leader()
	s := ReplicaStatus{Topic: t.meta.name, Partition: int32(n), Replicas: replicas, Leader: node, Epoch: epoch}
	switch {
	case e.cluster == nil:
	case !p.elsewhere:
		s.Reason = "the replica on this node does not open: " + p.Err().Error()
		if p.damage() != nil {
			s.Reason = e.damageReason(p, replicas, p.Err())
		}
	case node < 0:
		s.Reason = "this node has no replica, and has heard of nobody who leads"
	}
	return s
}

func replicaStatus(topic string, n int32, replicas []int32, l LogStatus, self int32) ReplicaStatus {
	s := ReplicaStatus{Topic: topic, Partition: n, Replicas: replicas, Leader: l.Leader, Epoch: l.Epoch, Members: l.Members, Reason: l.Reason}
	if l.Leader != self {
		return s
	}
	voters := 0
	for _, m := range l.Members {
		if m.InSync {
			s.InSync = append(s.InSync, m.Node)
		}
		if m.Voter {
			voters++
		}
	}
	if s.Reason != "" {
		return s
	}
	for _, node := range replicas {
		at := slices.IndexFunc(l.Members, func(m MemberStatus) bool { return m.Node == node })
		switch {
		case at < 0:
			s.Reason = fmt.Sprintf("node %d is assigned and is no member yet", node)
		case l.Members[at].Contact < 0:
			s.Reason = fmt.Sprintf("node %d has not been heard of by the leader, since that leads", node)
		case !l.Members[at].InSync && l.Members[at].Lag == 0:
			s.Reason = fmt.Sprintf("node %d was up to date, and has not been heard of for %v", node, l.Members[at].Contact.Round(100*time.Millisecond))
		case !l.Members[at].InSync:
			s.Reason = fmt.Sprintf("node %d is %d entries behind; the leader heard of it %v ago", node, l.Members[at].Lag, l.Members[at].Contact.Round(100*time.Millisecond))
		case !l.Members[at].Voter:
			s.Reason = fmt.Sprintf("node %d gets the log, and has no vote yet", node)
		default:
			continue
		}
		return s
	}
	if len(l.Members) > len(replicas) && len(replicas) > 0 {
		s.Reason = "a member that is not assigned any more is about to go"
	}
	return s
}
