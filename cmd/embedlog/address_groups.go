package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
)

// listGroups is what all brokers have, by name. Older ones do not say of which type a
// group is.
func (k *kafkaDoor) listGroups(ctx context.Context) ([]sock.GroupBrief, error) {
	list := []sock.GroupBrief{}
	for _, shard := range k.cl.RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		resp := shard.Resp.(*kmsg.ListGroupsResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, err
		}
		for _, g := range resp.Groups {
			list = append(list, sock.GroupBrief{Group: g.Group, Type: strings.ToLower(g.GroupType), State: g.GroupState})
		}
	}
	slices.SortFunc(list, func(a, b sock.GroupBrief) int { return strings.Compare(a.Group, b.Group) })
	return list, nil
}

func (k *kafkaDoor) groups(ctx context.Context, _ none) ([]sock.GroupBrief, error) {
	list, err := k.listGroups(ctx)
	if err != nil || len(list) == 0 {
		return list, err
	}
	var names []string
	for i := range list {
		names = append(names, list[i].Group)
	}
	// Each is of one of the two protocols, or of a kind that is not described here. A
	// broker may not know the newer one, and a group may be gone meanwhile.
	assigned, err := k.admin.DescribeConsumerGroups(ctx, names...)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var rest []string
	for _, name := range names {
		if g := assigned[name]; g.Err != nil || g.State == "" {
			rest = append(rest, name)
		}
	}
	var classic kadm.DescribedGroups
	if len(rest) > 0 {
		if classic, err = k.admin.DescribeGroups(ctx, rest...); err != nil {
			return nil, err
		}
	}
	for i := range list {
		g := &list[i]
		if d, ok := classic[g.Group]; ok {
			g.Type, g.Members = cmp.Or(g.Type, typeClassic), len(d.Members)
		} else {
			g.Type, g.State, g.Members = typeConsumer, assigned[g.Group].State, len(assigned[g.Group].Members)
		}
	}
	return list, nil
}

// Types of groups, as sock.GroupBrief has them.
const (
	typeConsumer = "consumer"
	typeClassic  = "classic"
)

func unknownGroup(name string) error {
	return &sock.Error{Code: sock.CodeUnknownGroup, Message: fmt.Sprintf("group %q: %v", name, embedlog.ErrUnknownGroup)}
}

// describeGroup tells all but the offsets, whichever protocol the group is of.
func (k *kafkaDoor) describeGroup(ctx context.Context, name string) (sock.Group, error) {
	g := sock.Group{Group: name, Members: []sock.Member{}, Offsets: []sock.GroupOffset{}}
	assigned, err := k.admin.DescribeConsumerGroups(ctx, name)
	if a := assigned[name]; err == nil && a.Err == nil && a.State != "" {
		g.Type, g.State, g.Epoch, g.Assignor = typeConsumer, a.State, a.Epoch, a.AssignorName
		for _, m := range a.Members {
			g.Members = append(g.Members, sock.Member{
				ID: m.MemberID, InstanceID: orEmpty(m.InstanceID), ClientID: m.ClientID, Host: plainHost(m.ClientHost), Epoch: m.MemberEpoch,
				Assigned: topicPartitions(m.Assignment),
			})
		}
		sortMembers(g.Members)
		return g, nil
	}
	if ctx.Err() != nil {
		return g, ctx.Err()
	}
	// It is not one that the broker assigns, or the broker knows none.
	classic, err := k.admin.DescribeGroups(ctx, name)
	if err != nil {
		return g, err
	}
	c := classic[name]
	switch {
	case errors.Is(c.Err, kerr.GroupIDNotFound), c.Err == nil && c.State == "Dead":
		return g, unknownGroup(name)
	case c.Err != nil:
		return g, failed(c.Err, c.ErrMessage, "group %q", name)
	}
	g.Type, g.State, g.Assignor = typeClassic, c.State, c.Protocol
	for _, m := range c.Members {
		member := sock.Member{ID: m.MemberID, InstanceID: orEmpty(m.InstanceID), ClientID: m.ClientID, Host: plainHost(m.ClientHost)}
		set := make(kadm.TopicsSet)
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				set.Add(t.Topic, t.Partitions...)
			}
		}
		member.Assigned = topicPartitions(set)
		g.Members = append(g.Members, member)
	}
	sortMembers(g.Members)
	return g, nil
}

