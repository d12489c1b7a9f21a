package engine

import "fmt"

// Who may ask what of this node is decided by the metadata: a certificate and the token say who somebody is, and stay in
// the hands of those who were removed. A directory that is registered may do all. One that joins is given what it needs to
// become registered. What is not known here may be known elsewhere already, where this node has been away; so it is refused
// here and now, and not for good.

// Standing is what the metadata, as far as this node knows it, says of a directory that says to be a node's.
type Standing uint8

const (
	// StandsRegistered is the directory that is registered for the node; or nothing is registered at all yet.
	StandsRegistered Standing = iota
	// StandsExpected is a node that was added, and no directory is registered for it yet.
	StandsExpected
	// StandsUnknown is a number that no node has.
	StandsUnknown
	// StandsOther says that another directory is registered for the node.
	StandsOther
	// StandsRemoved is a directory of a node that was removed.
	StandsRemoved
)

// MayCall says whether who stands so may ask for a service.
func (s Standing) MayCall(service string) bool {
	return s == StandsRegistered || s == StandsExpected && (service == metaService || service == offsetService)
}

// Why says in words why not, to the node itself; empty for who may do all.
func (s Standing) Why(node int32) string {
	switch s {
	case StandsExpected:
		return fmt.Sprintf("node %d was added and is not registered yet, as far as this node knows: it may ask for nothing but that", node)
	case StandsUnknown:
		return fmt.Sprintf("there is no node %d, as far as this node knows: add it first (`embedlog cluster add %d HOST:PORT`)", node, node)
	case StandsOther:
		return fmt.Sprintf("node %d is registered with another directory: this one is a copy, was restored, or has another node's number. A new node takes a number of its own and an empty directory", node)
	case StandsRemoved:
		return (&NodeRemovedError{Node: node}).Error()
	}
	return ""
}

// standings is what the metadata says of nodes, for who asks at each message.
type standings struct {
	directories map[int32]TopicID // zero until it is known
	removed     map[TopicID]struct{}
	begun       bool
}

func (m *metadata) standings() *standings {
	r := &standings{directories: make(map[int32]TopicID, len(m.nodes)), removed: make(map[TopicID]struct{}, len(m.removed)), begun: m.begun()}
	for id, n := range m.nodes {
		r.directories[id] = n.directory
	}
	for _, gone := range m.removed {
		r.removed[gone.directory] = struct{}{}
	}
	return r
}

// Standing implements Registry. It takes no lock.
func (h host) Standing(node int32, directory TopicID) Standing {
	r := h.e.standings.Load()
	if r == nil {
		return StandsRegistered
	}
	if _, gone := r.removed[directory]; gone {
		return StandsRemoved
	}
	has, known := r.directories[node]
	switch {
	case !r.begun, known && has == directory && !has.IsZero():
		return StandsRegistered
	case !known:
		return StandsUnknown
	case has.IsZero():
		return StandsExpected
	}
	return StandsOther
}

// Removed is a *NodeRemovedError when this node was removed, as it knows by itself or has heard; nil when it was not.
func (e *Engine) Removed() error {
	if e.cluster == nil {
		return nil
	}
	if (host{e}).Standing(e.identity.node, e.identity.directory) == StandsRemoved {
		return &NodeRemovedError{Node: e.identity.node}
	}
	if has, ok := e.cluster.(Removable); ok {
		if by := has.RemovedBy(); by > 0 {
			return &NodeRemovedError{Node: e.identity.node, By: by}
		}
	}
	return nil
}
