package engine

import (
	"fmt"
	"slices"
)

// openReplicated opens the database as a node of a cluster: the second half of open.
// What is on the disk may be ahead of the metadata that is known to be committed, so
// nothing is made or removed before an earlier run's commands are applied again.
func (e *Engine) openReplicated(found bool) error {
	initial, err := e.becomeNode(found)
	if err != nil {
		return err
	}
	e.handleNodes()
	e.handleCoordinators()
	e.serveCalls()
	e.started = true
	if err := e.cluster.Start(host{e}); err != nil {
		return err
	}
	replicator := e.cluster.Log(LogID{}, initial)
	if err := e.openMeta(true, replicator); err != nil {
		return err
	}
	g := newMetaGroup(e.meta, replicator, e.life)
	g.act, g.caught, g.engine = e.applied, e.caughtUp, e
	e.meta.group = g
	e.initial = initial
	e.nodesChanged()
	if err := e.openReplicas(); err != nil {
		return err
	}
	e.replicas.start(e)
	if err := g.start(); err != nil {
		return err
	}
	return e.openRest()
}

// becomeNode makes the directory, or sees that it is this node's, and returns the
// members that group 0 begins with. A directory that was used alone goes on as the
// first node of its cluster.
func (e *Engine) becomeNode(found bool) (initial []int32, err error) {
	self := e.cluster.Self()
	if self < 1 {
		return nil, &InvalidNodeError{Node: self, Reason: "its number must be 1 or more"}
	}
	var b Bootstrap
	if has, ok := e.cluster.(Bootstrapper); ok {
		b = has.Bootstrap()
	}
	e.address = b.Address
	if !found {
		id := identity{cluster: b.Cluster, node: self, directory: newID()}
		if id.cluster.IsZero() && slices.Equal(b.Initial, []int32{self}) {
			id.cluster = newID()
		}
		if err := e.create(id); err != nil {
			return nil, err
		}
		m := e.meta
		e.meta = nil
		return b.Initial, m.close()
	}
	switch e.identity.node {
	case self:
		if !b.Cluster.IsZero() && e.identity.cluster != b.Cluster {
			return nil, (host{e}).Adopt(b.Cluster)
		}
		return b.Initial, nil
	case 0:
		if !b.Cluster.IsZero() && e.identity.cluster != b.Cluster {
			// What it holds cannot become a part of what another cluster has.
			return nil, &InvalidNodeError{Node: self, Reason: fmt.Sprintf("its directory was used alone, and is of cluster %s: cluster %s takes an empty one", e.identity.cluster, b.Cluster)}
		}
		if b.Joins {
			return nil, &InvalidNodeError{Node: self, Reason: "its directory was used alone, and cannot join a cluster with what it holds: join with an empty directory, " +
				"or begin a cluster with this one, without joining"}
		}
		if err := e.settle(); err != nil {
			return nil, err
		}
		id := e.identity
		id.node = self
		if err := replaceFile(e.fs, ".", formatName, id.encode()); err != nil {
			return nil, err
		}
		e.identity = id
		return []int32{self}, nil
	}
	return nil, &InvalidNodeError{Node: self, Reason: fmt.Sprintf("its directory is node %d's", e.identity.node)}
}
