package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/x/embedlog/internal/vfs"
)

// An install puts another log in the place of the one that is open: a replica that needs
// entries which its leader does not have singly any more gets the leader's files.
//
//	receive   <base>.log.in ...        beside the log; an open removes them
//	          all synced, names too
//	decide    install                  what the log is to be, under its name by one rename
//	put       old files away, <base>.log.in --> <base>.log, checkpoint
//	          install removed
//
// A crash before the rename leaves the old log. After it, the next open does the rest
// again from the beginning: each step may be repeated.
const (
	installName   = "install"
	installMagic  = "embedins"
	installSuffix = ".in"
	installEntry  = 8 + 8 + 8

	// MaxInstallSegments bounds what is believed of a number of segments.
	MaxInstallSegments = 1 << 20
)

// CaptureAt is Capture of the log up to and with the entry index, which nobody may take
// back: what lies behind it does not belong to the copy. state is the owner's as of that
// entry. Writer.
func (l *Log) CaptureAt(index uint64, state []byte) (*Capture, error) {
	if err := l.Err(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	if err := l.syncData(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	seg, pos, at := l.w.seg, l.w.pos, l.w.at
	if index+1 < at.index {
		r, err := l.ReadFromIndex(index + 1)
		if err == nil && r.at.index != index+1 {
			err = fmt.Errorf("log index %d lies inside an entry that compaction joined", index)
		}
		if err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		seg, pos, at = r.c.seg, r.c.pos, r.at
		if at.epoch, err = l.EpochOf(index); err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
	} else if index+1 > at.index {
		return nil, fmt.Errorf("capture: log index %d: the next one is %d: %w", index, at.index, ErrOffsetAhead)
	}
	segs := *l.segs.Load()
	n := slices.Index(segs, seg) + 1
	c := &Capture{Start: min(l.start.Load(), at.offset), End: at.offset, LogID: l.logID, l: l, segs: slices.Clone(segs[:n]), next: at, ckpt: l.takeCheckpoint()}
	k := c.ckpt
	k.state, k.cutTag, k.cutPos = state, 0, 0
	k.start, k.durableBase, k.durablePos = c.Start, seg.baseOffset, pos
	for _, s := range c.segs {
		c.Segments = append(c.Segments, CapturedSegment{Name: s.name, BaseOffset: s.baseOffset, Tag: s.tag, Bytes: s.end.Load()})
	}
	c.Segments[n-1].Bytes = pos + markLen
	c.mark = make([]byte, markLen)
	putMark(c.mark, seg.tag, pos, at)
	return c, nil
}

// Incoming is a log that is being received beside the one that is open. One goroutine.
type Incoming struct {
	l        *Log
	ckpt     *checkpoint
	segments []CapturedSegment
}

// Receive begins to receive a log: its checkpoint, as Capture.Checkpoint gave it, and its
// segments. What an earlier one left is removed. One at a time.
func (l *Log) Receive(ckpt []byte, segments []CapturedSegment) (*Incoming, error) {
	if err := l.Err(); err != nil {
		return nil, err
	}
	c, err := decodeCheckpoint(ckpt)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if len(segments) == 0 || len(segments) > MaxInstallSegments {
		return nil, fmt.Errorf("receive: %d segments: %w", len(segments), ErrCorrupt)
	}
	last := int64(-1)
	for _, s := range segments {
		if s.BaseOffset <= last || s.Tag == 0 || s.Bytes < segmentHeaderLen || s.Bytes > maxPosition+markLen {
			return nil, fmt.Errorf("receive: segment %d of %d bytes: %w", s.BaseOffset, s.Bytes, ErrCorrupt)
		}
		last = s.BaseOffset
	}
	if c.durableBase != last || c.cutTag != 0 {
		return nil, fmt.Errorf("receive: the checkpoint is not that of the segments: %w", ErrCorrupt)
	}
	in := &Incoming{l: l, ckpt: c, segments: slices.Clone(segments)}
	return in, in.Abort()
}

// State is the owner's state in the checkpoint; SetState replaces it.
func (in *Incoming) State() []byte         { return in.ckpt.state }
func (in *Incoming) SetState(state []byte) { in.ckpt.state = state }

// Write takes segment i from r, as many bytes as was said, and makes it durable.
func (in *Incoming) Write(i int, r io.Reader) error {
	s := in.segments[i]
	name := segmentName(s.BaseOffset, logSuffix) + installSuffix
	f, err := in.l.fs.Create(name)
	if err != nil {
		return err
	}
	b := make([]byte, min(s.Bytes, maxChunk))
	for at := int64(0); at < s.Bytes && err == nil; {
		n := min(int64(len(b)), s.Bytes-at)
		if _, err = io.ReadFull(r, b[:n]); err == nil {
			_, err = f.WriteAt(b[:n], at)
		}
		if at == 0 && err == nil {
			var h segmentHeader
			if err = h.decode(b[:min(n, segmentHeaderLen)]); err == nil && (h.baseOffset != s.BaseOffset || h.tag != s.Tag || h.logID != in.ckpt.logID) {
				err = fmt.Errorf("%s: another segment than was announced: %w", name, ErrCorrupt)
			}
		}
		at += n
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("receive %s: %w", name, err)
	}
	return nil
}

// Abort removes what was received. Of one that was installed nothing is left to remove.
func (in *Incoming) Abort() error { return removeIncoming(in.l.fs) }

func removeIncoming(fsys vfs.FS) error {
	infos, err := fsys.List(".")
	if err != nil {
		return err
	}
	for _, info := range infos {
		if _, ok := incomingName(info.Name); ok && !info.Dir {
			if err := fsys.Remove(info.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// partOfInstall says whether the file is one of those that an install leaves when it is
// interrupted.
func partOfInstall(name string) bool {
	_, in := incomingName(name)
	return in || name == installName
}

// incomingName is the segment that a received file is to be.
func incomingName(name string) (base int64, ok bool) {
	segment, found := strings.CutSuffix(name, installSuffix)
	if !found {
		return 0, false
	}
	return parseSegmentName(segment)
}

// Install puts the received log in the place of this one. installed is called when it
// stands there, before anybody can write to it. Readers go on by their offsets. An error
// that does not match ErrStorageFailed leaves the log as it was.
func (l *Log) Install(in *Incoming, installed func()) error {
	release := l.Hold() // a compaction that runs makes way
	defer release()
	l.maint.Lock()
	defer l.maint.Unlock()
	l.Lock()
	defer l.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	l.Discard()
	l.bg.quiesce()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.switching.Lock()
	defer l.switching.Unlock()
	if err := l.fs.SyncDir("."); err != nil { // the names of what was received
		return fmt.Errorf("install: %w", err)
	}
	plan := installPlan{segments: in.segments, ckpt: in.ckpt.encode()}
	if err := replaceFile(l.fs, installName, plan.encode()); err != nil {
		var untouched notReplacedError
		if errors.As(err, &untouched) {
			return fmt.Errorf("install: %w", err)
		}
		return l.fail("install", err)
	}
	old := *l.segs.Load()
	l.w.runway.close()
	err := plan.put(l.fs)
	if err == nil {
		err = l.reopen()
	}
	for _, s := range old {
		s.handle.shut()
	}
	if err != nil {
		return l.fail("install", err)
	}
	installed()
	return nil
}

// reopen reads the files as Open does.
func (l *Log) reopen() error {
	l.found.Store(nil)
	l.reserved.Store(false)
	l.reserveBytes.Store(0)
	l.otherBytes.Store(0)
	l.spareBytes.Store(0)
	l.w.written = 0
	l.bg.safe.Store(0)
	if err := l.recover(true); err != nil {
		return err
	}
	if r := l.Recovered(); r.Corruption != nil {
		return r.Corruption
	}
	l.bg.arm()
	return nil
}

// installPlan is what a log is to be.
//
//	0  8  "embedins"
//	8  4  number of segments, then for each: 8 base offset  8 tag  8 bytes
//	   4  length of the checkpoint, and the checkpoint
//	   4  CRC32C of all before
type installPlan struct {
	segments []CapturedSegment
	ckpt     []byte
}

func (p *installPlan) encode() []byte {
	be := binary.BigEndian
	b := be.AppendUint32([]byte(installMagic), uint32(len(p.segments)))
	for _, s := range p.segments {
		b = be.AppendUint64(b, uint64(s.BaseOffset))
		b = be.AppendUint64(b, s.Tag)
		b = be.AppendUint64(b, uint64(s.Bytes))
	}
	b = append(be.AppendUint32(b, uint32(len(p.ckpt))), p.ckpt...)
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeInstallPlan(b []byte) (*installPlan, error) {
	be := binary.BigEndian
	bad := fmt.Errorf("%s: %w", installName, ErrCorrupt)
	if len(b) < len(installMagic)+4+4+4 || string(b[:8]) != installMagic || crc32.Checksum(b[:len(b)-4], castagnoli) != be.Uint32(b[len(b)-4:]) {
		return nil, bad
	}
	n, rest := int64(be.Uint32(b[8:])), b[12:len(b)-4]
	if n*installEntry+4 > int64(len(rest)) {
		return nil, bad
	}
	p := &installPlan{}
	for range n {
		p.segments = append(p.segments, CapturedSegment{BaseOffset: int64(be.Uint64(rest)), Tag: be.Uint64(rest[8:]), Bytes: int64(be.Uint64(rest[16:]))})
		rest = rest[installEntry:]
	}
	if int64(be.Uint32(rest)) != int64(len(rest)-4) {
		return nil, bad
	}
	p.ckpt = rest[4:]
	return p, nil
}

// finishInstall does what a crash has interrupted, or removes what was received for an
// install that was not decided.
func finishInstall(fsys vfs.FS) error {
	f, err := fsys.Open(installName)
	if errors.Is(err, fs.ErrNotExist) {
		return removeIncoming(fsys)
	}
	if err != nil {
		return err
	}
	info, err := f.Info()
	if err == nil && info.Size > 4*maxCheckpoint {
		err = fmt.Errorf("%s: %d bytes: %w", installName, info.Size, ErrCorrupt)
	}
	var b []byte
	if err == nil {
		b = make([]byte, info.Size)
		if _, err = f.ReadAt(b, 0); err == io.EOF {
			err = nil
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	p, err := decodeInstallPlan(b)
	if err != nil {
		return &CorruptionError{File: installName, End: -1, FirstOffset: -1, EndOffset: -1, Cause: err}
	}
	// The rename may not be durable yet, and what follows must not come before it.
	if err := fsys.SyncDir("."); err != nil {
		return err
	}
	return p.put(fsys)
}

// put makes the directory hold the planned log.
func (p *installPlan) put(fsys vfs.FS) error {
	infos, err := fsys.List(".")
	if err != nil {
		return err
	}
	wanted := make(map[int64]bool)
	for _, s := range p.segments {
		wanted[s.BaseOffset] = true
	}
	received := make(map[int64]bool)
	for _, info := range infos {
		if base, ok := incomingName(info.Name); ok {
			received[base] = true
		}
	}
	for _, info := range infos {
		base, ok := parseSegmentName(info.Name)
		if gone := ok && !wanted[base] || IsIndexName(info.Name); !gone {
			continue
		}
		if err := fsys.Remove(info.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, s := range p.segments {
		if !received[s.BaseOffset] {
			continue // put there before the crash
		}
		name := segmentName(s.BaseOffset, logSuffix)
		if err := fsys.Rename(name+installSuffix, name); err != nil {
			return err
		}
	}
	if err := fsys.SyncDir("."); err != nil {
		return err
	}
	if err := replaceFile(fsys, checkpointName, p.ckpt); err != nil {
		return err
	}
	if err := fsys.Remove(installName); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}
