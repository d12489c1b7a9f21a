package dbsim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog"
)

// move changes where replicas are, or who leads, as an administrator does: at any node, in the background.
func (s *sim) move() (name string) {
	p := s.running(s.rng)
	if p == nil {
		return ""
	}
	topic, part := s.topics[s.rng.IntN(len(s.topics))], int32(s.rng.IntN(s.parts))
	switch at := s.rng.IntN(12); {
	case at < 3:
		topic, part = []string{"__consumer_offsets", "__transaction_state", "__share_group_state"}[at], 0
	case at < 6 && s.plan.weak:
		k := s.weakKeys()[s.rng.IntN(len(s.weakKeys()))]
		topic, part = k.Topic, k.Partition
	}
	staying := s.staying()
	node := staying[s.rng.IntN(len(staying))].id
	do := func(f func(ctx context.Context, c *embedlog.Cluster) error) {
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(p.life, 15*time.Second)
			defer cancel()
			if err := f(ctx, p.db.Cluster()); err != nil && !p.dead.Load() {
				s.note(name, err)
			}
		})
	}
	switch s.rng.IntN(6) {
	case 0, 1:
		name = "transfer"
		do(func(ctx context.Context, c *embedlog.Cluster) error {
			return c.TransferLeadership(ctx, topic, part, 0)
		})
	case 2:
		name = "elect preferred"
		do(func(ctx context.Context, c *embedlog.Cluster) error {
			_, err := c.ElectPreferred(ctx)
			return err
		})
	case 3:
		name = "reassign"
		var replicas []int32
		for _, i := range s.rng.Perm(len(staying))[:min(3, len(staying))] {
			replicas = append(replicas, staying[i].id)
		}
		do(func(ctx context.Context, c *embedlog.Cluster) error { return c.Reassign(ctx, topic, part, replicas) })
	case 5:
		if s.reshaping.Load() {
			return "" // what is left may be on the node that is gone
		}
		// One replica of the internal topics would make all wait for its node.
		topic, factor := s.topics[s.rng.IntN(len(s.topics))], 1+s.rng.IntN(3)
		name = fmt.Sprint("replication factor ", factor)
		s.few = s.few || factor < 3
		do(func(ctx context.Context, c *embedlog.Cluster) error {
			return c.SetReplicationFactor(ctx, topic, factor)
		})
	case 4:
		if s.drained == 0 && len(staying) < 5 {
			return ""
		}
		if s.drained != 0 {
			node := s.drained
			s.drained, name = 0, "undrain"
			do(func(ctx context.Context, c *embedlog.Cluster) error { return c.UndrainNode(ctx, node) })
			return name
		}
		s.drained, name = node, "drain"
		do(func(ctx context.Context, c *embedlog.Cluster) error { return c.DrainNode(ctx, node) })
	}
	return name
}

// named is what an administrator knows of a topic that it makes and deletes.
type named struct {
	exists, unknown bool // unknown: it exists or not
	partitions      int
}

// administer makes topics, changes and deletes them. What was acknowledged stays.
func (c *client) administer() {
	all := map[string]*named{}
	for c.pause(700 * time.Millisecond) {
		if c.p = c.running(c.rnd); c.p == nil {
			continue
		}
		name := fmt.Sprint("made-", c.rnd.IntN(4))
		n := all[name]
		if n == nil {
			n = &named{}
			all[name] = n
		}
		ctx, cancel := c.limit(time.Duration(1+c.rnd.IntN(20)) * time.Second)
		c.change(ctx, name, n)
		cancel()
	}
	c.made = all
}

// change does one thing to a topic, and notes what it knows of it then.
func (c *client) change(ctx context.Context, name string, n *named) {
	was := *n
	var err error
	defer func() {
		c.trace("administrator at node %d: topic %s from %+v to %+v: %v", c.p.m.id, name, was, *n, err)
	}()
	wants := func(is error) {
		if !c.p.dead.Load() && !n.unknown && !was.unknown {
			c.problem("topic %s at node %d, which the administrator knows as %+v: %v", name, c.p.m.id, was, is)
		}
	}
	switch {
	case !n.exists || n.unknown && c.rnd.IntN(2) == 0:
		partitions := 1 + c.rnd.IntN(3)
		_, err = c.p.db.CreateTopic(ctx, name, &embedlog.TopicConfig{Partitions: partitions, ReplicationFactor: 3})
		switch {
		case err == nil:
			*n = named{exists: true, partitions: partitions}
		case errors.Is(err, embedlog.ErrTopicExists):
			wants(err)
			*n = named{exists: true, partitions: -1}
		}
	case c.rnd.IntN(3) == 0:
		top, e := c.p.db.Topic(name)
		if err = e; err != nil {
			break // this node may not have heard of it: only the final look counts
		}
		more := max(n.partitions, 1) + c.rnd.IntN(2) + 1
		if err = top.AddPartitions(ctx, more); err == nil {
			n.partitions = more
		} else if errors.Is(err, embedlog.ErrUnknownOutcome) {
			n.partitions = -1
		}
		c.note("add partitions", err)
		return
	default:
		switch err = c.p.db.DeleteTopic(ctx, name); {
		case err == nil:
			*n = named{}
		case errors.Is(err, embedlog.ErrUnknownTopic):
			wants(err)
			*n = named{}
		}
	}
	c.note("administer", err)
	if errors.Is(err, embedlog.ErrUnknownOutcome) || c.p.dead.Load() {
		n.unknown, n.partitions = true, -1
	}
}

// administered looks that all nodes have what the administrator was told.
func (s *sim) administered(c *client) error {
	for name, n := range c.made {
		if n.unknown {
			continue
		}
		for _, p := range s.processes() {
			top, err := p.db.Engine().Topic(name)
			if (err == nil) != n.exists {
				return fmt.Errorf("topic %s at node %d: %v, and the administrator knows %+v", name, p.m.id, err, *n)
			}
			if err == nil && n.partitions > 0 && len(top.Partitions()) != n.partitions {
				return fmt.Errorf("topic %s at node %d has %d partitions, and the administrator knows %+v", name, p.m.id, len(top.Partitions()), *n)
			}
		}
	}
	return nil
}

// placed says that the groups of all partitions have the members that the metadata assigns.
func (s *sim) placed() error {
	for _, p := range s.processes() {
		for _, st := range p.db.Cluster().Status() {
			if st.Leader != p.m.id {
				continue
			}
			var members []int32
			for _, member := range st.Members {
				members = append(members, member.Node)
				if !member.Voter {
					return fmt.Errorf("%s/%d: node %d has no vote", st.Topic, st.Partition, member.Node)
				}
			}
			want := slices.Clone(st.Replicas)
			slices.Sort(want)
			slices.Sort(members)
			if !slices.Equal(want, members) {
				return fmt.Errorf("%s/%d has the members %v and is to have %v", st.Topic, st.Partition, members, want)
			}
		}
	}
	return nil
}
