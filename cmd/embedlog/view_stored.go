package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/views"
)

// storedGraphs are those whose progress is in a topic, but for those that are known already.
func storedGraphs(ctx context.Context, c *client, known func(graph string) bool) (list []sock.ViewGraph, err error) {
	topics, err := call[[]sock.Topic](ctx, c, sock.OpTopics, sock.TopicsRequest{})
	if err != nil {
		return nil, err
	}
	byName := map[string]*sock.Topic{}
	for i := range topics {
		byName[topics[i].Topic] = &topics[i]
	}
	for i := range topics {
		graph, ok := views.GraphOf(topics[i].Topic)
		if !ok || topics[i].Internal || known(graph) || known(views.WithoutGeneration(graph)) { // it may be deleted this moment
			continue
		}
		progress, err := latest(ctx, c, &topics[i], nil)
		if err != nil {
			return nil, err
		}
		g, ok := views.ReadProgress(graph, values(progress))
		if !ok || known(g.Graph) {
			continue // a topic of that name, and no graph's
		}
		serves, err := generation(ctx, c, byName, &g)
		if err != nil {
			return nil, err
		}
		if !serves {
			continue // it is a generation that does not serve
		}
		for i := range g.Positions {
			p := &g.Positions[i]
			if t := byName[p.Topic]; t != nil && int(p.Partition) < len(t.PartitionList) {
				p.LastStable = t.PartitionList[p.Partition].LastStable
				p.Lag = max(p.LastStable-p.Position, 0)
			}
		}
		list = append(list, g)
	}
	return list, nil
}

// generation finds out which generation of a graph serves, and whether what was read is of that one: the last topic of the graph is its progress.
func generation(ctx context.Context, c *client, byName map[string]*sock.Topic, g *sock.ViewGraph) (serves bool, err error) {
	own := g.Topics[len(g.Topics)-1]
	topic := byName[g.Graph+views.GenerationSuffix]
	if topic == nil {
		return own == views.ProgressOf(g.Graph, 1), nil
	}
	last, err := latest(ctx, c, topic, nil)
	if err != nil {
		return false, err
	}
	for _, r := range last {
		s, ok := views.ReadGenerations(r.Value)
		if !ok || own != views.ProgressOf(g.Graph, s.Serving.Number) {
			return false, nil
		}
		g.Generation = s.Serving.Number
		switch {
		case s.Building != nil:
			g.Rebuilding = &sock.ViewRebuild{Generation: s.Building.Number, Left: -1}
		case s.Requested:
			g.Rebuilding = &sock.ViewRebuild{Left: -1}
		}
		return true, nil
	}
	return own == views.ProgressOf(g.Graph, 1), nil
}

// latest is the last record of each key of a topic, as far as it goes now; of one key where that is not nil.
func latest(ctx context.Context, c *client, topic *sock.Topic, key []byte) (map[string]sock.Record, error) {
	rows := map[string]sock.Record{}
	return rows, readTopic(ctx, c, topic, func(r *sock.Record) {
		switch {
		case key != nil && string(r.Key) != string(key):
		case r.Value == nil:
			delete(rows, string(r.Key))
		default:
			rows[string(r.Key)] = *r
		}
	})
}

func values(rows map[string]sock.Record) (list [][]byte) {
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		list = append(list, rows[key].Value)
	}
	return list
}

// readWait is how long a request waits for records at what may be the end: behind the last one there may be the end of a transaction.
const readWait = 10 * time.Millisecond

// readTopic reads a topic from its start to where it ends now. The session's consumer stands there afterwards.
func readTopic(ctx context.Context, c *client, topic *sock.Topic, f func(*sock.Record)) error {
	spec := sock.Consumer{ClientID: "embedlog-cli"}
	left := map[int32]int64{}
	for _, p := range topic.PartitionList {
		spec.Assign = append(spec.Assign, sock.Position{Topic: topic.Topic, Partition: p.Partition, Offset: p.LogStart, Epoch: -1})
		if p.LogStart < p.LastStable {
			left[p.Partition] = p.LastStable
		}
	}
	if _, err := call[struct{}](ctx, c, sock.OpConsumer, spec); err != nil {
		return err
	}
	for wait := readWait; len(left) > 0; {
		recs, err := c.poll(ctx, sock.Poll{MaxRecords: pollRecords, Wait: wait}, func(*sock.Moved) {})
		if err != nil {
			return err
		}
		for i := range recs {
			f(&recs[i])
			if end, ok := left[recs[i].Partition]; ok && recs[i].Offset+1 >= end {
				delete(left, recs[i].Partition)
			}
		}
		if len(recs) > 0 || len(left) == 0 {
			continue
		}
		lag, err := call[sock.Lag](ctx, c, sock.OpLag, struct{}{})
		if err != nil || lag.Records == 0 {
			return err
		}
		wait = min(2*wait, pollWait)
	}
	return nil
}

// changelogOf is the topic that a view's rows are kept in.
func changelogOf(ctx context.Context, c *client, v *sock.ViewInfo) (*sock.Topic, error) {
	list, err := call[[]sock.Topic](ctx, c, sock.OpTopics, sock.TopicsRequest{Topic: v.Changelog})
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, notFoundf("no topic %s, which view %s is kept in", v.Changelog, v.View)
	}
	return &list[0], nil
}
