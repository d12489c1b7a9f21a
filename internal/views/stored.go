package views

import (
	"encoding/json"
	"errors"
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

// ReadProgress is a graph as the values of the records of its progress topic say, the last of each task; graph is what the topic's name begins with. ok is
// false where they are something else's.
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
		if name, ok := strings.CutSuffix(s.Generations, GenerationSuffix); ok {
			g.Graph = name
		}
		g.Topics = append(g.Topics, graph+ProgressSuffix)
	}
	return g, len(values) > 0
}

// GenerationSuffix is how the topic ends whose last record says which definition of a graph serves.
const GenerationSuffix = "-generation"

// Generations is that record, as far as those need it who do not compute the graph.
type Generations struct {
	Serving struct {
		Number int `json:"number"`
	} `json:"serving"`
	Building *struct {
		Number int `json:"number"`
	} `json:"building"`
	Requested bool `json:"requested"`
}

// ReadGenerations is the record as its value says. ok is false where it is something else's.
func ReadGenerations(value []byte) (g Generations, ok bool) {
	return g, json.Unmarshal(value, &g) == nil && g.Serving.Number > 0
}

// ErrRebuilding says that a rebuild is under way, or was asked for.
var ErrRebuilding = errors.New("it is being rebuilt already, or will be at its next start")

// RequestRebuild is the record with the request to compute the graph anew: who runs it next does.
func RequestRebuild(value []byte) ([]byte, error) {
	g, ok := ReadGenerations(value)
	if !ok {
		return nil, errors.New("what is kept of its generations cannot be read")
	}
	if g.Building != nil || g.Requested {
		return nil, ErrRebuilding
	}
	var all map[string]json.RawMessage // with what this version does not know
	if err := json.Unmarshal(value, &all); err != nil {
		return nil, err
	}
	all["requested"] = json.RawMessage("true")
	return json.Marshal(all)
}

// ProgressOf is the topic of progress of a graph's generation.
func ProgressOf(graph string, generation int) string {
	if generation > 1 {
		graph = fmt.Sprintf("%s.gen%d", graph, generation)
	}
	return graph + ProgressSuffix
}

// GraphOf is the graph whose progress a topic has, by its name.
func GraphOf(topic string) (graph string, ok bool) {
	graph, ok = strings.CutSuffix(topic, ProgressSuffix)
	return graph, ok && graph != ""
}

// WithoutGeneration is the name of a graph as its topics' names begin with, without the number of a generation.
func WithoutGeneration(graph string) string {
	i := strings.LastIndex(graph, ".gen")
	if i < 0 || strings.Trim(graph[i+len(".gen"):], "0123456789") != "" {
		return graph
	}
	return graph[:i]
}
