package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) viewRebuild() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "rebuild GRAPH",
		Short: "Compute a graph of views anew, beside what there is",
		Long: `rebuild has what a graph of views keeps computed anew, from the records that its
topics still have: for rows that are not what they should be, or whose functions
were mended. What there is answers until the new rows have caught up, and is
deleted then. Nothing is appended a second time to the topics that the graph
appends to.

Where the program that holds the directory computes the graph, it does it now,
and the command waits for it: it goes on without the command, too, and at the
next start of the program if it is stopped meanwhile. Otherwise the next start
of a program that computes the graph does it.

Records that were deleted since the graph read them are missing in the new rows.`,
		Example: "  embedlog view rebuild shop\n  embedlog view rebuild shop --no-wait",
		Args:    takes(1, 1, "a graph"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), false, func(c *client) error { return a.rebuild(cmd.Context(), c, args[0], noWait) })
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the new rows answer")
	return cmd
}

// rebuilt is what becomes of a rebuild. docs/cli.md documents it.
type rebuilt struct {
	Graph      string `json:"rebuild"`
	Generation int    `json:"generation,omitempty"`
	State      string `json:"state"` // done, begun, next_start
	Records    int64  `json:"records,omitempty"`
}

func (a *app) rebuild(ctx context.Context, c *client, name string, noWait bool) error {
	graphs, err := a.graphs(ctx, c)
	if err != nil {
		return err
	}
	g, err := findGraph(graphs, name)
	if err != nil {
		return err
	}
	if err := a.confirm("Compute anew all that " + g.Graph + " keeps?"); err != nil {
		return err
	}
	begun, err := call[sock.ViewRebuild](ctx, c, sock.OpViewRebuild, sock.ViewsRequest{Graph: g.Graph})
	if code(err) == sock.CodeInvalid { // Kafka's protocol, or an older program
		return fmt.Errorf("a rebuild is asked of the program that holds the directory, by --data: %w", err)
	}
	if err != nil {
		return err
	}
	r := rebuilt{Graph: g.Graph, Generation: begun.Generation, State: "begun"}
	text := fmt.Sprintf("%s is being computed anew, as generation %d: `embedlog view describe %s` says how far it is", g.Graph, begun.Generation, g.Graph)
	switch {
	case begun.Generation == 0:
		r.State = "next_start"
		text = fmt.Sprintf("%s is not computed here: its next start computes it anew, beside what there is", g.Graph)
	case !noWait:
		if r.Records, err = a.awaitRebuilt(ctx, c, g.Graph, begun.Generation); err != nil {
			return err
		}
		r.State = "done"
		text = fmt.Sprintf("%s was computed anew, from %s: generation %d answers", g.Graph, plural(r.Records, "record"), begun.Generation)
	}
	if a.asJSON() {
		return a.json(r)
	}
	return a.say("%s", text)
}

// rebuildPause is between two looks at how far a rebuild is.
const rebuildPause = 200 * time.Millisecond

// awaitRebuilt waits until a generation of a graph answers.
func (a *app) awaitRebuilt(ctx context.Context, c *client, graph string, generation int) (records int64, err error) {
	bar := a.bar(0, "rebuilding "+graph)
	defer bar.done()
	for {
		list, err := call[[]sock.ViewGraph](ctx, c, sock.OpViews, sock.ViewsRequest{Graph: graph})
		switch {
		case code(err) == sock.CodeUnknownView || isClosing(err):
			return records, fmt.Errorf("the program has stopped computing %s: its next start goes on", graph)
		case err != nil && ctx.Err() != nil:
			return records, fmt.Errorf("%s is still being computed anew, and goes on without this command: %w", graph, err)
		case err != nil:
			return records, err
		case len(list) != 1:
			return records, notFoundf("no graph %s", graph)
		}
		g := &list[0]
		switch r := g.Rebuilding; {
		case r != nil && r.Generation == generation && r.Error != "":
			return records, fmt.Errorf("%s could not be computed anew: %s", graph, r.Error)
		case r != nil && r.Generation == generation:
			if records = r.Records; r.Left >= 0 {
				bar.set(fmt.Sprintf("rebuilding %s: %s read, %d left", graph, plural(r.Records, "record"), r.Left), 0, 0)
			}
		case g.Generation >= generation:
			return max(records, g.Records), nil
		default:
			return records, fmt.Errorf("%s was not computed anew: generation %d answers", graph, g.Generation)
		}
		select {
		case <-time.After(rebuildPause):
		case <-ctx.Done():
			return records, fmt.Errorf("%s is still being computed anew, and goes on without this command: %w", graph, ctx.Err())
		}
	}
}
