package faultproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// work is one life with a partition. Each line is written with one write(2), so
// that a kill leaves whole lines.
type work struct {
	out io.Writer
	p   *partition.Partition
	dir string     // where p lies, for who needs it
	mu  sync.Mutex // of out
}

func (w *work) say(format string, args ...any) {
	line := fmt.Appendf(nil, format+"\n", args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Write(line)
}

// append appends n records under an id and reports what was promised. It returns
// an error for what an append may not answer.
func (w *work) append(ctx context.Context, id string, n int, producer *partition.Producer) error {
	var o *partition.AppendOptions
	if producer != nil {
		o = &partition.AppendOptions{Producer: producer}
		w.say("idem %s %d %d", id, n, producer.Sequence)
	} else {
		w.say("begin %s %d", id, n)
	}
	res, err := w.p.Append(ctx, records(id, n), o)
	switch {
	case err == nil && res.LastOffset-res.BaseOffset != int64(n-1):
		return fmt.Errorf("append %s of %d records is answered with offsets %d to %d", id, n, res.BaseOffset, res.LastOffset)
	case err == nil:
		w.say("ack %s %d", id, res.BaseOffset)
	case errors.Is(err, partition.ErrUnknownOutcome), errors.Is(err, log.ErrStorageFailed):
		w.say("unknown %s", id)
		if errors.Is(err, log.ErrStorageFailed) {
			return err
		}
	case errors.Is(err, log.ErrNoSpace):
		w.say("fail %s", id)
		return err
	default:
		return fmt.Errorf("append %s: %w", id, err)
	}
	return nil
}

const producerID = 7

// workLocal does a mixture of everything that a partition without replication does.
func workLocal(s *Spec, out io.Writer) error {
	r := rand.New(rand.NewPCG(s.Seed, uint64(s.Life)))
	cfg := partition.Config{Log: log.Config{SegmentBytes: 16 << 10, IndexIntervalBytes: 512, ReserveBytes: 64 << 10, Level: log.Level(r.IntN(3))}}
	w := &work{out: out}
	var err error
	if w.p, err = s.open(out, cfg, nil); err != nil {
		return err
	}
	ctx := context.Background()
	sequence := s.Sequence
	if s.Retry != nil {
		if err := w.append(ctx, s.Retry.ID, s.Retry.N, &partition.Producer{ID: producerID, Sequence: s.Retry.Sequence}); err != nil {
			return w.failed(s, err)
		}
		sequence = s.Retry.Sequence + int32(s.Retry.N)
	}
	number := 0
	id := func(size string) string { number++; return fmt.Sprintf("%d.m.%d%s", s.Life, number, size) }
	for range s.Rounds {
		var err error
		switch k := r.IntN(32); {
		case k < 6:
			err = w.append(ctx, id("s"), 1, nil)
		case k < 10:
			err = w.append(ctx, id("s"), 2+r.IntN(20), nil)
		case k < 14:
			n := 1 + r.IntN(4)
			err = w.append(ctx, id("s"), n, &partition.Producer{ID: producerID, Sequence: sequence})
			sequence += int32(n)
		case k < 19:
			err = w.concurrently(ctx, s, &number, r.IntN(2) == 0)
		case k < 20:
			err = w.append(ctx, id("h"), 1, nil)
		case k < 21:
			// Enough for the work that runs behind the writer: sync, indexes, checkpoint.
			for range 12 {
				if err == nil {
					err = w.append(ctx, id("b"), 8, nil)
				}
			}
		case k < 24:
			err = w.p.SetLevel(log.Level(r.IntN(3)))
		case k < 26:
			err = w.p.Sync(ctx)
		case k < 29:
			start, hw := w.p.LogStart(), w.p.HighWatermark()
			to := start + r.Int64N(hw-start+1)
			w.say("del %d", to)
			if to, err = w.p.DeleteRecords(ctx, to); err == nil {
				w.say("deleted %d", to)
			} else if s.Faulty && errors.Is(err, syscall.EIO) && w.p.Err() == nil {
				err = nil // the checkpoint was not replaced: nothing is deleted, and nothing lost
			}
		default:
			cfg.Log.Level = w.p.Config().Log.Level
			if err = w.p.Close(); err == nil {
				w.p, err = s.open(out, cfg, nil)
			}
		}
		if err != nil {
			return w.failed(s, err)
		}
	}
	return w.p.Close()
}

// concurrently has four workers append three times each.
func (w *work) concurrently(ctx context.Context, s *Spec, number *int, batches bool) error {
	var wg sync.WaitGroup
	errs := make([]error, 4)
	first := *number
	*number += 3
	for g := range errs {
		wg.Go(func() {
			for i := range 3 {
				n := 1
				if batches {
					n = 1 + (first+g+i)%5
				}
				if err := w.append(ctx, fmt.Sprintf("%d.g%d.%ds", s.Life, g, first+i+1), n, nil); err != nil {
					errs[g] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// failed deals with the end of a life by an error. After a failed sync nothing may
// be acknowledged any more: that is tried.
func (w *work) failed(s *Spec, err error) error {
	if !errors.Is(err, log.ErrStorageFailed) {
		return err
	}
	w.say("poisoned")
	for i := range 5 {
		id := fmt.Sprintf("%d.p.%ds", s.Life, i)
		w.say("begin %s 1", id)
		res, err := w.p.Append(context.Background(), records(id, 1), nil)
		if err == nil {
			w.say("ack %s %d", id, res.BaseOffset)
		} else if !errors.Is(err, log.ErrStorageFailed) {
			return fmt.Errorf("append after a failed sync is answered with %w", err)
		}
	}
	if err := w.p.Sync(context.Background()); !errors.Is(err, log.ErrStorageFailed) {
		return fmt.Errorf("sync after a failed sync is answered with %v", err)
	}
	if end, err := w.p.DeleteRecords(context.Background(), w.p.LogStart()); err == nil {
		return fmt.Errorf("deletion up to %d is acknowledged after a failed sync", end)
	}
	w.p.Close()
	return nil
}
