package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) group() *cobra.Command {
	return parent("group", "Look at, move and delete consumer groups",
		a.groupList(), a.groupDescribe(), a.groupReset(), a.groupDelete())
}

func (a *app) groupList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the groups",
		Args:    takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			groups, err := send[[]sock.GroupBrief](cmd.Context(), a, false, sock.OpGroups, struct{}{})
			if err != nil {
				return err
			}
			t := newTable("GROUP", "TYPE", "STATE", ">MEMBERS")
			for _, g := range groups {
				if a.asJSON() {
					if err := a.json(g); err != nil {
						return err
					}
				}
				t.add(g.Group, g.Type, g.State, g.Members)
			}
			switch {
			case a.asJSON():
				return nil
			case len(groups) == 0:
				a.note("no groups; `embedlog consume TOPIC --group NAME` makes one")
				return nil
			}
			return a.show(t)
		},
	}
}

func (a *app) groupDescribe() *cobra.Command {
	var members, state bool
	cmd := &cobra.Command{
		Use:   "describe GROUP... [--members | --state]",
		Short: "Show where a group stands, who is in it, how far it is behind",
		Args:  takes(1, -1, "a group"),
		RunE: func(cmd *cobra.Command, names []string) error {
			if members && state {
				return usagef("--members and --state are two views; choose one")
			}
			for i, name := range names {
				g, err := send[sock.Group](cmd.Context(), a, false, sock.OpGroup, sock.GroupName{Group: name})
				if err != nil {
					return err
				}
				if i > 0 && !a.asJSON() {
					_ = a.say("")
				}
				switch {
				case a.asJSON():
					err = a.json(g)
				case members:
					err = a.showMembers(g)
				case state:
					err = a.showState(g)
				default:
					err = a.showOffsets(g)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&members, "members", false, "its members and what they have")
	cmd.Flags().BoolVar(&state, "state", false, "its state")
	return cmd
}

// showOffsets has Kafka's columns, for scripts and eyes that know them.
func (a *app) showOffsets(g sock.Group) error {
	if len(g.Members) == 0 {
		a.note("group %s has no active members", g.Group)
	}
	t := newTable("GROUP", "TOPIC", ">PARTITION", ">CURRENT-OFFSET", ">LOG-END-OFFSET", ">LAG", "CONSUMER-ID", "HOST", "CLIENT-ID")
	for _, o := range g.Offsets {
		t.add(g.Group, o.Topic, o.Partition, dash(o.Current), o.LogEnd, dash(o.Lag),
			orDash(o.MemberID), orDash(o.Host), orDash(o.ClientID))
	}
	return a.show(t)
}

func (a *app) showMembers(g sock.Group) error {
	t := newTable("GROUP", "CONSUMER-ID", "HOST", "CLIENT-ID", ">EPOCH", ">#PARTITIONS", "ASSIGNMENT")
	for _, m := range g.Members {
		t.add(g.Group, m.ID, orDash(m.Host), orDash(m.ClientID), m.Epoch, len(m.Assigned), orDash(assignment(m.Assigned)))
	}
	return a.show(t)
}

func (a *app) showState(g sock.Group) error {
	t := newTable("GROUP", "TYPE", "STATE", "ASSIGNOR", ">EPOCH", ">#MEMBERS")
	t.add(g.Group, g.Type, g.State, orDash(g.Assignor), g.Epoch, len(g.Members))
	return a.show(t)
}

// assignment is "orders(0,1) prices(0)".
func assignment(list []sock.TopicPartition) string {
	var order []string
	of := make(map[string][]int32)
	for _, tp := range list {
		if of[tp.Topic] == nil {
			order = append(order, tp.Topic)
		}
		of[tp.Topic] = append(of[tp.Topic], tp.Partition)
	}
	for i, topic := range order {
		order[i] = fmt.Sprintf("%s(%s)", topic, joinInts(of[topic]))
	}
	return strings.Join(order, " ")
}

func (a *app) groupDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete GROUP...",
		Short: "Delete groups without members, and their offsets",
		Args:  takes(1, -1, "a group"),
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := a.confirm("Delete " + strings.Join(names, ", ") + " and its offsets?"); err != nil {
				return err
			}
			for _, name := range names {
				_, err := send[struct{}](cmd.Context(), a, false, sock.OpDeleteGroup, sock.GroupName{Group: name})
				if err != nil {
					return err
				}
				if a.asJSON() {
					err = a.json(map[string]string{"deleted": name})
				} else {
					err = a.say("deleted group %s", name)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
