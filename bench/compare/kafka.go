package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/x/embedlog/bench/internal/kafkaload"
)

// The Kafka listener beside other servers that a Go program could run: the loads of
// bench kafka, each server in a process of its own, over loopback.

// kafkaCommand compares servers; kafkaChild is the hidden one that is a server.
const (
	kafkaCommand = "kafka"
	kafkaChild   = "kafka-server"
)

var kafkaSystems = []*kafkaload.System{
	kafkaload.Ours,
	{
		Name: "kfake", Note: "franz-go's kfake, the same client; one broker; in memory, at Durable a data directory with synced writes",
		Serve: serveKfake, Run: kafkaload.Kafka, Fill: kafkaload.Fill,
	},
	{
		Name: "jetstream", Note: "nats-server v2.15.2 and nats.go over loopback, one stream on file storage, a subject for each partition; PublishAsync with the same window; read by ordered consumers; default sync (every 2 minutes), sync_always at Durable",
		Serve: serveNATS, Run: natsLoad(false), Fill: natsFill,
	},
	{
		Name: "nats", Note: "core NATS: nothing is stored and nothing acknowledged but a flush for each half of the window; no bar for a log",
		Serve: serveNATS, Run: natsLoad(true), Cannot: func(l *kafkaload.Load) string {
			if l.Durable || l.Kind == kafkaload.Consume {
				return "stores nothing"
			}
			return ""
		},
	},
}

func runKafka(args []string, stdout, stderr io.Writer) error {
	m := kafkaload.Matrix{Child: []string{kafkaChild}}
	var rows, systems string
	var seconds float64
	var list, check bool
	fs := flag.NewFlagSet("compare kafka", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&m.Reps, "reps", 3, "`repetitions` of each cell; the median counts")
	fs.Float64Var(&seconds, "seconds", 0.5, "`seconds` of each repetition")
	fs.StringVar(&rows, "rows", "", "run only rows that match this `regexp`")
	fs.StringVar(&systems, "systems", "", "run only systems that match this `regexp` (embedlog always runs)")
	fs.StringVar(&m.Dir, "dir", "", "`directory` for the data (default: the system's temporary directory)")
	fs.BoolVar(&list, "list", false, "print the names of the rows and stop")
	fs.BoolVar(&check, "check", false, "exit with status 1 where embedlog is behind kfake, or behind JetStream in records a second")
	short := fs.Bool("short", false, "quicker: repetitions of 0.25 seconds, where --seconds is not given")
	if err := fs.Parse(args); err != nil {
		return err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *short && !given["seconds"] {
		seconds = 0.25
	}
	var err error
	if m.Rows, err = regexp.Compile(rows); err != nil {
		return fmt.Errorf("--rows: %w", err)
	}
	only, err := regexp.Compile(systems)
	switch {
	case err != nil:
		return fmt.Errorf("--systems: %w", err)
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case m.Reps < 1 || !(seconds > 0):
		return errors.New("--reps and --seconds must be positive")
	case len(m.Selected()) == 0:
		return fmt.Errorf("--rows %s matches no row; --list shows them", rows)
	}
	m.Time = time.Duration(seconds * float64(time.Second))
	if list {
		for _, l := range m.Selected() {
			fmt.Fprintln(stdout, l.Name())
		}
		return nil
	}
	for _, s := range kafkaSystems {
		if s == kafkaload.Ours || only.MatchString(s.Name) {
			m.Systems = append(m.Systems, s)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	behind, err := m.Run(ctx, isBar, stdout, stderr)
	fmt.Fprintf(stdout, "\nembedlog is behind in %d of the cells that count: of kfake, and of jetstream but for latency.\n", behind)
	if err == nil && check && behind > 0 {
		err = fmt.Errorf("behind in %d cells", behind)
	}
	return err
}

// isBar says what embedlog is to be ahead of.
func isBar(s *kafkaload.System, l *kafkaload.Load) bool {
	return s.Name == "kfake" || s.Name == "jetstream" && l.Kind != kafkaload.Latency
}

func serveKfake(dir string, l *kafkaload.Load) error {
	o := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(int32(l.Partitions()), kafkaload.Topic)}
	if l.Durable {
		o = append(o, kfake.DataDir(dir), kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(o...)
	if err != nil {
		return err
	}
	err = kafkaload.Serve(cluster.ListenAddrs()[0])
	cluster.Close()
	return err
}
