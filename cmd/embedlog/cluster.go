package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
)

func (a *app) cluster() *cobra.Command {
	c := parent("cluster", "Nodes and replicas of a cluster: look, add, remove, move",
		a.clusterStatus(), a.clusterAdd(), a.clusterRemove(), a.clusterDrain(), a.clusterLeave(), a.clusterElect(),
		a.clusterTransfer(), a.clusterReassign(), a.clusterFactor(), a.clusterRecover(), a.clusterCerts())
	c.Long = `A cluster is several directories, each with a program of its own, that keep
copies of each other's topics: embedlog serve with --node, or a program in Go
with Options.Replication. These commands ask a node that runs, which --data
names by its directory.`
	return c
}

func (a *app) clusterStatus() *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, leaders and replicas, and what is not well",
		Long: `status shows the cluster as the node sees it that is asked. Which replicas of a
partition are in sync is known to the node that leads it, which is asked; of one
that does not answer within 2 seconds it shows -.`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := askNode[sock.Cluster](cmd.Context(), a, sock.OpCluster, struct{}{})
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(st)
			}
			return a.showCluster(st, internal)
		},
	}
	cmd.Flags().BoolVarP(&internal, "internal", "i", false, "the database's own topics, too")
	return cmd
}

func (a *app) showCluster(st sock.Cluster, internal bool) error {
	if err := a.say("node %d of cluster %s, %s", st.Node, st.ClusterID, plural(len(st.Nodes), "node")); err != nil {
		return err
	}
	nodes := newTable(">NODE", "ADDRESS", "KAFKA", "STATE")
	for _, n := range st.Nodes {
		kafka := make([]string, 0, len(n.Endpoints))
		for _, e := range n.Endpoints {
			kafka = append(kafka, net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
		}
		nodes.add(n.Node, orDash(n.Address), orDash(strings.Join(kafka, ",")), nodeState(n, st))
	}
	if err := a.show(nodes); err != nil {
		return err
	}
	logs := newTable("LOG", "LEADER", ">EPOCH", "REPLICAS", "IN-SYNC")
	hidden := 0
	for _, l := range st.Logs {
		if l.Internal && !internal && l.Reason == "" {
			hidden++
			continue
		}
		logs.add(logText(l), nodeText(l.Leader), l.Epoch, nodesText(l.Replicas), nodesText(l.InSync))
	}
	if err := errors.Join(a.say(""), a.show(logs)); err != nil {
		return err
	}
	// Who was removed hears it from each of the others; it is said once, below.
	for _, n := range st.Nodes {
		if text := certificateText(n.CertificateEnds, time.Now()); text != "" {
			if err := a.say("%s: its certificate %s; another one is taken as soon as it is in the files", a.paint(a.stdout, red, fmt.Sprint("node ", n.Node)), text); err != nil {
				return err
			}
		}
		if n.Trouble != "" && !st.Removed {
			if err := a.say("%s cannot be reached: %s", a.paint(a.stdout, red, fmt.Sprint("node ", n.Node)), n.Trouble); err != nil {
				return err
			}
		}
	}
	list := reasons(st.Logs)
	if st.Removed {
		list = list[:min(len(list), 1)] // the metadata's is that of all
	}
	for _, r := range list {
		if err := a.say("%s: %s", a.paint(a.stdout, red, logsText(r.logs)), r.text); err != nil {
			return err
		}
	}
	if hidden > 0 {
		a.note("%s of internal topics are well; -i shows them", plural(hidden, "partition"))
	}
	return nil
}

// certificateNear is how long before its end a certificate is warned of.
const certificateNear = 30 * 24 * time.Hour

// certificateText says that a certificate ends soon, or has ended; empty while there is time, or where there is none.
func certificateText(endsMS int64, now time.Time) string {
	ends := time.UnixMilli(endsMS)
	switch left := ends.Sub(now); {
	case endsMS == 0 || left > certificateNear:
		return ""
	case left <= 0:
		return "ended on " + ends.UTC().Format(time.DateOnly)
	default:
		return fmt.Sprintf("ends on %s, in %s", ends.UTC().Format(time.DateOnly), plural(int(left/(24*time.Hour)), "day"))
	}
}

// reason is what is not well with some logs.
type reason struct {
	text string
	logs []sock.ClusterLog
}

// reasons are what is not well, each said once: a node that is away is missed by all its logs.
func reasons(logs []sock.ClusterLog) (list []reason) {
	for _, l := range logs {
		if l.Reason == "" {
			continue
		}
		i := slices.IndexFunc(list, func(r reason) bool { return r.text == l.Reason })
		if i < 0 {
			i = len(list)
			list = append(list, reason{text: l.Reason})
		}
		list[i].logs = append(list[i].logs, l)
	}
	return list
}

// logsText names logs, of many the first ones.
func logsText(logs []sock.ClusterLog) string {
	const shown = 6
	var names []string
	for _, l := range logs[:min(len(logs), shown)] {
		names = append(names, logText(l))
	}
	text := strings.Join(names, ", ")
	if more := len(logs) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func nodeState(n sock.ClusterNode, st sock.Cluster) string {
	var words []string
	switch {
	case n.Node == st.Node:
		words = append(words, "this one")
	case n.DirectoryID == "":
		words = append(words, "was never there")
	case n.Alive:
		words = append(words, "up")
	default:
		words = append(words, "not heard of")
	}
	if n.Meta {
		words = append(words, "leads the metadata")
	}
	if n.Draining {
		words = append(words, drainState(st, n.Node))
	}
	return strings.Join(words, ", ")
}

// drainState says how far a node is that gives its replicas away.
func drainState(st sock.Cluster, node int32) string {
	left := 0
	for _, l := range st.Logs {
		member := slices.ContainsFunc(l.Members, func(m sock.ClusterMember) bool { return m.Node == node })
		if l.Topic != "" && (member || slices.Contains(l.Replicas, node)) {
			left++
		}
	}
	if left == 0 {
		return fmt.Sprintf("drained: `embedlog cluster remove %d` forgets it", node)
	}
	return fmt.Sprintf("draining: %s to go", plural(left, "replica"))
}

func logText(l sock.ClusterLog) string {
	if l.Topic == "" {
		return "metadata"
	}
	return fmt.Sprintf("%s/%d", l.Topic, l.Partition)
}

// nodeText is a node's number, or - for nobody.
func nodeText(n int32) string {
	if n <= 0 {
		return "-"
	}
	return strconv.Itoa(int(n))
}

func nodesText(list []int32) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = nodeText(n)
	}
	return orDash(strings.Join(text, ","))
}

