package embedlog_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/clustertest"
	"github.com/x/embedlog/internal/vfs"
)

// Three databases that are one, through the Go door.
func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, net := context.Background(), clustertest.New(1, 2, 3)
		var dbs []*embedlog.DB
		for id := range int32(3) {
			db, err := embedlog.OpenFS(vfs.NewMem(), &embedlog.Options{Replication: net.Node(id + 1)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			dbs = append(dbs, db)
		}
		time.Sleep(5 * time.Second)
		first := dbs[0].Cluster()
		nodes := first.Nodes()
		if first.Node() != 1 || len(nodes) != 3 || !nodes[0].Meta || !nodes[2].Alive || nodes[1].Address != "node-2" {
			t.Fatalf("%+v", nodes)
		}
		topic, err := dbs[0].CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, ReplicationFactor: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dbs[0].CreateTopic(ctx, "many", &embedlog.TopicConfig{ReplicationFactor: 4}); !errors.Is(err, embedlog.ErrInvalidReplicationFactor) {
			t.Errorf("four replicas: %v", err)
		}
		if _, err := dbs[0].EnsureTopic(ctx, "orders", &embedlog.TopicConfig{ReplicationFactor: 3}); !errors.Is(err, embedlog.ErrTopicDiffers) {
			t.Errorf("another replication factor: %v", err)
		}
		time.Sleep(5 * time.Second)
		// Whoever opened its replica first leads.
		for _, db := range dbs {
			if _, err := db.Cluster().ElectPreferred(ctx); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(5 * time.Second)
		info, err := topic.Describe()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range info.Partitions {
			if len(p.Replicas) != 2 || !slices.Contains(p.Replicas, p.Leader) || p.Err != nil {
				t.Errorf("%+v", p)
			}
			at := dbs[p.Leader-1]
			theirs, err := at.Topic("orders")
			if err != nil {
				t.Fatal(err)
			}
			own, err := theirs.Describe()
			if err != nil {
				t.Fatal(err)
			}
			if in := own.Partitions[p.Partition].InSync; len(in) != 2 {
				t.Errorf("%d: in sync %v", p.Partition, in)
			}
			to := p.Replicas[0] + p.Replicas[1] - p.Leader
			if err := at.Cluster().TransferLeadership(ctx, "orders", p.Partition, to); err != nil {
				t.Error(err)
			}
			if err := at.Cluster().TransferLeadership(ctx, "orders", p.Partition, to); err != nil {
				t.Errorf("who leads already: %v", err)
			}
			third := 6 - p.Replicas[0] - p.Replicas[1]
			for _, node := range []int32{third, 9} {
				if err := dbs[third-1].Cluster().TransferLeadership(ctx, "orders", p.Partition, node); !errors.Is(err, embedlog.ErrInvalidAssignment) {
					t.Errorf("to node %d, which has no replica: %v", node, err)
				}
			}
		}
		time.Sleep(5 * time.Second)
		if info, err = topic.Describe(); err != nil || info.Partitions[0].Leader == info.Partitions[0].Replicas[0] {
			t.Fatalf("%+v, %v", info.Partitions, err)
		}
		for _, db := range dbs {
			if _, err := db.Cluster().ElectPreferred(ctx); err != nil {
				t.Error(err)
			}
		}
		first.Advertise(embedlog.NodeEndpoint{Listener: "PLAINTEXT", Host: "localhost", Port: 9092})
		time.Sleep(5 * time.Second)
		for i, db := range dbs {
			for _, s := range db.Cluster().Status() {
				if s.Reason != "" || s.Topic != "" && s.Leader != s.Replicas[0] {
					t.Errorf("node %d: %+v", i+1, s)
				}
			}
			if ends := db.Cluster().Nodes()[0].Endpoints; len(ends) != 1 || ends[0].Port != 9092 {
				t.Errorf("node %d: endpoints of node 1 are %v", i+1, ends)
			}
		}
	})
}

// A database that is not replicated is no cluster.
func TestNoCluster(t *testing.T) {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, c := context.Background(), db.Cluster()
	if c.Node() != 0 || len(c.Nodes()) != 0 || len(c.Status()) != 0 {
		t.Error(c.Node(), c.Nodes(), c.Status())
	}
	for name, err := range map[string]error{
		"add":      c.AddNode(ctx, 2, ""),
		"drain":    c.DrainNode(ctx, 1),
		"remove":   c.RemoveNode(ctx, 1),
		"reassign": c.Reassign(ctx, "t", 0, []int32{1}),
		"factor":   c.SetReplicationFactor(ctx, "t", 2),
		"transfer": c.TransferLeadership(ctx, "t", 0, 0),
	} {
		if !errors.Is(err, embedlog.ErrInvalidNode) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := db.CreateTopic(ctx, "t", &embedlog.TopicConfig{ReplicationFactor: 2}); !errors.Is(err, embedlog.ErrInvalidReplicationFactor) {
		t.Errorf("two replicas alone: %v", err)
	}
	if _, err := db.CreateTopic(ctx, "t", &embedlog.TopicConfig{ReplicationFactor: 1}); err != nil {
		t.Error(err)
	}
}
