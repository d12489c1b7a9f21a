package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) acl() *cobra.Command {
	return parent("acl", "Allow and deny users what they do through the Kafka listener",
		a.aclAdd(), a.aclList(), a.aclDelete())
}

// aclFlags are what an ACL is about, or which are meant.
type aclFlags struct {
	topic, group, txn string
	cluster           bool
	prefixed          bool
	principal, host   string
	operations        []string
	deny              bool
}

func (f *aclFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.topic, "topic", "", "a topic; * is every one")
	flags.StringVar(&f.group, "group", "", "a consumer group; * is every one")
	flags.StringVar(&f.txn, "transactional-id", "", "a transactional id; * is every one")
	flags.BoolVar(&f.cluster, "cluster", false, "the database as a whole")
	flags.BoolVar(&f.prefixed, "prefixed", false, "all whose name begins with the name given")
	flags.StringVar(&f.principal, "principal", "", "User:NAME; User:* is everybody")
	flags.StringVar(&f.host, "host", "", "the client's address; * is every one")
	flags.StringSliceVarP(&f.operations, "operation", "o", nil, "read, write, create, delete, alter, describe,\ndescribe-configs, alter-configs, all; may be repeated")
	flags.BoolVar(&f.deny, "deny", false, "deny it, whatever else allows it")
}

// acls are the ACLs that the flags say, one for each operation; of a filter, what is
// empty is any.
func (f *aclFlags) acls(filter bool) ([]sock.ACL, error) {
	base := sock.ACL{Principal: f.principal, Host: f.host}
	n := 0
	for _, r := range []struct{ kind, name string }{{"TOPIC", f.topic}, {"GROUP", f.group}, {"TRANSACTIONAL_ID", f.txn}} {
		if r.name != "" {
			n++
			base.ResourceType, base.Name = r.kind, r.name
		}
	}
	if f.cluster {
		n++
		base.ResourceType, base.Name = "CLUSTER", "kafka-cluster"
	}
	switch {
	case n > 1:
		return nil, usagef("--topic, --group, --transactional-id and --cluster are about one thing each; choose one")
	case !filter && (n == 0 || f.principal == "" || len(f.operations) == 0):
		return nil, usagef("an ACL needs --principal, --operation and one of --topic, --group, --transactional-id and --cluster")
	case f.prefixed && n == 0:
		return nil, usagef("--prefixed says something about a name, and there is none")
	}
	if f.prefixed {
		base.PatternType = "PREFIXED"
	} else if n > 0 {
		base.PatternType = "LITERAL"
	}
	if f.deny {
		base.Permission = "DENY"
	}
	if len(f.operations) == 0 {
		return []sock.ACL{base}, nil
	}
	var list []sock.ACL
	for _, o := range f.operations {
		base.Operation = o
		list = append(list, base)
	}
	return list, nil
}

func (a *app) aclAdd() *cobra.Command {
	var f aclFlags
	cmd := &cobra.Command{
		Use:   "add --principal User:NAME -o OPERATION --topic TOPIC",
		Short: "Add ACLs; those that are there stay",
		Example: `  embedlog acl add --principal User:alice -o read --topic orders
  embedlog acl add --principal User:alice -o read --group billing --prefixed
  embedlog acl add --principal 'User:*' -o all --topic secret --deny`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := f.acls(false)
			if err != nil {
				return err
			}
			added, err := send[[]sock.ACL](cmd.Context(), a, false, sock.OpCreateACLs, list)
			if err != nil {
				return err
			}
			return a.showACLs(added, "added")
		},
	}
	f.add(cmd)
	return cmd
}

func (a *app) aclList() *cobra.Command {
	var f aclFlags
	var about bool
	cmd := &cobra.Command{
		Use:     "list [--principal User:NAME] [--topic TOPIC]",
		Aliases: []string{"ls"},
		Short:   "List the ACLs, or those that flags choose",
		Args:    takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filters, err := f.acls(true)
			if err != nil {
				return err
			}
			var found []sock.ACL
			for _, q := range filters {
				if about {
					if q.Name == "" {
						return usagef("--about says something about a name, and there is none")
					}
					q.PatternType = "MATCH"
				}
				list, err := send[[]sock.ACL](cmd.Context(), a, false, sock.OpACLs, q)
				if err != nil {
					return err
				}
				found = append(found, list...)
			}
			if len(found) == 0 && !a.asJSON() {
				a.note("no ACLs")
				return nil
			}
			return a.showACLs(found, "")
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&about, "about", false, "all that count for the name given: prefixes and *, too")
	return cmd
}

func (a *app) aclDelete() *cobra.Command {
	var f aclFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "delete [--principal User:NAME] [--topic TOPIC]",
		Short:   "Delete the ACLs that flags choose",
		Example: `  embedlog acl delete --principal User:alice --topic orders`,
		Args:    takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filters, err := f.acls(true)
			if err != nil {
				return err
			}
			if filters[0] == (sock.ACL{}) && !all {
				return usagef("no flag chooses which; --all deletes every one")
			}
			if err := a.confirm("Delete these ACLs?"); err != nil {
				return err
			}
			var deleted []sock.ACL
			for _, q := range filters {
				list, err := send[[]sock.ACL](cmd.Context(), a, false, sock.OpDeleteACLs, q)
				if err != nil {
					return err
				}
				deleted = append(deleted, list...)
			}
			if len(deleted) == 0 {
				return notFoundf("no such ACL")
			}
			return a.showACLs(deleted, "deleted")
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every one")
	return cmd
}

// showACLs prints ACLs, as a table where nothing was done with them.
func (a *app) showACLs(list []sock.ACL, done string) error {
	if done != "added" {
		// Doors have orders of their own.
		key := func(x sock.ACL) string {
			return strings.Join([]string{x.ResourceType, x.Name, x.PatternType, x.Principal, x.Host, x.Operation, x.Permission}, "\x00")
		}
		slices.SortFunc(list, func(a, b sock.ACL) int { return strings.Compare(key(a), key(b)) })
	}
	t := newTable("PRINCIPAL", "PERMISSION", "OPERATION", "RESOURCE", "NAME", "PATTERN", "HOST")
	for _, x := range list {
		var err error
		switch {
		case a.asJSON():
			err = a.json(x)
		case done == "":
			t.add(x.Principal, x.Permission, x.Operation, x.ResourceType, x.Name, x.PatternType, x.Host)
		default:
			pattern := ""
			if x.PatternType == "PREFIXED" {
				pattern = "..."
			}
			err = a.say("%s: %s %s %s on %s %s from %s", done, x.Permission, x.Principal, x.Operation, x.ResourceType, fmt.Sprint(x.Name, pattern), x.Host)
		}
		if err != nil {
			return err
		}
	}
	if a.asJSON() || done != "" {
		return nil
	}
	return a.show(t)
}
