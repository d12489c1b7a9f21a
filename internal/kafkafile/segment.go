package kafkafile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

const (
	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	txnIndexSuffix  = ".txnindex"
	snapshotSuffix  = ".snapshot"
	epochName       = "leader-epoch-checkpoint"
	metadataName    = "partition.metadata"

	indexEntryBytes = 8
	timeEntryBytes  = 12
	txnEntryBytes   = 34
	// maxIndexBytes is when an index is full and the segment with it. (segment.index.bytes)
	maxIndexBytes = 10 << 20
)

func fileName(base int64, suffix string) string { return fmt.Sprintf("%020d%s", base, suffix) }

// segment is one segment being written.
type segment struct {
	fs                vfs.FS
	base              int64
	log, index, times *output
	txns              *output // nil until the first abort
	sinceEntry        int     // bytes of batches since the last index entry
	entries           int     // of the larger index, for when it is full
	newest, newestAt  int64   // largest timestamp so far, and the last offset of its batch
	entryTime         int64   // timestamp of the last entry of times
	last              int64   // offset of the last record; -1 before the first batch
}

func newSegment(dir vfs.FS, base int64) (s *segment, err error) {
	s = &segment{fs: dir, base: base, newest: -1, entryTime: -1, last: -1}
	if s.log, err = create(dir, fileName(base, logSuffix), 256<<10); err != nil {
		return s, err
	}
	if s.index, err = create(dir, fileName(base, indexSuffix), 4<<10); err != nil {
		return s, err
	}
	s.times, err = create(dir, fileName(base, timeIndexSuffix), 4<<10)
	return s, err
}

// full says whether a batch must go into the next segment. Positions are 31 bits,
// offsets of the indexes relative to the base are too.
func (s *segment) full(h *log.BatchHeader, limit int64) bool {
	if s.last < 0 {
		return false
	}
	return s.log.size+int64(h.Size()) > limit || h.LastOffset()-s.base > math.MaxInt32 ||
		(s.entries+2)*timeEntryBytes > maxIndexBytes
}

// append writes a batch, and the entries of the indexes that are due before it is
// counted: a broker's rule is more than interval bytes since the last.
func (s *segment) append(h *log.BatchHeader, batch []byte, interval int) error {
	pos := s.log.size
	if _, err := s.log.Write(batch); err != nil {
		return err
	}
	// An empty batch, which compaction left, has no record that has its timestamp.
	if h.Count > 0 && h.MaxTimestamp > s.newest {
		s.newest, s.newestAt = h.MaxTimestamp, h.LastOffset()
	}
	s.last = h.LastOffset()
	if s.sinceEntry > interval {
		var b [indexEntryBytes]byte
		binary.BigEndian.PutUint32(b[:], uint32(s.last-s.base))
		binary.BigEndian.PutUint32(b[4:], uint32(pos))
		if _, err := s.index.Write(b[:]); err != nil {
			return err
		}
		s.entries++
		s.sinceEntry = 0
		if err := s.timeEntry(); err != nil {
			return err
		}
	}
	s.sinceEntry += len(batch)
	return nil
}

// timeEntry notes the newest timestamp, if it is newer than the last one noted.
func (s *segment) timeEntry() error {
	if s.newest <= s.entryTime {
		return nil
	}
	var b [timeEntryBytes]byte
	binary.BigEndian.PutUint64(b[:], uint64(s.newest))
	binary.BigEndian.PutUint32(b[8:], uint32(s.newestAt-s.base))
	s.entryTime = s.newest
	_, err := s.times.Write(b[:])
	return err
}

// abort notes a transaction whose marker this segment will hold.
func (s *segment) abort(a *abortedTxn) (err error) {
	if s.txns == nil {
		if s.txns, err = create(s.fs, fileName(s.base, txnIndexSuffix), 4<<10); err != nil {
			return err
		}
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, txnEntryBytes), 0) // version
	for _, n := range []int64{a.producerID, a.first, a.marker, a.lastStable} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	_, err = s.txns.Write(b)
	return err
}

// close ends the indexes and makes everything durable. It may be called again.
func (s *segment) close() error {
	var err error
	if s.times != nil && s.times.file != nil {
		err = s.timeEntry()
	}
	for _, o := range []*output{s.log, s.index, s.times, s.txns} {
		if cerr := o.close(); err == nil {
			err = cerr
		}
	}
	return err
}

// output is a file that is written from its beginning to its end.
type output struct {
	file vfs.File
	*bufio.Writer
	size int64 // bytes so far, those in the buffer too
}

func create(dir vfs.FS, name string, buffer int) (*output, error) {
	f, err := dir.Create(name)
	if err != nil {
		return nil, err
	}
	return &output{file: f, Writer: bufio.NewWriterSize(appender{f}, buffer)}, nil
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	o.size += int64(n)
	return n, err
}

func (o *output) close() error {
	if o == nil || o.file == nil {
		return nil
	}
	err := o.Flush()
	if err == nil {
		err = o.file.Sync()
	}
	err = errors.Join(err, o.file.Close())
	o.file = nil
	return err
}

// appender writes to the end of a file.
type appender struct{ f vfs.File }

func (a appender) Write(p []byte) (int, error) { return a.f.Append(p) }

// writeFile makes a whole small file.
func writeFile(dir vfs.FS, name string, b []byte) error {
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a snapshot at the end of the log may have the name of one made by a roll
	}
	o, err := create(dir, name, 16)
	if err != nil {
		return err
	}
	_, err = o.Write(b)
	return errors.Join(err, o.close())
}
