package soak

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/history"
)

// final ends what is open, writes one last record into each partition, and reads all
// of them from start to that.
func (r *run) final(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*stuck)
	defer cancel()
	// Whoever takes a transactional id ends the transaction that is open under it. Were
	// one still open, readers of the committed would wait at it.
	for i := range int32(transactors) {
		if err := r.endTransaction(ctx, r.worker(txnProcess+i).transactionalID()); err != nil {
			return err
		}
	}
	for i := range int32(copiers) {
		if err := r.endTransaction(ctx, r.worker(copyProcess+i).transactionalID()); err != nil {
			return err
		}
	}
	last, err := r.worker(endProcess).last(ctx)
	if err != nil {
		return err
	}
	if err := r.worker(endProcess+1).readAll(ctx, last); err != nil {
		return err
	}
	return r.worker(endProcess+2).positions(ctx, true)
}

// endTransaction aborts what is open under a transactional id.
func (r *run) endTransaction(ctx context.Context, id string) error {
	cl, err := kgo.NewClient(r.options(kgo.TransactionalID(id))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, _, err := cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("end transactions of %s: %w", id, err)
	}
	return nil
}

// last writes the last record of each partition, and returns their offsets.
func (w *worker) last(ctx context.Context) (map[history.Key]int64, error) {
	cl, err := kgo.NewClient(w.options(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	op, s := w.begin(history.OpSend), &sending{}
	for _, k := range w.keys() {
		s.add(w, cl.Produce, k, history.Unanswered)
	}
	answered, err := s.wait()
	op.Sends = s.runs()
	w.end(op, history.OK)
	if err != nil || !answered {
		return nil, fmt.Errorf("last records: answered %t, %w", answered, err)
	}
	last := map[history.Key]int64{}
	for _, run := range op.Sends {
		last[run.Key] = run.Records[0].Offset
	}
	return last, ctx.Err()
}

// readAll reads each partition up to its last record.
func (w *worker) readAll(ctx context.Context, last map[history.Key]int64) error {
	cl, err := kgo.NewClient(w.options(w.from(nil), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(200*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	w.assign(nil)
	done := w.begin(history.OpFinal)
	for read := time.Now(); len(last) > 0; {
		op := w.begin(history.OpPoll)
		op.Final = true
		op.Polls = w.poll(ctx, cl.PollRecords, 10_000)
		w.end(op, history.OK)
		if len(op.Polls) > 0 {
			read = time.Now()
		} else if err := ctx.Err(); err != nil {
			return err
		} else if time.Since(read) > stuck {
			// It comes no further, and waiting is of no use: what is not there is lost.
			for k, at := range last {
				w.note("final read", fmt.Errorf("nothing comes of %v, whose last record is at offset %d", k, at))
				done.Keys = append(done.Keys, k)
			}
			break
		}
		for _, run := range op.Polls {
			for _, rec := range run.Records {
				if at, ok := last[run.Key]; ok && rec.Offset >= at {
					delete(last, run.Key)
					done.Keys = append(done.Keys, run.Key)
				}
			}
		}
	}
	w.end(done, history.OK)
	return nil
}
