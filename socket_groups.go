package embedlog

import (
	"context"
	"slices"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/sock"
)

func (s *session) groups(ctx context.Context, _ none) ([]sock.GroupBrief, error) {
	list, err := s.db.engine.AnyGroups().List(ctx)
	groups := []sock.GroupBrief{}
	for _, g := range list {
		groups = append(groups, sock.GroupBrief{Group: g.Group, Type: string(g.Type), State: string(g.State), Members: g.Members})
	}
	return groups, err
}

func (s *session) group(ctx context.Context, q sock.GroupName) (sock.Group, error) {
	d, err := s.db.engine.AnyGroups().Describe(ctx, q.Group)
	if err != nil {
		return sock.Group{}, err
	}
	g := sock.Group{
		Group: d.Group, Type: string(d.Type), State: string(d.State), Epoch: d.Epoch, Assignor: d.Assignor,
		Members: []sock.Member{}, Offsets: []sock.GroupOffset{},
	}
	owner := make(map[string]*engine.MemberDescription)
	for i := range d.Members {
		m := &d.Members[i]
		owner[m.MemberID] = m
		member := sock.Member{
			ID: m.MemberID, InstanceID: m.InstanceID, ClientID: m.ClientID, Host: host(m), Epoch: m.Epoch,
			Assigned: []sock.TopicPartition{},
		}
		for _, tp := range m.Assigned {
			for _, p := range tp.Partitions {
				member.Assigned = append(member.Assigned, sock.TopicPartition{Topic: s.topicName(tp.Topic), Partition: p})
			}
		}
		g.Members = append(g.Members, member)
	}
	for _, p := range d.Partitions {
		o := sock.GroupOffset{
			Topic: p.Topic, Partition: p.Partition, Current: p.Offset, LogEnd: p.HighWatermark, Lag: p.Lag,
			Metadata: p.Metadata, Committed: p.CommitTime, MemberID: p.MemberID,
		}
		if m := owner[p.MemberID]; m != nil {
			o.Host, o.ClientID = host(m), m.ClientID
		}
		g.Offsets = append(g.Offsets, o)
	}
	return g, nil
}

// host is where a member lives.
func host(m *engine.MemberDescription) string {
	if m.ClientHost == "" && m.Local {
		return "in-process"
	}
	return m.ClientHost
}

// topicName is the name of a topic, or its id when it is gone.
func (s *session) topicName(id TopicID) string {
	if t, err := s.db.engine.TopicByID(id); err == nil {
		return t.Name()
	}
	return id.String()
}

func (s *session) resetGroup(ctx context.Context, q sock.Reset) ([]sock.ResetResult, error) {
	req := engine.ResetRequest{
		Kind: engine.ResetKind(q.To), Offset: q.Offset, Time: q.Time, Duration: q.Duration, DryRun: !q.Execute,
	}
	for _, t := range q.Topics {
		if len(t.Partitions) == 0 {
			req.Topics = append(req.Topics, t.Topic)
			continue
		}
		topic, err := s.db.engine.FindTopic(ctx, t.Topic)
		if err != nil {
			return nil, err
		}
		req.Partitions = append(req.Partitions, engine.TopicPartitions{Topic: topic.ID(), Partitions: slices.Clone(t.Partitions)})
	}
	list, err := s.db.engine.AnyGroups().Reset(ctx, q.Group, req)
	results := []sock.ResetResult{}
	for _, r := range list {
		results = append(results, sock.ResetResult{
			Group: q.Group, Topic: r.Topic, Partition: r.Partition, Current: r.Before, New: r.Offset, Wanted: r.Wanted,
		})
	}
	return results, err
}

func (s *session) deleteGroup(ctx context.Context, q sock.GroupName) (none, error) {
	return none{}, s.db.engine.AnyGroups().Delete(ctx, q.Group)
}
