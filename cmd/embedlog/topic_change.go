package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) topicAlter() *cobra.Command {
	var set, unset []string
	cmd := &cobra.Command{
		Use:     "alter TOPIC [-c NAME=VALUE] [-d NAME]",
		Short:   "Change settings of a topic; they count at once",
		Example: `  embedlog topic alter orders -c retention.ms=86400000 -d segment.bytes`,
		Args:    takes(1, 1, "a topic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, err := parseSettings(set)
			if err != nil {
				return err
			}
			if len(settings)+len(unset) == 0 {
				return usagef("%s needs -c NAME=VALUE or -d NAME", cmd.CommandPath())
			}
			topic, err := send[sock.Topic](cmd.Context(), a, false, sock.OpAlterTopic,
				sock.AlterTopic{Topic: args[0], Set: settings, Unset: unset})
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(topic)
			}
			return a.say("altered topic %s", topic.Topic)
		},
	}
	cmd.Flags().StringArrayVarP(&set, "config", "c", nil, "a setting under Kafka's name, NAME=VALUE; may be repeated")
	cmd.Flags().StringArrayVarP(&unset, "delete-config", "d", nil, "a setting that goes back to its default; may be repeated")
	return cmd
}

func (a *app) topicAddPartitions() *cobra.Command {
	var total int
	cmd := &cobra.Command{
		Use:   "add-partitions TOPIC --total N",
		Short: "Raise the number of a topic's partitions",
		Long: `add-partitions raises the number of a topic's partitions to --total.

Records stay where they are. New records of a key may go to another partition
than its old ones, so their order across the change is lost.`,
		Args: takes(1, 1, "a topic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if total < 1 {
				return usagef("%s needs --total N, the number of partitions afterwards", cmd.CommandPath())
			}
			topic, err := send[sock.Topic](cmd.Context(), a, false, sock.OpAddPartitions,
				sock.AddPartitions{Topic: args[0], Total: total})
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(topic)
			}
			return a.say("topic %s has %s", topic.Topic, plural(topic.Partitions, "partition"))
		},
	}
	cmd.Flags().IntVar(&total, "total", 0, "number of partitions afterwards")
	return cmd
}

func (a *app) topicTrim() *cobra.Command {
	var before string
	var partitions []int32
	cmd := &cobra.Command{
		Use:   "trim TOPIC --before OFFSET [-p PARTITION,...]",
		Short: "Delete a topic's records below an offset",
		Long: `trim deletes the records below --before for ever and moves the log start offset
there: an offset (it needs -p), @TIME (the first record of that time or later),
or end (all there is).`,
		Example: `  embedlog topic trim orders -p 0 --before 1000
  embedlog topic trim orders --before @2026-11-01`,
		Args: takes(1, 1, "a topic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			start, err := parseStart(before)
			switch {
			case before == "":
				return usagef("%s needs --before OFFSET, @TIME or end", cmd.CommandPath())
			case err != nil:
				return err
			case start.kind == startRelative || start.kind == startBeginning:
				return usagef("--before is an offset, @TIME or end, not %q", before)
			case start.kind == startAbsolute && len(partitions) == 0:
				return usagef("--before %s needs -p: an offset belongs to a partition", before)
			}
			topic, err := a.describeTopic(ctx, args[0])
			if err != nil {
				return err
			}
			partitions, err := choosePartitions(topic, partitions)
			if err != nil {
				return err
			}
			if err := a.confirm(fmt.Sprintf("Delete the records of %s before %s in partition %s?",
				args[0], before, joinInts(partitions))); err != nil {
				return err
			}
			var at map[int32]int64
			if err := a.with(ctx, false, func(c *client) error {
				at, err = start.resolve(ctx, c, topic)
				return err
			}); err != nil {
				return err
			}
			t := newTable("TOPIC", ">PARTITION", ">LOG-START")
			for _, p := range partitions {
				done, err := send[sock.Trimmed](ctx, a, false, sock.OpTrim,
					sock.Trim{Topic: args[0], Partition: p, Before: at[p]})
				if err != nil {
					return err
				}
				if a.asJSON() {
					if err := a.json(done); err != nil {
						return err
					}
				}
				t.add(done.Topic, done.Partition, done.LogStart)
			}
			if a.asJSON() {
				return nil
			}
			return a.show(t)
		},
	}
	cmd.Flags().StringVar(&before, "before", "", "offset, @TIME or end")
	cmd.Flags().Int32SliceVarP(&partitions, "partition", "p", nil, "partitions, all if not given")
	return cmd
}

func (a *app) topicDelete() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:   "delete TOPIC...",
		Short: "Delete topics and everything in them",
		Args:  takes(1, -1, "a topic"),
		RunE: func(cmd *cobra.Command, topics []string) error {
			if err := a.confirm("Delete " + strings.Join(topics, ", ") + " and everything in it?"); err != nil {
				return err
			}
			for _, topic := range topics {
				_, err := send[struct{}](cmd.Context(), a, false, sock.OpDeleteTopic, sock.TopicName{Topic: topic})
				if ifExists && code(err) == sock.CodeUnknownTopic {
					continue
				}
				if err != nil {
					return err
				}
				if a.asJSON() {
					err = a.json(map[string]string{"deleted": topic})
				} else {
					err = a.say("deleted topic %s", topic)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "a topic that is not there is no error")
	return cmd
}

// choosePartitions is which partitions of the topic are meant: all if none is named.
func choosePartitions(topic sock.Topic, named []int32) ([]int32, error) {
	if len(named) == 0 {
		for i := range topic.Partitions {
			named = append(named, int32(i))
		}
		return named, nil
	}
	for _, p := range named {
		if p < 0 || int(p) >= topic.Partitions {
			return nil, notFoundf("topic %s has no partition %d; it has %s, counted from 0",
				topic.Topic, p, plural(topic.Partitions, "partition"))
		}
	}
	return named, nil
}

func joinInts(ns []int32) string {
	var words []string
	for _, n := range ns {
		words = append(words, strconv.Itoa(int(n)))
	}
	return strings.Join(words, ",")
}
