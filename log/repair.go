package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// RepairReport says what Repair found and did.
type RepairReport struct {
	// Damage is what was found. Nothing found means that nothing was changed.
	Damage []*CorruptionError
	// SetAside names the files that hold the damaged bytes now, for whoever wants to
	// get more out of them.
	SetAside []string
	// LostEnd says that records at the log's end are gone: their offsets will be
	// given again. What the owner had in the checkpoint is gone with them.
	LostEnd bool
	// Start and End are the offsets that the log has now.
	Start, End int64
	// File is the name of the report that was written into the log's directory.
	File string
}

// Repair makes a damaged log writable again by giving up what cannot be read. It is
// for a log that is closed; Options are those of Open.
//
//   - Every damaged file stays in the directory as <name>.corrupt-<n>.
//   - Whole frames before and behind damage keep offset, log index and bytes. The
//     indexes of lost ones are covered by the next frame, or by an empty batch at the
//     end of a segment. Damage at the very end makes the log end there.
//   - A damaged checkpoint is made anew from the segments; the owner's part is lost.
//   - What was found is written to repair-<time>.txt before anything is changed.
//
// A torn tail is no damage: Open cuts it. Neither is an install that was interrupted: it is
// finished, as Open does. A crash leaves files that are repaired,
// and files that are as they were: Repair again finishes the work.
func Repair(dir string, options *Options) (report RepairReport, err error) {
	var o Options
	if options != nil {
		o = *options
	}
	l := &Log{fs: o.FS, files: NewFileCache(8), logger: o.Logger, now: o.Now}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	cfg, err := o.Config.withDefaults()
	if err != nil {
		return report, err
	}
	cfg.CapBytes = 0 // the copies go when somebody has looked at them
	l.cfg.Store(&cfg)
	if l.fs == nil {
		if l.fs, err = vfs.OS(dir); err != nil {
			return report, fmt.Errorf("repair: %w", err)
		}
		l.ownFS = true
	}
	l.bg.init(l)
	none := []*segment{}
	l.segs.Store(&none)
	r := &repair{l: l, recovery: recovery{l: l}}
	defer func() {
		for _, s := range r.opened {
			s.handle.forget()
		}
		if rerr := l.release(); err == nil && rerr != nil {
			err = fmt.Errorf("repair: %w", rerr)
		}
	}()
	if !o.NoLock {
		if l.lock, err = l.fs.Lock(lockName); err != nil {
			return report, fmt.Errorf("repair: %w", err)
		}
	}
	if err = r.read(); err == nil {
		err = r.judge()
	}
	if err == nil && len(r.report.Damage) > 0 {
		err = r.carryOut()
	}
	if err != nil {
		return r.report, fmt.Errorf("repair: %w", err)
	}
	return r.report, nil
}

// repair is one run: what was found, and what is to be done about it.
type repair struct {
	l        *Log
	recovery recovery
	report   RepairReport
	opened   []*segment
	noHeader map[*segment]bool
	lost     []string // files in which nothing could be found
	ckptBad  bool

	segs    []*segment // what the log will consist of
	ends    []place    // where their frames end
	limits  []int64    // positions that are looked at
	rewrite []bool
}

func (r *repair) damage(file string, pos, end, first, next int64, cause error) {
	r.report.Damage = append(r.report.Damage, &CorruptionError{File: file, Position: pos, End: end, FirstOffset: first, EndOffset: next, Cause: cause})
}

