package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/x/embedlog/internal/vfs"
)

// place is where a log stands between two frames.
type place struct {
	offset int64  // next offset
	index  uint64 // next log index
	epoch  uint64 // of the frame before
}

// follows checks that a whole frame is the one that comes next at p, and moves p
// behind it. In a segment that compaction wrote, offsets may be missing.
func (p *place) follows(h *frameHeader, payload []byte, gaps bool) error {
	if h.firstIndex() != p.index || uint64(h.span) > h.index {
		return fmt.Errorf("frame holds log indexes %d to %d, expected %d", h.firstIndex(), h.index, p.index)
	}
	if h.epoch < p.epoch {
		return fmt.Errorf("epoch falls from %d to %d", p.epoch, h.epoch)
	}
	offset := payloadOffset(payload)
	if offset != p.offset && !(gaps && offset > p.offset) {
		return fmt.Errorf("frame starts at offset %d, expected %d", offset, p.offset)
	}
	next := offset
	if h.kind == KindData {
		delta := int32(binary.BigEndian.Uint32(payload[posLastOffsetDelta:]))
		if delta < 0 || offset > math.MaxInt64-1-int64(delta) {
			return fmt.Errorf("last offset delta is %d", delta)
		}
		next += int64(delta) + 1
	}
	p.offset, p.index, p.epoch = next, h.index+1, h.epoch
	return nil
}

// batchMaxTimestamp is the maximum timestamp of an encoded batch, noTimestamp when
// compaction left no record in it: nobody can find one there by its time.
func batchMaxTimestamp(batch []byte) int64 {
	if be32(batch[posCount:]) == 0 {
		return noTimestamp
	}
	return int64(binary.BigEndian.Uint64(batch[posMaxTimestamp:]))
}

// cursor walks the frames of one segment, reading ahead in chunks. It checks
// each frame by itself; that they follow each other is the caller's to check.
type cursor struct {
	seg   *segment
	pos   int64 // of the next frame
	limit int64 // bytes from here on are not looked at
	// reuse lets the next chunk overwrite the last one. Without it the frames
	// stay valid as long as they are held.
	reuse bool
	chunk int
	most  int // largest chunk; 0 is maxChunk
	// memory is where chunks come from; nil allocates them.
	memory func(n int) []byte
	// within is the largest payload that next returns; 0 is no bound.
	within int
	// mapped reads through a mapping instead: frames are valid until the next call,
	// and must be touched inside vfs.Guard.
	mapped  bool
	mapping vfs.Mapping
	unmaps  *sync.WaitGroup // of mapped: the unmappings under way, which others need not wait for

	buf   []byte // bytes of the file from bufAt on
	bufAt int64
}

const (
	minChunk = 32 << 10
	maxChunk = 256 << 10 // it stays in the cache between the read and the checksum
	// maxIntoChunk is for memory that is used again: a frame that a chunk cuts in two is
	// copied, and fewer chunks cut fewer.
	maxIntoChunk = 1<<20 + 4<<10
)

// moved is a cursor over another segment that reads in the same way.
func (c *cursor) moved(s *segment, pos int64) cursor {
	return cursor{seg: s, pos: pos, limit: s.end.Load(), reuse: c.reuse, mapped: c.mapped, chunk: c.chunk, most: c.most, memory: c.memory, within: c.within, unmaps: c.unmaps}
}

