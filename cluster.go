package embedlog

import (
	"context"

	"github.com/x/embedlog/internal/engine"
)

// Replication keeps copies of a database on several nodes: see Options.Replication.
// Package raftrepl of this module has one.
type Replication = engine.Cluster

// Cluster is the database as one of the nodes that share it. All methods may be called
// from several goroutines, on any node: what this one cannot do it has the node do that leads the
// metadata, or the partition. Of a database that is not replicated there are no nodes, and changes fail.
type Cluster struct{ db *DB }

// Cluster is the handle of the nodes.
func (db *DB) Cluster() *Cluster { return &Cluster{db} }

type (
	// NodeInfo describes a node.
	NodeInfo = engine.NodeInfo
	// NodeEndpoint is where a node takes calls of Kafka clients.
	NodeEndpoint = engine.Endpoint
	// ReplicaStatus describes the replicas of one partition, or of the metadata.
	ReplicaStatus = engine.ReplicaStatus
	// MemberStatus is one replica of a partition, as its leader sees it.
	MemberStatus = engine.MemberStatus
)

// Node is the number of this node; 0 when the database is not replicated.
func (c *Cluster) Node() int32 { return c.db.engine.NodeID() }

// Nodes are all nodes, by number.
func (c *Cluster) Nodes() []NodeInfo { return c.db.engine.Nodes() }

// Status says for the metadata, and then for each partition, who leads it, which nodes
// have it, how far they are behind, and in words what is not well, as this node sees it. Who
// leads a partition knows most about it: AskStatus asks.
func (c *Cluster) Status() []ReplicaStatus { return c.db.engine.ClusterStatus() }

// AskStatus is Status as the nodes see it that lead: each is asked for its logs, and may take 2 seconds. Of who does
// not answer this node says what it knows.
func (c *Cluster) AskStatus(ctx context.Context) []ReplicaStatus {
	return c.db.engine.AskClusterStatus(ctx)
}

// Removed is a *NodeRemovedError when this node was removed from the cluster, as its own metadata says or a node that has
// refused it; nil as long as nothing is known of that. Nobody serves it any more, and its directory does not get in again.
func (c *Cluster) Removed() error { return c.db.engine.Removed() }

// AddNode lets a node take part that has an empty directory: peers find it at address. It
// gets replicas of topics that are created later; Reassign and SetReplicationFactor
// give it more.
func (c *Cluster) AddNode(ctx context.Context, node int32, address string) error {
	return c.db.engine.AddNode(ctx, node, address)
}

// DrainNode gives the replicas of a node to others, and no new ones to it. It returns when
// that is decided: the records follow in the background, see Status. Where there is no
// node left for a replica the partition has one less, and gets one as soon as there is one; its only one must have a place. What
// it has begun goes on by itself when it is interrupted, and it may be called again.
func (c *Cluster) DrainNode(ctx context.Context, node int32) error {
	return c.db.engine.DrainNode(ctx, node)
}

// DrainLostNode is DrainNode of a node that is gone for good. Partitions of which it had the only replica, which
// DrainNode refuses, are lost with it.
func (c *Cluster) DrainLostNode(ctx context.Context, node int32) error {
	return c.db.engine.DrainLostNode(ctx, node)
}

// UndrainNode lets a node that was drained have replicas again.
func (c *Cluster) UndrainNode(ctx context.Context, node int32) error {
	return c.db.engine.Undrain(ctx, node)
}

// RemoveNode forgets a node that has no replicas any more. It fails with an
// *InvalidNodeError while it has some: drain it first.
func (c *Cluster) RemoveNode(ctx context.Context, node int32) error {
	return c.db.engine.RemoveNode(ctx, node)
}

// Reassign gives a partition other replicas, the preferred leader first. It returns when
// that is decided: those that go do so when the others have all records.
func (c *Cluster) Reassign(ctx context.Context, topic string, partition int32, replicas []int32) error {
	return c.db.engine.Reassign(ctx, topic, partition, replicas)
}

// CancelReassignment has a partition keep the replicas that it had when the reassignment began that is under way. It
// fails with ErrNoReassignment when there is none.
func (c *Cluster) CancelReassignment(ctx context.Context, topic string, partition int32) error {
	return c.db.engine.CancelReassignment(ctx, topic, partition)
}

// SetReplicationFactor gives every partition of a topic so many replicas, and leaves those
// where they are that need not move.
func (c *Cluster) SetReplicationFactor(ctx context.Context, topic string, factor int) error {
	return c.db.engine.SetReplicationFactor(ctx, topic, factor)
}

// TransferLeadership has another replica lead a partition: node to, or the best one
// with 0. It is done by the node that leads it.
func (c *Cluster) TransferLeadership(ctx context.Context, topic string, partition, to int32) error {
	return c.db.engine.TransferLeadership(ctx, topic, partition, to)
}

// ElectPreferred has the preferred leader of each partition, the first of its replicas, lead it, where it
// is in sync, and returns how many were handed over. That happens by itself, too, but later:
// see Options.PreferredLeaders.
func (c *Cluster) ElectPreferred(ctx context.Context) (moved int, err error) {
	return c.db.engine.ElectPreferred(ctx)
}

// Recovery is what Recover was decided on.
type Recovery = engine.Recovery

// Recover is an operator's decision about a partition, or about the metadata with an empty topic, that has no
// leader and can get none: records that were acknowledged may be lost by it. Without lost
// the replicas that can be reached, which must be a majority, go on with what they have
// after stops without order at a durability level below Durable. With lost, the nodes whose disks are
// gone for good, the replica on this node goes on as the only one, and must be the longest
// that is left; those nodes must not come back with their old directories, and are
// drained and removed afterwards. It fails with ErrNotRecoverable where neither is needed.
func (c *Cluster) Recover(ctx context.Context, topic string, partition int32, lost ...int32) (Recovery, error) {
	return c.db.engine.RecoverReplica(ctx, topic, partition, lost)
}

// Advertise tells the cluster where this node takes calls of Kafka clients.
func (c *Cluster) Advertise(endpoints ...NodeEndpoint) { c.db.engine.Advertise(endpoints) }
