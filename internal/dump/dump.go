package dump

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// Format says how to print.
type Format uint8

const (
	Text Format = iota // for people
	JSON               // one object a line
)

// Options say what to print. Segments, damage and the checkpoint always are.
type Options struct {
	Frames  bool // each frame and end mark
	Batches bool // each batch's header
	Records bool // each record
	Indexes bool // each entry of the indexes
	Format  Format
	// From and To bound the offsets that are looked at, half-open. Zero To is no
	// bound. Whole batches are printed.
	From, To int64
	// Decode explains a record of an internal topic. What it returns must marshal to
	// JSON. ok is false for a record that it does not know.
	Decode func(rec *log.Record) (v any, ok bool)
}

// Log prints the log in fsys to w. It goes on at damage, and then ends with an
// error that matches log.ErrCorrupt; any other error stopped it.
func Log(w io.Writer, fsys vfs.FS, o *Options) error {
	d := &dumper{fs: fsys, w: bufio.NewWriterSize(w, 64<<10)}
	if o != nil {
		d.Options = *o
	}
	d.json = json.NewEncoder(d.w)
	d.json.SetEscapeHTML(false)
	err := d.log()
	if ferr := d.w.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	if d.total.Damage > 0 {
		return fmt.Errorf("dump: %d damaged places: %w", d.total.Damage, log.ErrCorrupt)
	}
	return nil
}

type dumper struct {
	Options
	fs      vfs.FS
	w       *bufio.Writer
	json    *json.Encoder
	total   totalLine
	records log.RecordReader
	ckpt    *log.CheckpointInfo // nil: none that is whole
}

// line is something that can be printed both ways.
type line interface {
	text(w io.Writer)
}

func (d *dumper) print(l line) error {
	if d.Format == JSON {
		return d.json.Encode(l)
	}
	l.text(d.w)
	return d.w.WriteByte('\n')
}

func (d *dumper) damage(file string, from, to int64, err error) error {
	d.total.Damage++
	return d.print(&damageLine{Type: "damage", File: file, Position: from, End: to, Reason: err.Error()})
}

func (d *dumper) log() error {
	// First, so that a live writer may be further than it says, and never behind.
	if err := d.checkpoint(); err != nil {
		return err
	}
	files, err := log.SegmentFiles(d.fs)
	if err != nil {
		return err
	}
	leftover, err := d.leftover(files)
	if err != nil {
		return err
	}
	if leftover {
		files = files[:len(files)-1]
	}
	for i, f := range files {
		if i+1 < len(files) && files[i+1].BaseOffset <= d.From || d.To > 0 && f.BaseOffset >= d.To {
			continue
		}
		next := int64(-1)
		if i+1 < len(files) {
			next = files[i+1].BaseOffset
		}
		if err := d.segment(f, next); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // retention or compaction took it since the directory was read
			}
			return err
		}
	}
	if err := d.missing(files); err != nil {
		return err
	}
	if leftover {
		f := files[:len(files)+1][len(files)]
		if err := d.neverWritten(f); err != nil {
			return err
		}
	}
	d.total.Type = "total"
	return d.print(&d.total)
}

// leftover says that the last of files is what a crash left of a segment that was
// being made, which the next open removes.
func (d *dumper) leftover(files []log.SegmentFile) (bool, error) {
	if len(files) == 0 {
		return false, nil
	}
	is, err := log.NeverWritten(d.fs, files[len(files)-1], d.ckpt)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return is, err
}

func (d *dumper) neverWritten(f log.SegmentFile) error {
	d.total.Segments++
	if err := d.print(&segmentLine{Type: "segment", File: f.Name, Bytes: f.Bytes, BaseOffset: f.BaseOffset}); err != nil {
		return err
	}
	return d.print(&endLine{Type: "end", File: f.Name, Rest: f.Bytes, Torn: "segment header was never written: the next open removes the file"})
}

