package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog/partition"
)

// NodeInfo is a node as the metadata has it.
type NodeInfo struct {
	ID        int32
	Directory TopicID // of its directory; zero until it was there
	Address   string  // where peers find it; empty where they know by themselves
	Endpoints []Endpoint
	Draining  bool // it gets no new replicas
	// Alive says that it was heard of a short while ago.
	Alive bool
	// CertificateEnds is when this node's certificate ends; zero where there is none, and of other nodes.
	CertificateEnds time.Time
	// Trouble says in words why this node cannot reach it; empty when it can, or has not tried.
	Trouble string
	// Meta says that it leads the metadata, as far as this node knows. (Kafka's controller)
	Meta bool
}

// Nodes are the nodes of the cluster, by number; none alone.
func (e *Engine) Nodes() (list []NodeInfo) {
	if e.cluster == nil {
		return nil
	}
	leader, _ := e.meta.group.log.Leader()
	e.meta.view(func(m *metadata) {
		for _, id := range m.nodeIDs() {
			n := m.nodes[id]
			list = append(list, NodeInfo{
				ID: id, Directory: n.directory, Address: n.address, Endpoints: slices.Clone(n.endpoints), Draining: n.draining,
				Meta: id == leader,
			})
		}
	})
	for i := range list {
		list[i].Alive = list[i].ID == e.identity.node || e.replicas.heardLately(list[i].ID, e.now())
		if has, ok := e.cluster.(Certified); ok && list[i].ID == e.identity.node {
			list[i].CertificateEnds = has.CertificateEnds()
		}
		if has, ok := e.cluster.(PeerTroubles); ok {
			list[i].Trouble = has.PeerTrouble(list[i].ID)
		}
	}
	return list
}

// MetaLeader is the node that leads the metadata, as far as this node knows, and in
// which epoch; -1 when nobody is known to. Alone it is this node.
func (e *Engine) MetaLeader() (node, epoch int32) {
	if e.cluster == nil {
		return e.identity.node, 0
	}
	return e.meta.group.log.Leader()
}

// MetadataOffset is up to where this node has applied the metadata's log, and
// AwaitMetadata returns when it has applied it up to there: what a leader has
// answered is then seen here, too. Alone both say nothing.
func (e *Engine) MetadataOffset() int64 {
	if e.cluster == nil {
		return 0
	}
	return e.meta.group.applied()
}

// AwaitMetadata waits for MetadataOffset to be offset.
func (e *Engine) AwaitMetadata(ctx context.Context, offset int64) error {
	if e.cluster == nil {
		return nil
	}
	return e.meta.group.await(ctx, offset)
}

// The services of nodes.
const (
	metaService    = "meta"    // a command about the node that sends it
	offsetService  = "offset"  // how far the metadata goes, as its leader knows
	leadersService = "leaders" // which logs the node leads
	leaveService   = "leave"   // whether a group has let go of a replica
)

// handleNodes registers the services of this file.
func (e *Engine) handleNodes() {
	e.handle(metaService, e.serveMeta)
	e.handle(offsetService, e.serveOffset)
	e.handleReplicas()
}

// serveMeta does for a peer what only the leader of the metadata can: it registers it,
// and hears which files are gone, and which replicas have moved. The answer begins with 0 when it is done, 1 when this
// node does not lead, 2 when it was refused, for the reason that follows.
func (e *Engine) serveMeta(ctx context.Context, from int32, req []byte) ([]byte, error) {
	c, err := decodeCommand(req)
	if err == nil && c.kind != movedCommand && (c.kind != registerNodeCommand && c.kind != topicGoneCommand || c.node.id != from) {
		err = fmt.Errorf("node %d may not ask for a command of kind %d about node %d", from, c.kind, c.node.id)
	}
	if err == nil {
		err = e.leadMeta(ctx)
	}
	if err == nil {
		_, err = e.meta.do(ctx, c)
	}
	switch {
	case err == nil || errors.Is(err, ErrUnknownTopic):
		return []byte{0}, nil
	case errors.Is(err, partition.ErrNotLeader):
		return []byte{1}, nil
	case errors.Is(err, partition.ErrUnknownOutcome):
		return nil, err
	}
	return append([]byte{2}, err.Error()...), nil
}

