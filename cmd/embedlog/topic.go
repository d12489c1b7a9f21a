package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) topic() *cobra.Command {
	return parent("topic", "Create, look at, change and delete topics",
		a.topicCreate(), a.topicList(), a.topicDescribe(),
		a.topicAlter(), a.topicAddPartitions(), a.topicTrim(), a.topicDelete())
}

func (a *app) topicCreate() *cobra.Command {
	var partitions, factor int
	var configs []string
	var ifNotExists bool
	cmd := &cobra.Command{
		Use:   "create TOPIC... [-p PARTITIONS] [-c NAME=VALUE]",
		Short: "Create topics, and the database if there is none",
		Example: `  embedlog topic create orders -p 4
  embedlog topic create prices -c cleanup.policy=compact -c embedlog.durability=os`,
		Args: takes(1, -1, "a topic"),
		RunE: func(cmd *cobra.Command, topics []string) error {
			if partitions < 1 {
				return usagef("--partitions is at least 1, not %d", partitions)
			}
			if factor < 0 {
				return usagef("--replication-factor is at least 1, not %d", factor)
			}
			settings, err := parseSettings(configs)
			if err != nil {
				return err
			}
			for _, topic := range topics {
				created, err := send[sock.Topic](cmd.Context(), a, true, sock.OpCreateTopic, sock.CreateTopic{
					Topic: topic, Partitions: partitions, ReplicationFactor: factor, Settings: settings, IfNotExists: ifNotExists,
				})
				if err != nil {
					return err
				}
				switch {
				case a.asJSON():
					err = a.json(created)
				case created.Existed:
					err = a.say("topic %s was there, with %s; it is as it was", created.Topic, plural(created.Partitions, "partition"))
				default:
					err = a.say("created topic %s with %s", created.Topic, plural(created.Partitions, "partition"))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&partitions, "partitions", "p", 1, "number of partitions")
	cmd.Flags().IntVar(&factor, "replication-factor", 0, "how many nodes have each partition; 0 is what the cluster does")
	cmd.Flags().StringArrayVarP(&configs, "config", "c", nil, "a setting under Kafka's name, NAME=VALUE; may be repeated")
	cmd.Flags().BoolVar(&ifNotExists, "if-not-exists", false, "a topic that is there already is no error")
	return cmd
}

func (a *app) topicList() *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the topics",
		Args:    takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := send[sock.Info](cmd.Context(), a, false, sock.OpInfo, struct{}{})
			if err != nil {
				return err
			}
			t := newTable("TOPIC", ">PARTITIONS", ">RECORDS", ">SIZE")
			elsewhere := 0
			for _, topic := range info.Topics {
				switch {
				case topic.Internal && !internal:
				case a.asJSON():
					if err := a.json(topic); err != nil {
						return err
					}
				case topic.Elsewhere > 0:
					elsewhere++
					t.add(topic.Topic, topic.Partitions, "-", bytesText(topic.Bytes))
				default:
					t.add(topic.Topic, topic.Partitions, topic.Records, bytesText(topic.Bytes))
				}
			}
			if a.asJSON() {
				return nil
			}
			if len(t.rows) == 0 {
				a.note("no topics; `embedlog topic create NAME` makes one")
				return nil
			}
			if elsewhere > 0 {
				a.note("-: other nodes have some partitions alone; `embedlog topic describe NAME` asks them")
			}
			return a.show(t)
		},
	}
	cmd.Flags().BoolVarP(&internal, "internal", "i", false, "the database's own topics, too")
	return cmd
}

func (a *app) topicDescribe() *cobra.Command {
	return &cobra.Command{
		Use:   "describe TOPIC...",
		Short: "Show a topic's settings and partitions",
		Args:  takes(1, -1, "a topic"),
		RunE: func(cmd *cobra.Command, topics []string) error {
			for i, name := range topics {
				topic, err := a.describeTopic(cmd.Context(), name)
				if err != nil {
					return err
				}
				if a.asJSON() {
					err = a.json(topic)
				} else {
					if i > 0 {
						_ = a.say("")
					}
					err = a.showTopic(topic)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) describeTopic(ctx context.Context, name string) (sock.Topic, error) {
	list, err := send[[]sock.Topic](ctx, a, false, sock.OpTopics, sock.TopicsRequest{Topic: name})
	if err != nil {
		return sock.Topic{}, err
	}
	if len(list) != 1 {
		return sock.Topic{}, notFoundf("no topic %s", name)
	}
	return list[0], nil
}

func (a *app) showTopic(topic sock.Topic) error {
	kind := ""
	if topic.Internal {
		kind = "  (internal)"
	}
	if err := a.say("%s  %s  %s  %s  id %s%s", a.paint(a.stdout, bold, topic.Topic),
		plural(topic.Partitions, "partition"), plural(topic.Records, "record"),
		bytesText(topic.Bytes), topic.ID, kind); err != nil {
		return err
	}
	for _, s := range topic.Settings {
		if err := a.say("  %s=%s", s.Name, s.Value); err != nil {
			return err
		}
	}
	if topic.SettingsHidden {
		a.note("the settings of %s are shown to who has DESCRIBE_CONFIGS on it", topic.Topic)
	}
	head := []string{">PARTITION", ">LOG-START", ">LAST-STABLE", ">HIGH-WATERMARK", ">RECORDS", ">SIZE"}
	replicated := slices.ContainsFunc(topic.PartitionList, func(p sock.Partition) bool { return p.Replicas != nil })
	if replicated {
		head = append(head, "LEADER", "REPLICAS", "IN-SYNC")
	}
	t := newTable(head...)
	for _, p := range topic.PartitionList {
		row := []any{p.Partition, p.LogStart, p.LastStable, p.HighWatermark, p.HighWatermark - p.LogStart, bytesText(p.Bytes)}
		if replicated {
			row = append(row, nodeText(p.Leader), nodesText(p.Replicas), nodesText(p.InSync))
		}
		t.add(row...)
	}
	if err := a.show(t); err != nil {
		return err
	}
	for _, p := range topic.PartitionList {
		if p.Reason != "" {
			if err := a.say("%s", a.paint(a.stdout, yellow, "partition "+dash(int64(p.Partition))+": "+p.Reason)); err != nil {
				return err
			}
		}
		if p.Error != "" {
			if err := a.say("%s", a.paint(a.stdout, red, "partition "+dash(int64(p.Partition))+": "+p.Error)); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseSettings reads NAME=VALUE, each name once.
func parseSettings(list []string) (map[string]string, error) {
	settings := make(map[string]string)
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usagef("a setting is NAME=VALUE, not %q", s)
		}
		if _, twice := settings[name]; twice {
			return nil, usagef("%s is set twice", name)
		}
		settings[name] = value
	}
	return settings, nil
}

// send makes one request in a session of its own.
func send[Reply any](ctx context.Context, a *app, create bool, op sock.Op, request any) (reply Reply, err error) {
	err = a.with(ctx, create, func(c *client) error {
		reply, err = call[Reply](ctx, c, op, request)
		return err
	})
	return reply, err
}
