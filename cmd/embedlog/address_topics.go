package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
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

// info tells what the cluster is. What only the files say is zero.
func (k *kafkaDoor) info(ctx context.Context, _ none) (sock.Info, error) {
	m, err := k.admin.Metadata(ctx)
	if err != nil {
		return sock.Info{}, err
	}
	info := sock.Info{Address: strings.Join(k.at.hosts, ","), ClusterID: m.Cluster, NodeID: m.Controller, Topics: []sock.TopicBrief{}}
	for _, b := range m.Brokers {
		info.Nodes = append(info.Nodes, sock.Node{NodeID: b.NodeID, Host: b.Host, Port: b.Port})
	}
	known, err := k.measure(ctx, m.Topics)
	if err != nil {
		return sock.Info{}, err
	}
	if len(known.dirs) == 1 {
		info.Dir = known.dirs[0]
	}
	for _, name := range slices.Sorted(maps.Keys(m.Topics)) {
		info.Topics = append(info.Topics, known.topic(m.Topics[name]).TopicBrief)
	}
	return info, nil
}

// topics describes one topic, or all.
func (k *kafkaDoor) topics(ctx context.Context, q sock.TopicsRequest) ([]sock.Topic, error) {
	var names []string
	if q.Topic != "" {
		names = []string{q.Topic}
	}
	m, err := k.admin.Metadata(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := topicError(name, m.Topics[name].Err); err != nil {
			return nil, err
		}
	}
	known, err := k.measure(ctx, m.Topics)
	if err != nil {
		return nil, err
	}
	settings, err := k.settings(ctx, slices.Collect(maps.Keys(m.Topics)))
	if err != nil {
		return nil, err
	}
	list := []sock.Topic{}
	for _, name := range slices.Sorted(maps.Keys(m.Topics)) {
		t := known.topic(m.Topics[name])
		if len(m.Brokers) > 1 {
			tellReplicas(&t, m.Topics[name])
		}
		if t.Settings = settings[name]; t.Settings == nil {
			t.Settings, t.SettingsHidden = []sock.Setting{}, true
		}
		list = append(list, t)
	}
	return list, nil
}

// tellReplicas says who has what: of a broker that is alone there is nothing to say.
func tellReplicas(t *sock.Topic, d kadm.TopicDetail) {
	for i := range t.PartitionList {
		p := &t.PartitionList[i]
		from := d.Partitions[p.Partition]
		p.Leader, p.Replicas, p.InSync = from.Leader, from.Replicas, from.ISR
	}
}

// topicError is an error about a topic, in the words that a directory has for it.
func topicError(name string, err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return unknownTopic(name)
	}
	return failed(err, "", "topic %q", name)
}

func unknownTopic(name string) error {
	return &sock.Error{Code: sock.CodeUnknownTopic, Message: (&embedlog.UnknownTopicError{Name: name}).Error()}
}

// measures are the offsets and sizes of topics.
type measures struct {
	start, stable, end kadm.ListedOffsets
	bytes              map[string]map[int32]int64 // of all replicas together
	dirs               []string
}

// measure asks for offsets and sizes. Sizes may be hidden from who asks: then they
// are -1.
func (k *kafkaDoor) measure(ctx context.Context, topics kadm.TopicDetails) (measures, error) {
	m := measures{bytes: make(map[string]map[int32]int64)}
	names := topics.Names()
	if len(names) == 0 {
		return m, nil
	}
	for _, ask := range []struct {
		with func(context.Context, ...string) (kadm.ListedOffsets, error)
		to   *kadm.ListedOffsets
	}{{k.admin.ListStartOffsets, &m.start}, {k.admin.ListCommittedOffsets, &m.stable}, {k.admin.ListEndOffsets, &m.end}} {
		var err error
		if *ask.to, err = ask.with(ctx, names...); err != nil {
			return m, err
		}
	}
	dirs, err := k.admin.DescribeAllLogDirs(ctx, topics.TopicsSet())
	if err != nil && ctx.Err() != nil {
		return m, err
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		if d.Dir != "" {
			m.dirs = append(m.dirs, d.Dir)
		}
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if m.bytes[p.Topic] == nil {
				m.bytes[p.Topic] = make(map[int32]int64)
			}
			m.bytes[p.Topic][p.Partition] += p.Size
		})
	})
	return m, nil
}

