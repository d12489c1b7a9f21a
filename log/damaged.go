package log

import (
	"errors"
	"fmt"
	"io"

	"github.com/x/embedlog/internal/vfs"
)

// What recovery does when bytes that were durable are damaged: the log opens for
// reading only, and what lies behind the damage is found.

// Failed is an empty log that stands for one that could not be opened, because of
// err: it has no files, and whoever writes gets err.
func Failed(err error) *Log {
	l, oerr := Open("", &Options{FS: vfs.NewMem(), Files: NewFileCache(1), NoLock: true})
	if oerr != nil {
		panic("log: an empty log in memory does not open: " + oerr.Error()) // nothing there can fail
	}
	l.failed.Store(&failure{err})
	return l
}

// corrupt opens the log for reading only: bytes that were durable are damaged at
// the end of t.
func (r *recovery) corrupt(cut int, t *tail) error {
	s := r.segs[cut]
	e := &CorruptionError{File: s.name, Position: t.end, End: -1, FirstOffset: t.at.offset, EndOffset: -1, Cause: t.reason}
	if e.Cause == nil {
		e.Cause = fmt.Errorf("frames end here, but %d bytes were durable", r.highest.pos)
	}
	// Readers may see all there is: what lies behind the damage proves itself.
	last := len(r.segs) - 1
	lt := r.tails[last]
	if lt.size == 0 {
		lt = tail{end: r.segs[last].end.Load(), at: place{offset: r.segs[last].baseOffset, index: r.segs[last].baseIndex}}
	}
	end, at := lt.end, lt.at
	if cut == last {
		end = lt.size
		if found, ok := r.lastFrame(s, lt.end); ok {
			end, at = found.end, found.at
			e.End, e.EndOffset = found.first, found.firstOffset
		}
	}
	r.damaged(e, end, at)
	return nil
}

// damaged publishes what there is for reading only.
func (r *recovery) damaged(e *CorruptionError, end int64, at place) {
	l := r.l
	r.settle()
	r.report.Corruption = e
	l.failed.Store(&failure{e})
	r.publish(end, at, unknownTimestamp)
	l.logger.Error("log is damaged below what was durable; open for reading only", "error", e)
}

// missingStart says that the first segments are not there: a log start offset is
// moved in the checkpoint before any file goes.
func (r *recovery) missingStart() *CorruptionError {
	if r.ckpt == nil || len(r.segs) == 0 || r.ckpt.start >= r.segs[0].baseOffset {
		return nil
	}
	return &CorruptionError{File: segmentName(r.ckpt.start, logSuffix), End: -1,
		FirstOffset: r.ckpt.start, EndOffset: r.segs[0].baseOffset, Cause: errors.New("the segment is missing")}
}

// behind is what lies behind damage in the last segment.
type behind struct {
	first       int64 // where the first whole frame starts
	firstOffset int64
	end         int64 // behind the last whole one
	at          place
}

// lastFrame finds the whole frames behind damage at pos.
func (r *recovery) lastFrame(s *segment, pos int64) (found behind, ok bool) {
	for {
		var h frameHeader
		at, frame, err := nextWhole(s, pos, s.end.Load(), &h)
		if err != nil {
			return found, ok
		}
		if h.kind != kindMark {
			p := place{offset: payloadOffset(frame[frameHeaderLen:]), index: h.firstIndex()}
			if !ok {
				found.first, found.firstOffset = at, p.offset
			}
			if p.follows(&h, frame[frameHeaderLen:], true) == nil {
				found.end, found.at, ok = at+h.size(), p, true
			}
		}
		pos = at + h.size()
	}
}

// nextWhole finds the first whole frame of s that starts at pos or behind it.
// io.EOF says that there is none before limit.
func nextWhole(s *segment, pos, limit int64, h *frameHeader) (at int64, frame []byte, err error) {
	c := cursor{seg: s, pos: pos, limit: limit}
	if frame, err := c.next(h); err == nil {
		return pos, frame, nil
	}
	for pos < limit {
		b := make([]byte, min(limit-pos, 8<<20))
		n, err := s.readAt(b, pos)
		if err != nil && err != io.EOF {
			return 0, nil, &readError{err}
		}
		if at, ok := searchFrame(b[:n], pos, s.tag, h); ok {
			return at, b[at-pos : at-pos+h.size()], nil
		}
		if pos+int64(n) >= limit || n <= maxSearchOverlap {
			break
		}
		pos += int64(n) - maxSearchOverlap
	}
	return 0, nil, io.EOF
}