// read finds out which segments there are.
func (r *repair) read() error {
	l := r.l
	if err := r.finishInstall(); err != nil {
		return err
	}
	infos, err := l.fs.List(".")
	if err != nil {
		return err
	}
	r.recovery.ckpt, err = readCheckpoint(l.fs)
	if errors.Is(err, ErrCorrupt) {
		r.ckptBad = true
		r.damage(checkpointName, 0, -1, -1, -1, err)
	} else if err != nil {
		return err
	}
	r.noHeader = make(map[*segment]bool)
	var last int64
	for _, info := range infos {
		if base, ok := parseSegmentName(info.Name); ok && !info.Dir {
			last = max(last, base)
		}
	}
	var segs []*segment
	for _, info := range infos {
		base, ok := parseSegmentName(info.Name)
		if !ok || info.Dir {
			continue
		}
		s, err := r.open(base, info, base == last)
		if err != nil {
			return err
		}
		if s != nil {
			segs = append(segs, s)
		}
	}
	id := majority(segs, r.noHeader)
	if c := r.recovery.ckpt; c != nil {
		id = c.logID
	}
	for _, s := range segs {
		if r.noHeader[s] {
			s.logID = id
		}
		if s.tag != 0 && s.logID != id {
			r.lose(s.name, fmt.Errorf("it belongs to log %016x, this is log %016x", s.logID, id))
			continue
		}
		r.recovery.segs = append(r.recovery.segs, s)
	}
	l.logID = id
	return nil
}

// finishInstall does what an open would: another log that was decided on is put in the place of
// this one, which is half gone. What cannot be read of that decision is damage.
func (r *repair) finishInstall() error {
	fsys := r.l.fs
	if _, err := fsys.Stat(installName); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := finishInstall(fsys)
	if errors.Is(err, ErrCorrupt) {
		r.lost = append(r.lost, installName)
		r.damage(installName, 0, -1, -1, -1, err)
		return nil
	}
	return err
}

func (r *repair) lose(name string, cause error) {
	r.lost = append(r.lost, name)
	base, _ := parseSegmentName(name)
	r.damage(name, 0, -1, base, -1, cause)
}

// majority is the log id that most segments have.
func majority(segs []*segment, except map[*segment]bool) (id uint64) {
	counts := make(map[uint64]int)
	for _, s := range segs {
		if s.tag != 0 && !except[s] {
			counts[s.logID]++
			if counts[s.logID] > counts[id] {
				id = s.logID
			}
		}
	}
	if id == 0 {
		id = newTag()
	}
	return id
}

