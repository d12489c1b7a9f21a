package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) view() *cobra.Command {
	return parent("view", "Look at views that programs compute, and have them computed anew",
		a.viewList(), a.viewDescribe(), a.viewGet(), a.viewScan(), a.viewWatch(), a.viewRebuild())
}

// storedHelp says what views are where nobody computes them.
const storedHelp = `Views are computed by programs (package query). Where the one that holds the
directory computes the view, it is asked, and answers with every record that was
acknowledged before. Otherwise the view is read from the topics that it is kept
in, as of its last commit: over --address always.`

func (a *app) viewList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the views",
		Long:    "list lists the views, as GRAPH/VIEW, and how far behind their topics they are.\n\n" + storedHelp,
		Args:    takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var graphs []sock.ViewGraph
			err := a.with(cmd.Context(), false, func(c *client) (err error) {
				graphs, err = a.graphs(cmd.Context(), c)
				return err
			})
			if err != nil {
				return err
			}
			t := newTable("VIEW", "STATE", ">ROWS", ">LAG", ">BEHIND")
			for i := range graphs {
				g := &graphs[i]
				lag, behind := total(g)
				for _, v := range g.Views {
					if a.asJSON() {
						if err := a.json(viewLine{g.Graph, v, g.State, lag, behind}); err != nil {
							return err
						}
					}
					t.add(g.Graph+"/"+v.View, g.State, dash(v.Rows), dash(lag), behindText(behind))
				}
				if len(g.Views) == 0 && !a.asJSON() {
					t.add(g.Graph, g.State, "-", dash(lag), behindText(behind))
				}
			}
			switch {
			case a.asJSON():
				return nil
			case len(t.rows) == 0:
				a.note("no views; programs make them with package query")
				return nil
			}
			return a.show(t)
		},
	}
}

// viewLine is a view in a list.
type viewLine struct {
	Graph string `json:"graph"`
	sock.ViewInfo
	State    sock.ViewState `json:"state"`
	Lag      int64          `json:"lag"`
	BehindMS int64          `json:"behind_ms"`
}

// total is how far a graph is behind all its partitions; -1 is not known.
func total(g *sock.ViewGraph) (lag, behind int64) {
	if len(g.Positions) == 0 {
		return -1, -1
	}
	for _, p := range g.Positions {
		if p.Lag < 0 {
			return -1, -1
		}
		lag += p.Lag
		if p.BehindMS < 0 || behind < 0 {
			behind = -1
		} else {
			behind = max(behind, p.BehindMS)
		}
	}
	return lag, behind
}