func (a *app) clusterAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add NODE HOST:PORT",
		Short: "Let a node take part that peers find at an address",
		Long: `add lets another node take part. Start it with an empty directory, before or
after: embedlog serve --node NODE --cluster NAME --join HOST:PORT, where that is
a node of the cluster. It gets replicas of topics that are created later; those
that are there get some with set-replication-factor or reassign.`,
		Example: `  embedlog cluster add 2 log2.example.com:9192`,
		Args:    takes(2, 2, "a node's number and its address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := parseNode(args[0])
			if err != nil {
				return err
			}
			if host, port, err := net.SplitHostPort(args[1]); err != nil || host == "" || port == "" || port == "0" {
				return usagef("an address is HOST:PORT, not %q", args[1])
			}
			return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.AddNode, Node: node, Address: args[1]},
				"node %d may take part, at %s", node, args[1])
		},
	}
}

func (a *app) clusterRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NODE",
		Short: "Forget a node that has no replicas any more",
		Long: `remove forgets a node. While it has replicas that fails: drain it first, and see
in status that they have gone. Its directory does not get in again.`,
		Args: takes(1, 1, "a node's number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := parseNode(args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(fmt.Sprintf("Forget node %d?", node)); err != nil {
				return err
			}
			return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.RemoveNode, Node: node}, "node %d is forgotten", node)
		},
	}
}

func (a *app) clusterDrain() *cobra.Command {
	var undo, accept bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Give a node's replicas to others, and no new ones to it",
		Long: `drain gives the replicas of a node to others, and no new ones to it. Where there
is no other node for a replica, the partition has one less, and gets it back as
soon as there is one. It goes on by itself when it is interrupted, and can be
called again. Of a node that is not heard of and has the only replica of a
partition it is refused: with --accept-loss what only that node has is lost.`,
		Args: takes(1, 1, "a node's number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := parseNode(args[0])
			if err != nil {
				return err
			}
			if undo {
				return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.UndrainNode, Node: node}, "node %d may have replicas again", node)
			}
			if err := a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.DrainNode, Node: node, Lost: accept},
				"the replicas of node %d go to others; `embedlog cluster status` shows how far that is", node); err != nil {
				return err
			}
			return a.noteFewer(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it have replicas again")
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "do it though the node is gone and has what no other node has, and lose that")
	return cmd
}

