package raftrepl

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
)

// The lead is not given to a node that is gone, however often that is asked for, and the partition goes on: also when the lead is lost and comes back.
func TestTransferToTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := newDBCluster(t, 3)
		defer c.net.Close()
		for _, n := range c.nodes {
			c.start(n)
		}
		c.until("make a topic", func() error {
			_, err := c.nodes[0].db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 1, ReplicationFactor: 3})
			return err
		})
		lead := func(to int32) {
			c.until("another node leads", func() error {
				top, err := c.nodes[0].db.Topic("orders")
				if err != nil {
					return err
				}
				if leader, err := top.Leader(0); err != nil || leader != to {
					return errors.Join(errors.New("not yet"), err, c.nodes[0].db.Cluster().TransferLeadership(ctx, "orders", 0, to))
				}
				return nil
			})
		}
		add := func() {
			c.until("append", func() error {
				top, err := c.nodes[0].db.Topic("orders")
				if err == nil {
					_, err = top.Produce(ctx, embedlog.Record{Value: []byte("x")})
				}
				return err
			})
		}
		c.until("all are members", func() error { return c.well("orders", 0) })
		lead(1)
		add()
		c.cut(c.nodes[2], 1)
		dead := c.nodes[2]
		c.nodes = c.nodes[:2]
		add() // the dead one has not got it
		for range 4 {
			began := time.Now()
			err := c.nodes[0].db.Cluster().TransferLeadership(ctx, "orders", 0, 3)
			if err == nil {
				t.Fatal("the lead was given to a node that is gone")
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v to say %v", took, err)
			}
			add()
		}
		err := c.nodes[1].db.Cluster().TransferLeadership(ctx, "orders", 0, 3)
		if !errors.Is(err, embedlog.ErrInvalidAssignment) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("asked at another node: %v", err)
		}
		lead(2)
		add()
		lead(1)
		add()
		c.nodes = append(c.nodes, dead)
		c.start(dead)
		c.until("it is back", func() error { return c.well("orders", 8) })
		lead(3)
		add()
		c.close()
	})
}
