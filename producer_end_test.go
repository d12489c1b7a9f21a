package embedlog

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// What was lost without a done function is told once, also when the database was
// what closed the producer.
func TestProducerTellsOfLossesAfterDBClose(t *testing.T) {
	for _, end := range []string{"Close", "Flush"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				db := openMemory(t, nil)
				makeTopic(t, db, "t", nil)
				p, err := db.Producer(nil)
				if err != nil {
					t.Fatal(err)
				}
				gate := make(chan struct{})
				p.write = func(*engine.Partition, context.Context, []log.Record, *partition.AppendOptions) (partition.Result, error) {
					<-gate
					return partition.Result{}, fmt.Errorf("append: %w", ErrNoSpace)
				}
				if err := p.Send(ctx, Record{Topic: "t"}, nil); err != nil {
					t.Fatal(err)
				}
				go close(gate)
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				say := p.Close
				if end == "Flush" {
					say = func() error { return p.Flush(ctx) }
				}
				checkError(t, say(), ErrNoSpace)
				if err := say(); errors.Is(err, ErrNoSpace) {
					t.Errorf("told twice: %v", err)
				}
			})
		})
	}
}
