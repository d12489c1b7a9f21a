package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// reach is by which doors a command gets at a database.
type reach uint8

const (
	byAnyDoor reach = iota + 1 // a directory, its socket, an address
	bySession                  // a directory or its socket: it needs the files, and whoever has them open can help
	byFiles                    // a directory alone
	byNode                     // a directory's socket alone: a node of a cluster that runs
	byNone                     // it has no database, or one of its own
)

// reaches has every command that does something, by its words.
var reaches = map[string]reach{
	"topic create": byAnyDoor, "topic list": byAnyDoor, "topic describe": byAnyDoor, "topic alter": byAnyDoor,
	"topic add-partitions": byAnyDoor, "topic trim": byAnyDoor, "topic delete": byAnyDoor,
	"produce": byAnyDoor, "consume": byAnyDoor,
	"view list": byAnyDoor, "view describe": byAnyDoor, "view get": byAnyDoor, "view scan": byAnyDoor, "view watch": byAnyDoor,
	"view rebuild": bySession,
	"group list":   byAnyDoor, "group describe": byAnyDoor, "group reset-offsets": byAnyDoor, "group delete": byAnyDoor,
	"user create": byAnyDoor, "user set-password": byAnyDoor, "user list": byAnyDoor, "user delete": byAnyDoor,
	"acl add": byAnyDoor, "acl list": byAnyDoor, "acl delete": byAnyDoor,
	"cluster status": byNode, "cluster add": byNode, "cluster remove": byNode, "cluster drain": byNode,
	"cluster transfer-leadership": byNode, "cluster reassign": byNode, "cluster set-replication-factor": byNode,
	"cluster elect-preferred": byNode, "cluster leave": byNode, "cluster recover": byNode,
	"cluster certs init": byNone, "cluster certs issue": byNone,
	"info":   byAnyDoor,
	"verify": bySession, "export": bySession, "backup": bySession,
	"dump": byFiles, "repair": byFiles, "restore": byFiles, "serve": byFiles,
	"bench": byNone, "version": byNone,
}

// words are what names a command behind the program's name.
func words(cmd *cobra.Command) string {
	_, rest, _ := strings.Cut(cmd.CommandPath(), " ")
	return rest
}

// reach checks what was said of the database, and that the command can get at it so.
func (a *app) reach(cmd *cobra.Command) error {
	data := cmd.Root().PersistentFlags().Changed("data")
	if err := a.address.check(cmd, data); err != nil {
		return err
	}
	how := reaches[words(cmd)]
	if len(a.address.hosts) > 0 {
		switch {
		case a.address.fromEnv && (how == byNone || cmd.Name() == "serve"):
		case how == byNone:
			return usagef("%s has no use for --address: it works in no database but its own", cmd.CommandPath())
		case cmd.Name() == "serve":
			return usagef("%s listens: --kafka HOST:PORT says where; --address is for commands that go there", cmd.CommandPath())
		case how == byNode:
			return usagef("%s goes to a node that runs, by its directory: give --data DIR, not --address", cmd.CommandPath())
		case how == bySession || how == byFiles:
			return usagef("%s works on the files of a database: give --data DIR, not --address", cmd.CommandPath())
		}
		return nil
	}
	if how == byFiles && isSocket(a.data) {
		return usagef("%s works on the files of a database: give the directory, %s is the socket of a program", cmd.CommandPath(), a.data)
	}
	return nil
}
