package embedlog

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Flush may come while a batch is being taken apart; it waits for both halves. The
// race detector sees when the two are not kept apart.
func TestProducerSplitsWhileFlushed(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", &TopicConfig{Durability: OS})
	p, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	splits := 0 // one worker at a time: there is one partition
	p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
		runtime.Gosched() // so that batches grow, and a Flush comes in between
		if len(recs) > 1 {
			splits++
			return partition.Result{}, &RecordTooLargeError{}
		}
		return part.Append(ctx, recs, o)
	}
	stop := make(chan struct{})
	var flushers sync.WaitGroup
	for range 2 {
		flushers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := p.Flush(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	const records = 1000
	for i := range records {
		if err := p.Send(ctx, Record{Topic: "t", Value: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	flushers.Wait()
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
	if got := readAll(t, topic, nil); len(got) != records || splits == 0 {
		t.Errorf("%d records, want %d, %d splits", len(got), records, splits)
	}
}

// Each record of a batch that is refused for some of its records gets its own
// answer, and the room of all of them is given back.
func TestProducerTakesRefusedRecordsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := openMemory(t, nil)
		topic := makeTopic(t, db, "t", &TopicConfig{Cleanup: Compact})
		p, err := db.Producer(&ProducerConfig{Linger: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		told := make([]error, 6)
		for i := range told {
			rec := Record{Topic: "t", Value: fmt.Append(nil, i)}
			if i%3 > 0 {
				rec.Key = []byte("k")
			}
			if err := p.Send(ctx, rec, func(_ Position, err error) { told[i] = err }); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		for i, err := range told {
			if i%3 > 0 {
				if err != nil {
					t.Errorf("record %d: %v", i, err)
				}
				continue
			}
			checkError(t, err, ErrInvalidRecord, "t/0", "no key")
		}
		if got := fmt.Sprint(readAll(t, topic, nil)); got != "[0@0=1 0@1=2 0@2=4 0@3=5]" {
			t.Error(got)
		}
		if p.used != 0 {
			t.Errorf("%d bytes are held", p.used)
		}
	})
}