// open reads a segment's header, or makes one from what its frames say. nil says
// that nothing was found in it.
func (r *repair) open(base int64, info vfs.Info, last bool) (*segment, error) {
	l := r.l
	f, err := l.fs.Open(info.Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := readSegmentHeader(f)
	if err == nil && h.baseOffset != base {
		err = errSegmentHeader
	}
	bad := errors.Is(err, errSegmentHeader)
	if err != nil && !bad {
		return nil, err
	}
	if bad {
		h = segmentHeader{baseOffset: base}
		if last {
			s := newSegment(l.fs, l.files, h)
			s.end.Store(info.Size)
			leftover, err := neverWritten(l.fs, s.name, info.Size, base, r.recovery.ckpt)
			if err != nil {
				return nil, err
			}
			if leftover {
				return s, nil // its creation was interrupted: open removes it
			}
		}
		var found frameHeader
		pos, offset, err := anyFrame(f, info.Size, &found)
		if err == io.EOF || err == nil && offset < base {
			r.lose(info.Name, errSegmentHeader)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		// What was in front of the first whole frame is lost with its log indexes.
		h.tag, h.flags, h.baseIndex, h.created = found.tag, flagCompacted, found.firstIndex(), l.now().UnixMilli()
		r.damage(info.Name, 0, pos, base, offset, errSegmentHeader)
	}
	s := newSegment(l.fs, l.files, h)
	s.end.Store(info.Size)
	s.handle.opens = func() (vfs.File, error) { return l.fs.Open(info.Name) }
	r.opened = append(r.opened, s)
	r.noHeader[s] = bad
	return s, nil
}

// anyFrame finds the first whole frame of a file whose tag is not known.
func anyFrame(f vfs.File, size int64, h *frameHeader) (pos, offset int64, err error) {
	const window = 8 << 20
	for from := int64(0); from < size; from += window - maxSearchOverlap {
		b := make([]byte, min(window, size-from))
		n, err := f.ReadAt(b, from)
		if err != nil && err != io.EOF {
			return 0, 0, err
		}
		b = b[:n]
		for i := 0; i+frameHeaderLen <= n; i++ {
			if be32(b[i+4:])>>16 != frameMagic {
				continue
			}
			tag := uint64(be32(b[i+24:]))<<32 | uint64(be32(b[i+28:]))
			size, err := parseFrame(b[i:], from+int64(i), tag, h)
			if err == nil && tag != 0 && h.kind != kindMark && i+size <= n && checkBody(b[i:i+size], h) == nil {
				return from + int64(i), payloadOffset(b[i+frameHeaderLen:]), nil
			}
		}
		if n < window {
			break
		}
	}
	return 0, 0, io.EOF
}

// judge reads everything and decides what has to be written anew.
func (r *repair) judge() error {
	v := &r.recovery
	if err := v.dropLeftovers(); err != nil {
		return err
	}
	if len(v.segs) == 0 {
		if len(r.report.Damage) == 0 && v.ckpt != nil && v.ckpt.durableBase > v.ckpt.start {
			r.damage(segmentName(v.ckpt.durableBase, logSuffix), 0, -1, v.ckpt.start, -1, errors.New("the segment is missing"))
		}
		r.report.LostEnd = len(r.report.Damage) > 0
		return nil
	}
	if e := v.missingStart(); e != nil {
		r.report.Damage = append(r.report.Damage, e)
	}
	if err := v.scan(); err != nil {
		return err
	}
	cut, _ := v.lastSegment()
	t := &v.tails[cut]
	r.segs = v.segs
	torn := !(mark{cut, t.end}).below(v.highest) && t.end >= segmentHeaderLen
	if torn {
		r.segs = v.segs[:cut+1]
	}
	for i, s := range r.segs {
		limit := s.end.Load()
		var next *segment
		if i+1 < len(r.segs) {
			next = r.segs[i+1]
		} else if torn {
			limit = t.end // what lies behind is for Open to cut
		}
		before := len(r.report.Damage)
		at, end, err := r.walk(s, next, limit, nil, func(pos, end int64, at place, nextOffset int64, cause error) {
			r.damage(s.name, pos, end, at.offset, nextOffset, cause)
		})
		if err != nil {
			return err
		}
		if next == nil && (mark{i, end}).below(v.highest) {
			r.report.LostEnd = true
			r.damage(s.name, end, -1, at.offset, -1, errors.New("the frames end before what was durable"))
		}
		r.ends = append(r.ends, at)
		r.limits = append(r.limits, limit)
		r.rewrite = append(r.rewrite, r.noHeader[s] || len(r.report.Damage) > before && (next != nil || limit > end || len(r.report.Damage) > before+1))
	}
	return nil
}

// walk calls frame for each whole frame of s that belongs to the log, and bad for
// what lies between them. It returns where they end.
func (r *repair) walk(s, next *segment, limit int64, frame func(h *frameHeader, payload []byte) error, bad func(pos, end int64, at place, nextOffset int64, cause error)) (at place, end int64, err error) {
	at, end = place{s.baseOffset, s.baseIndex, s.prevEpoch}, segmentHeaderLen
	c := cursor{seg: s, pos: end, limit: limit, reuse: true}
	for next == nil || at.index < next.baseIndex {
		var h frameHeader
		was := at
		b, err := c.next(&h)
		if isReadError(err) {
			return at, end, err
		}
		if err == nil && h.kind == kindMark {
			if err = errNoFrame; next == nil && h.index == at.index-1 {
				break
			}
		}
		if err == nil {
			err = at.follows(&h, b[frameHeaderLen:], s.compacted())
		}
		if err != nil {
			pos, found, ferr := r.behind(&c, s, next, end, limit, was, &h)
			if ferr == io.EOF {
				if next != nil && bad != nil {
					bad(end, -1, was, next.baseOffset, err)
				}
				return was, end, nil // at the end of the log, whoever asks knows what was durable
			}
			if ferr != nil {
				return was, end, ferr
			}
			at, b = was, found
			if bad != nil {
				bad(end, pos, was, payloadOffset(b[frameHeaderLen:]), err)
			}
			at = place{payloadOffset(b[frameHeaderLen:]), h.firstIndex(), was.epoch}
			if err := at.follows(&h, b[frameHeaderLen:], true); err != nil {
				return was, end, err
			}
			c.pos, c.buf = pos+h.size(), nil
		}
		if frame != nil {
			if err := frame(&h, b[frameHeaderLen:]); err != nil {
				return at, end, err
			}
		}
		end = c.pos
	}
	return at, end, nil
}

// behind finds the first whole frame behind pos that can come after was.
func (r *repair) behind(c *cursor, s, next *segment, pos, limit int64, was place, h *frameHeader) (at int64, frame []byte, err error) {
	for {
		at, frame, err = nextWhole(s, pos+1, limit, h)
		if err != nil {
			return 0, nil, err
		}
		p := place{payloadOffset(frame[frameHeaderLen:]), h.firstIndex(), was.epoch}
		if h.kind != kindMark && p.index >= was.index && p.offset >= was.offset && p.follows(h, frame[frameHeaderLen:], true) == nil &&
			(next == nil || p.index <= next.baseIndex && p.offset <= next.baseOffset) {
			return at, frame, nil
		}
		pos = at
	}
}

// carryOut does what judge decided.
func (r *repair) carryOut() error {
	l := r.l
	if err := r.writeReport(); err != nil {
		return err
	}
	var lastPos int64
	firstComplete := uint64(0)
	for i, s := range r.segs {
		var next *segment
		if i+1 < len(r.segs) {
			next = r.segs[i+1]
		}
		lastPos = r.limits[i]
		if next == nil {
			_, end, err := r.walk(s, nil, r.limits[i], nil, nil)
			if err != nil {
				return err
			}
			lastPos = end
		}
		if !r.rewrite[i] {
			continue
		}
		size, err := r.rewriteSegment(i, s, next)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		lastPos = size
		firstComplete = r.ends[i].index
		if next != nil {
			firstComplete = next.baseIndex
		}
	}
	for _, name := range r.lost {
		if err := r.setAside(name, l.fs.Rename); err != nil {
			return err
		}
	}
	if err := l.fs.SyncDir("."); err != nil {
		return err
	}
	if r.ckptBad {
		if err := r.setAside(checkpointName, l.fs.Rename); err != nil {
			return err
		}
	}
	return r.writeCheckpoint(lastPos, firstComplete)
}

// writeCheckpoint makes the checkpoint say what the segments are now.
func (r *repair) writeCheckpoint(lastPos int64, firstComplete uint64) error {
	c := &checkpoint{logID: r.l.logID, ran: r.l.ran()}
	old := r.recovery.ckpt
	if old != nil {
		*c = *old
		c.cutTag, c.cutPos = 0, 0
	}
	if r.report.LostEnd {
		c.state = nil
	}
	if len(r.segs) == 0 {
		// Nothing is left. The offsets that were there are not given again as far as the
		// names of the files tell them.
		for _, name := range r.lost {
			base, _ := parseSegmentName(name)
			c.start = max(c.start, base)
		}
		c.durableBase, c.durablePos = c.start, 1
		c.boundaryIndex = max(c.boundaryIndex, c.firstComplete)
		r.report.Start, r.report.End = c.start, c.start
		return r.l.writeCheckpoint(c)
	}
	first, last := r.segs[0], r.segs[len(r.segs)-1]
	end := r.ends[len(r.segs)-1]
	c.start = min(max(c.start, first.baseOffset), end.offset)
	c.boundaryIndex, c.boundaryEpoch = first.baseIndex-1, first.prevEpoch
	c.firstComplete = max(c.firstComplete, first.baseIndex, firstComplete)
	c.durableBase, c.durablePos = last.baseOffset, lastPos
	r.report.Start, r.report.End = c.start, end.offset
	return r.l.writeCheckpoint(c)
}

// rewriteSegment writes the whole frames of a segment into a new file that takes
// its place, and returns its size.
func (r *repair) rewriteSegment(i int, s, next *segment) (int64, error) {
	l := r.l
	h := s.segmentHeader
	h.tag, h.flags, h.cleaned, h.endOffset, h.endIndex = newTag(), h.flags|flagCompacted, 0, 0, 0
	if next != nil {
		h.endOffset, h.endIndex = next.baseOffset, next.baseIndex
	}
	if i > 0 && r.noHeader[s] {
		h.prevEpoch = r.ends[i-1].epoch
	}
	w, err := l.writeSegment(h)
	if err != nil {
		return 0, err
	}
	defer w.abort()
	if _, _, err := r.walk(s, next, r.limits[i], func(h *frameHeader, payload []byte) error {
		return w.add(h.kind, h.index, h.epoch, payload)
	}, nil); err != nil {
		return 0, err
	}
	if next != nil {
		if err := w.fillTo(next.baseOffset, next.baseIndex); err != nil {
			return 0, err
		}
	}
	if err := w.finish(); err != nil {
		return 0, err
	}
	if err := r.setAside(s.name, l.copyFile); err != nil {
		return 0, err
	}
	s.handle.forget()
	if err := w.rename(); err != nil {
		return 0, err
	}
	if err := w.renameIndexes(); err != nil {
		return 0, err
	}
	return w.seg.end.Load(), l.fs.SyncDir(".")
}

// fillTo makes the segment end at an offset and a log index, with frames that hold
// nothing.
func (w *segmentWriter) fillTo(offset int64, index uint64) error {
	for w.at.index < index {
		last := min(index-1, w.at.index+math.MaxUint32)
		var err error
		if w.at.offset < offset && last == index-1 {
			err = w.add(KindData, last, w.at.epoch, emptyBatch(max(w.at.offset, offset-math.MaxInt32), offset, w.at.epoch))
		} else {
			payload := make([]byte, otherHeadLen)
			putOtherHead(payload, w.at.offset)
			err = w.add(KindNoop, last, w.at.epoch, payload)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setAside keeps a file under another name, by move, which must not replace anything.
func (r *repair) setAside(name string, move func(from, to string) error) error {
	for n := 1; ; n++ {
		to := fmt.Sprintf("%s.corrupt-%d", name, n)
		if _, err := r.l.fs.Stat(to); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := move(name, to); err != nil {
			return fmt.Errorf("set aside %s: %w", name, err)
		}
		r.report.SetAside = append(r.report.SetAside, to)
		return r.l.fs.SyncDir(".")
	}
}

// copyFile gives a file a second name, or its bytes a second file where the file
// system has no links.
func (l *Log) copyFile(from, to string) error {
	if err := l.fs.Link(from, to); err == nil {
		return nil
	}
	in, err := l.fs.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := l.fs.Create(to)
	if err != nil {
		return err
	}
	b := make([]byte, maxChunk)
	for pos := int64(0); err == nil; {
		var n int
		if n, err = in.ReadAt(b, pos); n > 0 {
			if _, werr := out.WriteAt(b[:n], pos); werr != nil {
				err = werr
			}
			pos += int64(n)
		}
	}
	if err == io.EOF {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// writeReport writes down what was found, before anything is changed.
func (r *repair) writeReport() error {
	now := r.l.now().UTC()
	var b strings.Builder
	fmt.Fprintf(&b, "repair of a log at %s\n", now.Format(time.RFC3339))
	for _, d := range r.report.Damage {
		fmt.Fprintf(&b, "damage: %v\n", d)
	}
	for i, s := range r.segs {
		if r.rewrite[i] {
			fmt.Fprintf(&b, "rewritten: %s, which is kept as %s.corrupt-*\n", s.name, s.name)
		}
	}
	for _, name := range r.lost {
		fmt.Fprintf(&b, "set aside: %s\n", name)
	}
	if n := len(r.ends); n > 0 {
		fmt.Fprintf(&b, "the log ends at offset %d\n", r.ends[n-1].offset)
	}
	if r.report.LostEnd {
		b.WriteString("records at the end are lost; their offsets will be given again\n")
	}
	stem := "repair-" + now.Format("20060102T150405.000Z")
	for n := 0; ; n++ {
		name := stem + ".txt"
		if n > 0 {
			name = fmt.Sprintf("%s-%d.txt", stem, n)
		}
		err := writeNew(r.l.fs, name, []byte(b.String()))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.report.File = name
		return r.l.fs.SyncDir(".")
	}
}
