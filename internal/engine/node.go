package engine

import (
	"errors"
	"fmt"
	"slices"
)

// Endpoint is where a node takes calls of Kafka clients.
type Endpoint struct {
	Listener string // its name, such as PLAINTEXT
	Host     string
	Port     uint16
}

// nodeMeta is what the metadata says of a node. It is never changed: a node that is
// registered again is another one.
type nodeMeta struct {
	id        int32
	directory TopicID // zero until the node was there
	address   string  // where peers find it; empty where they know by themselves
	endpoints []Endpoint
	draining  bool // it gets no new replicas
}

func (n *nodeMeta) bytes() int {
	size := 32 + len(n.address)
	for _, p := range n.endpoints {
		size += 8 + len(p.Listener) + len(p.Host)
	}
	return size
}

// assignment says which nodes have a partition. The first is the preferred leader.
// It is never changed.
type assignment struct {
	// epoch is 1 when the partition is made, and grows with each assignment. Replicas of
	// the first one begin the group together; whoever comes later waits for its leader.
	epoch int32
	nodes []int32
}

func (a *assignment) has(node int32) bool { return slices.Contains(a.nodes, node) }

func (a *assignment) bytes() int { return 2 + len(a.nodes) }

// What there may be of nodes: a decoder allocates no more than these allow.
const (
	maxNodes     = 1000
	maxNodeID    = 1<<31 - 1
	maxReplicas  = 15
	maxAddress   = 255
	maxEndpoints = 16
	maxRemoved   = 1000 // the last ones are remembered
)

var (
	// ErrUnknownNode is matched by *UnknownNodeError.
	ErrUnknownNode = errors.New("embedlog: unknown node")
	// ErrInvalidNode is matched by *InvalidNodeError. Nothing was changed.
	ErrInvalidNode = errors.New("embedlog: invalid node")
	// ErrInvalidReplicationFactor is matched by *ReplicationFactorError. Nothing was changed.
	ErrInvalidReplicationFactor = errors.New("embedlog: invalid replication factor")
	// ErrInvalidAssignment is matched by *InvalidAssignmentError. Nothing was changed.
	ErrInvalidAssignment = errors.New("embedlog: invalid replica assignment")
)

// UnknownNodeError is a node that the metadata does not know.
type UnknownNodeError struct{ Node int32 }

func (e *UnknownNodeError) Error() string { return fmt.Sprintf("node %d is not registered", e.Node) }

// Is matches ErrUnknownNode.
func (e *UnknownNodeError) Is(target error) bool { return target == ErrUnknownNode }

// ErrNotYet says that the same call succeeds later, without anybody's doing.
var ErrNotYet = errors.New("embedlog: not yet")

// ErrNodeRemoved is matched by *NodeRemovedError.
var ErrNodeRemoved = errors.New("embedlog: the node was removed from the cluster")

// NodeRemovedError is a node that was removed from the cluster: it has no part any more, whatever its directory, its
// certificate or the token say. It matches ErrInvalidNode, too.
type NodeRemovedError struct {
	Node int32
	By   int32 // the node that says so; 0 when the metadata of this one does
}

func (e *NodeRemovedError) Error() string {
	says := ""
	if e.By > 0 {
		says = fmt.Sprintf(", as node %d says", e.By)
	}
	return fmt.Sprintf("node %d was removed from the cluster%s: it has no part in anything, and its directory does not get in again. "+
		"Stop it. To have it as a node again, start it with an empty directory and add it (`embedlog cluster add`)", e.Node, says)
}

// Is matches ErrNodeRemoved and ErrInvalidNode.
func (e *NodeRemovedError) Is(target error) bool {
	return target == ErrNodeRemoved || target == ErrInvalidNode
}

// InvalidNodeError says why a node cannot be registered, removed, or take part.
type InvalidNodeError struct {
	Node   int32
	Reason string
	// Later says that the same call succeeds later, without anybody's doing. It matches ErrNotYet then.
	Later bool
}

func (e *InvalidNodeError) Error() string { return fmt.Sprintf("node %d: %s", e.Node, e.Reason) }

// Is matches ErrInvalidNode.
func (e *InvalidNodeError) Is(target error) bool {
	return target == ErrInvalidNode || target == ErrNotYet && e.Later
}

// ReplicationFactorError is a number of replicas that there cannot be.
type ReplicationFactorError struct {
	Factor int
	Nodes  int // how many could have a replica
	// Expected counts those, too, that the cluster knows and that were not there yet.
	Expected int
}

func (e *ReplicationFactorError) Error() string {
	if e.Nodes > maxReplicas {
		return fmt.Sprintf("replication factor %d: want 1 to %d", e.Factor, maxReplicas)
	}
	nodes := fmt.Sprintf("there are %d nodes that can have a replica", e.Nodes)
	switch e.Nodes {
	case 0:
		nodes = "there is no node left that can have a replica"
	case 1:
		nodes = "there is one node that can have a replica"
	}
	if more := e.Expected - e.Nodes; more > 0 {
		nodes += fmt.Sprintf(", and %d more known that never came", more)
	}
	return fmt.Sprintf("replication factor %d: %s", e.Factor, nodes)
}

// Is matches ErrInvalidReplicationFactor.
func (e *ReplicationFactorError) Is(target error) bool { return target == ErrInvalidReplicationFactor }

// InvalidAssignmentError says why nodes cannot be the replicas of a partition.
type InvalidAssignmentError struct {
	Topic     string
	Partition int32
	Reason    string
}

func (e *InvalidAssignmentError) Error() string {
	return fmt.Sprintf("replicas of %s/%d: %s", e.Topic, e.Partition, e.Reason)
}

// Is matches ErrInvalidAssignment.
func (e *InvalidAssignmentError) Is(target error) bool { return target == ErrInvalidAssignment }
