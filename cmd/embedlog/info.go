package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

// care are the commands for a directory as a whole.
func (a *app) care() []*cobra.Command {
	return []*cobra.Command{a.info(), a.verify(), a.repair(), a.dump(), a.export(), a.backup(), a.restore(), a.bench()}
}

func (a *app) info() *cobra.Command {
	return &cobra.Command{
		Use:   "info [TOPIC | ID]...",
		Short: "Show what the database is, and which topic has which id",
		Long: `info shows the database's ids and its topics with theirs: the files of a topic
lie in topics/<id>. With --address it shows the cluster's nodes, too. Topics or
ids that are named are mapped both ways.`,
		Args: takes(0, -1, "topics or ids"),
		RunE: func(cmd *cobra.Command, names []string) error {
			info, err := send[sock.Info](cmd.Context(), a, false, sock.OpInfo, struct{}{})
			if err != nil {
				return err
			}
			if len(names) > 0 {
				return a.mapIDs(info, names)
			}
			if a.asJSON() {
				return a.json(info)
			}
			lines := [][2]any{
				{"directory", info.Dir}, {"format", info.Format},
				{"cluster id", info.ClusterID}, {"node id", info.NodeID}, {"directory id", info.DirectoryID},
			}
			if info.Address != "" {
				lines = overKafkaLines(info)
			}
			for _, line := range lines {
				if err := a.say("%-13s %v", line[0], line[1]); err != nil {
					return err
				}
			}
			if len(info.Topics) == 0 {
				return nil
			}
			if err := a.say(""); err != nil {
				return err
			}
			return a.showIDs(info.Topics)
		},
	}
}

// overKafkaLines are what Kafka's protocol says of a cluster. What only the files say
// is left out.
func overKafkaLines(info sock.Info) [][2]any {
	lines := [][2]any{{"address", info.Address}}
	if info.Dir != "" {
		lines = append(lines, [2]any{"directory", info.Dir})
	}
	lines = append(lines, [2]any{"cluster id", info.ClusterID})
	for _, n := range info.Nodes {
		controller := ""
		if n.NodeID == info.NodeID && len(info.Nodes) > 1 {
			controller = " (controller)"
		}
		lines = append(lines, [2]any{"node id", fmt.Sprintf("%d at %s:%d%s", n.NodeID, n.Host, n.Port, controller)})
	}
	return lines
}

// mapIDs shows the topics that have one of the names or ids.
func (a *app) mapIDs(info sock.Info, names []string) error {
	var found []sock.TopicBrief
	for _, name := range names {
		i := slices.IndexFunc(info.Topics, func(t sock.TopicBrief) bool { return t.Topic == name || t.ID == name })
		if i < 0 {
			return notFoundf("no topic has the name or id %s", name)
		}
		found = append(found, info.Topics[i])
	}
	if !a.asJSON() {
		return a.showIDs(found)
	}
	for _, t := range found {
		if err := a.json(t); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) showIDs(topics []sock.TopicBrief) error {
	t := newTable("TOPIC", "ID", ">PARTITIONS", ">SIZE")
	for _, topic := range topics {
		t.add(topic.Topic, topic.ID, topic.Partitions, bytesText(topic.Bytes))
	}
	return a.show(t)
}

func (a *app) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [TOPIC]...",
		Short: "Read everything, check it, list what is damaged",
		Long: `verify reads all records of the topics named, or of all topics and the
metadata, and checks them. It changes nothing. It exits with 3 when something
is damaged.`,
		Args: takes(0, -1, "topics"),
		RunE: func(cmd *cobra.Command, topics []string) error {
			var v sock.Verified
			bar := a.bar(0, "verifying")
			err := a.with(cmd.Context(), false, func(c *client) (err error) {
				v, err = callProgress[sock.Verified](cmd.Context(), c, sock.OpVerify, sock.VerifyRequest{Topics: topics},
					func(p sock.Progress) { bar.set("verifying "+p.What, p.Done, p.Total) })
				return err
			})
			bar.done()
			if err != nil {
				return err
			}
			if a.asJSON() {
				err = a.json(v)
			} else {
				err = a.showVerified(v)
			}
			if err == nil && len(v.Problems) > 0 {
				err = &exitError{code: exitDamage}
			}
			return err
		},
	}
}

func (a *app) showVerified(v sock.Verified) error {
	for _, p := range v.Problems {
		place := fmt.Sprintf("%s/%d", p.Topic, p.Partition)
		if p.Topic == "" {
			place = "meta"
		}
		if p.File != "" {
			place += fmt.Sprintf(" %s at byte %d", p.File, p.Position)
		}
		hint := ""
		if p.Cache {
			hint = " (an index: it is made anew, no record is lost)"
		}
		if err := a.say("%s %s: %s%s", a.paint(a.stdout, red, "damage"), place, p.Problem, hint); err != nil {
			return err
		}
	}
	for _, lost := range v.LostPositions {
		if err := a.say("%s", lost); err != nil {
			return err
		}
	}
	result := "no damage"
	if n := len(v.Problems); n > 0 {
		result = a.paint(a.stdout, red, plural(n, "problem"))
	}
	return a.say("%s in %s, %s, %s, %s", result, plural(v.Partitions, "partition"),
		plural(v.Segments, "segment"), plural(v.Records, "record"), bytesText(v.Bytes))
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  takes(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			version, revision := "unknown", ""
			if b, ok := debug.ReadBuildInfo(); ok {
				version = b.Main.Version
				for _, s := range b.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			if a.asJSON() {
				return a.json(map[string]string{
					"version": version, "revision": revision, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			return a.say("%s", strings.TrimSpace("embedlog "+version+" "+runtime.GOOS+"/"+runtime.GOARCH+" "+runtime.Version()))
		},
	}
}
