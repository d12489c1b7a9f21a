package raftrepl

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A connection carries messages of three lanes. A message goes in frames, so that those
// of one lane fit between those of another:
//
//	first frame   lane | 0x80, length uint32, length of the message uint32, bytes
//	later ones    lane,        length uint32,                               bytes
//
// At most one message of a lane is on its way at any time.
type lane uint8

const (
	laneUrgent  lane = iota // votes, heartbeats, answers to them and to entries; one frame each
	laneEntries             // what fills logs
	laneCalls               // requests of the engine, and answers to them
	lanes
)

const (
	frameFirst = 0x80

	// maxFrameBytes is what a peer may send in one frame; sendFrameBytes is what this one does:
	// with what waits in the urgent lane and in the kernel it stays below a mebibyte.
	maxFrameBytes  = 1 << 20
	sendFrameBytes = 256 << 10

	// maxEntryBytes is more than the largest record batch that a topic may allow, as an entry.
	maxEntryBytes = 64<<20 + 64<<10
	// wireAppendBytes is what one AppendEntries carries, or one entry.
	wireAppendBytes = 4 << 20

	maxUrgentBytes  = 64 << 10
	maxEntriesBytes = wireAppendBytes + maxEntryBytes
	// MaxCallBytes is the longest request, and the longest answer, of a call: a record batch of
	// any size, and what is said about it.
	MaxCallBytes  = 64<<20 + 64<<10
	maxCallsBytes = MaxCallBytes + 4<<10
)

// laneMax is the longest message of a lane.
var laneMax = [lanes]int{maxUrgentBytes, maxEntriesBytes, maxCallsBytes}

// laneQueue is how many bytes may wait to be sent in a lane, or one message.
var laneQueue = [lanes]int{256 << 10, 16 << 20, 16 << 20}

// appendFrameHeader writes what stands before the bytes of a frame.
func appendFrameHeader(b []byte, l lane, length, total int, first bool) []byte {
	if !first {
		return binary.BigEndian.AppendUint32(append(b, byte(l)), uint32(length))
	}
	b = binary.BigEndian.AppendUint32(append(b, byte(l)|frameFirst), uint32(length))
	return binary.BigEndian.AppendUint32(b, uint32(total))
}

// FrameError is a peer that sends what is no frame: its connection is closed.
type FrameError struct{ Problem string }

func (e *FrameError) Error() string { return "frame: " + e.Problem }

// firstBuffer is what a message gets before it has come: a record batch of a mebibyte fits, with what
// stands around it.
const firstBuffer = maxFrameBytes + 64<<10

// assembler puts messages together. It holds at most one for each lane, and no more bytes of
// it than twice those that have come, or firstBuffer.
type assembler struct {
	open [lanes]struct {
		buf   []byte
		total int
	}
}

// next reads frames until a message is whole. The message is the caller's.
func (a *assembler) next(r io.Reader) (lane, []byte, error) {
	for {
		l, msg, err := a.frame(r)
		if err != nil || msg != nil {
			return l, msg, err
		}
	}
}

// frame reads one frame. The message is nil when it has more.
func (a *assembler) frame(r io.Reader) (lane, []byte, error) {
	bad := func(format string, args ...any) (lane, []byte, error) {
		return 0, nil, &FrameError{fmt.Sprintf(format, args...)}
	}
	var head [9]byte
	if _, err := io.ReadFull(r, head[:5]); err != nil {
		return 0, nil, err
	}
	first, l := head[0]&frameFirst != 0, lane(head[0]&^frameFirst)
	length := int(binary.BigEndian.Uint32(head[1:5]))
	if l >= lanes {
		return bad("lane %d", l)
	}
	if length == 0 || length > maxFrameBytes {
		return bad("%d bytes", length)
	}
	m := &a.open[l]
	if first {
		if _, err := io.ReadFull(r, head[5:9]); err != nil {
			return 0, nil, noEOF(err)
		}
		total := int(binary.BigEndian.Uint32(head[5:9]))
		if m.total != 0 {
			return bad("a message begins in lane %d before the last one ended", l)
		}
		if total > laneMax[l] {
			return bad("a message of %d bytes in lane %d, which has up to %d", total, l, laneMax[l])
		}
		m.total, m.buf = total, make([]byte, 0, min(total, firstBuffer))
	} else if m.total == 0 {
		return bad("lane %d has no message that goes on", l)
	}
	have := len(m.buf)
	if have+length > m.total {
		return bad("%d bytes behind %d of a message of %d", length, have, m.total)
	}
	if have+length > cap(m.buf) {
		m.buf = append(make([]byte, 0, min(m.total, max(2*cap(m.buf), have+length))), m.buf...)
	}
	m.buf = m.buf[:have+length]
	if _, err := io.ReadFull(r, m.buf[have:]); err != nil {
		return 0, nil, noEOF(err)
	}
	if len(m.buf) < m.total {
		return l, nil, nil
	}
	msg := m.buf
	m.buf, m.total = nil, 0
	return l, msg, nil
}

// noEOF is for an end in the middle.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sending is a message that is sent, or waits to be. Its segments are not written to.
type sending struct {
	lane     lane
	segments [][]byte
	total    int
	sent     int  // bytes that are in frames
	atOnce   bool // its sender may write it itself
}

func newSending(l lane, segments ...[]byte) *sending {
	o := &sending{lane: l, segments: segments}
	for _, s := range segments {
		o.total += len(s)
	}
	return o
}

// writeFrame sends n bytes more.
func (o *sending) writeFrame(w io.Writer, n int, first bool) error {
	var head [9]byte
	if _, err := w.Write(appendFrameHeader(head[:0], o.lane, n, o.total, first)); err != nil {
		return err
	}
	for n > 0 {
		k := min(n, len(o.segments[0]))
		if _, err := w.Write(o.segments[0][:k]); err != nil {
			return err
		}
		if n -= k; k == len(o.segments[0]) {
			o.segments = o.segments[1:]
		} else {
			o.segments[0] = o.segments[0][k:]
		}
	}
	return nil
}
