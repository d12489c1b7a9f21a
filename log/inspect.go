package log

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/x/embedlog/internal/vfs"
)

// Looking at a log's files as they lie, without opening the log: for who prints
// or exports them. Nothing here writes, takes the directory's lock, or minds a
// writer that goes on meanwhile.

// SegmentFile is a data file of a log.
type SegmentFile struct {
	Name       string
	BaseOffset int64 // as the name says
	Bytes      int64
}

// SegmentFiles lists the data files in a log's directory, by base offset.
func SegmentFiles(fsys vfs.FS) ([]SegmentFile, error) {
	infos, err := fsys.List(".")
	if err != nil {
		return nil, err
	}
	var files []SegmentFile
	for _, info := range infos {
		if base, ok := parseSegmentName(info.Name); ok && !info.Dir {
			files = append(files, SegmentFile{info.Name, base, info.Size})
		}
	}
	return files, nil // names sort as their numbers do
}

// NeverWritten says that f, the last data file of the log in fsys, is one that was being
// made when a crash came: its header is none, and nothing says that any of it was
// durable. Open removes it, and the log ends in the segment before. c is the log's
// checkpoint, nil for none.
func NeverWritten(fsys vfs.FS, f SegmentFile, c *CheckpointInfo) (bool, error) {
	file, err := fsys.Open(f.Name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	h, err := readSegmentHeader(file)
	if err == nil && h.baseOffset == f.BaseOffset {
		return false, nil
	}
	if err != nil && !errors.Is(err, errSegmentHeader) {
		return false, err
	}
	var ckpt *checkpoint
	if c != nil {
		ckpt = &checkpoint{durableBase: c.DurableSegment}
	}
	return neverWritten(fsys, f.Name, f.Bytes, f.BaseOffset, ckpt)
}

// SegmentInfo is what the header of a segment says. docs/format.md has the meaning.
type SegmentInfo struct {
	Compacted     bool
	LogID, Tag    uint64
	BaseOffset    int64
	BaseIndex     uint64
	PreviousEpoch uint64
	CreatedMillis int64 // since 1970
	RunningMillis int64 // running time of the log when it was created
	// Of a compacted segment: where the next one starts, and how far keys were compared.
	EndOffset     int64
	EndIndex      uint64
	CleanedOffset int64
}

func (h *segmentHeader) info() SegmentInfo {
	return SegmentInfo{
		Compacted: h.compacted(), LogID: h.logID, Tag: h.tag, BaseOffset: h.baseOffset, BaseIndex: h.baseIndex,
		PreviousEpoch: h.prevEpoch, CreatedMillis: h.created, RunningMillis: h.born,
		EndOffset: h.endOffset, EndIndex: h.endIndex, CleanedOffset: h.cleaned,
	}
}

// FileFrame is a frame with its place in the file. An end mark has the kind that
// prints as "mark"; its Offset is the next offset.
type FileFrame struct {
	Frame
	Position int64 // of its first byte
	End      int64 // behind its last
	Durable  int64 // what it says was durable: everything below, 0 nothing
	// Err says what is wrong: with a frame that is whole, that it does not follow the
	// one before it. With Kind 0 it is no frame, but bytes from Position to End of
	// which none could be made out.
	Err error
}

// SegmentScanner walks the frames of one data file. It reads in pieces of 256 KiB,
// or of a frame that is larger. One goroutine at a time.
type SegmentScanner struct {
	s      *segment
	c      cursor
	at     place
	header error
	frame  FileFrame
	marked bool // a mark was given out that lies at c.pos
	tail   error
	named  int64 // the highest durable position of what was passed over
}

// ScanSegment opens a data file of a log's directory. A damaged header is no
// error: see Header.
func ScanSegment(fsys vfs.FS, name string) (*SegmentScanner, error) {
	base, ok := parseSegmentName(name)
	if !ok {
		return nil, fmt.Errorf("%s: not the name of a segment", name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	sc, err := scanSegment(fsys, f, base)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return sc, nil
}

func scanSegment(fsys vfs.FS, f vfs.File, base int64) (*SegmentScanner, error) {
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	sc := new(SegmentScanner)
	h, err := readSegmentHeader(f)
	if err == nil && h.baseOffset != base {
		err = fmt.Errorf("the header has base offset %d, the name another: %w", h.baseOffset, errSegmentHeader)
	}
	from := int64(segmentHeaderLen)
	if errors.Is(err, errSegmentHeader) {
		// The first frame that is whole has the tag, and says where it stands.
		sc.header = err
		h = segmentHeader{baseOffset: base}
		var found frameHeader
		pos, offset, err := anyFrame(f, info.Size, &found)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if from = info.Size; err == nil {
			from, h.tag = pos, found.tag
			sc.at = place{offset, found.firstIndex(), found.epoch}
		}
	} else if err != nil {
		return nil, err
	} else {
		sc.at = place{h.baseOffset, h.baseIndex, h.prevEpoch}
	}
	sc.s = newSegment(fsys, NewFileCache(1), h)
	sc.s.end.Store(info.Size)
	sc.s.handle.adopt(f)
	sc.c = cursor{seg: sc.s, pos: from, limit: info.Size, reuse: true}
	return sc, nil
}

// Close closes the file.
func (sc *SegmentScanner) Close() error {
	sc.s.handle.release()
	sc.s.handle.shut()
	return nil
}

// Header returns what the header says. The error, which matches ErrCorrupt, says
// that it is damaged; frames are found nevertheless.
func (sc *SegmentScanner) Header() (SegmentInfo, error) { return sc.s.info(), sc.header }

// Next returns the next frame, end mark, or run of damaged bytes; it is valid until
// the next call. io.EOF says that no whole frame comes any more: see Tail. Another
// error is the disk's.
func (sc *SegmentScanner) Next() (*FileFrame, error) {
	var h frameHeader
	pos, was := sc.c.pos, sc.at
	frame, err := sc.read(&h)
	if isReadError(err) {
		return nil, err
	}
	if err != nil || h.kind == kindMark && sc.marked {
		return sc.behind(pos, err)
	}
	sc.frame = FileFrame{Position: pos, End: pos + h.size(), Durable: int64(h.durable)}
	if h.kind == kindMark {
		// The next frame overwrites it, perhaps while we look: see what lies here again.
		sc.c.pos, sc.c.buf, sc.marked = pos, nil, true
		sc.frame.setMark(&h, frame)
		return &sc.frame, nil
	}
	sc.marked = false
	payload := frame[frameHeaderLen:]
	if err := sc.at.follows(&h, payload, sc.s.compacted() || sc.header != nil); err != nil {
		sc.frame.Err = err
		sc.at = place{payloadOffset(payload), h.firstIndex(), was.epoch}
		if err := sc.at.follows(&h, payload, true); err != nil {
			sc.at = place{payloadOffset(payload), h.index + 1, h.epoch}
		}
	}
	sc.frame.set(&h, frame, sc.at.offset)
	return &sc.frame, nil
}

func (f *FileFrame) setMark(h *frameHeader, frame []byte) {
	f.Kind, f.Offset, f.NextOffset = kindMark, payloadOffset(frame[frameHeaderLen:]), payloadOffset(frame[frameHeaderLen:])
	f.FirstIndex, f.Index, f.Epoch, f.Payload = h.index, h.index, h.epoch, nil
}

func (sc *SegmentScanner) read(h *frameHeader) ([]byte, error) {
	if sc.s.tag == 0 {
		return nil, io.EOF
	}
	return sc.c.next(h)
}

// behind looks for the next whole frame when there is none at pos.
func (sc *SegmentScanner) behind(pos int64, cause error) (*FileFrame, error) {
	from := pos + 1
	if sc.marked {
		from = pos + markLen
	}
	for from < sc.c.limit && sc.s.tag != 0 {
		var h frameHeader
		found, _, err := nextWhole(sc.s, from, sc.c.limit, &h)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if h.kind == kindMark || h.index < sc.at.index {
			from = found + 1 // of an earlier end of the log, or moved here
			if h.kind == kindMark && int64(h.durable) > pos {
				sc.named = max(sc.named, int64(h.durable)) // all before it was there once
			}
			continue
		}
		// A live writer may have filled the gap since we looked.
		if frame, err := (&cursor{seg: sc.s, pos: pos, limit: sc.c.limit}).next(&h); err == nil && h.kind != kindMark && len(frame) > 0 {
			sc.c.pos, sc.c.buf, sc.marked = pos, nil, false
			return sc.Next()
		}
		if cause == nil || cause == io.EOF {
			cause = errors.New("frames end here, and go on behind it")
		}
		sc.frame = FileFrame{Position: pos, End: found, Err: cause}
		if sc.marked {
			sc.frame.Position = pos + markLen
		}
		sc.c.pos, sc.c.buf, sc.marked = found, nil, false
		return &sc.frame, nil
	}
	sc.c.pos = pos
	if sc.tail = cause; cause == errNoFrame || cause == errStaleFrame || cause == io.EOF {
		sc.tail = nil
	}
	return nil, io.EOF
}

// Tail says, once Next has returned io.EOF, where the frames end, and why what lies
// there is no frame: a torn write. Nil is the ordinary end, zeros or stale bytes.
func (sc *SegmentScanner) Tail() (pos int64, torn error) { return sc.c.pos, sc.tail }

// Named is the highest position that an end mark behind the frames names as durable, 0
// for none: where the frames end below it, bytes that were durable are damaged.
func (sc *SegmentScanner) Named() int64 { return sc.named }

// IndexEntry is one entry of an index file.
type IndexEntry struct {
	Offset    int64  // first offset of the frame
	Index     uint64 // its first log index; .index only
	Position  int64  // where it lies; .index only
	Timestamp int64  // the largest up to and with the frame; .timeindex only
}

// ScanIndex calls f for each entry of the .index or .timeindex file of the segment
// that info describes. A file that is missing is empty; an entry that is damaged
// ends the walk with an error that matches ErrCorrupt.
func ScanIndex(fsys vfs.FS, info SegmentInfo, time bool, f func(IndexEntry) error) error {
	var x sparseIndex
	x.init(fsys, info.BaseOffset, info.BaseIndex, info.Tag)
	name := x.places.name
	if time {
		name = x.times.name
	}
	if err := x.load(); err != nil {
		return err
	}
	n := x.places.inFile
	if time {
		n = x.times.inFile
	}
	if n == 0 {
		return nil
	}
	file, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, 1024*indexEntryLen)
	for at := 0; at < n; at += 1024 {
		m, err := file.ReadAt(b[:min(1024, n-at)*indexEntryLen], int64(at)*indexEntryLen)
		if err != nil && err != io.EOF {
			return err
		}
		for i := 0; i+indexEntryLen <= m; i += indexEntryLen {
			var e IndexEntry
			var err error
			if time {
				var t timeEntry
				t, err = x.getTime(b[i:])
				e = IndexEntry{Offset: t.offset, Timestamp: t.timestamp}
			} else {
				var p placeEntry
				p, err = x.getPlace(b[i:])
				e = IndexEntry{Offset: p.offset, Index: p.index, Position: p.pos}
			}
			if err != nil {
				return &CorruptionError{File: name, Position: int64(at)*indexEntryLen + int64(i), End: -1, FirstOffset: -1, EndOffset: -1, Cause: err}
			}
			if err := f(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckpointInfo is what a log's checkpoint says.
type CheckpointInfo struct {
	LogID              uint64
	StartOffset        int64
	Boundary           Boundary
	FirstCompleteIndex uint64
	DurableSegment     int64 // base offset of a segment: it, up to DurablePosition, and all before it were durable
	DurablePosition    int64
	CutTag             uint64 // a truncation may be half done in the segment with this tag; 0 none
	CutPosition        int64
	RunningMillis      int64
	State              []byte // the owner's
}

// Emptied says whether a log of which no segment is there may be so: none was durable
// that lies behind the log start offset.
func (c *CheckpointInfo) Emptied() bool {
	return c.DurableSegment < c.StartOffset || c.DurableSegment == c.StartOffset && c.DurablePosition <= segmentHeaderLen
}

// ReadCheckpoint reads the checkpoint of the log in fsys. It returns nil without an
// error when there is none, and a *CorruptionError for one that is damaged.
func ReadCheckpoint(fsys vfs.FS) (*CheckpointInfo, error) {
	c, err := readCheckpoint(fsys)
	if c == nil || err != nil {
		return nil, err
	}
	return &CheckpointInfo{
		LogID: c.logID, StartOffset: c.start, Boundary: Boundary{c.boundaryIndex, c.boundaryEpoch}, FirstCompleteIndex: c.firstComplete,
		DurableSegment: c.durableBase, DurablePosition: c.durablePos, CutTag: c.cutTag, CutPosition: c.cutPos,
		RunningMillis: c.ran, State: c.state,
	}, nil
}

// IsIndexName says whether a file of a log's directory is an index, which can be
// made anew from the segment that it belongs to.
func IsIndexName(name string) bool {
	return strings.HasSuffix(name, indexSuffix) || strings.HasSuffix(name, timeIndexSuffix)
}
