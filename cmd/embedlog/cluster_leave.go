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

// leaveLook is how often leave looks whether replicas have gone.
const leaveLook = 500 * time.Millisecond

func (a *app) clusterLeave() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Drain the node that is asked, wait, and remove it",
		Long: `leave has the node that --data names give its replicas to others, waits until
they have all records, and then removes it from the cluster. Its program is
stopped afterwards; its directory does not get in again. When it is interrupted,
or there is no other place for a replica, the node stays, drained: leave goes on
when it is called again, and cluster drain NODE --undo takes it back.`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			st, err := askNode[sock.Cluster](ctx, a, sock.OpCluster, struct{}{})
			if err != nil {
				return err
			}
			if err := a.confirm(fmt.Sprintf("Have node %d leave?", st.Node)); err != nil {
				return err
			}
			return a.leave(ctx, st.Node)
		},
	}
	cmd.Flags().DurationVar(&limit, "timeout", 10*time.Minute, "how long its replicas may take to go")
	return cmd
}

func (a *app) leave(ctx context.Context, node int32) error {
	if _, err := askNode[struct{}](ctx, a, sock.OpChangeCluster, sock.ChangeCluster{Do: sock.DrainNode, Node: node}); err != nil {
		return err
	}
	told := 0
	for {
		st, err := askNode[sock.Cluster](ctx, a, sock.OpCluster, struct{}{})
		if err != nil {
			return err
		}
		left := stays(st, node)
		if len(left) == 0 {
			break
		}
		if len(left) != told {
			told = len(left)
			a.note("%s to go: %s", plural(len(left), "replica"), strings.Join(left[:min(len(left), 5)], ", "))
		}
		select {
		case <-time.After(leaveLook):
		case <-ctx.Done():
			return &exitError{exitFailure, fmt.Errorf("node %d stays, drained: replicas of %s have not gone: %w", node, strings.Join(left, ", "), ctx.Err())}
		}
	}
	return a.changeCluster(ctx, sock.ChangeCluster{Do: sock.RemoveNode, Node: node}, "node %d has left; its program can be stopped", node)
}

// stays are the logs that a node is a replica of, or that nobody says of who their members are.
func stays(st sock.Cluster, node int32) (list []string) {
	for _, l := range st.Logs {
		if l.Topic == "" {
			continue
		}
		member := slices.ContainsFunc(l.Members, func(m sock.ClusterMember) bool { return m.Node == node })
		if member || len(l.Members) == 0 || slices.Contains(l.Replicas, node) {
			list = append(list, logText(l))
		}
	}
	return list
}
