package faultproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// workCompact appends records of few keys and compacts again and again, now and
// then while others append.
func workCompact(s *Spec, out io.Writer) error {
	r := rand.New(rand.NewPCG(s.Seed, uint64(s.Life)))
	cfg := partition.Config{Log: log.Config{SegmentBytes: 4 << 10, IndexIntervalBytes: 512, Level: log.Level(r.IntN(3))}}
	w := &work{out: out}
	w.say("compact")
	var err error
	if w.p, err = s.open(out, cfg, nil); err != nil {
		return err
	}
	ctx := context.Background()
	number := 0
	for range s.Rounds {
		var err error
		switch k := r.IntN(10); {
		case k < 5:
			for range 4 {
				number++
				if err == nil {
					err = w.append(ctx, fmt.Sprintf("%d.c.%dc", s.Life, number), 1+r.IntN(8), nil)
				}
			}
		case k < 8:
			if err = w.p.Sync(ctx); err != nil {
				break
			}
			done := make(chan error, 1)
			go func() {
				_, err := w.p.Log().Compact(ctx, log.CompactPolicy{Upto: w.p.LastStable()})
				done <- err
			}()
			number++
			err = w.append(ctx, fmt.Sprintf("%d.c.%dc", s.Life, number), 3, nil)
			cerr := <-done
			if s.Faulty && errors.Is(cerr, syscall.EIO) {
				cerr = nil // the segments stay as they were
			}
			err = errors.Join(err, cerr)
		case k < 9:
			err = w.p.SetLevel(log.Level(r.IntN(3)))
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
