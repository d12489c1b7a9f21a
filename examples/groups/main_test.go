package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

func TestGroups(t *testing.T) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, &out, 50*time.Millisecond); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"ada   gets", "bob   gets", "cleo  gets", "ada   gives", "all 3000 jobs were handled\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it did not print %q but\n%s", want, &out)
		}
	}
}
