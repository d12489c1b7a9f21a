package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/x/embedlog/bench/internal/kafkaload"
)

// The test binary stands in for the program when a server is started.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == kafkaChild {
		if err := kafkaload.ServeChild(kafkaSystems, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Each server runs each kind of load that it can.
func TestKafkaSystems(t *testing.T) {
	var stdout, stderr bytes.Buffer
	err := runKafka(strings.Fields("--reps 1 --seconds 0.02 --rows (os|produce/level=durable)/value=1KiB/clients=1$ --dir "+t.TempDir()), &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	for _, want := range []string{
		"| produce, records a second | embedlog | kfake | jetstream | nats | MB/s |", "| consume, records", "| latency, p50",
		"stores nothing", "embedlog is behind in ",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in\n%s", want, &stdout)
		}
	}
	for _, bad := range []string{"--rows nothing", "--reps 0", "--seconds NaN", "--systems (", "more"} {
		if err := runKafka(strings.Fields(bad), &stdout, &stderr); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