// next returns the frame at c.pos and moves behind it. io.EOF says that the limit
// is reached, or that nothing but zeros or stale bytes can be here (the caller
// tells by c.pos < c.limit); other errors say what is wrong with the frame, and
// leave c.pos where it is.
func (c *cursor) next(h *frameHeader) (frame []byte, err error) {
	if c.pos >= c.limit {
		return nil, io.EOF
	}
	need := frameHeaderLen + BatchHeaderLen
	for {
		b, err := c.have(need)
		if err != nil {
			return nil, err
		}
		n, err := parseFrame(b, c.pos, c.seg.tag, h)
		if c.within > 0 && err == nil && h.length > c.within {
			return nil, ErrBeyond
		}
		if err == nil && len(b) < n {
			err, need = errShortFrame, n
		} else if err == errShortFrame {
			need = n
		}
		if err == errShortFrame {
			if c.pos+int64(need) > c.limit || len(b) >= need {
				return nil, errShortFrame
			}
			// Only a length under a right checksum makes us read more than a chunk.
			if b, err = c.have(need); err != nil {
				return nil, err
			}
			if len(b) < need {
				return nil, errShortFrame
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := checkBody(b[:n], h); err != nil {
			return nil, err
		}
		c.pos += int64(n)
		return b[:n:n], nil
	}
}

// have returns the bytes from c.pos on, at least need of them unless the limit or
// the file ends before.
func (c *cursor) have(need int) ([]byte, error) {
	left := int64(need)
	if c.limit-c.pos < left {
		left = c.limit - c.pos
	}
	if at := int(c.pos - c.bufAt); c.buf != nil && at >= 0 && int64(len(c.buf)-at) >= left {
		return c.buf[at:], nil
	}
	if err := c.fill(need); err != nil {
		return nil, err
	}
	return c.buf, nil
}

// fill makes c.buf start at c.pos and hold at least need bytes, up to the limit.
func (c *cursor) fill(need int) error {
	if c.mapped {
		return c.remap(need)
	}
	c.chunk = min(max(2*c.chunk, minChunk), maxChunk)
	if c.memory != nil {
		c.chunk = maxIntoChunk // who brings memory knows how much is wanted
	}
	if c.most > 0 {
		c.chunk = min(c.chunk, c.most)
	}
	size := int(min(int64(max(c.chunk, need)), c.limit-c.pos))
	var kept []byte
	if at := c.pos - c.bufAt; c.buf != nil && at >= 0 && at < int64(len(c.buf)) {
		kept = c.buf[at:]
	}
	var b []byte
	if c.reuse && cap(c.buf) >= size {
		b = c.buf[:size]
	} else if c.memory != nil {
		b = c.memory(size)
	} else {
		b = uninitialized(size)
	}
	n := copy(b, kept)
	if size-n <= maxTailLoad && c.seg.tail.Load().load(c.pos+int64(n), b[n:]) {
		// A reader close behind the writer: no system call.
		c.buf, c.bufAt = b, c.pos
		return nil
	}
	m, err := c.seg.readAt(b[n:], c.pos+int64(n))
	if err != nil && err != io.EOF {
		return &readError{err}
	}
	c.buf, c.bufAt = b[:n+m], c.pos
	return nil
}

// remap makes the mapping cover c.pos and at least need bytes behind it.
func (c *cursor) remap(need int) error {
	c.close()
	if !c.seg.pin() {
		return &readError{errReplaced}
	}
	pinned := true
	defer func() {
		if pinned {
			c.seg.unpin()
		}
	}()
	f, err := c.seg.handle.acquire()
	if err != nil {
		return &readError{err}
	}
	defer c.seg.handle.release()
	at := c.pos &^ (vfs.MapAlign - 1)
	size := max(windowBytes(c.limit-at), c.pos-at+int64(need))
	m, err := f.Map(at, int(size))
	if err != nil {
		return &readError{err}
	}
	c.mapping, pinned = m, false
	b := m.Bytes()
	c.buf, c.bufAt = b[c.pos-at:min(int64(len(b)), c.limit-at)], c.pos
	return nil
}

// close unmaps, on the side: taking 16 MiB out of the page tables takes most of a
// millisecond. What next returned before is not valid any more if c.mapped.
func (c *cursor) close() {
	if c.mapping == nil {
		return
	}
	m, s := c.mapping, c.seg
	c.mapping, c.buf = nil, nil
	c.unmaps.Go(func() {
		defer s.unpin()
		m.Close()
	})
}

// maxTailLoad is the largest piece that is copied from the writer's window.
const maxTailLoad = 64 << 10

// uninitialized returns n bytes with any content, for a read to fill: make would
// clear them first.
func uninitialized(n int) []byte {
	return slices.Grow([]byte(nil), n)[:n]
}

// readError is a failure of the disk, not of the bytes: nothing may be concluded
// from it about what the log holds.
type readError struct{ err error }

func (e *readError) Error() string { return "read: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// isReadError says that the bytes could not be had, as opposed to being wrong.
func isReadError(err error) bool {
	if err == nil {
		return false // without this every frame that is read costs an allocation below
	}
	var r *readError
	return errors.As(err, &r)
}

// searchFrame looks in b, which lies at position at of the segment, for the first
// whole frame that stands at its own position.
func searchFrame(b []byte, at int64, tag uint64, h *frameHeader) (pos int64, ok bool) {
	var want [8]byte
	binary.BigEndian.PutUint64(want[:], tag)
	const tagAt = 24
	for i := 0; ; {
		n := bytes.Index(b[min(i+tagAt, len(b)):], want[:])
		if n < 0 {
			return 0, false
		}
		i += n
		if size, err := parseFrame(b[i:], at+int64(i), tag, h); err == nil && size <= len(b)-i && checkBody(b[i:i+size], h) == nil {
			return at + int64(i), true
		}
		i++
	}
}
