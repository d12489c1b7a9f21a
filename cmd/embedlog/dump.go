package main

import (
	"bufio"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/dump"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// holds is whose records a log's directory holds: "meta", or the name of a topic.
func holds(path string) string {
	if name := topicName(filepath.Join(path, "..", "topic")); name != "" {
		return name
	}
	return filepath.Base(path)
}

func (a *app) dump() *cobra.Command {
	var o dump.Options
	cmd := &cobra.Command{
		Use:   "dump TOPIC[/PARTITION]... | meta | DIRECTORY",
		Short: "Print the files of a log: segments, frames, batches, records",
		Long: `dump prints the files of partitions as they lie on the disk: always segments
and the checkpoint, frames, batches, records and indexes as asked. It takes no
lock: it works while a program has the database open, and on one that does not
open. It says what is damaged and goes on behind it, and then exits with 3;
what a crash tore above everything that was durable is "torn", and no damage.
Records of meta and of internal topics are shown decoded.`,
		Example: `  embedlog dump orders/0 --batches
  embedlog dump orders/0 --records --from 100 --to 110
  embedlog dump meta --records
  embedlog dump __consumer_offsets --records`,
		Args: takes(1, -1, "a topic, a partition, meta or a directory"),
		RunE: func(cmd *cobra.Command, words []string) error {
			if o.To < 0 || o.From < 0 || o.To > 0 && o.To <= o.From {
				return usagef("--from and --to are offsets, and --to is above --from")
			}
			logs, err := a.findLogs(words)
			if err != nil {
				return err
			}
			if a.asJSON() {
				o.Format = dump.JSON
			}
			out := bufio.NewWriterSize(a.stdout, 64<<10)
			var damaged error
			for i, l := range logs {
				if !a.asJSON() && len(logs) > 1 {
					if i > 0 {
						_ = out.WriteByte('\n') // Flush has the error
					}
					_, _ = out.WriteString(a.paint(a.stdout, bold, l.name) + "\n")
				}
				o.Decode = engine.Explainer(holds(l.path))
				fsys, err := vfs.OS(l.path)
				if err == nil {
					err = errors.Join(dump.Log(out, fsys, &o), fsys.Close())
				}
				if errors.Is(err, log.ErrCorrupt) {
					damaged, err = &exitError{code: exitDamage}, nil
				}
				if err = errors.Join(err, out.Flush()); err != nil {
					return err
				}
			}
			return damaged
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Frames, "frames", false, "each frame and end mark")
	f.BoolVar(&o.Batches, "batches", false, "each record batch")
	f.BoolVar(&o.Records, "records", false, "each record")
	f.BoolVar(&o.Indexes, "indexes", false, "each entry of the indexes")
	f.Int64Var(&o.From, "from", 0, "begin at this offset")
	f.Int64Var(&o.To, "to", 0, "end before this offset")
	return cmd
}
