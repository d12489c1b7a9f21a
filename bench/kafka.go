package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/x/embedlog/bench/internal/kafkaload"
)

// The Kafka listener: what Kafka's clients get of it over loopback, beside bare TCP.
// The loads, the limit and the table are package kafkaload's, which bench/compare
// shares.

// kafkaChild is the hidden subcommand that is a server: bench kafka-server SYSTEM LOAD DIR.
const kafkaChild = "kafka-server"

var kafkaSystems = []*kafkaload.System{kafkaload.Ours, kafkaload.Bound}

func kafkaChildMain(args []string, stderr io.Writer) int {
	if err := kafkaload.ServeChild(kafkaSystems, args); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func runKafka(c config, stdout, stderr io.Writer) int {
	m := kafkaload.Matrix{
		Systems: kafkaSystems, Reps: c.reps, Time: c.seconds, Rows: c.rows, Dir: c.dir,
		Child: []string{kafkaChild}, Profile: c.profile,
	}
	selected := m.Selected()
	if len(selected) == 0 {
		fmt.Fprintf(stderr, "bench: --rows %s matches no row; --list shows them\n", c.rows)
		return 2
	}
	if c.list {
		for _, l := range selected {
			fmt.Fprintln(stdout, l.Name())
		}
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := m.Run(ctx, func(*kafkaload.System, *kafkaload.Load) bool { return false }, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}
