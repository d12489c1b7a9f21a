package faultproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// workHold opens the partition, appends, and keeps it open until it is killed or
// its input ends.
func workHold(s *Spec, out io.Writer) error {
	w := &work{out: out}
	var err error
	if w.p, err = s.open(out, partition.Config{}, nil); err != nil {
		return err
	}
	if err := w.append(context.Background(), fmt.Sprintf("%d.h.1s", s.Life), 5, nil); err != nil {
		return err
	}
	w.say("held")
	io.Copy(io.Discard, os.Stdin)
	return w.p.Close()
}

// workFill appends at one level after the other until the disk is full, and goes
// on trying until it is killed.
func workFill(s *Spec, out io.Writer) error {
	w := &work{out: out}
	cfg := fillConfig
	cfg.Log.Level = log.Level(s.Seed % 3)
	var err error
	if w.p, err = s.open(out, cfg, nil); err != nil {
		return err
	}
	full := 0
	for n := 0; ; n++ {
		size := "s"
		if n%3 == 0 && full == 0 {
			size = "b"
		}
		err := w.append(context.Background(), fmt.Sprintf("%d.f.%d%s", s.Life, n, size), 1+n%3, nil)
		if err != nil && !errors.Is(err, log.ErrNoSpace) {
			return err
		}
		if err != nil {
			if full++; full == 20 {
				w.say("held")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// fillConfig is what a partition on a small disk has: segments that can be let go
// one by one, and a reserve for what must not fail.
var fillConfig = partition.Config{Log: log.Config{SegmentBytes: 512 << 10, ReserveBytes: 128 << 10, Recycle: true}}

// workRead reads the whole partition again and again while strace fails one of its
// preads. The reader that was hit gets the error, with the file's name in it; all
// others, and appends, go on.
func workRead(s *Spec, out io.Writer) error {
	w := &work{out: out}
	var err error
	if w.p, err = s.open(out, partition.Config{}, nil); err != nil {
		return err
	}
	hit := 0
	for i := range s.Rounds {
		end := w.p.LogEnd()
		next, err := readTo(w.p, end)
		switch {
		case errors.Is(err, syscall.EIO):
			hit++
			if errors.Is(err, log.ErrCorrupt) {
				return fmt.Errorf("an error of the disk is taken for damage: %w", err)
			}
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case next != end:
			return fmt.Errorf("read up to %d, the log ends at %d", next, end)
		}
		if err := w.append(context.Background(), fmt.Sprintf("%d.r.%ds", s.Life, i), 1, nil); err != nil {
			return err
		}
	}
	w.say("hit %d", hit)
	return w.p.Close()
}

func readTo(p *partition.Partition, end int64) (int64, error) {
	r, err := p.ReadFrom(p.LogStart(), nil)
	if err != nil {
		return 0, err
	}
	for r.Offset() < end {
		if _, err := r.TryNext(); err != nil {
			return r.Offset(), err
		}
	}
	return r.Offset(), nil
}

// workGone writes and scans while another process cuts the files short: errors are
// what it must get, and live.
func workGone(s *Spec, out io.Writer) error {
	w := &work{out: out}
	cfg := partition.Config{Log: log.Config{Level: log.OS, SegmentBytes: 4 << 20}}
	var err error
	if w.p, err = s.open(out, cfg, nil); err != nil {
		return err
	}
	for n := range 70 { // the last segment is half full
		if err := w.append(context.Background(), fmt.Sprintf("%d.g.%db", s.Life, n), 2, nil); err != nil {
			return err
		}
	}
	if err := w.p.Sync(context.Background()); err != nil {
		return err
	}
	// The deletion writes a checkpoint, which says how far all was durable.
	w.say("del 1")
	if _, err := w.p.DeleteRecords(context.Background(), 1); err != nil {
		return err
	}
	w.say("held")
	// A writer notices only where it stores to what is gone; zeros that were laid
	// ahead just then bring the file back to its length.
	var scanErr, writeErr error
	after := 0
	for n, until := 0, time.Now().Add(20*time.Second); after < 1000 && (scanErr == nil || writeErr == nil); n++ {
		if time.Now().After(until) {
			return fmt.Errorf("files were cut short, and nobody noticed: scan %v, write %v", scanErr, writeErr)
		}
		if scanErr != nil {
			after++
		}
		if scanErr == nil {
			scanErr = w.p.Log().Scan(w.p.LogStart(), w.p.LogEnd(), func(f *log.Frame) error {
				for _, err := range log.Batch(f.Payload).Records(0) {
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		if writeErr == nil {
			_, writeErr = w.p.Append(context.Background(), records(fmt.Sprintf("%d.w.%ds", s.Life, n), 1), nil)
		}
	}
	for _, err := range []error{scanErr, writeErr} {
		typed := err == nil || errors.Is(err, vfs.ErrFault) || errors.Is(err, log.ErrCorrupt) || errors.Is(err, log.ErrBadBatch) ||
			errors.Is(err, log.ErrStorageFailed) || errors.Is(err, io.ErrUnexpectedEOF)
		if !typed {
			return fmt.Errorf("a file was cut short, the error is %w", err)
		}
	}
	w.say("scan: %v; write: %v", scanErr, writeErr)
	w.p.Close()
	return nil
}
