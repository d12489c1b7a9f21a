package kafkafile

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Options say how to write. Nil is Kafka's defaults.
type Options struct {
	// SegmentBytes is when a segment is full. Zero means 1 GiB, which is also near the
	// most: positions must fit into 31 bits. (segment.bytes)
	SegmentBytes int64
	// IndexIntervalBytes is how many bytes of batches go between two entries of an
	// index. Zero means 4096. (index.interval.bytes)
	IndexIntervalBytes int
	// Progress is told now and then which offset was reached, and where the export ends.
	Progress func(offset, end int64)
}

func (o *Options) withDefaults() (Options, error) {
	var d Options
	if o != nil {
		d = *o
	}
	if d.SegmentBytes == 0 {
		d.SegmentBytes = 1 << 30
	}
	if d.IndexIntervalBytes == 0 {
		d.IndexIntervalBytes = 4096
	}
	var err error
	if d.SegmentBytes < 0 || d.SegmentBytes > math.MaxInt32 {
		err = fmt.Errorf("segment bytes %d: not between 1 and %d", d.SegmentBytes, math.MaxInt32)
	}
	if d.IndexIntervalBytes < 0 {
		err = errors.Join(err, fmt.Errorf("index interval bytes %d: negative", d.IndexIntervalBytes))
	}
	return d, err
}

// Report says what was written.
type Report struct {
	Dir               string // of the partition, within the directory given
	Segments          int
	Batches, Records  int64
	Bytes             int64 // of batches
	Start, End        int64 // offsets, half-open; the first batch may begin below Start
	AbortedTxns, Open int   // transactions: aborted ones in the indexes, open ones at the end
}

// partialSuffix marks a directory that is being written. Kafka takes no directory
// of such a name for a partition.
const partialSuffix = ".partial"

// Export writes what is readable of p now, up to its high watermark, into a new
// directory <topic>-<number> of dir. It may run while p is appended to. The
// directory gets its name when all is written and synced; what an export that was
// stopped left is removed by the next. A directory of that name is fs.ErrExist.
//
// When retention overtakes it, or at damage, it fails: an export is whole or not there.
func Export(ctx context.Context, p *partition.Partition, dir vfs.FS, topic string, number int32, topicID [16]byte, o *Options) (Report, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return Report{}, fmt.Errorf("export %s/%d: %w", topic, number, err)
	}
	e := &exporter{
		ctx: ctx, Options: opts, fs: dir, final: fmt.Sprintf("%s-%d", topic, number), log: p.Log(),
		lastEpoch: -1,
	}
	e.report.Dir, e.report.Start, e.report.End = e.final, p.LogStart(), p.HighWatermark()
	e.producers = newProducers(p.Producers()) // after the end: none is missing
	if err := e.export(topicID); err != nil {
		return e.report, fmt.Errorf("export %s/%d: %w", topic, number, err)
	}
	return e.report, nil
}

type exporter struct {
	Options
	ctx       context.Context
	fs        vfs.FS
	final     string // the directory's name in the end
	log       *log.Log
	seg       *segment // nil before the first batch
	producers *producers
	records   log.RecordReader
	epochs    []epochStart
	lastEpoch int32
	report    Report
}

// epochStart is a line of the leader-epoch-checkpoint.
type epochStart struct {
	epoch int32
	start int64
}

