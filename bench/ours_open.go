package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Our side of the rows that open 2 GiB, in a process that never saw the files.
// After a close, the last 64 MiB were written at the row's level. After a kill,
// a victim at that level was killed while it appended without a pause, and each
// repetition opens what a new victim left.

func init() {
	for _, r := range rows() {
		if !strings.HasPrefix(r.name, "open/") {
			continue
		}
		s := side{fresh: true, setup: fillOurs, run: openClosed}
		if strings.HasSuffix(r.name, "/after=kill") {
			s.prepare = func(one *rep) error { return killVictim(r.name, one) }
			s.victim, s.run = appendForever, openKilled
		}
		register(r.name, s)
	}
}

// lastBytes is how much is appended at the row's own level: twice what may be unsynced.
const lastBytes = 2 * unsyncedBytes

// batchBytes is the size of one of the repetition's batches, a little less than it
// is on the disk.
func (r *rep) batchBytes() int64 { return int64(r.Batch) * int64(keyBytes+r.ValueBytes) }

// appendBytes appends at least n bytes.
func appendBytes(p *partition.Partition, r *rep, n int64) error {
	a := newAppender(p, r)
	for i := int64(0); n > 0; n -= r.batchBytes() {
		if err := a.append(i); err != nil {
			return err
		}
		i += int64(r.Batch)
	}
	return nil
}

// fillOurs writes the row's 2 GiB and closes. What lies deep in the log was
// synced at any level, so most of it is written at the fastest.
func fillOurs(r *rep) error {
	cfg, err := oursConfig(r)
	if err != nil {
		return err
	}
	level := cfg.Log.Level
	cfg.Log.Level = log.OS
	p, err := partition.Open(r.Dir, &partition.Options{Config: cfg})
	if err != nil {
		return err
	}
	err = appendBytes(p, r, r.Bytes-lastBytes)
	if err == nil {
		err = p.Sync(context.Background())
	}
	if err == nil {
		err = p.SetLevel(level)
	}
	if err == nil {
		err = appendBytes(p, r, lastBytes)
	}
	return errors.Join(err, p.Close())
}

// appendForever appends at the row's level, says when as much was written as may
// be unsynced and more, and goes on until it is killed.
func appendForever(r *rep) error {
	p, err := openOurs(r)
	if err != nil {
		return err
	}
	if err := appendBytes(p, r, lastBytes); err != nil {
		return err
	}
	if _, err := io.WriteString(os.Stdout, victimReady); err != nil {
		return err
	}
	// Bounded, in case nobody kills us.
	if err := appendBytes(p, r, r.Bytes); err != nil {
		return err
	}
	return errors.New("nobody killed the victim")
}

// timeOpen opens and closes; what counts is the opening.
func timeOpen(r *rep, clean bool) (result, error) {
	cfg, err := oursConfig(r)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	p, err := partition.Open(r.Dir, &partition.Options{Config: cfg})
	elapsed := time.Since(start)
	if err != nil {
		return result{}, err
	}
	res := result{Records: 1, Elapsed: elapsed, Value: float64(elapsed) / float64(time.Millisecond)}
	recovered := p.Recovered()
	// At Durable a kill may hit between two groups: all is synced, with a mark behind it.
	if recovered.Clean != clean && (clean || cfg.Log.Level != log.Durable) {
		res.Note = fmt.Sprintf("clean is %t", recovered.Clean)
	}
	if recovered.Corruption != nil || p.LogEnd() < r.Bytes/r.batchBytes() {
		res.Note = fmt.Sprintf("opened with %d records: %v", p.LogEnd(), recovered.Corruption)
	}
	return res, p.Close()
}

func openClosed(r *rep) (result, error) { return timeOpen(r, true) }
func openKilled(r *rep) (result, error) { return timeOpen(r, false) }
