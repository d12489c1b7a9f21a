package embedlog

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// When the epochs of a producer id are used up, the next batch has another id, and
// is not refused for having the old one from its first epoch on.
func TestProducerUsesUpItsEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := openMemory(t, nil)
		topic := makeTopic(t, db, "t", nil)
		p, err := db.Producer(&ProducerConfig{DeliveryTimeout: 1})
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		lose := false
		p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
			ids = append(ids, o.Producer.ID)
			if lose {
				return partition.Result{}, &UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: errors.New("connection lost")}
			}
			return part.Append(ctx, recs, o)
		}
		send := func(lost bool) {
			t.Helper()
			lose = lost
			_, err := p.Produce(ctx, Record{Topic: "t", Value: []byte("v")})
			if lost != errors.Is(err, ErrUnknownOutcome) || !lost && err != nil {
				t.Errorf("lost: %t, told was %v", lost, err)
			}
		}
		send(false)
		queue := func() *producerQueue {
			kept, _ := p.topics.Load("t")
			return kept.(*producerTopic).queues[0]
		}
		queue().producer.Epoch = math.MaxInt16 - 1
		queue().producer.Sequence = 0
		send(false)
		for range 3 {
			send(true)
			send(false)
		}
		if got := readAll(t, topic, nil); len(got) != 5 {
			t.Errorf("%v", got)
		}
		if first, last := ids[0], ids[len(ids)-1]; first == last {
			t.Errorf("the id is %d still", last)
		}
	})
}
