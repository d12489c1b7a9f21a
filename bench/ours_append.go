package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Our side of the rows that append: a partition in a fresh directory, one Append
// a call. Records are made before the clock starts; as on the limit's side, the
// clock is read once a call, and every record of the call gets that time.

func init() {
	for _, r := range rows() {
		switch {
		case strings.Contains(r.name, "segment=recycled"):
		case strings.HasPrefix(r.name, "append/"):
			register(r.name, side{run: appendOurs})
		case strings.HasPrefix(r.name, "wake/"):
			register(r.name, side{run: wakeOurs})
		}
	}
}

// largestBatchBytes has room for a call of 1,000 records of 1 KiB, which is a
// little more than the default allows.
const largestBatchBytes = 4 << 20

// oursConfig are the settings of a row: the level it names, and defaults.
func oursConfig(r *rep) (partition.Config, error) {
	levels := map[string]log.Level{"os": log.OS, "interval": log.Interval, "durable": log.Durable}
	level, ok := levels[r.Level]
	if !ok {
		return partition.Config{}, fmt.Errorf("level %q", r.Level)
	}
	cfg := partition.Config{MaxBatchBytes: largestBatchBytes, Log: log.Config{Level: level, SyncInterval: 100 * time.Millisecond}}
	if level == log.Durable && r.Batch > 1 {
		// Zeros for large groups are laid in the next segment's file, so there has to be one.
		cfg.Log.SegmentBytes = 64 << 20
	}
	return cfg, nil
}

func openOurs(r *rep) (*partition.Partition, error) {
	cfg, err := oursConfig(r)
	if err != nil {
		return nil, err
	}
	return partition.Open(r.Dir, &partition.Options{Config: cfg})
}

// An appender appends batches of the pool's records; one goroutine at a time.
type appender struct {
	p     *partition.Partition
	batch int
	// recs is the pool once and the first records of it again, so that the batch
	// from any place on is a part of it.
	recs []log.Record
}

func newAppender(p *partition.Partition, r *rep) *appender {
	records := r.records()
	a := &appender{p: p, batch: r.Batch, recs: make([]log.Record, poolRecords+r.Batch)}
	for i := range a.recs {
		a.recs[i].Key, a.recs[i].Value = records.at(int64(i))
	}
	return a
}

func (a *appender) append(i int64) error {
	at := int(i & (poolRecords - 1))
	recs := a.recs[at : at+a.batch]
	now := time.Now().UnixMilli()
	for k := range recs {
		recs[k].Timestamp = now
	}
	_, err := a.p.Append(context.Background(), recs, nil)
	return err
}

func appendOurs(r *rep) (result, error) {
	p, err := openOurs(r)
	if err != nil {
		return result{}, err
	}
	return timeAppends(r, p)
}

// timeAppends runs the repetition on an open partition and closes it.
func timeAppends(r *rep, p *partition.Partition) (result, error) {
	// The first append makes the file ready; the limit's was, before the clock started.
	if err := newAppender(p, r).append(0); err != nil {
		return result{}, errors.Join(err, p.Close())
	}
	before := p.HighWatermark()
	res, err := r.parallelEach(func() func(int64) error { return newAppender(p, r).append })
	if n := p.HighWatermark() - before; err == nil && n != res.Records {
		err = fmt.Errorf("the partition took %d records, %d were appended", n, res.Records)
	}
	return res, errors.Join(err, p.Close())
}

// wakeOurs appends to a partition whose reader waits in Next: woken, it reads the
// batch and checks it. The limit's reader only learns that there is something.
func wakeOurs(r *rep) (result, error) {
	p, err := openOurs(r)
	if err != nil {
		return result{}, err
	}
	reader, err := p.ReadFrom(0, &partition.ReaderOptions{Reuse: true})
	if err != nil {
		return result{}, errors.Join(err, p.Close())
	}
	res, err := r.wake(newAppender(p, r).append, func() error {
		_, err := reader.Next(context.Background())
		return err
	})
	if err == nil && reader.Offset() != r.Records {
		err = fmt.Errorf("the reader is at offset %d after %d records", reader.Offset(), r.Records)
	}
	return res, errors.Join(err, p.Close())
}
