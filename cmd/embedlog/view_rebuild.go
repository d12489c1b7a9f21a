package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/views"
)

func (a *app) viewRebuild() *cobra.Command {
	var again, stopped bool
	cmd := &cobra.Command{
		Use:   "rebuild GRAPH",
		Short: "Delete what a graph of views keeps, so that it is computed anew",
		Long: `rebuild deletes the changelogs and the progress of a graph of views. Its next
start computes all of it from the records that its topics still have.

The program that computes it must have ended it: one that holds the directory is
asked, and when it does, nothing is done. On a node of a cluster say --stopped,
when no node computes it. A graph that appends to topics would append all of it
again: that needs --append-again. A rebuild that is killed is finished by the
next; until then the graph does not start.`,
		Example: "  embedlog view rebuild shop",
		Args:    takes(1, 1, "a graph"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), false, func(c *client) error {
				return a.rebuild(cmd.Context(), c, args[0], again, stopped)
			})
		},
	}
	cmd.Flags().BoolVar(&again, "append-again", false, "although its sinks append everything again")
	cmd.Flags().BoolVar(&stopped, "stopped", false, "no node of the cluster computes it")
	return cmd
}

func (a *app) rebuild(ctx context.Context, c *client, name string, again, stopped bool) error {
	graphs, err := a.graphs(ctx, c)
	if err != nil {
		return err
	}
	g, err := findGraph(graphs, name)
	if err != nil {
		return err
	}
	cluster, err := call[sock.Cluster](ctx, c, sock.OpCluster, struct{}{})
	if err != nil && code(err) != sock.CodeInvalid {
		return err
	}
	switch {
	case g.State != sock.ViewStored:
		return fmt.Errorf("%s is computed by the program that holds the directory; it has to end it before it can be rebuilt (Graph.Close)", g.Graph)
	case cluster.Node != 0 && !stopped:
		return fmt.Errorf("node %d does not compute %s, but another node may; --stopped says that none does", cluster.Node, g.Graph)
	case len(g.Sinks) > 0 && !again:
		return fmt.Errorf("%s appends to %s, and would append all of it again: start it under another name, or say --append-again",
			g.Graph, strings.Join(g.Sinks, ", "))
	case len(g.Topics) == 1 && len(g.Sinks) == 0:
		return fmt.Errorf("the progress of %s does not say what it keeps where: start it under another name", g.Graph)
	}
	if err := a.confirm("Delete what " + g.Graph + " keeps, and have it computed anew?"); err != nil {
		return err
	}
	if err := mark(ctx, c, g); err != nil {
		return err
	}
	for _, topic := range g.Topics { // the progress is the last: until then the graph does not start
		if _, err := call[struct{}](ctx, c, sock.OpDeleteTopic, sock.TopicName{Topic: topic}); err != nil && code(err) != sock.CodeUnknownTopic {
			return err
		}
	}
	if a.asJSON() {
		return a.json(map[string]any{"rebuild": g.Graph, "deleted": g.Topics})
	}
	return a.say("deleted %s: the next start of %s computes it anew", strings.Join(g.Topics, ", "), g.Graph)
}

// mark has a graph's progress say that what it is of is being deleted: a graph that is started in the middle refuses to go on.
func mark(ctx context.Context, c *client, g *sock.ViewGraph) error {
	name := g.Graph + views.ProgressSuffix
	topic, err := changelogOf(ctx, c, &sock.ViewInfo{View: g.Graph, Changelog: name})
	if err != nil {
		return err
	}
	rows, err := latest(ctx, c, topic, nil)
	if err != nil {
		return err
	}
	var recs []sock.Record
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		value, err := views.RebuildMark(rows[key].Value)
		if err != nil {
			return err
		}
		recs = append(recs, sock.Record{Partition: rows[key].Partition, Offset: -1, Epoch: -1, Key: []byte(key), Value: value})
	}
	if _, err := call[struct{}](ctx, c, sock.OpProducer, sock.Producer{Topic: name}); err != nil {
		return err
	}
	_, err = c.produce(ctx, recs)
	return err
}
