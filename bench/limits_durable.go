package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// The limit of Durable appends: frames are encoded into a buffer, written with
// one pwrite into a file whose zeros were synced before the clock started (so
// that the sync writes data and no metadata), and synced with one fdatasync.
// Callers that arrive while a sync runs share the next one.

// A durableLog is that file and the group that is being filled.
type durableLog struct {
	file *os.File
	sync func(*os.File) error // datasync, or what a test puts in its place

	mu   sync.Mutex // order: writing, then mu
	open *group     // takes frames
	next int64      // offset of the next frame
	free []byte     // a buffer that no group uses

	writing sync.Mutex // held by the leader that writes
	pos     int64      // where its group goes
}

// A group is the frames of callers that share a write and a sync.
type group struct {
	frames []byte
	done   chan struct{} // closed when err is set and the frames are durable, or never will be
	err    error
}

func newGroup(buf []byte) *group {
	return &group{frames: buf[:0], done: make(chan struct{})}
}

func newDurableLog(r *rep) (*durableLog, error) {
	f, err := zeroedFile(r, r.Bytes)
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Room for all callers, so that no buffer grows while the clock runs.
	room := r.Goroutines * r.Batch * (frameHeaderBytes + keyBytes + r.ValueBytes)
	return &durableLog{file: f, sync: datasync, open: newGroup(make([]byte, room)), free: make([]byte, room)}, nil
}

// append returns when the records from i on are durable.
func (l *durableLog) append(records *pool, i int64, batch int) error {
	now := time.Now().UnixNano()
	l.mu.Lock()
	g := l.open
	leads := len(g.frames) == 0
	for k := range int64(batch) {
		key, value := records.at(i + k)
		at := len(g.frames)
		g.frames = g.frames[:at+frameHeaderBytes+len(key)+len(value)]
		putFrame(g.frames[at:], l.next, now, key, value)
		l.next++
	}
	l.mu.Unlock()
	if !leads {
		<-g.done
		return g.err
	}
	// The first of a group waits for the group before it to be durable; the
	// others arrive meanwhile.
	l.writing.Lock()
	l.mu.Lock()
	l.open = newGroup(l.free)
	l.free = nil
	l.mu.Unlock()
	if _, g.err = l.file.WriteAt(g.frames, l.pos); g.err == nil {
		g.err = l.sync(l.file)
	}
	l.pos += int64(len(g.frames))
	l.mu.Lock()
	l.free = g.frames[:0]
	l.mu.Unlock()
	l.writing.Unlock()
	close(g.done)
	return g.err
}

// limitDurable is the limit of Durable appends, from one goroutine or several.
func limitDurable() side {
	return side{run: func(r *rep) (result, error) {
		records := r.records()
		l, err := newDurableLog(r)
		if err != nil {
			return result{}, err
		}
		res, err := r.parallel(func(i int64) error { return l.append(records, i, r.Batch) })
		if err == nil && l.next != res.Records {
			err = fmt.Errorf("the file holds %d records, %d were appended", l.next, res.Records)
		}
		return res, errors.Join(err, l.file.Close())
	}}
}
