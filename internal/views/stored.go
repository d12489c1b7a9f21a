package views

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/x/embedlog/internal/sock"
)

// ProgressSuffix is how the topic ends in which a graph keeps how far it is: a record for each of its tasks.
const ProgressSuffix = "-progress"

// Contents is what a graph keeps where: a part of the records of its progress, so that views can be read where nobody computes them.
type Contents struct {
	Views []StoredView `json:"views,omitempty"`
	// Changelogs are the topics of all stores, those of the views among them.
	Changelogs []string `json:"changelogs,omitempty"`
	Sinks      []string `json:"sinks,omitempty"`
	// Generations is the topic that says which definition of the graph serves.
	Generations string `json:"generations,omitempty"`
}

// StoredView is a view as it is kept.
type StoredView struct {
	Name      string `json:"name"`
	Changelog string `json:"changelog"`
	// Key and Value are what the bytes are: string, bytes, int64, json, or empty for what only the program knows.
	Key   string `json:"key,omitempty"`
	Value string `json:"value,omitempty"`
}

// stored is a record of a graph's progress.
type stored struct {
	Definition *string `json:"definition"`
	Tasks      int     `json:"tasks"`
	Positions  []struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
	} `json:"positions"`
	Contents
}

// Rebuilding is the definition that is written before a graph's state is deleted: no graph has it, so none goes on with a
// half of it.
const Rebuilding = "a rebuild that was not finished: `embedlog view rebuild` finishes it"

// ReadProgress is a graph as the values of the records of its progress topic say, the last of each task. ok is false where they are something else's.
func ReadProgress(graph string, values [][]byte) (g sock.ViewGraph, ok bool) {
	g = sock.ViewGraph{Graph: graph, State: sock.ViewStored, Views: []sock.ViewInfo{}, Positions: []sock.ViewPosition{}}
	for i, b := range values {
		var s stored
		if json.Unmarshal(b, &s) != nil || s.Definition == nil {
			return g, false
		}
		for _, p := range s.Positions {
			g.Positions = append(g.Positions, sock.ViewPosition{Topic: p.Topic, Partition: p.Partition, Position: p.Offset, LastStable: -1, Lag: -1, BehindMS: -1})
		}
		if i > 0 {
			continue
		}
		g.Definition, g.Tasks, g.Sinks = *s.Definition, s.Tasks, s.Sinks
		for _, v := range s.Views {
			g.Views = append(g.Views, sock.ViewInfo{View: v.Name, Rows: -1, KeyType: v.Key, ValueType: v.Value, Changelog: v.Changelog})
		}
		g.Topics = append([]string{}, s.Changelogs...)
		if s.Generations != "" {
			g.Topics = append(g.Topics, s.Generations)
		}
		g.Topics = append(g.Topics, graph+ProgressSuffix) // the last one that a rebuild deletes
	}
	return g, len(values) > 0
}

// RebuildMark is what becomes of a record of progress before what it is of is deleted.
func RebuildMark(value []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(value, &all); err != nil {
		return nil, fmt.Errorf("a record of progress that is not JSON: %w", err)
	}
	text, err := json.Marshal(Rebuilding)
	if err != nil {
		return nil, err
	}
	all["definition"] = text
	return json.Marshal(all)
}

// GraphOf is the graph whose progress a topic has, by its name.
func GraphOf(topic string) (graph string, ok bool) {
	graph, ok = strings.CutSuffix(topic, ProgressSuffix)
	return graph, ok && graph != ""
}