func (m *measures) topic(t kadm.TopicDetail) sock.Topic {
	out := sock.Topic{
		TopicBrief:    sock.TopicBrief{Topic: t.Topic, ID: base64.RawURLEncoding.EncodeToString(t.ID[:]), Internal: t.IsInternal, Partitions: len(t.Partitions)},
		PartitionList: []sock.Partition{},
	}
	for _, p := range t.Partitions.Sorted() {
		x := sock.Partition{Partition: p.Partition, LeaderEpoch: p.LeaderEpoch, Bytes: -1}
		if n, ok := m.bytes[t.Topic][p.Partition]; ok {
			x.Bytes = n
		}
		err := p.Err
		for _, o := range []struct {
			from kadm.ListedOffsets
			to   *int64
		}{{m.start, &x.LogStart}, {m.stable, &x.LastStable}, {m.end, &x.HighWatermark}} {
			at, _ := o.from.Lookup(t.Topic, p.Partition)
			if *o.to = max(at.Offset, 0); err == nil {
				err = at.Err
			}
		}
		x.LogEnd = x.HighWatermark // a broker tells no more of it
		if err != nil {
			x.Error = err.Error()
		}
		out.Records += x.HighWatermark - x.LogStart
		if x.Bytes < 0 || out.Bytes < 0 {
			out.Bytes = -1
		} else {
			out.Bytes += x.Bytes
		}
		out.PartitionList = append(out.PartitionList, x)
	}
	return out
}

// settings are those that were said for each topic itself. A topic whose settings are
// not for us to know has none, not even an empty list.
func (k *kafkaDoor) settings(ctx context.Context, topics []string) (map[string][]sock.Setting, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	described, err := k.admin.DescribeTopicConfigs(ctx, topics...)
	if auth := (*kadm.AuthError)(nil); err != nil && !errors.As(err, &auth) {
		return nil, err
	}
	all := make(map[string][]sock.Setting)
	for _, r := range described {
		switch {
		case errors.Is(r.Err, kerr.TopicAuthorizationFailed):
			continue
		case r.Err != nil:
			return nil, failed(r.Err, r.ErrMessage, "settings of topic %q", r.Name)
		}
		all[r.Name] = []sock.Setting{}
		for _, c := range r.Configs {
			if c.Source == kmsg.ConfigSourceDynamicTopicConfig {
				all[r.Name] = append(all[r.Name], sock.Setting{Name: c.Key, Value: c.MaybeValue()})
			}
		}
		slices.SortFunc(all[r.Name], func(a, b sock.Setting) int { return strings.Compare(a.Name, b.Name) })
	}
	return all, nil
}

