package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/x/embedlog/internal/vfs"
)

// Frame is one entry of the log as it was read. It is valid until the next call
// of the method that returned it; its Payload as that method says.
type Frame struct {
	Kind Kind
	// Offset is the first offset that the frame takes up, NextOffset the one behind
	// the last. They are the same for all kinds but data.
	Offset, NextOffset int64
	// FirstIndex and Index are the log indexes that it stands for, both included.
	// They differ where compaction joined or dropped entries.
	FirstIndex, Index uint64
	Epoch             uint64
	// Payload is the record batch, or what StageEntry was given.
	Payload []byte
}

func (f *Frame) set(h *frameHeader, frame []byte, next int64) {
	payload := frame[frameHeaderLen : frameHeaderLen+h.length]
	f.Kind, f.Offset, f.NextOffset = h.kind, payloadOffset(payload), next
	f.FirstIndex, f.Index, f.Epoch = h.firstIndex(), h.index, h.epoch
	f.Payload = payload
	if h.kind != KindData {
		f.Payload = payload[otherHeadLen:]
	}
}

// Reader walks the log forward. It follows the log's end: after io.EOF, Next may
// be called again. It holds no file open between calls. One goroutine at a time.
type Reader struct {
	l *Log
	c cursor
	// at is where the next frame is expected. Its epoch is that of the frame before.
	at    place
	segs  *[]*segment // the list that seg was found in
	i     int         // its place in it
	frame Frame
	bad   *CorruptionError // what Skip goes behind
}

// ReadFrom returns a reader whose first frame is the one that holds offset, or the
// next one there is. Payloads stay valid as long as they are held.
//
// It fails with ErrOffsetGone below the log start offset and with ErrOffsetAhead
// past the log end offset.
func (l *Log) ReadFrom(offset int64) (*Reader, error) {
	r := &Reader{l: l}
	return r, r.seek(offset, 0)
}

// ReadFromInto is ReadFrom into memory of the caller's: each time that more is read
// memory is asked for so many bytes, which may hold anything. Payloads are parts of
// them, and the reader touches what it got before only until Forget. At most bound
// bytes are read at once, but for a frame that is larger: see Bound.
func (l *Log) ReadFromInto(offset, bound int64, memory func(n int) []byte) (*Reader, error) {
	r := &Reader{l: l}
	r.c.memory = memory
	r.Bound(bound)
	return r, r.seek(offset, 0)
}

// Into makes the reader read into other memory from now on: see ReadFromInto.
func (r *Reader) Into(memory func(n int) []byte) { r.Forget(); r.c.memory = memory }

// Forget lets go of what was read ahead, and of the memory that it lies in. The
// reader stays at its place.
func (r *Reader) Forget() {
	if !r.c.mapped {
		r.c.buf, r.c.memory = nil, nil
	}
	r.frame.Payload = nil
}

// ErrBeyond is what NextWithin returns for a frame that is too large.
var ErrBeyond = errors.New("log: the next frame is larger than what is wanted")

// NextWithin is Next for a frame of at most so many bytes of payload. It fails with
// ErrBeyond when the next one is larger: the reader stays before it, and of the frame
// only its header was looked at.
func (r *Reader) NextWithin(bytes int) (*Frame, error) {
	r.c.within = max(bytes, 1)
	f, err := r.Next()
	r.c.within = 0
	return f, err
}

// ReadFromIndex is ReadFrom for a log index: it starts at the frame that stands
// for index.
func (l *Log) ReadFromIndex(index uint64) (*Reader, error) {
	r := &Reader{l: l}
	if b := l.Boundary(); index <= b.Index || index == 0 {
		return nil, fmt.Errorf("log index %d: the first one kept is %d: %w", index, b.Index+1, ErrOffsetGone)
	}
	if err := r.seek(-1, index); err != nil {
		return nil, err
	}
	if r.at.index < index && r.c.pos >= r.c.seg.end.Load() && r.i+1 == len(*r.segs) {
		return nil, fmt.Errorf("log index %d: the next one is %d: %w", index, r.at.index, ErrOffsetAhead)
	}
	return r, nil
}