// missing looks for segments that were durable behind those that are there.
func (d *dumper) missing(files []log.SegmentFile) error {
	n := len(files)
	if d.ckpt == nil || n > 0 && files[n-1].BaseOffset >= d.ckpt.DurableSegment || n == 0 && d.ckpt.Emptied() {
		return nil
	}
	cause := fmt.Errorf("the segment at offset %d, which was durable, is missing", d.ckpt.DurableSegment)
	if n == 0 {
		return d.damage(fmt.Sprintf("%020d.log", d.ckpt.DurableSegment), 0, -1, cause)
	}
	return d.damage(files[n-1].Name, files[n-1].Bytes, -1, cause)
}

func (d *dumper) checkpoint() error {
	c, err := log.ReadCheckpoint(d.fs)
	if errors.Is(err, log.ErrCorrupt) {
		return d.damage("checkpoint", 0, -1, err)
	}
	if err != nil || c == nil {
		return err
	}
	d.ckpt = c
	return d.print(&checkpointLine{
		Type: "checkpoint", LogID: hex(c.LogID), Start: c.StartOffset, BoundaryIndex: c.Boundary.Index, BoundaryEpoch: c.Boundary.Epoch,
		FirstComplete: c.FirstCompleteIndex, DurableSegment: c.DurableSegment, DurablePosition: c.DurablePosition,
		CutTag: hex(c.CutTag), CutPosition: c.CutPosition, Running: c.RunningMillis, StateBytes: len(c.State),
	})
}

// segment prints one data file. next is the base offset of the one behind it, -1
// for the last one.
func (d *dumper) segment(f log.SegmentFile, next int64) error {
	sc, err := log.ScanSegment(d.fs, f.Name)
	if err != nil {
		return err
	}
	defer sc.Close()
	info, bad := sc.Header()
	d.total.Segments++
	if err := d.print(&segmentLine{
		Type: "segment", File: f.Name, Bytes: f.Bytes, LogID: hex(info.LogID), Tag: hex(info.Tag), BaseOffset: info.BaseOffset, BaseIndex: info.BaseIndex,
		PreviousEpoch: info.PreviousEpoch, Created: info.CreatedMillis, Running: info.RunningMillis,
		Compacted: info.Compacted, EndOffset: info.EndOffset, EndIndex: info.EndIndex, Cleaned: info.CleanedOffset,
	}); err != nil {
		return err
	}
	if bad != nil {
		if err := d.damage(f.Name, 0, -1, bad); err != nil {
			return err
		}
	}
	if err := d.frames(f, sc, next); err != nil {
		return err
	}
	if !d.Indexes || bad != nil {
		return nil
	}
	return d.indexes(info)
}

func (d *dumper) frames(f log.SegmentFile, sc *log.SegmentScanner, next int64) error {
	info, bad := sc.Header()
	reached := info.BaseOffset
	durable := d.known(info)
	for {
		frame, err := sc.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if frame.Err != nil {
			if next < 0 && bad == nil && durable <= frame.Position {
				// Only what follows can say that it was durable.
				if durable, err = d.durableIn(f, info); err != nil {
					return err
				}
				if durable <= frame.Position {
					return d.print(&endLine{Type: "end", File: f.Name, Position: frame.Position, Rest: f.Bytes - frame.Position, Torn: frame.Err.Error()})
				}
			}
			if err := d.damage(f.Name, frame.Position, frame.End, frame.Err); err != nil {
				return err
			}
		}
		reached = max(reached, frame.NextOffset)
		durable = max(durable, frame.Durable)
		if frame.Kind == 0 || frame.Kind.String() != "mark" && frame.NextOffset <= d.From && frame.Kind == log.KindData {
			continue
		}
		if d.To > 0 && frame.Offset >= d.To {
			return nil
		}
		if err := d.frame(f, frame); err != nil {
			return err
		}
	}
	pos, torn := sc.Tail()
	durable = d.uncut(info, max(durable, sc.Named()))
	if info.Compacted && bad == nil {
		reached = max(reached, info.EndOffset)
	}
	switch {
	case reached < next:
		// Only the last segment may end anywhere.
		cause := fmt.Errorf("it ends at offset %d, the next segment begins at %d", reached, next)
		if torn != nil {
			cause = fmt.Errorf("%w: %w", cause, torn)
		}
		if err := d.damage(f.Name, pos, -1, cause); err != nil {
			return err
		}
	case next < 0 && pos < durable && bad == nil:
		cause := fmt.Errorf("it ends at byte %d, and was durable to byte %d", pos, durable)
		if torn != nil {
			cause = fmt.Errorf("%w: %w", cause, torn)
		}
		if err := d.damage(f.Name, pos, -1, cause); err != nil {
			return err
		}
		torn = nil
	}
	end := &endLine{Type: "end", File: f.Name, Position: pos, Rest: f.Bytes - pos}
	if torn != nil {
		end.Torn = torn.Error()
	}
	return d.print(end)
}

