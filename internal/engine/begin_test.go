package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func encoded(t *testing.T, recs []log.Record) []byte {
	t.Helper()
	b, err := log.AppendBatch(nil, &log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, recs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Appends that are begun together find the cap reached: room is made for the first,
// and those behind it come behind it, not before. Each is told of once to the hook.
func TestBegunAppendsMakeRoomInTheirOrder(t *testing.T) {
	hooked := 0
	e := openEngine(t, vfs.NewMem(), func(o *Options) {
		capped(MinMaxBytes)(o)
		o.Hooks = &Hooks{OnProduce: func(_ string, _ int32, records int, _ int64, _ time.Duration, err error) {
			if hooked++; records != 1 || err != nil {
				t.Errorf("the hook is told of %d records, error %v", records, err)
			}
		}}
	})
	topic := mustTopicWith(t, e, "t", 1, "retention.bytes=1000000000;segment.bytes=131072")
	p, err := topic.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	var line partition.Line
	var leads sync.WaitGroup
	defer leads.Wait()
	next := int64(0)
	for round := range 60 {
		var begun []Begun
		p.Log().Lock() // all of them are in one group
		for i := range 5 {
			begun = append(begun, p.BeginBatch(ctx, encoded(t, keyValue(fmt.Sprint(round, i), 30_000)), nil, &line, leads.Go))
		}
		p.Log().Unlock()
		for i := range begun {
			taken := i%2 == 0
			if taken {
				<-begun[i].Done()
			}
			res, err := begun[i].Finish(taken)
			if err != nil || res.BaseOffset != next {
				t.Fatalf("round %d, append %d: offset %d, error %v; want %d", round, i, res.BaseOffset, err, next)
			}
			next++
		}
	}
	if start := p.LogStart(); start == 0 {
		t.Error("nothing had to make room")
	}
	if hooked != 300 {
		t.Errorf("the hook was called %d times", hooked)
	}
}

// What is refused at once, and what nobody waits for any more, says so at its end.
func TestBegunAppendFails(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	p, err := mustTopicWith(t, e, "t", 1, "").Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	var line partition.Line
	var leads sync.WaitGroup
	defer leads.Wait()
	broken := encoded(t, keyValue("k", 10))
	broken[len(broken)-1] ^= 1
	bad := p.BeginBatch(ctx, broken, nil, &line, leads.Go)
	if _, err := bad.Finish(false); bad.Done() != nil || !errors.Is(err, log.ErrBadBatch) {
		t.Errorf("a broken batch: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	p.Log().Lock()
	late := p.BeginBatch(ended, encoded(t, keyValue("k", 10)), nil, &line, leads.Go)
	cancel()
	if _, err := late.Finish(false); !errors.Is(err, context.Canceled) {
		t.Errorf("one that was left: %v", err)
	}
	early := p.BeginBatch(ended, encoded(t, keyValue("k", 10)), nil, &line, leads.Go)
	if _, err := early.Finish(false); early.Done() != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("one that began too late: %v", err)
	}
	p.Log().Unlock()
	leads.Wait()
	if end := p.LogEnd(); end != 0 {
		t.Errorf("the log ends at %d", end)
	}
}