// Reuse makes the next chunk overwrite the last one: a payload is then valid
// until the next call of Next. It saves the allocation of what is read.
func (r *Reader) Reuse() { r.c.reuse = true }

// Bound makes the reader read at most so many bytes at once, for who wants no more
// than that. A larger frame is still read whole.
func (r *Reader) Bound(bytes int64) { r.c.most = int(min(max(bytes, 4096), maxIntoChunk)) }

// Offset is the offset that Next reads from.
func (r *Reader) Offset() int64 { return r.at.offset }

// Next returns the next frame. io.EOF says that the end is reached, for now. A
// *CorruptionError says that what comes next is damaged: Skip goes behind it.
func (r *Reader) Next() (*Frame, error) {
	if r.l.closed.Load() {
		return nil, ErrClosed
	}
	for try := 0; ; try++ {
		f, err := r.next()
		if err == nil || err == io.EOF {
			return f, err
		}
		if r.l.closed.Load() {
			return nil, ErrClosed
		}
		// Retention or compaction took the file away: what it held is elsewhere, or gone.
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced)) && r.l.switched(r.segs) && try < 16 {
			if err := r.seek(r.at.offset, 0); err != nil {
				return nil, err
			}
			continue
		}
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
			return nil, r.damage(errSegmentLost)
		}
		return nil, err
	}
}

// errSegmentLost is a file that the log has and that is not on the disk.
var errSegmentLost = errors.New("the file is missing")

// switched says whether the log has other segments than those by now. It waits for an
// install, which takes the files away before it has others to show.
func (l *Log) switched(segs *[]*segment) bool {
	if l.segs.Load() == segs {
		l.switching.Lock()
		defer l.switching.Unlock()
	}
	return l.segs.Load() != segs
}

func (r *Reader) next() (*Frame, error) {
	for {
		if segs := r.l.segs.Load(); segs != r.segs {
			if err := r.follow(segs); err != nil {
				return nil, err
			}
		}
		if r.i+1 < len(*r.segs) {
			if next := (*r.segs)[r.i+1]; next.reached(r.at) {
				if err := r.enter(r.i+1, next); err != nil {
					return nil, err
				}
				continue
			}
		}
		var h frameHeader
		r.c.limit = r.c.seg.end.Load()
		from := r.c.pos
		frame, err := r.c.next(&h)
		if err == io.EOF && r.i+1 == len(*r.segs) {
			return nil, io.EOF
		}
		if err == ErrBeyond {
			return nil, err
		}
		if isReadError(err) {
			if errors.Is(err, errSegmentHeader) {
				return nil, r.damage(errSegmentHeader)
			}
			return nil, fmt.Errorf("%s at byte %d: %w", r.c.seg.name, from, err)
		}
		if err == nil && h.kind == kindMark {
			err = errors.New("an end mark, but the log goes on")
		}
		if err == nil {
			err = r.at.follows(&h, frame[frameHeaderLen:], r.c.seg.compacted())
		}
		if err != nil {
			r.c.pos = from
			if r.l.segs.Load() != r.segs {
				continue // truncated below us
			}
			return nil, r.damage(err)
		}
		r.frame.set(&h, frame, r.at.offset)
		return &r.frame, nil
	}
}

// follow goes on with another list of segments.
func (r *Reader) follow(segs *[]*segment) error {
	i := segmentFor(*segs, r.at.offset)
	// The segment that we are in may start at the very offset that is next, or be the
	// one before it whose end we reached.
	for ; i >= 0 && r.c.pos <= r.c.seg.end.Load(); i-- { // otherwise it was truncated below us
		if (*segs)[i] == r.c.seg {
			r.segs, r.i = segs, i
			return nil
		}
		if (*segs)[i].baseOffset < r.at.offset {
			break
		}
	}
	if i > 0 && (*segs)[i-1] == r.c.seg && r.c.pos <= r.c.seg.end.Load() {
		r.segs, r.i = segs, i-1
		return nil
	}
	return r.seek(r.at.offset, 0)
}