// known is how far the checkpoint knew a segment to be durable. What is missing below
// that, or below what a frame or mark of the segment names, is damage; what is
// missing above it was torn by a crash. docs/format.md has the rule.
func (d *dumper) known(info log.SegmentInfo) int64 {
	if c := d.ckpt; c != nil && c.DurableSegment == info.BaseOffset {
		return c.DurablePosition
	}
	return 0
}

// uncut takes off what a truncation that is half done gives up.
func (d *dumper) uncut(info log.SegmentInfo, durable int64) int64 {
	if c := d.ckpt; c != nil && c.CutTag != 0 && c.CutTag == info.Tag {
		return min(durable, c.CutPosition)
	}
	return durable
}

// durableIn is how far anything says that a segment was durable.
func (d *dumper) durableIn(f log.SegmentFile, info log.SegmentInfo) (int64, error) {
	durable := d.known(info)
	sc, err := log.ScanSegment(d.fs, f.Name)
	if err != nil {
		return 0, err
	}
	defer sc.Close()
	for {
		frame, err := sc.Next()
		if err == io.EOF {
			return d.uncut(info, max(durable, sc.Named())), nil
		}
		if err != nil {
			return 0, err
		}
		durable = max(durable, frame.Durable)
	}
}

func (d *dumper) frame(f log.SegmentFile, frame *log.FileFrame) error {
	kind := "frame"
	if frame.Kind.String() == "mark" {
		kind = "mark"
	} else {
		d.total.Frames++
	}
	if d.Frames {
		if err := d.print(&frameLine{
			Type: kind, Position: frame.Position, Bytes: frame.End - frame.Position, Kind: frame.Kind.String(), Offset: frame.Offset, Next: frame.NextOffset,
			FirstIndex: frame.FirstIndex, Index: frame.Index, Epoch: frame.Epoch, Durable: frame.Durable,
		}); err != nil {
			return err
		}
	}
	if frame.Kind != log.KindData {
		return nil
	}
	d.total.Batches++
	h, err := log.CheckBatch(frame.Payload, log.Limits{MaxBatchBytes: -1, AllowControl: true, Stored: true})
	if err != nil {
		if err := d.damage(f.Name, frame.Position, frame.End, err); err != nil {
			return err
		}
	}
	d.total.Records += int64(h.Count)
	if d.Batches {
		if err := d.print(batchOf(&h)); err != nil {
			return err
		}
	}
	if !d.Records || err != nil {
		return nil
	}
	return d.batch(frame.Payload, &h)
}

func (d *dumper) batch(batch []byte, h *log.BatchHeader) error {
	err := d.records.Reset(batch, 0)
	for err == nil && d.records.Next() {
		err = d.print(d.recordOf(d.records.Record(), h))
	}
	if err == nil {
		err = d.records.Err()
	}
	return err
}

func (d *dumper) indexes(info log.SegmentInfo) error {
	for _, time := range []bool{false, true} {
		err := log.ScanIndex(d.fs, info, time, func(e log.IndexEntry) error {
			l := indexLine{Type: "index", Offset: e.Offset}
			if time {
				l.Timestamp = &e.Timestamp
			} else {
				l.Index, l.Position = &e.Index, &e.Position
			}
			return d.print(&l)
		})
		var damage *log.CorruptionError
		if errors.As(err, &damage) {
			err = d.damage(damage.File, damage.Position, -1, damage.Cause)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