func sortMembers(list []sock.Member) {
	slices.SortFunc(list, func(a, b sock.Member) int { return strings.Compare(a.ID, b.ID) })
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// plainHost is an address without the slash that brokers put before it. One in the
// program that serves has none.
func plainHost(s string) string {
	if s == "" {
		return "in-process"
	}
	return strings.TrimPrefix(s, "/")
}

func topicPartitions(set kadm.TopicsSet) []sock.TopicPartition {
	list := []sock.TopicPartition{}
	for _, t := range set.Sorted() {
		for _, p := range t.Partitions {
			list = append(list, sock.TopicPartition{Topic: t.Topic, Partition: p})
		}
	}
	return list
}

// group describes a group with its offsets.
func (k *kafkaDoor) group(ctx context.Context, q sock.GroupName) (sock.Group, error) {
	g, err := k.describeGroup(ctx, q.Group)
	if err != nil {
		return g, err
	}
	committed, err := k.admin.FetchOffsets(ctx, q.Group)
	if err != nil {
		return g, err
	}
	owners := make(map[sock.TopicPartition]*sock.Member)
	parts := make(kadm.TopicsSet)
	for i := range g.Members {
		for _, tp := range g.Members[i].Assigned {
			owners[tp] = &g.Members[i]
			parts.Add(tp.Topic, tp.Partition)
		}
	}
	committed.Each(func(o kadm.OffsetResponse) { parts.Add(o.Topic, o.Partition) })
	start, end, err := k.bounds(ctx, parts)
	if err != nil {
		return g, err
	}
	for _, tp := range topicPartitions(parts) {
		o := sock.GroupOffset{Topic: tp.Topic, Partition: tp.Partition, Current: -1, LogEnd: -1, Lag: -1}
		if last, ok := end.Lookup(tp.Topic, tp.Partition); ok && last.Err == nil {
			o.LogEnd = last.Offset
		}
		if c, ok := committed.Lookup(tp.Topic, tp.Partition); ok && c.At >= 0 {
			o.Current, o.Metadata = c.At, c.Metadata
			if first, ok := start.Lookup(tp.Topic, tp.Partition); ok && o.LogEnd >= 0 {
				// What was deleted before it was read cannot be read any more.
				o.Lag = max(o.LogEnd-max(c.At, first.Offset), 0)
			}
		}
		if m := owners[tp]; m != nil {
			o.MemberID, o.Host, o.ClientID = m.ID, m.Host, m.ClientID
		}
		g.Offsets = append(g.Offsets, o)
	}
	return g, nil
}

// bounds are where partitions begin and end; what is not there has none.
func (k *kafkaDoor) bounds(ctx context.Context, parts kadm.TopicsSet) (start, end kadm.ListedOffsets, err error) {
	names := parts.Topics()
	if len(names) == 0 {
		return nil, nil, nil
	}
	if start, err = k.admin.ListStartOffsets(ctx, names...); err != nil {
		return nil, nil, err
	}
	end, err = k.admin.ListEndOffsets(ctx, names...)
	return start, end, err
}

func (k *kafkaDoor) deleteGroup(ctx context.Context, q sock.GroupName) (none, error) {
	done, err := k.admin.DeleteGroups(ctx, q.Group)
	if err != nil {
		return none{}, err
	}
	switch r := done[q.Group]; {
	case errors.Is(r.Err, kerr.GroupIDNotFound):
		return none{}, unknownGroup(q.Group)
	case errors.Is(r.Err, kerr.NonEmptyGroup):
		return none{}, groupNotEmpty(q.Group)
	default:
		return none{}, failed(r.Err, r.ErrMessage, "delete group %q", q.Group)
	}
}

func groupNotEmpty(name string) error {
	return &sock.Error{Code: sock.CodeGroupNotEmpty, Message: fmt.Sprintf("group %q: %v", name, embedlog.ErrGroupNotEmpty)}
}

// resetGroup moves a group's offsets as the database itself does it: it computes all,
// then commits all in one request.
func (k *kafkaDoor) resetGroup(ctx context.Context, q sock.Reset) ([]sock.ResetResult, error) {
	named := len(q.Topics) > 0
	if q.To == sock.ToOffset && q.Offset < 0 {
		return nil, &sock.Error{Code: sock.CodeInvalid, Message: fmt.Sprintf("offset %d is negative", q.Offset)}
	}
	g, err := k.describeGroup(ctx, q.Group)
	switch {
	case code(err) == sock.CodeUnknownGroup && named: // it is made
	case err != nil:
		return nil, err
	case len(g.Members) > 0:
		return nil, groupNotEmpty(q.Group)
	}
	before, err := k.admin.FetchOffsets(ctx, q.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, err
	}
	parts, err := k.resetParts(ctx, q, before)
	if err != nil {
		return nil, err
	}
	start, end, err := k.bounds(ctx, parts)
	if err != nil {
		return nil, err
	}
	var atTime kadm.ListedOffsets
	if names := parts.Topics(); len(names) > 0 && (q.To == sock.ToTime || q.To == sock.ToDuration) {
		t := q.Time
		if q.To == sock.ToDuration {
			t = time.Now().Add(-q.Duration)
		}
		if atTime, err = k.admin.ListOffsetsAfterMilli(ctx, t.UnixMilli(), names...); err != nil {
			return nil, err
		}
	}
	results := []sock.ResetResult{}
	var commit kadm.Offsets
	for _, tp := range topicPartitions(parts) {
		first, _ := start.Lookup(tp.Topic, tp.Partition)
		last, ok := end.Lookup(tp.Topic, tp.Partition)
		if err := errors.Join(first.Err, last.Err); err != nil || !ok {
			return nil, topicError(tp.Topic, err)
		}
		r := sock.ResetResult{Group: q.Group, Topic: tp.Topic, Partition: tp.Partition, Current: -1}
		if c, ok := before.Lookup(tp.Topic, tp.Partition); ok {
			r.Current = c.At
		}
		found, _ := atTime.Lookup(tp.Topic, tp.Partition)
		if r.Wanted, err = wantedOffset(q, r, first.Offset, last.Offset, found.Offset); err != nil {
			return nil, err
		}
		r.New = max(min(r.Wanted, last.Offset), first.Offset)
		results = append(results, r)
		commit.AddOffset(tp.Topic, tp.Partition, r.New, -1)
	}
	if !q.Execute || len(results) == 0 {
		return results, nil
	}
	done, err := k.admin.CommitOffsets(ctx, q.Group, commit)
	if err == nil {
		err = done.Error()
	}
	if errors.Is(err, kerr.UnknownMemberID) {
		return nil, groupNotEmpty(q.Group)
	}
	return results, failed(err, "", "reset offsets of group %q", q.Group)
}

func wantedOffset(q sock.Reset, r sock.ResetResult, first, last, atTime int64) (int64, error) {
	switch q.To {
	case sock.ToEarliest:
		return first, nil
	case sock.ToLatest:
		return last, nil
	case sock.ToOffset:
		return q.Offset, nil
	case sock.ToCurrent:
		if r.Current < 0 {
			return last, nil
		}
		return r.Current, nil
	case sock.ToShift:
		if r.Current < 0 {
			return 0, &sock.Error{Code: sock.CodeInvalid, Message: fmt.Sprintf("%s/%d has no committed offset to shift", r.Topic, r.Partition)}
		}
		to := r.Current + q.Offset
		if q.Offset > 0 && to < 0 {
			to = math.MaxInt64
		}
		return to, nil
	}
	return atTime, nil
}

// resetParts is which partitions are meant.
func (k *kafkaDoor) resetParts(ctx context.Context, q sock.Reset, before kadm.OffsetResponses) (kadm.TopicsSet, error) {
	parts := make(kadm.TopicsSet)
	if len(q.Topics) == 0 {
		before.Each(func(o kadm.OffsetResponse) { parts.Add(o.Topic, o.Partition) })
		return parts, nil
	}
	var names []string
	for _, t := range q.Topics {
		names = append(names, t.Topic)
	}
	m, err := k.admin.Metadata(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, t := range q.Topics {
		d := m.Topics[t.Topic]
		if err := topicError(t.Topic, d.Err); err != nil {
			return nil, err
		}
		if len(t.Partitions) == 0 {
			parts.Add(t.Topic, d.Partitions.Numbers()...)
		}
		for _, p := range t.Partitions {
			if int(p) >= len(d.Partitions) {
				err := &embedlog.UnknownPartitionError{Topic: t.Topic, Partition: p, Partitions: len(d.Partitions)}
				return nil, &sock.Error{Code: sock.CodeUnknownPart, Message: err.Error()}
			}
			parts.Add(t.Topic, p)
		}
	}
	return parts, nil
}
