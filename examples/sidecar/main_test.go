package main

import (
	"bytes"
	"context"
	"testing"
	"time"
)

func TestSidecar(t *testing.T) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	const want = `this program has the database open, and lets Kafka clients in
a Kafka client wrote, Go reads:  ann=450
Go wrote, a Kafka client reads:  bob=200
one group with a member in Go and a member that is a Kafka client: both had work, no job was left out
`
	if out.String() != want {
		t.Errorf("it printed\n%s\nwant\n%s", &out, want)
	}
}
