package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The frame of the limits: the least that lets a reader find a record, check it
// and place it. Little-endian, because the machines are.
//
//	 0  4  CRC-32C of bytes 4 to the end
//	 4  4  length of key and value
//	 8  8  offset
//	16  8  timestamp, nanoseconds
//	24     key (16 bytes), value
//
// A batch of 1,000 records is 1,000 such frames back to back, each with its own
// checksum, written in one piece.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putFrame encodes a frame into dst and returns its length.
func putFrame(dst []byte, offset, timestamp int64, key, value []byte) int {
	n := frameHeaderBytes + len(key) + len(value)
	dst = dst[:n]
	binary.LittleEndian.PutUint32(dst[4:], uint32(len(key)+len(value)))
	binary.LittleEndian.PutUint64(dst[8:], uint64(offset))
	binary.LittleEndian.PutUint64(dst[16:], uint64(timestamp))
	copy(dst[frameHeaderBytes:], key)
	copy(dst[frameHeaderBytes+len(key):], value)
	binary.LittleEndian.PutUint32(dst, crc32.Update(0, castagnoli, dst[4:]))
	return n
}

var errBadFrame = errors.New("bad frame")

// scanFrames walks the frames from the start of b until the zeros behind the
// last, checks each, and touches every key and value: its first and last bytes
// go into sum, as a reader would look at them after the checksum has read them all.
func scanFrames(b []byte) (records int64, sum uint64, err error) {
	pos := 0
	for len(b)-pos >= frameHeaderBytes {
		head := b[pos:]
		n := int(binary.LittleEndian.Uint32(head[4:]))
		if n == 0 {
			return records, sum, nil
		}
		if n < keyBytes || n > len(head)-frameHeaderBytes {
			return records, sum, fmt.Errorf("%w at %d: length %d", errBadFrame, pos, n)
		}
		frame := head[:frameHeaderBytes+n]
		if crc32.Update(0, castagnoli, frame[4:]) != binary.LittleEndian.Uint32(frame) {
			return records, sum, fmt.Errorf("%w at %d: checksum", errBadFrame, pos)
		}
		if offset := int64(binary.LittleEndian.Uint64(frame[8:])); offset != records {
			return records, sum, fmt.Errorf("%w at %d: offset %d, want %d", errBadFrame, pos, offset, records)
		}
		key, value := frame[frameHeaderBytes:][:keyBytes], frame[frameHeaderBytes+keyBytes:]
		sum += uint64(key[0]) + uint64(key[keyBytes-1])
		if len(value) > 0 {
			sum += uint64(value[0]) + uint64(value[len(value)-1])
		}
		records++
		pos += len(frame)
	}
	return records, sum, nil
}
