package embedlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/internal/sock"
)

// clusterPatience is how long a change of the cluster may wait for who decides it: there may be
// nobody.
const clusterPatience = 30 * time.Second

// cluster describes nodes and replicas as this node sees them.
func (s *session) cluster(ctx context.Context, _ none) (sock.Cluster, error) {
	c := s.db.Cluster()
	out := sock.Cluster{Node: c.Node(), ClusterID: s.db.engine.Info().ClusterID, Nodes: []sock.ClusterNode{}, Logs: []sock.ClusterLog{}}
	out.Removed = c.Removed() != nil
	for _, n := range c.Nodes() {
		x := sock.ClusterNode{Node: n.ID, Address: n.Address, Endpoints: []sock.Endpoint{}, Alive: n.Alive, Trouble: n.Trouble, Draining: n.Draining, Meta: n.Meta}
		if !n.Directory.IsZero() {
			x.DirectoryID = n.Directory.String()
		}
		if !n.CertificateEnds.IsZero() {
			x.CertificateEnds = n.CertificateEnds.UnixMilli()
		}
		for _, e := range n.Endpoints {
			x.Endpoints = append(x.Endpoints, sock.Endpoint{Listener: e.Listener, Host: e.Host, Port: int32(e.Port)})
		}
		out.Nodes = append(out.Nodes, x)
	}
	internal := make(map[string]bool)
	for _, t := range s.db.engine.Topics() {
		internal[t.Name()] = t.Internal()
	}
	for _, l := range c.AskStatus(ctx) {
		x := sock.ClusterLog{
			Topic: l.Topic, Internal: internal[l.Topic], Partition: l.Partition, Replicas: append([]int32{}, l.Replicas...),
			Leader: l.Leader, Epoch: l.Epoch, InSync: l.InSync, Members: []sock.ClusterMember{}, Reason: l.Reason, Factor: l.Factor,
		}
		for _, m := range l.Members {
			contact := int64(-1)
			if m.Contact >= 0 {
				contact = m.Contact.Milliseconds()
			}
			x.Members = append(x.Members, sock.ClusterMember{Node: m.Node, Voter: m.Voter, InSync: m.InSync, Lag: m.Lag, ContactMS: contact})
		}
		out.Logs = append(out.Logs, x)
	}
	return out, nil
}

// changeCluster makes one change.
func (s *session) changeCluster(ctx context.Context, q sock.ChangeCluster) (none, error) {
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	c, err := s.db.Cluster(), error(nil)
	switch q.Do {
	case sock.AddNode:
		err = c.AddNode(ctx, q.Node, q.Address)
	case sock.RemoveNode:
		err = c.RemoveNode(ctx, q.Node)
	case sock.DrainNode:
		drain := c.DrainNode
		if q.Lost {
			drain = c.DrainLostNode
		}
		err = drain(ctx, q.Node)
	case sock.UndrainNode:
		err = c.UndrainNode(ctx, q.Node)
	case sock.Reassign:
		err = c.Reassign(ctx, q.Topic, q.Partition, q.Replicas)
	case sock.SetReplicationFactor:
		err = c.SetReplicationFactor(ctx, q.Topic, q.Factor)
	case sock.Recover:
		_, err = c.Recover(ctx, q.Topic, q.Partition, q.Replicas...)
	case sock.TransferLeadership:
		err = c.TransferLeadership(ctx, q.Topic, q.Partition, q.Node)
	case sock.ElectPreferred:
		_, err = c.ElectPreferred(ctx)
	default:
		err = &sock.Error{Code: sock.CodeInvalid, Message: fmt.Sprintf("the program does not know the change %q of a cluster", q.Do)}
	}
	if errors.Is(err, context.DeadlineExceeded) && asked.Err() == nil && !errors.Is(err, ErrUnknownOutcome) {
		err = &sock.Error{Code: sock.CodeNotLeader, Message: fmt.Sprintf("nobody could decide it within %v: %v", clusterPatience, err)}
	}
	return none{}, err
}
