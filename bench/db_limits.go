package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/log"
)

// What the rows of the public API are held against, where it is not one of the
// log's own sides.

// channelRoundTrip sends a token to a goroutine and gets it back, over two
// unbuffered channels: what two goroutines need to speak at all.
func channelRoundTrip(r *rep) (result, error) {
	there := make(chan struct{})
	return r.wake(func(int64) error {
		there <- struct{}{}
		return nil
	}, func() error {
		<-there
		return nil
	})
}

// fourFiles shares the repetition's goroutines among so many zeroed files, each with
// its own group commit.
func fourFiles(r *rep) (res result, err error) {
	one := *r
	one.Bytes = r.Bytes / int64(r.Count)
	one.Goroutines = r.Goroutines / r.Count
	logs := make([]*durableLog, r.Count)
	for i := range logs {
		d := one
		d.Dir = filepath.Join(r.Dir, strconv.Itoa(i))
		if err := os.Mkdir(d.Dir, 0o700); err != nil {
			return result{}, err
		}
		if logs[i], err = newDurableLog(&d); err != nil {
			return result{}, err
		}
	}
	records := r.records()
	var writers atomic.Int64
	res, err = r.parallelEach(func() func(int64) error {
		l := logs[int(writers.Add(1)-1)%len(logs)]
		return func(i int64) error { return l.append(records, i, 1) }
	})
	for _, l := range logs {
		err = errors.Join(err, l.file.Close())
	}
	return res, err
}

// threeSyncs is what a transaction cannot do without while its data, its decision and
// its markers lie in different files: three groups in sequence, each with a sync.
func threeSyncs(r *rep) (result, error) {
	var logs [3]*durableLog
	for i := range logs {
		d := *r
		d.Bytes, d.Dir = r.Bytes/3, filepath.Join(r.Dir, strconv.Itoa(i))
		err := os.Mkdir(d.Dir, 0o700)
		if err == nil {
			logs[i], err = newDurableLog(&d)
		}
		if err != nil {
			return result{}, err
		}
	}
	records := r.records()
	res, err := r.parallel(func(i int64) error {
		for _, l := range logs {
			if err := l.append(records, i, 1); err != nil {
				return err
			}
		}
		return nil
	})
	for _, l := range logs {
		err = errors.Join(err, l.file.Close())
	}
	return res, err
}

// makeDirs and listDirs are the least that opening so many logs takes: a look at
// each directory and a read of the file in it.
func makeDirs(r *rep) error {
	for i := range r.Count {
		dir := filepath.Join(r.Dir, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "checkpoint"), make([]byte, 512), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func listDirs(r *rep) (result, error) {
	start := time.Now()
	for i := range r.Count {
		dir := filepath.Join(r.Dir, strconv.Itoa(i))
		if _, err := os.ReadDir(dir); err != nil {
			return result{}, err
		}
		if _, err := os.ReadFile(filepath.Join(dir, "checkpoint")); err != nil {
			return result{}, err
		}
	}
	elapsed := time.Since(start)
	return result{Records: 1, Elapsed: elapsed, Value: float64(elapsed) / float64(time.Millisecond)}, nil
}

// readLog reads the one partition of the row's topic with nothing but package log,
// and decodes each record.
func readLog(r *rep) (result, error) {
	dirs, err := filepath.Glob(filepath.Join(r.Dir, "topics", "*", "0"))
	if err != nil || len(dirs) == 0 {
		return result{}, fmt.Errorf("no partition in %s: %v", r.Dir, err)
	}
	var l *log.Log
	for _, dir := range dirs {
		if l, err = log.Open(dir, &log.Options{NoLock: true}); err != nil {
			return result{}, err
		}
		if l.EndOffset() >= r.Records {
			break // the others are internal topics
		}
		if err := l.Close(); err != nil {
			return result{}, err
		}
	}
	start := time.Now()
	reader, err := l.ReadFrom(0)
	if err != nil {
		return result{}, err
	}
	if r.Reuse {
		reader.Reuse()
	}
	var t toucher
	for {
		f, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = t.batch(f.Payload)
		}
		if err != nil {
			return result{}, err
		}
	}
	elapsed := time.Since(start)
	if t.records != r.Records {
		err = fmt.Errorf("read %d records, %d were written", t.records, r.Records)
	}
	return result{Records: t.records, Elapsed: elapsed}, errors.Join(err, l.Close())
}