func (e *exporter) export(topicID [16]byte) error {
	if _, err := e.fs.Stat(e.final); err == nil {
		return fmt.Errorf("%s: %w", e.final, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := e.final + partialSuffix
	if err := removeAll(e.fs, dir); err != nil {
		return err
	}
	if err := e.fs.Mkdir(dir); err != nil {
		return err
	}
	err := e.write(vfs.Sub(e.fs, dir), topicID)
	if err == nil {
		err = e.fs.SyncDir(dir)
	}
	if err == nil {
		err = e.fs.Rename(dir, e.final)
	}
	if err == nil {
		err = e.fs.SyncDir(".")
	}
	if err != nil {
		return errors.Join(err, removeAll(e.fs, dir))
	}
	return nil
}

// removeAll removes a directory without directories in it, if it is there.
func removeAll(fsys vfs.FS, dir string) error {
	infos, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := fsys.Remove(path.Join(dir, info.Name)); err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}

func (e *exporter) write(dir vfs.FS, topicID [16]byte) error {
	err := e.batches(dir)
	if e.seg != nil {
		if cerr := e.seg.close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return err
	}
	if e.seg == nil {
		// Kafka keeps an empty segment that says where the log goes on.
		if err := e.roll(dir, e.report.End); err != nil {
			return err
		}
		if err := e.seg.close(); err != nil {
			return err
		}
	}
	if err := e.snapshot(dir, e.report.End); err != nil {
		return err
	}
	e.report.Open = len(e.producers.open)
	epochs := fmt.Appendf(nil, "0\n%d\n", len(e.epochs))
	for _, s := range e.epochs {
		epochs = fmt.Appendf(epochs, "%d %d\n", s.epoch, s.start)
	}
	if err := writeFile(dir, epochName, epochs); err != nil {
		return err
	}
	return writeFile(dir, metadataName, fmt.Appendf(nil, "version: 0\ntopic_id: %s", base64.RawURLEncoding.EncodeToString(topicID[:])))
}

func (e *exporter) batches(dir vfs.FS) error {
	r, err := e.log.ReadFrom(e.report.Start)
	if err != nil {
		return err
	}
	r.Reuse()
	for n := 0; r.Offset() < e.report.End; n++ {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		f, err := r.Next()
		if err == io.EOF {
			break // compaction left nothing up to the end
		}
		if err != nil {
			return err
		}
		if f.Kind != log.KindData {
			continue
		}
		if f.Offset >= e.report.End {
			break
		}
		if err := e.batch(dir, f.Payload); err != nil {
			return err
		}
		if e.Progress != nil && n%1024 == 0 {
			e.Progress(f.NextOffset, e.report.End)
		}
	}
	if e.Progress != nil {
		e.Progress(e.report.End, e.report.End)
	}
	return nil
}

func (e *exporter) batch(dir vfs.FS, batch []byte) error {
	h, err := log.ParseBatchHeader(batch)
	if err != nil {
		return err
	}
	if e.seg == nil || e.seg.full(&h, e.SegmentBytes) {
		if err := e.roll(dir, h.BaseOffset); err != nil {
			return err
		}
	}
	if h.LeaderEpoch > e.lastEpoch {
		e.lastEpoch = h.LeaderEpoch
		e.epochs = append(e.epochs, epochStart{h.LeaderEpoch, h.BaseOffset})
	}
	aborted, err := e.producers.apply(&h, func() (log.ControlType, int32, error) { return e.marker(batch) })
	if err != nil {
		return err
	}
	if aborted != nil {
		e.report.AbortedTxns++
		if err := e.seg.abort(aborted); err != nil {
			return err
		}
	}
	e.report.Batches++
	e.report.Records += int64(h.Count)
	e.report.Bytes += int64(len(batch))
	return e.seg.append(&h, batch, e.IndexIntervalBytes)
}

// marker reads the one record of a control batch.
func (e *exporter) marker(batch []byte) (log.ControlType, int32, error) {
	if err := e.records.Reset(batch, 0); err != nil {
		return log.ControlUnknown, 0, err
	}
	if !e.records.Next() {
		return log.ControlUnknown, 0, e.records.Err()
	}
	return log.ParseControl(e.records.Record())
}

// roll ends the segment and begins the one that starts at base.
func (e *exporter) roll(dir vfs.FS, base int64) error {
	if e.seg != nil {
		if err := e.seg.close(); err != nil {
			return err
		}
		if err := e.snapshot(dir, base); err != nil {
			return err
		}
	}
	var err error
	e.seg, err = newSegment(dir, base)
	e.report.Segments++
	return err
}

func (e *exporter) snapshot(dir vfs.FS, offset int64) error {
	return writeFile(dir, fileName(offset, snapshotSuffix), e.producers.snapshot())
}