// behindText is a time for people.
func behindText(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func (a *app) viewDescribe() *cobra.Command {
	return &cobra.Command{
		Use:   "describe VIEW...",
		Short: "Show what a view is made of, and how far it is",
		Long: `describe shows the graph that a view is a part of: its operators, its views, the
topics it appends to, and how far it has read. VIEW is GRAPH/VIEW, the view's
name where one graph has it, or the graph's.

` + storedHelp,
		Example: "  embedlog view describe shop/spent\n  embedlog view describe shop --format json",
		Args:    takes(1, -1, "a view"),
		RunE: func(cmd *cobra.Command, names []string) error {
			var graphs []sock.ViewGraph
			err := a.with(cmd.Context(), false, func(c *client) (err error) {
				graphs, err = a.graphs(cmd.Context(), c)
				return err
			})
			if err != nil {
				return err
			}
			for i, name := range names {
				g, err := findGraph(graphs, name)
				if err != nil {
					return err
				}
				if a.asJSON() {
					err = a.json(g)
				} else {
					if i > 0 {
						_ = a.say("")
					}
					err = a.showGraph(g)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) showGraph(g *sock.ViewGraph) error {
	if err := a.say("%s  %s  %s", a.paint(a.stdout, bold, g.Graph), g.State, plural(g.Tasks, "task")); err != nil {
		return err
	}
	if g.Error != "" {
		_ = a.say("%s", a.paint(a.stdout, red, g.Error))
	}
	if text := rebuildText(g); text != "" {
		_ = a.say("%s", text)
	}
	for line := range strings.Lines(g.Definition) {
		_ = a.say("  %s", strings.TrimRight(line, "\n"))
	}
	if g.State != sock.ViewStored {
		_ = a.say("%s read, %d late, %d without a key, %s, %s", plural(g.Records, "record"), g.Late, g.NoKey,
			plural(g.DeadLetters, "dead letter"), plural(g.Restarts, "restart"))
	}
	if len(g.Views) > 0 {
		t := newTable("VIEW", ">ROWS", "KEY", "VALUE", "CHANGELOG", "INDEXES")
		for _, v := range g.Views {
			t.add(v.View, dash(v.Rows), orDash(v.KeyType), orDash(v.ValueType), v.Changelog, orDash(strings.Join(v.Indexes, ",")))
		}
		if err := a.show(t); err != nil {
			return err
		}
	}
	t := newTable("TOPIC", ">PARTITION", ">POSITION", ">LAST-STABLE", ">LAG", ">BEHIND")
	for _, p := range g.Positions {
		t.add(p.Topic, p.Partition, p.Position, dash(p.LastStable), dash(p.Lag), behindText(p.BehindMS))
	}
	return a.show(t)
}

// rebuildText says that a graph is, or will be, computed anew.
func rebuildText(g *sock.ViewGraph) string {
	r := g.Rebuilding
	switch {
	case r == nil:
		return ""
	case r.Error != "":
		return fmt.Sprintf("generation %d could not be computed: %s", r.Generation, r.Error)
	case r.Generation == 0:
		return "its next start computes it anew"
	case g.State == sock.ViewStored:
		return fmt.Sprintf("its next start goes on with generation %d, which is computed anew", r.Generation)
	case r.Left < 0:
		return fmt.Sprintf("generation %d is being computed anew", r.Generation)
	}
	return fmt.Sprintf("generation %d is being computed anew: %s read, %d left", r.Generation, plural(r.Records, "record"), r.Left)
}

// liveGraphs are those that run in the program that is asked. An older one knows of none, and neither does Kafka's protocol.
func liveGraphs(ctx context.Context, c *client) ([]sock.ViewGraph, error) {
	list, err := call[[]sock.ViewGraph](ctx, c, sock.OpViews, sock.ViewsRequest{})
	if code(err) == sock.CodeInvalid {
		return nil, nil
	}
	return list, err
}

// graphs are those that run in the program that is asked, and those that topics tell of.
func (a *app) graphs(ctx context.Context, c *client) ([]sock.ViewGraph, error) {
	list, err := liveGraphs(ctx, c)
	if err != nil {
		return nil, err
	}
	stored, err := storedGraphs(ctx, c, func(graph string) bool {
		return slices.ContainsFunc(list, func(g sock.ViewGraph) bool { return g.Graph == graph })
	})
	if err != nil {
		return nil, err
	}
	list = append(list, stored...)
	slices.SortFunc(list, func(a, b sock.ViewGraph) int { return strings.Compare(a.Graph, b.Graph) })
	return list, nil
}

// findGraph finds a graph by its name, or that of a view.
func findGraph(graphs []sock.ViewGraph, name string) (*sock.ViewGraph, error) {
	for i := range graphs {
		if graphs[i].Graph == name {
			return &graphs[i], nil
		}
	}
	g, _, err := findView(graphs, name)
	return g, err
}

// findView finds a view by GRAPH/VIEW, by its name where there is one of it, or by that of a graph that has one.
func findView(graphs []sock.ViewGraph, name string) (g *sock.ViewGraph, v *sock.ViewInfo, err error) {
	graph, view, both := strings.Cut(name, "/")
	if !both {
		graph, view = "", name
	}
	var found []string
	take := func(i, k int) {
		g, v = &graphs[i], &graphs[i].Views[k]
		found = append(found, g.Graph+"/"+v.View)
	}
	for i := range graphs {
		for k := range graphs[i].Views {
			if graphs[i].Views[k].View == view && (!both || graphs[i].Graph == graph) {
				take(i, k)
			}
		}
	}
	if len(found) == 0 && !both {
		for i := range graphs {
			if graphs[i].Graph == name && len(graphs[i].Views) == 1 {
				take(i, 0)
			}
		}
	}
	switch {
	case len(found) == 1:
		return g, v, nil
	case len(found) > 1:
		return nil, nil, usagef("there are several views %s: %s", name, strings.Join(found, ", "))
	}
	return nil, nil, notFoundf("no view %s; `embedlog view list` has those that there are", name)
}

// viewNames are for the shell.
func (a *app) viewNames(ctx context.Context) (names []string, err error) {
	err = a.with(ctx, false, func(c *client) error {
		graphs, err := a.graphs(ctx, c)
		for _, g := range graphs {
			for _, v := range g.Views {
				names = append(names, g.Graph+"/"+v.View)
			}
		}
		return err
	})
	return names, err
}

// graphNames are for the shell.
func (a *app) graphNames(ctx context.Context) (names []string, err error) {
	err = a.with(ctx, false, func(c *client) error {
		graphs, err := a.graphs(ctx, c)
		for _, g := range graphs {
			names = append(names, g.Graph)
		}
		return err
	})
	return names, err
}
