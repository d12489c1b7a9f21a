package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

// leaveLook is how often leave looks whether replicas have gone, and tries again what nobody could decide.
const leaveLook = 500 * time.Millisecond

func (a *app) clusterLeave() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Drain the node that is asked, wait, and remove it",
		Long: `leave has the node that --data names give its replicas to others, waits until
they have all records, and then removes it from the cluster. Its program is
stopped afterwards; its directory does not get in again. When it is interrupted
the node stays, drained: leave goes on when it is called again, and cluster
drain NODE --undo takes it back. Where there is no other node for a replica, the
partition has one less, and gets it back as soon as there is one.`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			st, err := askNode[sock.Cluster](ctx, a, sock.OpCluster, struct{}{})
			if err != nil {
				return err
			}
			if st.Removed {
				return a.hasLeft(st.Node)
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

// leave takes the steps that are left of a node's leaving: an earlier call may have taken some, and none of them does harm
// when it is taken twice.
func (a *app) leave(ctx context.Context, node int32) error {
	drain := sock.ChangeCluster{Do: sock.DrainNode, Node: node}
	if removed, err := a.leaveStep(ctx, drain); err != nil {
		if code(err) == sock.CodeInvalid {
			return err // nothing has begun
		}
		return interruptedLeave(node, "and it is not known whether it is drained", err)
	} else if removed {
		return a.hasLeft(node)
	}
	told := 0
	for {
		st, err := askNode[sock.Cluster](ctx, a, sock.OpCluster, struct{}{})
		if err != nil {
			return interruptedLeave(node, "and is drained", err)
		}
		if st.Removed {
			return a.hasLeft(node)
		}
		left := stays(st, node)
		if len(left) == 0 {
			removed, err := a.leaveStep(ctx, sock.ChangeCluster{Do: sock.RemoveNode, Node: node})
			switch {
			case removed:
				return a.hasLeft(node)
			case code(err) != sock.CodeNotYet: // the groups' leaders know of members that this node does not
				return interruptedLeave(node, "and is drained", err)
			}
		}
		if len(left) != told {
			told = len(left)
			a.note("%s to go: %s", plural(len(left), "replica"), strings.Join(left[:min(len(left), 5)], ", "))
		}
		if err := pauseLeave(ctx); err != nil {
			if len(left) > 0 {
				err = fmt.Errorf("replicas of %s have not gone: %w", strings.Join(left[:min(len(left), 5)], ", "), err)
			}
			return interruptedLeave(node, "and is drained", err)
		}
	}
}

// leaveStep makes one change, and makes it again while nobody can decide it, or it is not known whether it was decided. removed
// says that the node is out.
func (a *app) leaveStep(ctx context.Context, q sock.ChangeCluster) (removed bool, err error) {
	for {
		_, err = askNode[struct{}](ctx, a, sock.OpChangeCluster, q)
		switch code(err) {
		case sock.CodeUnknownNode: // by an earlier call
			return true, nil
		case sock.CodeUnknownOutcome, sock.CodeNotLeader:
		default:
			return err == nil && q.Do == sock.RemoveNode, err
		}
		st, lost := askNode[sock.Cluster](ctx, a, sock.OpCluster, struct{}{})
		if lost == nil && st.Removed {
			return true, nil
		}
		if cause := pauseLeave(ctx); cause != nil {
			return false, errors.Join(cause, err)
		}
	}
}

func pauseLeave(ctx context.Context) error {
	select {
	case <-time.After(leaveLook):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *app) hasLeft(node int32) error {
	if a.asJSON() {
		return a.json(sock.ChangeCluster{Do: sock.RemoveNode, Node: node})
	}
	return a.say("node %d has left; its program can be stopped", node)
}

// interruptedLeave says how a leaving that did not come to its end goes on.
func interruptedLeave(node int32, state string, err error) error {
	exit := exitFailure
	if errors.Is(err, context.Canceled) {
		exit = exitInterrupted
	}
	return &exitError{exit, fmt.Errorf("node %d has not left, %s: %w; call leave again, which goes on with it; "+
		"or have another node finish it (`embedlog cluster remove %d`, when status shows no replica of it any more) or take it back (`embedlog cluster drain %d --undo`)", node, state, err, node, node)}
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