// enter goes to the beginning of a segment.
func (r *Reader) enter(i int, s *segment) error {
	r.c.close()
	r.i = i
	r.c = r.c.moved(s, segmentHeaderLen)
	if s.tag == 0 {
		return r.damage(errSegmentHeader)
	}
	if s.baseIndex != r.at.index {
		return r.damage(fmt.Errorf("segment begins at log index %d, expected %d", s.baseIndex, r.at.index))
	}
	return nil
}

// damage describes what is wrong at the reader's place.
func (r *Reader) damage(cause error) error {
	s := r.c.seg
	e := &CorruptionError{File: s.name, Position: r.c.pos, End: -1, FirstOffset: r.at.offset, EndOffset: -1, Cause: cause}
	var h frameHeader
	if at, frame, err := nextWhole(s, r.c.pos+1, s.end.Load(), &h); err == nil && h.kind != kindMark {
		e.End, e.EndOffset = at, payloadOffset(frame[frameHeaderLen:])
	} else if r.i+1 < len(*r.segs) {
		e.EndOffset = (*r.segs)[r.i+1].baseOffset
	}
	r.bad = e
	return e
}

// Skip goes behind the damage that Next reported, to the next whole frame. It
// returns the offset there, and io.EOF when there is none.
func (r *Reader) Skip() (int64, error) {
	e := r.bad
	if e == nil {
		return r.at.offset, nil
	}
	r.bad = nil
	if e.End >= 0 {
		var h frameHeader
		r.c.pos, r.c.buf, r.c.limit = e.End, nil, r.c.seg.end.Load()
		frame, err := r.c.next(&h)
		if err != nil {
			return 0, err
		}
		r.at = place{offset: payloadOffset(frame[frameHeaderLen:]), index: h.firstIndex(), epoch: h.epoch}
		r.c.pos = e.End
		return r.at.offset, nil
	}
	if r.i+1 == len(*r.segs) {
		return 0, io.EOF
	}
	s := (*r.segs)[r.i+1]
	r.at = place{offset: s.baseOffset, index: s.baseIndex, epoch: s.prevEpoch}
	return r.at.offset, r.enter(r.i+1, s)
}

// seek places the reader at the frame that holds offset, or the log index when
// that is not 0.
func (r *Reader) seek(offset int64, index uint64) error {
	l := r.l
	if l.closed.Load() {
		return ErrClosed
	}
	for try := 0; ; try++ {
		segs := l.segs.Load()
		start, end := l.start.Load(), l.next.Load()
		if index == 0 && offset < start {
			return fmt.Errorf("offset %d: the log starts at %d: %w", offset, start, ErrOffsetGone)
		}
		if index == 0 && offset > end {
			return fmt.Errorf("offset %d: the log ends at %d: %w", offset, end, ErrOffsetAhead)
		}
		i := len(*segs) - 1
		if index == 0 {
			i = max(segmentFor(*segs, offset), 0)
		} else {
			for i > 0 && (*segs)[i].baseIndex > index {
				i--
			}
		}
		r.segs = segs
		err := r.seekIn(i, offset, index)
		if err == nil {
			return nil
		}
		if l.closed.Load() {
			return ErrClosed
		}
		if !l.switched(segs) || try == 16 {
			if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
				s := (*segs)[i]
				return &CorruptionError{File: s.name, End: -1, FirstOffset: max(offset, s.baseOffset), EndOffset: -1, Cause: errSegmentLost}
			}
			return err
		}
	}
}

