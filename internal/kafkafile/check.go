package kafkafile

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// CheckReport says what Check read.
type CheckReport struct {
	Segments                  int
	Batches, Records, Bytes   int64
	IndexEntries, TimeEntries int64
	AbortedTxns, Snapshots    int
	Start, End                int64 // first offset of the first batch, the one behind the last; 0 when there is none
	TopicID                   [16]byte
}

type checker struct {
	CheckReport
	stopped     func() error // why to stop, or nil
	onBatch     func(batch []byte, h *log.BatchHeader) error
	newestEpoch int32
	epochs      []epochStart // those that no batch has begun yet
	aborted     []abortedTxn
}

// Check reads a partition's directory as Kafka's kafka-dump-log does with deep
// iteration and its checks of the indexes, and returns the first thing that is
// wrong, with file and position:
//
//   - a batch is whole, its checksum right, its records what the header claims, its
//     offsets behind those of the batch before and within 2^31-1 of the segment's base;
//   - an entry of the .index has the last offset of the batch that begins at its position;
//   - an entry of the .timeindex has the last offset and the timestamp of the batch that
//     holds the largest timestamp so far, timestamps grow, and the last entry is the
//     segment's largest;
//   - a .snapshot has the right checksum and length; the .txnindex's entries end at
//     markers that abort; the leader epochs are those of the batches.
//
// dir is the partition's directory in fsys.
func Check(ctx context.Context, fsys vfs.FS, dir string) (CheckReport, error) {
	c := checker{newestEpoch: -1, stopped: ctx.Err}
	if err := c.check(vfs.Sub(fsys, dir)); err != nil {
		return c.CheckReport, fmt.Errorf("check %s: %w", dir, err)
	}
	return c.CheckReport, nil
}

func (c *checker) check(dir vfs.FS) error {
	if err := c.metadata(dir); err != nil {
		return err
	}
	if err := c.epochFile(dir); err != nil {
		return err
	}
	infos, err := dir.List(".")
	if err != nil {
		return err
	}
	for _, info := range infos {
		var err error
		switch {
		case strings.HasSuffix(info.Name, logSuffix):
			err = c.segment(dir, info)
		case strings.HasSuffix(info.Name, snapshotSuffix):
			c.Snapshots++
			err = checkSnapshot(dir, info)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", info.Name, err)
		}
	}
	if c.Segments == 0 {
		return errors.New("no segment")
	}
	return nil
}

// bad makes an error about a place in a file.
func bad(name string, pos int64, format string, args ...any) error {
	return fmt.Errorf("%s at byte %d: %s", name, pos, fmt.Sprintf(format, args...))
}

// maxCheckedFile bounds a file that is read whole: an index is at most 10 MiB.
const maxCheckedFile = 64 << 20

func readFile(dir vfs.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	if info.Size > maxCheckedFile {
		return nil, bad(name, 0, "%d bytes are too many", info.Size)
	}
	b := make([]byte, info.Size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

func (c *checker) metadata(dir vfs.FS) error {
	b, err := readFile(dir, metadataName)
	if err != nil {
		return err
	}
	id, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "version: 0\ntopic_id: ")
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if !ok || err != nil || len(raw) != len(c.TopicID) {
		return bad(metadataName, 0, "%q is not a version and a topic id", b)
	}
	copy(c.TopicID[:], raw)
	return nil
}

func (c *checker) epochFile(dir vfs.FS) error {
	b, err := readFile(dir, epochName)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) < 2 || lines[0] != "0" || lines[1] != strconv.Itoa(len(lines)-2) {
		return bad(epochName, 0, "it does not begin with version 0 and the number of lines")
	}
	last := epochStart{-1, -1}
	for _, line := range lines[2:] {
		var s epochStart
		if _, err := fmt.Sscanf(line, "%d %d", &s.epoch, &s.start); err != nil || line != fmt.Sprintf("%d %d", s.epoch, s.start) || s.epoch <= last.epoch || s.start <= last.start {
			return bad(epochName, 0, "line %q behind epoch %d at %d", line, last.epoch, last.start)
		}
		c.epochs = append(c.epochs, s)
		last = s
	}
	return nil
}

// entries of the two indexes of one segment.
type indexEntry struct {
	offset int64
	pos    int64
}
type timeIndexEntry struct {
	timestamp int64
	offset    int64
}