// noteFewer says which partitions have fewer replicas than they are to have.
func (a *app) noteFewer(ctx context.Context) error {
	st, err := askNode[sock.Cluster](ctx, a, sock.OpCluster, struct{}{})
	if err != nil {
		return err
	}
	var few []sock.ClusterLog
	for _, l := range st.Logs {
		if len(l.Replicas) < l.Factor {
			few = append(few, l)
		}
	}
	if len(few) > 0 {
		a.note("%s: fewer replicas than wanted, until there is another node that can have one", logsText(few))
	}
	return nil
}

func (a *app) clusterTransfer() *cobra.Command {
	var to int32
	cmd := &cobra.Command{
		Use:     "transfer-leadership TOPIC/PARTITION",
		Short:   "Have another replica lead a partition",
		Example: `  embedlog cluster transfer-leadership orders/0 --to 2`,
		Args:    takes(1, 1, "a partition"),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, partition, err := parsePartition(args[0])
			if err != nil {
				return err
			}
			if to < 0 {
				return usagef("a node is a number from 1 on, not %d", to)
			}
			return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.TransferLeadership, Topic: topic, Partition: partition, Node: to},
				"%s leads %s", who(to), args[0])
		},
	}
	cmd.Flags().Int32Var(&to, "to", 0, "the node that is to lead; without: the best")
	return cmd
}

func who(node int32) string {
	if node == 0 {
		return "another node"
	}
	return fmt.Sprint("node ", node)
}

func (a *app) clusterElect() *cobra.Command {
	return &cobra.Command{
		Use:   "elect-preferred",
		Short: "Have first replicas lead their partitions again",
		Long: `elect-preferred gives the leads back that other nodes took over. It happens by
itself, too, when a preferred leader has been in sync for half a minute.`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.ElectPreferred}, "preferred leaders lead where they are in sync")
		},
	}
}

func (a *app) clusterReassign() *cobra.Command {
	return &cobra.Command{
		Use:   "reassign TOPIC/PARTITION NODE...",
		Short: "Give a partition other replicas",
		Long: `reassign gives a partition other replicas, the preferred leader first. Those
that go do so when the others have all records: see status.`,
		Example: `  embedlog cluster reassign orders/0 2 3 4`,
		Args:    takes(2, -1, "a partition and the nodes that are to have it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, partition, err := parsePartition(args[0])
			if err != nil {
				return err
			}
			var nodes []int32
			for _, s := range args[1:] {
				node, err := parseNode(s)
				if err != nil {
					return err
				}
				if slices.Contains(nodes, node) {
					return usagef("node %d is named twice", node)
				}
				nodes = append(nodes, node)
			}
			return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.Reassign, Topic: topic, Partition: partition, Replicas: nodes},
				"%s goes to %s", args[0], nodesText(nodes))
		},
	}
}

func (a *app) clusterFactor() *cobra.Command {
	return &cobra.Command{
		Use:   "set-replication-factor TOPIC N",
		Short: "Give each partition of a topic so many replicas",
		Args:  takes(2, 2, "a topic and a number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 || n > maxFactor {
				return usagef("a replication factor is between 1 and %d, not %q", maxFactor, args[1])
			}
			return a.changeCluster(cmd.Context(), sock.ChangeCluster{Do: sock.SetReplicationFactor, Topic: args[0], Factor: n},
				"topic %s gets %s of each partition", args[0], plural(n, "replica"))
		},
	}
}

