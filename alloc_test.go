package embedlog

import (
	"context"
	"testing"

	"github.com/x/embedlog/internal/invariant"
)

// A call of Produce allocates the positions that it returns and nothing else,
// whatever the number of records.
func TestProduceAllocs(t *testing.T) {
	if invariant.On {
		t.Skip("the checks allocate on their own account")
	}
	ctx := context.Background()
	db, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	topic := makeTopic(t, db, "t", &TopicConfig{Durability: OS})
	many := make([]Record, 100)
	for i := range many {
		many[i] = Record{Key: []byte{byte(i)}, Value: make([]byte, 100)}
	}
	for name, f := range map[string]func() error{
		"one":  func() error { _, err := topic.Produce(ctx, Record{Key: many[0].Key, Value: many[0].Value}); return err },
		"many": func() error { _, err := topic.Produce(ctx, many...); return err },
	} {
		if got := testing.AllocsPerRun(200, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}); got > 1 {
			t.Errorf("%s: %v allocations, want 1", name, got)
		}
	}
}
