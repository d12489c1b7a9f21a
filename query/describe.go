package query

import (
	"fmt"
	"strings"
)

// storeNames are the names of the stores of a graph: the same in each task, and after each start.
type storeNames struct {
	byNode map[*node]string // chosen by the program
	stage  map[*node]int    // the stage that the name is for
	made   map[stageNode]string
	used   map[string]int
}

// stageNode is a node as one of the stages has it.
type stageNode struct {
	stage int
	n     *node
}

// take gives a node's store a name that was chosen by the program.
func (s *storeNames) take(n *node, name string) {
	if _, ok := s.byNode[n]; !ok {
		s.byNode[n] = name
	}
}

// of is the name of a node's store in a stage.
func (s *storeNames) of(stage int, n *node) string {
	if name, ok := s.byNode[n]; ok && s.stage[n] == stage {
		return name
	}
	name, ok := s.made[stageNode{stage, n}]
	if !ok {
		kind := strings.ReplaceAll(n.kind, " ", "-")
		s.used[kind]++
		name = fmt.Sprintf("%s-%d", kind, s.used[kind])
		s.made[stageNode{stage, n}] = name
	}
	return name
}

func (b *builder) storeName(n *node) string { return b.names.of(b.stage.index, n) }

// numbered are the nodes of a graph, what they are made of first, each once.
func (g *Graph) numbered() (list []*node, number map[*node]int) {
	number = map[*node]int{}
	for _, o := range g.outputs {
		o.n.walk(func(n *node) {
			if number[n] == 0 {
				list = append(list, n)
				number[n] = len(list)
			}
		})
	}
	return list, number
}

func (n *node) title() string {
	if n.label != "" {
		return n.kind + " " + n.label
	}
	return n.kind
}

// Describe is the graph in words, a line for each operator:
//
//	1 stream orders
//	2 filter <- 1
//	3 sum <- 2
//	view spent <- 3
func (g *Graph) Describe() string { return g.describe(true) }

// describe is the graph in words. Without indexes it is what the kept rows are of.
func (g *Graph) describe(indexes bool) string {
	list, number := g.numbered()
	var b strings.Builder
	for _, n := range list {
		if n.kind == "sink" {
			continue
		}
		fmt.Fprintf(&b, "%d %s", number[n], n.title())
		writeInputs(&b, n.inputs, number)
	}
	for _, o := range g.outputs {
		if o.kind == "index" && !indexes {
			continue
		}
		fmt.Fprintf(&b, "%s %s", o.kind, o.name)
		in := []*node{o.n}
		if o.kind == "sink" {
			in = o.n.inputs
		}
		writeInputs(&b, in, number)
	}
	return b.String()
}

func writeInputs(b *strings.Builder, inputs []*node, number map[*node]int) {
	for i, in := range inputs {
		if i == 0 {
			b.WriteString(" <- ")
		} else {
			b.WriteString(", ")
		}
		fmt.Fprintf(b, "%d", number[in])
	}
	b.WriteByte('\n')
}

// Mermaid is the graph as a picture, in the language of mermaid.js.org (flowchart).
func (g *Graph) Mermaid() string {
	list, number := g.numbered()
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, n := range list {
		open, end := "[", "]"
		switch {
		case n.source != nil:
			open, end = "[(", ")]"
		case n.kind == "sink":
			open, end = "[/", "/]"
		}
		fmt.Fprintf(&b, "  n%d%s%q%s\n", number[n], open, n.title(), end)
		for _, in := range n.inputs {
			fmt.Fprintf(&b, "  n%d --> n%d\n", number[in], number[n])
		}
	}
	for i, o := range g.outputs {
		if o.kind == "view" {
			fmt.Fprintf(&b, "  v%d([%q])\n  n%d --> v%d\n", i+1, o.name, number[o.n], i+1)
		}
	}
	return b.String()
}
