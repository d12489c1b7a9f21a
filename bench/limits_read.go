package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// limitScan opens the limit's file in a process that never saw it, maps it,
// checks each frame and touches each key and value. The pages are in the page
// cache. Every frame has its own checksum, whatever the row's batch size is: the
// limit has no cheaper way to hold single records.
func limitScan() side {
	return side{
		fresh:   true,
		prepare: writeFrames,
		run: func(r *rep) (result, error) {
			start := time.Now()
			f, err := os.Open(filepath.Join(r.Dir, "limit"))
			if err != nil {
				return result{}, err
			}
			mem, err := mapReadable(f, r.Bytes)
			if err != nil {
				return result{}, errors.Join(err, f.Close())
			}
			n, sum, err := scanFrames(mem)
			elapsed := time.Since(start)
			if err == nil && (n != r.Records || sum == 0) {
				err = fmt.Errorf("read %d records (sum %d), %d were written", n, sum, r.Records)
			}
			return result{Records: n, Elapsed: elapsed}, errors.Join(err, unmap(mem), f.Close())
		},
	}
}

// writeFrames writes the repetition's records to DIR/limit, a file of r.Bytes.
func writeFrames(r *rep) error {
	records := r.records()
	l, err := newMappedLog(r)
	if err != nil {
		return err
	}
	for i := range r.Records {
		key, value := records.at(i)
		l.append(i, key, value)
	}
	return l.close()
}

// limitOpen is what no opening can do without: in a process that never saw the
// files, list the directory, open the last file, read its first page and its
// last; and after a kill check the last scan bytes, which may not have been
// synced. The file is as long as the row says, and its tail is really written.
func limitOpen(scan int64) side {
	const tail = "limit"
	return side{
		fresh: true,
		setup: func(r *rep) error {
			written := rep{Dir: r.Dir, Bytes: unsyncedBytes, ValueBytes: r.ValueBytes}
			written.Records = written.Bytes / int64(frameHeaderBytes+keyBytes+r.ValueBytes)
			if err := writeFrames(&written); err != nil {
				return err
			}
			body, err := os.Create(filepath.Join(r.Dir, "body"))
			if err != nil {
				return err
			}
			// Nobody reads the body, so its size has to be true and its blocks do not.
			return errors.Join(body.Truncate(r.Bytes-written.Bytes), body.Close())
		},
		run: func(r *rep) (result, error) {
			start := time.Now()
			if _, err := os.ReadDir(r.Dir); err != nil {
				return result{}, err
			}
			f, err := os.Open(filepath.Join(r.Dir, tail))
			if err != nil {
				return result{}, err
			}
			page := make([]byte, 4096)
			for _, at := range []int64{0, unsyncedBytes - int64(len(page))} {
				if _, err := f.ReadAt(page, at); err != nil {
					return result{}, errors.Join(err, f.Close())
				}
			}
			if scan > 0 {
				mem, err := mapReadable(f, scan)
				if err != nil {
					return result{}, errors.Join(err, f.Close())
				}
				if _, _, err := scanFrames(mem); err != nil {
					return result{}, err
				}
			}
			elapsed := time.Since(start)
			return result{Records: 1, Elapsed: elapsed, Value: float64(elapsed) / float64(time.Millisecond)}, f.Close()
		},
	}
}