// tellLeader has the leader of the metadata make a command so that this node may ask
// for. It may be asked again.
func (e *Engine) tellLeader(ctx context.Context, c *command) error {
	leader, epoch := e.meta.group.log.Leader()
	if leader == e.identity.node {
		_, err := e.meta.do(ctx, c)
		return err
	}
	if leader < 0 {
		return &partition.NotLeaderError{Leader: -1, LeaderEpoch: epoch}
	}
	answer, err := e.cluster.Call(ctx, leader, metaService, c.encode())
	switch {
	case err != nil:
		return err
	case len(answer) == 0 || answer[0] == 1:
		return &partition.NotLeaderError{Leader: -1, LeaderEpoch: epoch}
	case answer[0] == 2:
		return &InvalidNodeError{Node: e.identity.node, Reason: "node " + fmt.Sprint(leader) + " refuses: " + string(answer[1:])}
	}
	e.heard(leader)
	return nil
}

// serveOffset answers with up to where the metadata goes; nothing where this node does
// not lead it.
func (e *Engine) serveOffset(ctx context.Context, _ int32, _ []byte) ([]byte, error) {
	g := e.meta.group
	err := g.ready(ctx)
	if err == nil {
		err = g.log.Confirm(ctx)
	}
	if errors.Is(err, partition.ErrNotLeader) {
		return nil, nil
	}
	var w wire
	w.number(uint64(g.applied()))
	return w.b, err
}

// currentMeta returns when this node has applied all that was committed to the metadata
// before the call. It asks the leader.
func (e *Engine) currentMeta(ctx context.Context) error {
	g := e.meta.group
	leader, epoch := g.log.Leader()
	if leader == e.identity.node {
		if err := g.ready(ctx); err != nil {
			return err
		}
		return g.log.Confirm(ctx)
	}
	if leader < 0 {
		return fmt.Errorf("metadata: %w", &partition.NotLeaderError{Leader: -1, LeaderEpoch: epoch})
	}
	answer, err := e.cluster.Call(ctx, leader, offsetService, nil)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	d := decoder{b: answer}
	offset := d.number(1 << 62)
	if d.failed {
		return fmt.Errorf("metadata: %w", &partition.NotLeaderError{Leader: -1, LeaderEpoch: epoch})
	}
	return g.await(ctx, int64(offset))
}

// SyncMetadata returns when this node has applied all changes of topics, nodes, users
// and the like that were acknowledged before the call, on whatever node. Alone that
// is always so.
func (e *Engine) SyncMetadata(ctx context.Context) error {
	if e.cluster == nil {
		return e.closedError()
	}
	return e.currentMeta(ctx)
}

// leadMeta returns when this node leads the metadata, has applied all of it, and is
// registered itself, with those that begin the cluster with it.
func (e *Engine) leadMeta(ctx context.Context) error {
	g := e.meta.group
	if err := g.ready(ctx); err != nil {
		return err
	}
	// This node's directory is registered last: when it is, all that begin with it are. A
	// node that is not known after that was removed.
	self := e.self()
	var fresh []nodeMeta
	e.meta.view(func(m *metadata) {
		n := m.nodes[self.id]
		if m.begun() && (n == nil || !n.directory.IsZero()) {
			return
		}
		for _, id := range e.initial {
			if id != self.id && m.nodes[id] == nil && !m.begun() {
				fresh = append(fresh, nodeMeta{id: id})
			}
		}
		fresh = append(fresh, self)
	})
	for _, n := range fresh {
		if _, err := e.meta.do(ctx, &command{kind: registerNodeCommand, node: n}); err != nil {
			return err
		}
	}
	return nil
}

// self is this node as it is to be registered. Who does not know his own address leaves
// it as somebody else has said it.
func (e *Engine) self() nodeMeta {
	r := &e.replicas
	r.mu.Lock()
	n := nodeMeta{id: e.identity.node, directory: e.identity.directory, address: e.address, endpoints: slices.Clone(r.endpoints)}
	r.mu.Unlock()
	if n.address == "" {
		n.address = e.addressOf(n.id)
	}
	return n
}

// Advertise says where this node takes calls of Kafka clients. The cluster hears of it
// in the background, and again when it could not be reached.
func (e *Engine) Advertise(endpoints []Endpoint) {
	r := &e.replicas
	r.mu.Lock()
	r.endpoints = slices.Clone(endpoints)
	r.mu.Unlock()
	r.look()
}

// missed notes that a node could not be reached: clients are not sent there until it is heard of again.
func (e *Engine) missed(node int32) {
	r := &e.replicas
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.heard, node)
}

// heard notes that a node was heard of.
func (e *Engine) heard(node int32) {
	r := &e.replicas
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil {
		r.heard = make(map[int32]time.Time)
	}
	r.heard[node] = e.now()
}
