package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/x/embedlog/log"
)

// The limit of OS appends by several goroutines: the frames that a log with one
// record a batch needs (48 bytes of frame, 61 of batch header, the record), made
// by the log's own encoder, under one plain mutex. What ours can lose or win
// against it is how callers are combined, not what a frame is.
//
// As on our side the caller reads the clock before it asks for its turn.

const (
	ourFrameBytes = 48
	// A record of ours has a length, attributes, timestamp and offset delta, lengths
	// of key and value, and a header count: at most 12 bytes up to values of 8 KiB.
	ourRecordBytes = 12
)

// putOurFrame encodes one record as ours would, and returns the frame's length.
// docs/format.md draws it.
func putOurFrame(dst []byte, pos, offset int64, rec []log.Record) (int, error) {
	h := log.BatchHeader{BaseOffset: offset, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	b, err := log.AppendBatch(dst[:ourFrameBytes], &h, rec)
	if err != nil {
		return 0, err
	}
	binary.BigEndian.PutUint16(b[4:], 0xE10C)
	b[6], b[7] = 1, 1
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-ourFrameBytes))
	binary.BigEndian.PutUint32(b[12:], uint32(pos))
	binary.BigEndian.PutUint32(b[16:], 0)
	binary.BigEndian.PutUint32(b[20:], 0)
	binary.BigEndian.PutUint64(b[24:], 1)
	binary.BigEndian.PutUint64(b[32:], uint64(offset)+1)
	binary.BigEndian.PutUint64(b[40:], 0)
	binary.BigEndian.PutUint32(b, crc32.Update(0, castagnoli, b[4:ourFrameBytes+log.BatchHeaderLen]))
	return len(b), nil
}

func limitMutex() side {
	return side{run: func(r *rep) (result, error) {
		records := r.records()
		frame := ourFrameBytes + log.BatchHeaderLen + ourRecordBytes + keyBytes + r.ValueBytes
		room := *r
		room.Bytes = (r.Records*int64(frame) + pageBytes - 1) &^ (pageBytes - 1)
		l, err := newMappedLog(&room)
		if err != nil {
			return result{}, err
		}
		l.scratch = make([]byte, frame)
		var mu sync.Mutex
		res, err := r.parallelEach(func() func(int64) error {
			rec := make([]log.Record, 1)
			return func(i int64) error {
				rec[0].Timestamp = time.Now().UnixMilli()
				rec[0].Key, rec[0].Value = records.at(i)
				mu.Lock()
				defer mu.Unlock()
				n, err := putOurFrame(l.scratch, int64(l.pos), l.next, rec)
				if err != nil {
					return err
				}
				copy(l.mem[l.pos:], l.scratch[:n])
				l.pos += n
				l.next++
				return nil
			}
		})
		if err == nil && l.next != res.Records {
			err = fmt.Errorf("the file holds %d records, %d were appended", l.next, res.Records)
		}
		return res, errors.Join(err, l.close())
	}}
}
