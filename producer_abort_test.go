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

// A batch that somebody else is writing when the producer is aborted is there
// afterwards: nobody is told that it is not.
func TestProducerAbortsWhatIsBeingWritten(t *testing.T) {
	for _, idempotent := range []bool{true, false} {
		t.Run(fmt.Sprintf("idempotent=%t", idempotent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				db := openMemory(t, nil)
				topic := makeTopic(t, db, "t", nil)
				p, err := db.Producer(&ProducerConfig{NoIdempotence: !idempotent})
				if err != nil {
					t.Fatal(err)
				}
				first := true
				p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
					if !first {
						return part.Append(ctx, recs, o)
					}
					first = false
					// As partition.Partition.Append when another caller writes for the group: it is
					// too late to take the records back, and ctx ends before they are durable.
					res, err := part.Append(ctx, recs, o)
					if err != nil {
						t.Error(err)
					}
					<-ctx.Done()
					return partition.Result{}, &UnknownOutcomeError{BaseOffset: res.BaseOffset, LastOffset: res.LastOffset, Err: ctx.Err()}
				}
				var told error
				if err := p.Send(ctx, Record{Topic: "t", Value: []byte("v")}, func(_ Position, err error) { told = err }); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				p.Abort()
				if got := readAll(t, topic, nil); len(got) != 1 {
					t.Fatalf("%v", got)
				}
				switch {
				case idempotent && told != nil: // the partition knows
					t.Errorf("it is there, told was %v", told)
				case !idempotent && !errors.Is(told, ErrUnknownOutcome):
					t.Errorf("it is there, told was %v", told)
				}
			})
		})
	}
}