// seekIn places the reader in segment i, from the index entry below on.
func (r *Reader) seekIn(i int, offset int64, index uint64) error {
	s := (*r.segs)[i]
	r.c.close()
	r.i = i
	after := func(e placeEntry) bool { return e.offset > offset }
	if index != 0 {
		after = func(e placeEntry) bool { return e.index > index }
	}
	start := placeEntry{s.baseOffset, s.baseIndex, segmentHeaderLen}
	epoch := s.prevEpoch
	e, ok, err := s.index.floorPlace(after)
	switch {
	case err == nil && ok:
		start, epoch = e, 0
	case errors.Is(err, errIndex):
		r.l.logger.Warn("index is damaged; reading from the segment's beginning", "segment", s.name)
	case err != nil:
		return err
	}
	for {
		r.c = r.c.moved(s, start.pos)
		r.at = place{start.offset, start.index, epoch}
		err := r.skipTo(offset, index)
		if err == nil {
			return nil
		}
		if isReadError(err) && !errors.Is(err, errSegmentHeader) {
			return err
		}
		if start.pos == segmentHeaderLen || isReadError(err) {
			// Damage in front of what is looked for: stand on it, and let Next say so.
			return nil
		}
		// The entry may have lied: the data decides.
		start, epoch = placeEntry{s.baseOffset, s.baseIndex, segmentHeaderLen}, s.prevEpoch
	}
}

// skipTo walks to the frame that is looked for, or to the end of the segment.
func (r *Reader) skipTo(offset int64, index uint64) error {
	for {
		if index != 0 && r.at.index >= index || index == 0 && r.at.offset > offset {
			return nil
		}
		if r.i+1 < len(*r.segs) && (*r.segs)[r.i+1].reached(r.at) {
			return nil
		}
		from, at := r.c.pos, r.at
		var h frameHeader
		frame, err := r.c.next(&h)
		if err == io.EOF && r.i+1 == len(*r.segs) {
			return nil
		}
		if err == nil && h.kind == kindMark {
			err = errNoFrame
		}
		if err == nil {
			err = r.at.follows(&h, frame[frameHeaderLen:], r.c.seg.compacted())
		}
		if err != nil {
			r.c.pos, r.at = from, at
			return err
		}
		past := r.at.offset > offset
		if index != 0 {
			past = r.at.index > index
		}
		if past {
			r.c.pos, r.at = from, at // this is the one
			return nil
		}
	}
}

// Scan calls f for each frame from the one that holds offset on, up to the last
// that starts below end. It reads through a mapping where there is one, which is
// the fastest way, so a frame and its payload are valid only inside f: whoever
// keeps bytes copies them. It stops at the first error, f's too.
//
// A file that somebody truncates meanwhile ends the scan with an error that
// matches vfs.ErrFault; f must be able to be left by a panic at any touch of the
// payload, so it should hold no lock.
func (l *Log) Scan(offset, end int64, f func(*Frame) error) error {
	r := &Reader{l: l}
	var unmaps sync.WaitGroup
	r.c.mapped, r.c.reuse, r.c.unmaps = l.mappable(), true, &unmaps
	defer unmaps.Wait()
	defer func() { r.c.close() }()
	walk := func() error {
		if err := r.seek(offset, 0); err != nil {
			return err
		}
		for r.at.offset < end {
			frame, err := r.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if frame.Offset >= end {
				return nil
			}
			if err := f(frame); err != nil {
				return err
			}
		}
		return nil
	}
	if !r.c.mapped {
		return walk()
	}
	return vfs.Guard("scan", walk)
}

// mappable says whether the files can be read through a mapping.
func (l *Log) mappable() bool {
	segs := *l.segs.Load()
	s := segs[len(segs)-1]
	f, err := s.handle.acquire()
	if err != nil {
		return false
	}
	defer s.handle.release()
	m, err := f.Map(0, vfs.MapAlign)
	if err != nil {
		return false
	}
	return m.Close() == nil
}
