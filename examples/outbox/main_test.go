package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestOutbox(t *testing.T) {
	var out bytes.Buffer
	if err := run(context.Background(), &out, t.TempDir()); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.HasSuffix(out.String(), "all 500 changes are in the topic, in order, each once\n") {
		t.Errorf("it printed\n%s", &out)
	}
}
