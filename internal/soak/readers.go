package soak

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/history"
)

// keys are all partitions of the run.
func (r *run) keys() []history.Key {
	var keys []history.Key
	for _, topic := range []string{fastTopic, safeTopic, copiedTopic} {
		for i := range int32(r.Partitions) {
			keys = append(keys, history.Key{Topic: topic, Partition: i})
		}
	}
	return keys
}

// from is where a reader of all partitions begins.
func (r *run) from(offsets map[history.Key]int64) kgo.Opt {
	at := map[string]map[int32]kgo.Offset{}
	for _, k := range r.keys() {
		if at[k.Topic] == nil {
			at[k.Topic] = map[int32]kgo.Offset{}
		}
		at[k.Topic][k.Partition] = kgo.NewOffset().At(offsets[k])
	}
	return kgo.ConsumePartitions(at)
}

// read reads all partitions by itself. When it dies it begins where it had been.
func (w *worker) read(ctx context.Context, committed bool) {
	next := map[history.Key]int64{}
	for ctx.Err() == nil {
		level := kgo.ReadUncommitted()
		if committed {
			level = kgo.ReadCommitted()
		}
		cl, err := kgo.NewClient(w.options(w.from(next), kgo.FetchIsolationLevel(level), kgo.FetchMaxWait(200*time.Millisecond))...)
		if err != nil {
			w.fail(err)
			return
		}
		w.assign(next)
		for life := 100 + w.rnd.IntN(1000); ctx.Err() == nil && life > 0; life-- {
			op := w.begin(history.OpPoll)
			op.Uncommitted = !committed
			op.Polls = w.poll(ctx, cl.PollRecords, 2000)
			w.end(op, history.OK)
			for _, run := range op.Polls {
				next[run.Key] = run.Records[len(run.Records)-1].Offset + 1
			}
		}
		cl.Close()
		if ctx.Err() == nil {
			w.crash()
		}
	}
}

// assign notes that the process reads all partitions from here on.
func (w *worker) assign(next map[history.Key]int64) {
	op := w.begin(history.OpAssign)
	op.Keys = w.keys()
	w.end(op, history.OK)
	op = w.begin(history.OpSeek)
	for _, k := range w.keys() {
		op.Offsets = append(op.Offsets, history.Offset{Key: k, Offset: next[k]})
	}
	w.end(op, history.OK)
}

// poll polls once, for a moment.
func (w *worker) poll(ctx context.Context, poll func(context.Context, int) kgo.Fetches, most int) []history.Run {
	limit, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	fetches := poll(limit, most)
	fetches.EachError(func(_ string, _ int32, err error) {
		if limit.Err() == nil {
			w.note(fmt.Sprintf("poll of %d", w.process), err)
		}
	})
	var runs []history.Run
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		run := history.Run{Key: history.Key{Topic: p.Topic, Partition: p.Partition}}
		for _, rec := range p.Records {
			value, err := Decode(rec.Value)
			if err != nil {
				w.note("damaged record", err)
				value = -1 - rec.Offset // one that nobody sent
			}
			run.Records = append(run.Records, history.Record{Offset: rec.Offset, Value: value})
		}
		runs = append(runs, run)
	})
	return runs
}
