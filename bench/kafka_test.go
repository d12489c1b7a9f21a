package main

import (
	"bytes"
	"strings"
	"testing"
)

// The subcommand measures a row through the real child, and prints it.
func TestKafka(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := strings.Fields("kafka --reps 1 --seconds 0.02 --rows latency/level=os/value=100B/clients=1$ --dir " + t.TempDir())
	if status := run(args, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	for _, want := range []string{"| latency, p50 / p99 | embedlog | limit |", "| level=os/value=100B/clients=1 | ", "- limit: "} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in\n%s", want, &stdout)
		}
	}
	stdout.Reset()
	if status := run([]string{"kafka", "--list"}, &stdout, &stderr); status != 0 || strings.Count(stdout.String(), "\n") != 30 {
		t.Errorf("status %d, rows:\n%s", status, &stdout)
	}
}