func readIndexes(dir vfs.FS, base int64) (index []indexEntry, times []timeIndexEntry, err error) {
	name := fileName(base, indexSuffix)
	b, err := readFile(dir, name)
	if err != nil {
		return nil, nil, err
	}
	if len(b)%indexEntryBytes != 0 {
		return nil, nil, bad(name, int64(len(b)), "the size is no multiple of %d", indexEntryBytes)
	}
	for at := 0; at < len(b); at += indexEntryBytes {
		e := indexEntry{base + int64(binary.BigEndian.Uint32(b[at:])), int64(binary.BigEndian.Uint32(b[at+4:]))}
		if n := len(index); n > 0 && (e.offset <= index[n-1].offset || e.pos <= index[n-1].pos) {
			return nil, nil, bad(name, int64(at), "offset %d at %d does not grow", e.offset, e.pos)
		}
		index = append(index, e)
	}
	name = fileName(base, timeIndexSuffix)
	if b, err = readFile(dir, name); err != nil {
		return nil, nil, err
	}
	if len(b)%timeEntryBytes != 0 {
		return nil, nil, bad(name, int64(len(b)), "the size is no multiple of %d", timeEntryBytes)
	}
	for at := 0; at < len(b); at += timeEntryBytes {
		e := timeIndexEntry{int64(binary.BigEndian.Uint64(b[at:])), base + int64(binary.BigEndian.Uint32(b[at+8:]))}
		if n := len(times); n > 0 && (e.timestamp <= times[n-1].timestamp || e.offset <= times[n-1].offset) {
			return nil, nil, bad(name, int64(at), "timestamp %d of offset %d does not grow", e.timestamp, e.offset)
		}
		times = append(times, e)
	}
	return index, times, nil
}