// changed answers a change with the topic as it is now. A cluster may take a moment
// until all of it knows.
func (k *kafkaDoor) changed(ctx context.Context, name string, partitions int) (sock.Topic, error) {
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		list, err := k.topics(ctx, sock.TopicsRequest{Topic: name})
		late := code(err) == sock.CodeUnknownTopic || err == nil && len(list[0].PartitionList) < partitions
		if !late || wait > 2*time.Second {
			if err != nil {
				return sock.Topic{}, err
			}
			return list[0], nil
		}
		select {
		case <-ctx.Done():
			return sock.Topic{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (k *kafkaDoor) createTopic(ctx context.Context, q sock.CreateTopic) (sock.Topic, error) {
	settings := make(map[string]*string)
	for name, value := range q.Settings {
		settings[name] = &value
	}
	factor := int16(-1) // as many copies as the cluster makes by default
	if q.ReplicationFactor != 0 {
		factor = int16(min(q.ReplicationFactor, math.MaxInt16))
	}
	r, err := k.admin.CreateTopic(ctx, int32(q.Partitions), factor, settings, q.Topic)
	if r.Err != nil {
		err = r.Err // else it is the request's
	}
	if q.IfNotExists && errors.Is(err, kerr.TopicAlreadyExists) {
		old, err := k.topics(ctx, sock.TopicsRequest{Topic: q.Topic})
		if err != nil {
			return sock.Topic{}, err
		}
		old[0].Existed = true
		return old[0], nil
	}
	if err != nil {
		return sock.Topic{}, failed(err, r.ErrMessage, "create topic %q", q.Topic)
	}
	return k.changed(ctx, q.Topic, q.Partitions)
}

func (k *kafkaDoor) alterTopic(ctx context.Context, q sock.AlterTopic) (sock.Topic, error) {
	// Brokers differ in what they say of a topic that is not there.
	if _, err := k.topics(ctx, sock.TopicsRequest{Topic: q.Topic}); err != nil {
		return sock.Topic{}, err
	}
	var list []kadm.AlterConfig
	for _, name := range slices.Sorted(maps.Keys(q.Set)) {
		value := q.Set[name]
		list = append(list, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
	}
	for _, name := range q.Unset {
		list = append(list, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name})
	}
	done, err := k.admin.AlterTopicConfigs(ctx, list, q.Topic)
	if err != nil {
		return sock.Topic{}, err
	}
	for _, r := range done {
		if r.Err != nil {
			return sock.Topic{}, failed(r.Err, r.ErrMessage, "alter topic %q", q.Topic)
		}
	}
	return k.changed(ctx, q.Topic, 0)
}

func (k *kafkaDoor) addPartitions(ctx context.Context, q sock.AddPartitions) (sock.Topic, error) {
	done, err := k.admin.UpdatePartitions(ctx, q.Total, q.Topic)
	if err != nil {
		return sock.Topic{}, err
	}
	if r := done[q.Topic]; errors.Is(r.Err, kerr.UnknownTopicOrPartition) {
		return sock.Topic{}, unknownTopic(q.Topic)
	} else if r.Err != nil {
		return sock.Topic{}, failed(r.Err, r.ErrMessage, "partitions of topic %q", q.Topic)
	}
	return k.changed(ctx, q.Topic, q.Total)
}

func (k *kafkaDoor) deleteTopic(ctx context.Context, q sock.TopicName) (none, error) {
	done, err := k.admin.DeleteTopics(ctx, q.Topic)
	if err != nil {
		return none{}, err
	}
	if r := done[q.Topic]; errors.Is(r.Err, kerr.UnknownTopicOrPartition) {
		return none{}, unknownTopic(q.Topic)
	} else if r.Err != nil {
		return none{}, failed(r.Err, r.ErrMessage, "delete topic %q", q.Topic)
	}
	return none{}, nil
}

func (k *kafkaDoor) trim(ctx context.Context, q sock.Trim) (sock.Trimmed, error) {
	var at kadm.Offsets
	at.AddOffset(q.Topic, q.Partition, q.Before, -1)
	done, err := k.admin.DeleteRecords(ctx, at)
	if err != nil {
		return sock.Trimmed{}, err
	}
	r, ok := done.Lookup(q.Topic, q.Partition)
	if !ok {
		return sock.Trimmed{}, fmt.Errorf("delete records of %s/%d: no answer about it", q.Topic, q.Partition)
	}
	if r.Err != nil {
		return sock.Trimmed{}, failed(r.Err, "", "delete records of %s/%d", q.Topic, q.Partition)
	}
	return sock.Trimmed{Topic: q.Topic, Partition: q.Partition, LogStart: r.LowWatermark}, nil
}

func (k *kafkaDoor) listOffsets(ctx context.Context, q sock.ListOffsets) ([]sock.Position, error) {
	var found kadm.ListedOffsets
	var err error
	switch q.At {
	case sock.AtStart:
		found, err = k.admin.ListStartOffsets(ctx, q.Topic)
	case sock.AtTime:
		found, err = k.admin.ListOffsetsAfterMilli(ctx, q.Time.UnixMilli(), q.Topic)
	default:
		found, err = k.admin.ListEndOffsets(ctx, q.Topic)
	}
	if err != nil {
		return nil, err
	}
	list := []sock.Position{}
	for _, p := range slices.Sorted(maps.Keys(found[q.Topic])) {
		o := found[q.Topic][p]
		if o.Err != nil {
			return nil, topicError(q.Topic, o.Err)
		}
		list = append(list, sock.Position{Topic: q.Topic, Partition: p, Offset: o.Offset, Epoch: -1})
	}
	return list, nil
}
