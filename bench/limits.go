package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The limit of OS appends: a frame is encoded into a few bytes that stay in the
// first cache, and copied into a mapped file whose pages were zeroed and made
// present and writable before the clock started. That survives a kill of the
// process, and it is all that has to happen for it.

// zeroedFile creates DIR/limit with n bytes of zeros really written.
func zeroedFile(r *rep, n int64) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(r.Dir, "limit"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 256<<10)
	for n > 0 {
		m, err := f.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		n -= int64(m)
	}
	return f, nil
}

// A mappedLog is the mapped file and where the next frame goes.
type mappedLog struct {
	file    *os.File
	mem     []byte
	pos     int
	next    int64 // offset
	scratch []byte
}

func newMappedLog(r *rep) (*mappedLog, error) {
	f, err := zeroedFile(r, r.Bytes)
	if err != nil {
		return nil, err
	}
	mem, err := mapWritable(f, r.Bytes)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &mappedLog{file: f, mem: mem, scratch: make([]byte, frameHeaderBytes+keyBytes+r.ValueBytes)}, nil
}

// append stores one frame.
func (l *mappedLog) append(timestamp int64, key, value []byte) {
	n := putFrame(l.scratch, l.next, timestamp, key, value)
	copy(l.mem[l.pos:], l.scratch[:n])
	l.pos += n
	l.next++
}

func (l *mappedLog) close() error {
	return errors.Join(unmap(l.mem), l.file.Close())
}

// limitMapped is the limit of OS appends from one goroutine: one record or one
// batch a call. The clock is read once a call, because a record needs a timestamp.
func limitMapped() side {
	return side{run: func(r *rep) (result, error) {
		records := r.records()
		l, err := newMappedLog(r)
		if err != nil {
			return result{}, err
		}
		op := func(i int64) error {
			now := time.Now().UnixNano()
			for k := range int64(r.Batch) {
				key, value := records.at(i + k)
				l.append(now, key, value)
			}
			return nil
		}
		res, err := r.parallel(op)
		if err == nil && l.next != res.Records {
			err = fmt.Errorf("the file holds %d records, %d were appended", l.next, res.Records)
		}
		return res, errors.Join(err, l.close())
	}}
}

// limitPwrite writes each frame with one pwrite to a growing file: what a
// program does that wants a record to survive its death and does not map.
func limitPwrite() side {
	return side{run: func(r *rep) (result, error) {
		records := r.records()
		f, err := zeroedFile(r, 0)
		if err != nil {
			return result{}, err
		}
		scratch := make([]byte, frameHeaderBytes+keyBytes+r.ValueBytes)
		var next, pos int64
		res, err := r.parallel(func(i int64) error {
			key, value := records.at(i)
			n := putFrame(scratch, next, time.Now().UnixNano(), key, value)
			if _, err := f.WriteAt(scratch[:n], pos); err != nil {
				return err
			}
			next++
			pos += int64(n)
			return nil
		})
		return res, errors.Join(err, f.Close())
	}}
}

// limitWake appends to the mapped file and hands a waiting goroutine the fact
// over an unbuffered channel.
func limitWake() side {
	return side{run: func(r *rep) (result, error) {
		records := r.records()
		l, err := newMappedLog(r)
		if err != nil {
			return result{}, err
		}
		appended := make(chan struct{})
		res, err := r.wake(func(i int64) error {
			key, value := records.at(i)
			l.append(time.Now().UnixNano(), key, value)
			appended <- struct{}{}
			return nil
		}, func() error {
			<-appended
			return nil
		})
		return res, errors.Join(err, l.close())
	}}
}
