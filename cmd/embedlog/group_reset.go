package main

import (
	"encoding/csv"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) groupReset() *cobra.Command {
	var to struct {
		earliest, latest, current bool
		offset, shift             int64
		datetime, duration        string
	}
	var topics []string
	var allTopics, dryRun, execute, export bool
	cmd := &cobra.Command{
		Use:   "reset-offsets GROUP (--topic TOPIC[:P,...] | --all-topics) --to-... [--execute]",
		Short: "Move a group's offsets; a dry run without --execute",
		Long: `reset-offsets moves the committed offsets of a group that has no active
members. It shows what it would do; --execute does it.`,
		Example: `  embedlog group reset-offsets billing --topic orders --to-earliest
  embedlog group reset-offsets billing --topic orders:0,1 --shift-by -100 --execute
  embedlog group reset-offsets billing --all-topics --to-datetime 2026-11-22T08:00:00 --execute
  embedlog group reset-offsets billing --all-topics --by-duration PT1H --export > plan.csv`,
		Args: takes(1, 1, "a group"),
		RunE: func(cmd *cobra.Command, args []string) error {
			reset := sock.Reset{Group: args[0], Execute: execute}
			// How is a row here, so that one place knows what excludes what.
			var err error
			chosen := 0
			for flag, set := range map[string]func(){
				"to-earliest": func() { reset.To = sock.ToEarliest },
				"to-latest":   func() { reset.To = sock.ToLatest },
				"to-current":  func() { reset.To = sock.ToCurrent },
				"to-offset":   func() { reset.To, reset.Offset = sock.ToOffset, to.offset },
				"shift-by":    func() { reset.To, reset.Offset = sock.ToShift, to.shift },
				"to-datetime": func() { reset.To = sock.ToTime; reset.Time, err = parseTime(to.datetime) },
				"by-duration": func() { reset.To = sock.ToDuration; reset.Duration, err = parseDuration(to.duration) },
			} {
				if cmd.Flags().Changed(flag) {
					set()
					chosen++
				}
			}
			switch {
			case err != nil:
				return err
			case chosen != 1:
				return usagef("%s needs one of --to-earliest, --to-latest, --to-current, --to-offset, --shift-by, --to-datetime, --by-duration", cmd.CommandPath())
			case allTopics == (len(topics) > 0):
				return usagef("%s needs --topic TOPIC[:P,...] or --all-topics", cmd.CommandPath())
			case execute && (dryRun || export):
				return usagef("--execute does it; --dry-run and --export only show it")
			}
			for _, t := range topics {
				topic, err := parseResetTopic(t)
				if err != nil {
					return err
				}
				reset.Topics = append(reset.Topics, topic)
			}
			results, err := send[[]sock.ResetResult](cmd.Context(), a, false, sock.OpResetGroup, reset)
			if err != nil {
				return err
			}
			if err := a.showReset(results, export); err != nil {
				return err
			}
			if !execute && !export {
				a.note("nothing was changed; --execute does it")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&topics, "topic", nil, "a topic, or some of its partitions (orders:0,1); may be repeated")
	f.BoolVar(&allTopics, "all-topics", false, "every topic in which the group has offsets")
	f.BoolVar(&to.earliest, "to-earliest", false, "to the first record there is")
	f.BoolVar(&to.latest, "to-latest", false, "to the end")
	f.BoolVar(&to.current, "to-current", false, "to where it is")
	f.Int64Var(&to.offset, "to-offset", 0, "to an offset")
	f.Int64Var(&to.shift, "shift-by", 0, "forward by so many records, back if negative")
	f.StringVar(&to.datetime, "to-datetime", "", "to the first record of that time or later")
	f.StringVar(&to.duration, "by-duration", "", "to the first record since that long ago (PT1H, 90m)")
	f.BoolVar(&dryRun, "dry-run", false, "only show (the default)")
	f.BoolVar(&execute, "execute", false, "do it")
	f.BoolVar(&export, "export", false, "only show, as CSV: topic,partition,offset")
	return cmd
}

// parseResetTopic reads TOPIC or TOPIC:0,1.
func parseResetTopic(s string) (sock.ResetTopic, error) {
	name, list, some := strings.Cut(s, ":")
	topic := sock.ResetTopic{Topic: name}
	if name == "" {
		return topic, usagef("a topic is TOPIC or TOPIC:0,1, not %q", s)
	}
	if some {
		for _, word := range strings.Split(list, ",") {
			n, err := strconv.ParseInt(word, 10, 32)
			if err != nil || n < 0 {
				return topic, usagef("a topic is TOPIC or TOPIC:0,1, not %q", s)
			}
			topic.Partitions = append(topic.Partitions, int32(n))
		}
	}
	return topic, nil
}

func (a *app) showReset(results []sock.ResetResult, export bool) error {
	if export {
		w := csv.NewWriter(a.stdout)
		for _, r := range results {
			_ = w.Write([]string{r.Topic, strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.New, 10)}) // Error has it
		}
		w.Flush()
		return w.Error()
	}
	t := newTable("GROUP", "TOPIC", ">PARTITION", ">CURRENT-OFFSET", ">NEW-OFFSET")
	for _, r := range results {
		if a.asJSON() {
			if err := a.json(r); err != nil {
				return err
			}
		}
		t.add(r.Group, r.Topic, r.Partition, dash(r.Current), r.New)
		if r.Wanted != r.New {
			a.note("%s/%d does not reach to offset %d; %d is the nearest", r.Topic, r.Partition, r.Wanted, r.New)
		}
	}
	if a.asJSON() {
		return nil
	}
	return a.show(t)
}