func (a *app) clusterRecover() *cobra.Command {
	var lost []int32
	var accept bool
	cmd := &cobra.Command{
		Use:   "recover TOPIC/PARTITION | metadata",
		Short: "Decide that a partition goes on whose majority is lost",
		Long: `recover is for a partition that has no leader and can get none, which status
says in words. It may lose records that were acknowledged, and so is never done
by itself. There are two cases:

Without --lost: a majority of the replicas is there, but stopped without order
while the topic was written at the level os or interval, and each may lack
records at its end. Those that are there go on with what they have, and the
longest log leads. Start as many of them as can be started first.

With --lost: the disks of so many nodes are gone for good that no majority is
left. The replica of the node that is asked goes on as the only one; that
fails where another node that is left has more. What no node that is left has
is lost. The nodes that are named must never come back with their old
directories: they could elect a leader of their own. Recover the metadata
first, then the partitions, then drain and remove the lost nodes.`,
		Example: `  embedlog cluster recover orders/0 --accept-loss
  embedlog cluster recover metadata --lost 2,3 --accept-loss`,
		Args: takes(1, 1, "a partition, or metadata"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := sock.ChangeCluster{Do: sock.Recover, Replicas: lost}
			if args[0] != "metadata" {
				var err error
				if q.Topic, q.Partition, err = parsePartition(args[0]); err != nil {
					return err
				}
			}
			for _, n := range lost {
				if n < 1 {
					return usagef("a node is a number from 1 on, not %d", n)
				}
			}
			if !accept {
				return usagef("acknowledged records that no replica has any more would be lost for good; with --accept-loss it is done")
			}
			return a.changeCluster(cmd.Context(), q, "%s goes on; what it did not have any more is lost", args[0])
		},
	}
	cmd.Flags().Int32SliceVar(&lost, "lost", nil, "nodes whose disks are gone for good")
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "do it, and lose what is lost")
	return cmd
}

func parseNode(s string) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return 0, usagef("a node is a number from 1 on, not %q", s)
	}
	return int32(n), nil
}

func parsePartition(s string) (string, int32, error) {
	i := strings.LastIndex(s, "/")
	n, err := strconv.ParseInt(s[i+1:], 10, 32)
	if i < 1 || err != nil || n < 0 {
		return "", 0, usagef("a partition is TOPIC/NUMBER, not %q", s)
	}
	return s[:i], int32(n), nil
}

// changeCluster makes one change and says that it is decided.
func (a *app) changeCluster(ctx context.Context, q sock.ChangeCluster, format string, args ...any) error {
	if _, err := askNode[struct{}](ctx, a, sock.OpChangeCluster, q); err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(q)
	}
	return a.say(format, args...)
}

// askNode makes one request to the node that has the directory open.
func askNode[Reply any](ctx context.Context, a *app, op sock.Op, request any) (reply Reply, err error) {
	c, err := a.dialNode()
	if err != nil {
		return reply, err
	}
	defer c.Close()
	if op != sock.OpCluster {
		info, err := call[sock.Info](ctx, c, sock.OpInfo, struct{}{})
		if err != nil {
			return reply, err
		}
		if info.NodeID == 0 {
			return reply, notInCluster(a.data)
		}
	}
	if reply, err = call[Reply](ctx, c, op, request); err != nil {
		return reply, err
	}
	if st, ok := any(reply).(sock.Cluster); ok && st.Node == 0 {
		return reply, notInCluster(a.data)
	}
	return reply, nil
}

func notInCluster(data string) error {
	return &exitError{exitFailure, fmt.Errorf("%s is in no cluster; `embedlog serve --node 1 --cluster NAME` makes it the first node of one", data)}
}

// dialNode begins a session with the node that has the directory open, and opens nothing: a node
// without its peers would not know more than the files.
func (a *app) dialNode() (*client, error) {
	if isSocket(a.data) {
		return dialSocket(a.data)
	}
	dir, err := filepath.Abs(a.data)
	if err != nil {
		return nil, err
	}
	if err := checkDatabase(dir, a.data); err != nil {
		return nil, err
	}
	c, err := dial(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, &exitError{exitFailure, fmt.Errorf("%s: this asks a node that runs, and nobody who answers commands has the directory open; "+
			"`embedlog serve --node N --cluster NAME` does, or a program with Options.Replication and Options.Socket", a.data)}
	}
	return c, err
}

// ofCluster says what to do where a directory is opened alone that is a node's.
func ofCluster(dir string, err error) error {
	var node *embedlog.InvalidNodeError
	if !errors.As(err, &node) {
		return err
	}
	return &exitError{exitFailure, fmt.Errorf("%s is node %d of a cluster, which only works with its peers: run it with `embedlog serve --node %d --cluster NAME` "+
		"or a program with Options.Replication, and commands go through that", dir, node.Node, node.Node)}
}