func (c *checker) segment(dir vfs.FS, info vfs.Info) error {
	base, err := strconv.ParseInt(strings.TrimSuffix(info.Name, logSuffix), 10, 64)
	if err != nil || fileName(base, logSuffix) != info.Name {
		return bad(info.Name, 0, "the name is not an offset")
	}
	if base < c.End {
		return bad(info.Name, 0, "it begins below offset %d, where the one before ends", c.End)
	}
	index, times, err := readIndexes(dir, base)
	if err != nil {
		return err
	}
	aborted, err := readTxnIndex(dir, base)
	if err != nil {
		return err
	}
	c.Segments++
	c.IndexEntries += int64(len(index))
	c.TimeEntries += int64(len(times))
	c.AbortedTxns += len(aborted)
	c.aborted = append(c.aborted, aborted...)
	f, err := dir.Open(info.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	newest, newestAt := int64(-1), int64(-1)
	var buf []byte
	for pos := int64(0); pos < info.Size; {
		if err := c.stopped(); err != nil {
			return err
		}
		batch, h, err := readBatch(f, pos, info.Size, &buf)
		if err != nil {
			return fmt.Errorf("at byte %d: %w", pos, err)
		}
		if err := c.batch(h, base); err != nil {
			return fmt.Errorf("at byte %d: %w", pos, err)
		}
		if len(index) > 0 && index[0].pos <= pos {
			if e := index[0]; e.pos != pos || e.offset != h.LastOffset() {
				return bad(fileName(base, indexSuffix), 0, "the entry for offset %d at %d: the batch at %d ends at offset %d", e.offset, e.pos, pos, h.LastOffset())
			}
			index = index[1:]
		}
		if h.Count > 0 && h.MaxTimestamp > newest {
			newest, newestAt = h.MaxTimestamp, h.LastOffset()
		}
		if len(times) > 0 && times[0].offset == newestAt && times[0].timestamp == newest {
			times = times[1:]
		} else if len(times) > 0 && times[0].offset <= h.LastOffset() {
			return bad(fileName(base, timeIndexSuffix), 0, "the entry for timestamp %d has offset %d: the largest so far is %d at %d", times[0].timestamp, times[0].offset, newest, newestAt)
		}
		if len(aborted) > 0 && aborted[0].marker <= h.LastOffset() {
			if a := aborted[0]; a.marker != h.BaseOffset || a.producerID != h.ProducerID || !h.Attributes.Has(log.Control) || a.first >= a.marker {
				return bad(fileName(base, txnIndexSuffix), 0, "the transaction of producer %d from %d to %d does not end at a marker", a.producerID, a.first, a.marker)
			}
			aborted = aborted[1:]
		}
		if c.onBatch != nil {
			if err := c.onBatch(batch, h); err != nil {
				return err
			}
		}
		pos += int64(len(batch))
		c.Bytes += int64(len(batch))
	}
	switch {
	case len(index) > 0:
		return bad(fileName(base, indexSuffix), 0, "the entry for offset %d leads past the end", index[0].offset)
	case len(times) > 0:
		return bad(fileName(base, timeIndexSuffix), 0, "the entry for offset %d leads past the end", times[0].offset)
	case len(aborted) > 0:
		return bad(fileName(base, txnIndexSuffix), 0, "the marker %d is not there", aborted[0].marker)
	}
	return c.lastTime(dir, base, newest)
}

// lastTime checks that the last entry by time is the segment's largest timestamp.
func (c *checker) lastTime(dir vfs.FS, base, newest int64) error {
	_, times, err := readIndexes(dir, base)
	if err != nil || newest < 0 {
		return err
	}
	if n := len(times); n == 0 || times[n-1].timestamp != newest {
		return bad(fileName(base, timeIndexSuffix), 0, "the last entry is not the segment's largest timestamp %d", newest)
	}
	return nil
}

// readBatch reads and checks the batch at pos. It is valid until buf is used again.
func readBatch(f vfs.File, pos, size int64, buf *[]byte) ([]byte, *log.BatchHeader, error) {
	var head [log.BatchHeaderLen]byte
	if n, err := f.ReadAt(head[:], pos); n < len(head) {
		return nil, nil, fmt.Errorf("the header is cut off: %w", err)
	}
	h, err := log.ParseBatchHeader(head[:])
	if err != nil {
		return nil, nil, err
	}
	if int64(h.Size()) > size-pos {
		return nil, nil, fmt.Errorf("a batch of %d bytes, %d are left", h.Size(), size-pos)
	}
	if cap(*buf) < h.Size() {
		*buf = make([]byte, h.Size())
	}
	b := (*buf)[:h.Size()]
	if n, err := f.ReadAt(b, pos); n < len(b) {
		return nil, nil, err
	}
	if _, err := log.CheckBatch(b, log.Limits{MaxBatchBytes: -1, AllowControl: true, Stored: true}); err != nil {
		return nil, nil, err
	}
	return b, &h, nil
}

// batch checks the place of a batch in the partition.
func (c *checker) batch(h *log.BatchHeader, base int64) error {
	if h.BaseOffset < base || h.BaseOffset < c.End {
		return fmt.Errorf("a batch of offset %d in the segment of %d, behind offset %d", h.BaseOffset, base, c.End)
	}
	if h.LastOffset()-base > math.MaxInt32 {
		return fmt.Errorf("offset %d is too far from the segment's base", h.LastOffset())
	}
	if h.LeaderEpoch < c.newestEpoch {
		return fmt.Errorf("leader epoch %d behind %d", h.LeaderEpoch, c.newestEpoch)
	}
	if h.LeaderEpoch > c.newestEpoch {
		if len(c.epochs) == 0 || c.epochs[0] != (epochStart{h.LeaderEpoch, h.BaseOffset}) {
			return fmt.Errorf("leader epoch %d begins at offset %d, %s has %v", h.LeaderEpoch, h.BaseOffset, epochName, c.epochs)
		}
		c.newestEpoch, c.epochs = h.LeaderEpoch, c.epochs[1:]
	}
	if c.Batches == 0 {
		c.Start = h.BaseOffset
	}
	c.End = h.LastOffset() + 1
	c.Batches++
	c.Records += int64(h.Count)
	return nil
}

func readTxnIndex(dir vfs.FS, base int64) (txns []abortedTxn, err error) {
	name := fileName(base, txnIndexSuffix)
	b, err := readFile(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(b)%txnEntryBytes != 0 || len(b) == 0 {
		return nil, bad(name, int64(len(b)), "the size is no multiple of %d", txnEntryBytes)
	}
	for at := 0; at < len(b); at += txnEntryBytes {
		n := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[at+2+8*i:])) }
		if v := binary.BigEndian.Uint16(b[at:]); v != 0 {
			return nil, bad(name, int64(at), "version %d", v)
		}
		txns = append(txns, abortedTxn{n(0), n(1), n(2), n(3)})
	}
	return txns, nil
}

func checkSnapshot(dir vfs.FS, info vfs.Info) error {
	b, err := readFile(dir, info.Name)
	if err != nil {
		return err
	}
	switch {
	case len(b) < snapshotHeaderBytes:
		return bad(info.Name, 0, "%d bytes are too few", len(b))
	case binary.BigEndian.Uint16(b) != 1:
		return bad(info.Name, 0, "version %d", binary.BigEndian.Uint16(b))
	case binary.BigEndian.Uint32(b[2:]) != crc32.Checksum(b[6:], castagnoli):
		return bad(info.Name, 2, "the checksum is wrong")
	case int64(binary.BigEndian.Uint32(b[6:]))*snapshotEntryBytes != int64(len(b)-snapshotHeaderBytes):
		return bad(info.Name, 6, "%d producers in %d bytes", binary.BigEndian.Uint32(b[6:]), len(b))
	}
	return nil
}
