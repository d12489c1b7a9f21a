package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) export() *cobra.Command {
	var format string
	var partitions []int32
	cmd := &cobra.Command{
		Use:   "export TOPIC DIRECTORY [--format kafka] [-p PARTITION,...]",
		Short: "Write a topic as the files that a Kafka broker keeps",
		Long: `export writes each partition of a topic as a directory TOPIC-PARTITION with the
segments and indexes that a Kafka broker keeps, up to the high watermark of
now. Kafka's kafka-dump-log reads them. A directory that is there already is an
error.`,
		Example: `  embedlog export orders ./kafka-logs --format kafka`,
		Args:    takes(2, 2, "a topic and a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "kafka" {
				return usagef("the format to export is kafka, not %q", format)
			}
			to, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			bar := a.bar(0, "exporting "+args[0])
			var list []sock.Exported
			err = a.with(cmd.Context(), false, func(c *client) (err error) {
				list, err = callProgress[[]sock.Exported](cmd.Context(), c, sock.OpExport,
					sock.Export{Topic: args[0], Partitions: partitions, To: to},
					func(p sock.Progress) { bar.set("exporting "+p.What, p.Done, p.Total) })
				return err
			})
			bar.done()
			if err != nil {
				return err
			}
			t := newTable("DIRECTORY", ">SEGMENTS", ">BATCHES", ">RECORDS", ">SIZE")
			for _, e := range list {
				t.add(e.Dir, e.Segments, e.Batches, e.Records, bytesText(e.Bytes))
			}
			return a.show(t)
		},
	}
	cmd.Flags().StringVar(&format, "format", "kafka", "the format of the files")
	cmd.Flags().Int32SliceVarP(&partitions, "partition", "p", nil, "only these partitions")
	return cmd
}
