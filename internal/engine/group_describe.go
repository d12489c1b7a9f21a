package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/x/embedlog/partition"
)

// List returns all groups, by name. In a cluster they are those that this node
// coordinates.
func (g *Groups) List(ctx context.Context) ([]GroupListing, error) {
	shards, err := g.prepare(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	for i := range shards {
		if _, err := g.loaded(ctx, i); err != nil && !errors.Is(err, partition.ErrNotLeader) {
			return nil, fmt.Errorf("list groups: %w", err)
		}
	}
	var list []GroupListing
	for _, x := range g.loadedGroups() {
		x.mu.Lock()
		if x.knownLocked() {
			list = append(list, GroupListing{
				Group: x.name, Type: x.roster.kind, ProtocolType: x.roster.protocolType(), State: x.roster.state(), Members: x.roster.count(),
			})
		}
		x.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b GroupListing) int { return strings.Compare(a.Group, b.Group) })
	return list, nil
}

// Describe returns all about a group: its members, and how far it is in each
// partition. It fails with ErrUnknownGroup.
func (g *Groups) Describe(ctx context.Context, group string) (GroupDescription, error) {
	d, err := g.describe(ctx, group)
	if err != nil {
		return GroupDescription{}, fmt.Errorf("describe group %q: %w", group, err)
	}
	return d, nil
}

func (g *Groups) describe(ctx context.Context, name string) (d GroupDescription, err error) {
	s, err := g.shard(ctx, name, false)
	if err != nil {
		return d, err
	}
	var x *group
	if s != nil {
		s.mu.Lock()
		x = s.groups[name]
		s.mu.Unlock()
	}
	if x == nil {
		return d, ErrUnknownGroup
	}
	view := g.view.Load()
	owners := map[topicPart]string{}
	x.mu.Lock()
	if !x.knownLocked() {
		x.mu.Unlock()
		return d, ErrUnknownGroup
	}
	x.roster.server.setTopics(view)
	d = x.roster.describe(owners)
	d.Group = name
	x.mu.Unlock()
	if d.Type == GroupTypeShare {
		d.Partitions, err = g.shareLag(ctx, name)
		return d, err
	}
	committed, _ := g.committed(x, nil, false)
	for _, o := range committed {
		p := topicPart{o.TopicID, o.Partition}
		d.Partitions = append(d.Partitions, g.lag(ctx, o, owners[p]))
		delete(owners, p)
	}
	for p, member := range owners {
		o := CommittedOffset{OffsetCommit: OffsetCommit{Topic: view.byID[p.topic].name, TopicID: p.topic, Partition: p.partition, Offset: -1, LeaderEpoch: -1}}
		if o.Topic != "" { // else it was deleted, and the member has not yet heard
			d.Partitions = append(d.Partitions, g.lag(ctx, o, member))
		}
	}
	slices.SortFunc(d.Partitions, func(a, b PartitionLag) int { return compareOffsets(&a.OffsetCommit, &b.OffsetCommit) })
	return d, nil
}

// describe tells all but the offsets. It puts into owners who has which partition.
func (r *roster) describe(owners map[topicPart]string) GroupDescription {
	d := GroupDescription{Type: r.kind, ProtocolType: r.protocolType(), State: r.state(), Epoch: r.server.epoch}
	switch r.kind {
	case GroupTypeConsumer:
		d.Assignor = r.server.assignor
	case GroupTypeShare:
		d.Assignor = ShareAssignor
	default:
		d.Protocol = r.classic.protocol
	}
	for _, id := range slices.Sorted(maps.Keys(r.share.members)) {
		d.Members = append(d.Members, r.share.members[id].describe())
	}
	for _, id := range slices.Sorted(maps.Keys(r.server.members)) {
		m := r.server.members[id]
		d.Members = append(d.Members, m.describe())
		if !m.left {
			m.assigned.or(m.revoking).each(func(p topicPart) { owners[p] = id })
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.classic.members)) {
		m := r.describeClassic(r.classic.members[id])
		d.Members = append(d.Members, m)
		newGroupParts(m.Assigned).each(func(p topicPart) { owners[p] = id })
	}
	return d
}

func (r *roster) protocolType() string {
	switch r.kind {
	case GroupTypeConsumer:
		return ConsumerProtocolType
	case GroupTypeShare:
		return string(GroupTypeShare)
	}
	return r.classic.protocolType
}

func (r *roster) describeClassic(m *classicMember) MemberDescription {
	c := r.classic
	d := MemberDescription{
		MemberID: m.id, InstanceID: m.instance, ClientID: m.client, ClientHost: m.host, Epoch: c.generation, Classic: true, LastSeen: m.lastSeen,
		Assigned: []TopicPartitions{}, Revoking: []TopicPartitions{}, Target: []TopicPartitions{},
	}
	if c.protocolType == ConsumerProtocolType {
		if s, err := classicSubscription(c.name, m.protocols); err == nil {
			d.Topics, d.RackID = s.topics, s.rack
		}
		if list, err := parseConsumerAssignment(m.assignment); err == nil {
			d.Assigned = r.server.view.parts(list).list()
		}
	}
	if c.phase == GroupStable { // before, nobody knows what will be
		d.Metadata, d.Assignment, d.Target = m.metadata(c.protocol), m.assignment, d.Assigned
	}
	return d
}

func (m *groupMember) describe() MemberDescription {
	return MemberDescription{
		Classic:  m.classic != nil,
		MemberID: m.id, InstanceID: m.instance, RackID: m.rack, ClientID: m.client, ClientHost: m.host,
		Epoch: m.shownEpoch(), Topics: slices.Clone(m.topics), Regex: m.regex, Local: m.local, LastSeen: m.lastSeen,
		Assigned: m.assigned.list(), Revoking: m.revoking.list(), Target: m.target.list(),
	}
}

func (g *Groups) lag(ctx context.Context, o CommittedOffset, member string) PartitionLag {
	l := PartitionLag{CommittedOffset: o, LogStart: -1, HighWatermark: -1, Lag: -1, MemberID: member}
	p, err := g.find(topicPart{o.TopicID, o.Partition})
	if err != nil {
		return l
	}
	bounds, err := g.engine.offsetsOf(ctx, p, offsetsQuestion{})
	if err != nil {
		return l // who leads it is not known, or does not answer
	}
	l.LogStart, l.HighWatermark = bounds.LogStart, bounds.HighWatermark
	if o.Offset >= 0 {
		// What was deleted before it was read cannot be read any more.
		l.Lag = max(l.HighWatermark-max(o.Offset, l.LogStart), 0)
	}
	return l
}

// partition returns a partition that can be asked for its offsets.
func (g *Groups) partition(at topicPart) (*Partition, error) {
	t, err := g.engine.TopicByID(at.topic)
	if err != nil {
		return nil, err
	}
	p, err := t.Partition(at.partition)
	if err != nil {
		return nil, err
	}
	// A partition that could not be opened has nothing, and says why. One that is only
	// damaged, or cannot be written, still knows its offsets.
	if err := p.Err(); err != nil && p.LogEnd() == 0 {
		return nil, err
	}
	return p, nil
}
