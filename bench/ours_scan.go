package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Our side of the rows that scan: a partition that was written and closed by
// another process is opened, and read from its first record to its last. Copied
// is a partition's reader, which reads into a buffer of its own; mapped is the
// log's scan. Both check frame and batch.

func init() {
	for _, r := range rows() {
		if !strings.HasPrefix(r.name, "scan/") {
			continue
		}
		s := side{fresh: true, prepare: writeOurs, run: scanCopied}
		if strings.HasSuffix(r.name, "/read=mapped") {
			s.run = scanMapped
		}
		register(r.name, s)
	}
}

// writeOurs appends the repetition's records in its batches and closes.
func writeOurs(r *rep) error {
	w := *r
	w.Level = "os"
	p, err := openOurs(&w)
	if err != nil {
		return err
	}
	a := newAppender(p, &w)
	for i := int64(0); i < r.Records; i += int64(r.Batch) {
		if err := a.append(i); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	return p.Close()
}

// A toucher walks batches as a reader would: the first and the last byte of each
// key and value go into sum, as on the limit's side.
type toucher struct {
	reader  log.RecordReader
	records int64
	sum     uint64
}

func (t *toucher) batch(b []byte) error {
	if err := t.reader.Reset(b, 0); err != nil {
		return err
	}
	for t.reader.Next() {
		rec := t.reader.Record()
		key, value := rec.Key, rec.Value
		if rec.Offset != t.records || len(key) != keyBytes {
			return fmt.Errorf("offset %d has a key of %d bytes; expected offset %d", rec.Offset, len(key), t.records)
		}
		t.sum += uint64(key[0]) + uint64(key[keyBytes-1])
		if len(value) > 0 {
			t.sum += uint64(value[0]) + uint64(value[len(value)-1])
		}
		t.records++
	}
	return t.reader.Err()
}

// scanOurs times opening and walk, which shows every batch to the toucher.
func scanOurs(r *rep, walk func(p *partition.Partition, t *toucher) error) (result, error) {
	start := time.Now()
	p, err := partition.Open(r.Dir, nil)
	if err != nil {
		return result{}, err
	}
	var t toucher
	err = walk(p, &t)
	elapsed := time.Since(start)
	if err == nil && (t.records != r.Records || t.sum == 0) {
		err = fmt.Errorf("read %d records (sum %d), %d were written", t.records, t.sum, r.Records)
	}
	return result{Records: t.records, Elapsed: elapsed}, errors.Join(err, p.Close())
}

func scanCopied(r *rep) (result, error) {
	return scanOurs(r, func(p *partition.Partition, t *toucher) error {
		reader, err := p.ReadFrom(0, &partition.ReaderOptions{Reuse: true})
		if err != nil {
			return err
		}
		for {
			b, err := reader.TryNext()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = t.batch(b)
			}
			if err != nil {
				return err
			}
		}
	})
}

func scanMapped(r *rep) (result, error) {
	return scanOurs(r, func(p *partition.Partition, t *toucher) error {
		return p.Log().Scan(p.LogStart(), p.HighWatermark(), func(f *log.Frame) error { return t.batch(f.Payload) })
	})
}
