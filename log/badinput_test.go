package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// files returns the bytes of all files but the lock.
func files(t testing.TB, fsys vfs.FS) map[string]string {
	t.Helper()
	infos, err := fsys.List(".")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, info := range infos {
		if info.Name == lockName || info.Dir {
			continue
		}
		all[info.Name] = string(readWhole(t, fsys, info.Name))
	}
	return all
}

func readWhole(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

func writeWhole(t testing.TB, fsys vfs.FS, name string, b []byte) {
	t.Helper()
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := writeNew(fsys, name, b); err != nil {
		t.Fatal(err)
	}
}

// badLog is a closed log of several segments, of which a row spoils something.
type badLog struct {
	testing.TB
	fs   *vfs.Mem
	segs []*segment
}

func (b *badLog) header(i int, change func(h *segmentHeader)) {
	name := b.segs[i].name
	data := readWhole(b, b.fs, name)
	var h segmentHeader
	if err := h.decode(data); err != nil {
		b.Fatal(err)
	}
	change(&h)
	writeWhole(b, b.fs, name, append(h.encode(), data[segmentHeaderLen:]...))
}

func (b *badLog) checkpoint(change func(c *checkpoint)) {
	c, err := readCheckpoint(b.fs)
	if err != nil {
		b.Fatal(err)
	}
	change(c)
	writeWhole(b, b.fs, checkpointName, c.encode())
}

// newer makes the version of a file 2, with a right checksum.
func (b *badLog) newer(name string, crcAt func(data []byte) []int) {
	data := readWhole(b, b.fs, name)
	start := 0
	for _, at := range crcAt(data) {
		binary.BigEndian.PutUint16(data[start+8:], 2)
		binary.BigEndian.PutUint32(data[at:], crc32c(data[start:at]))
		start = at + 4
	}
	writeWhole(b, b.fs, name, data)
}

func (b *badLog) mkdir(name string) {
	if err := b.fs.Mkdir(name); err != nil {
		b.Fatal(err)
	}
	writeWhole(b, b.fs, name+"/theirs", []byte("theirs"))
}

// Whatever lies in the directory: open answers with a log, or with an error that
// names the place; it does not panic, allocates within a bound, and what it refuses it
// leaves as it was.
func TestOpenBadDirectories(t *testing.T) {
	const records = 60
	whole := error(nil)
	damaged := errors.New("opens for reading only")
	for _, c := range []struct {
		name  string
		spoil func(b *badLog)
		want  error  // what open fails with; damaged is Recovered.Corruption
		place string // what the error names
	}{
		{"nothing", func(*badLog) {}, whole, ""},
		{"names that are almost ours", func(b *badLog) {
			for _, name := range []string{"1.log", "-0000000000000000001.log", "99999999999999999999.log", "0000000000000000000x.log",
				"00000000000000000000.log2", "+0000000000000000007.log", "000000000000000000000.log", "00000000000000000007.LOG", "notes.txt"} {
				writeWhole(b, b.fs, name, []byte("theirs"))
			}
		}, whole, ""},
		{"a directory named like a segment", func(b *badLog) { b.mkdir("00000000000000000007.log") }, whole, ""},
		{"directories named like a spare, a reserve, a repair", func(b *badLog) {
			b.mkdir(spareName)
			b.mkdir(reserveName)
			b.mkdir("repair-1.txt")
		}, whole, ""},
		{"a directory named like the next segment", func(b *badLog) { b.mkdir(segmentName(records, logSuffix)) }, whole, ""},
		{"an empty file for a later segment", func(b *badLog) { writeWhole(b, b.fs, segmentName(1000, logSuffix), nil) }, whole, ""},
		{"a later segment of zeros", func(b *badLog) { writeWhole(b, b.fs, segmentName(1000, logSuffix), make([]byte, 1<<20)) }, whole, ""},
		{"an index of nonsense", func(b *badLog) {
			for _, suffix := range []string{indexSuffix, timeIndexSuffix} {
				writeWhole(b, b.fs, segmentName(b.segs[len(b.segs)-1].baseOffset, suffix), []byte(strings.Repeat("nonsense", 1000)))
			}
		}, whole, ""},
		{"a segment of a newer format", func(b *badLog) {
			b.newer(b.segs[len(b.segs)-1].name, func([]byte) []int { return []int{124} })
			writeWhole(b, b.fs, "left.tmp", []byte("stays"))
		}, ErrNewerFormat, "segment format 2"},
		{"a checkpoint of a newer format", func(b *badLog) {
			b.newer(checkpointName, func(data []byte) []int { return []int{len(data)/2 - 4, len(data) - 4} })
			writeWhole(b, b.fs, "left.tmp", []byte("stays"))
		}, ErrNewerFormat, "checkpoint format 2"},
		{"a checkpoint of nonsense", func(b *badLog) { writeWhole(b, b.fs, checkpointName, []byte(strings.Repeat("nonsense", 1000))) }, ErrCorrupt, checkpointName},
		{"an empty checkpoint", func(b *badLog) { writeWhole(b, b.fs, checkpointName, nil) }, ErrCorrupt, checkpointName},
		{"a start below 0", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.start = -5 }) }, ErrCorrupt, checkpointName},
		{"a durable segment below 0", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.durableBase = math.MinInt64 }) }, ErrCorrupt, checkpointName},
		{"a boundary at the largest index", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.boundaryIndex = math.MaxUint64 }) }, ErrCorrupt, checkpointName},
		{"a running time without end", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.ran = math.MaxInt64 }) }, ErrCorrupt, checkpointName},
		{"a running time below 0", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.ran = math.MinInt64 }) }, ErrCorrupt, checkpointName},
		{"durable further than the file", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.durablePos = math.MaxUint32 }) }, damaged, ".log"},
		{"durable in a segment that is not there", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.durableBase = math.MaxInt64 }) }, damaged, ".log"},
		{"a segment of another log", func(b *badLog) { b.header(2, func(h *segmentHeader) { h.logID++ }) }, ErrCorrupt, ".log"},
		{"a checkpoint of another log", func(b *badLog) { b.checkpoint(func(c *checkpoint) { c.logID++ }) }, ErrCorrupt, ".log"},
		{"the last segment is gone", func(b *badLog) { b.fs.Remove(b.segs[len(b.segs)-1].name) }, damaged, ".log"},
		{"the first segment is gone", func(b *badLog) { b.fs.Remove(b.segs[0].name) }, damaged, segmentName(0, logSuffix)},
		{"all segments are gone", func(b *badLog) {
			for _, s := range b.segs {
				b.fs.Remove(s.name)
			}
		}, ErrCorrupt, ".log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			cfg := Config{SegmentBytes: 1024, IndexIntervalBytes: 128}
			l := filled(t, mem, cfg, records)
			b := &badLog{t, mem, *l.segs.Load()}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			c.spoil(b)
			before := files(t, mem)
			var m0, m1 runtime.MemStats
			runtime.ReadMemStats(&m0)
			l, err := Open("", &Options{FS: mem, Config: cfg})
			runtime.ReadMemStats(&m1)
			if n := m1.TotalAlloc - m0.TotalAlloc; n > 100<<20 {
				t.Errorf("open allocated %d bytes", n)
			}
			if err == nil {
				defer l.Close()
			}
			switch {
			case c.want == whole:
				if err != nil || l.Recovered().Corruption != nil {
					t.Fatalf("open: %v, %+v", err, l)
				}
				if n := len(contents(t, l)); n != records {
					t.Fatalf("%d records of %d are there", n, records)
				}
				for name, bytes := range before {
					if bytes == "theirs" && string(readWhole(t, mem, name)) != bytes {
						t.Errorf("%s was changed", name)
					}
				}
			case c.want == damaged:
				if err != nil {
					t.Fatal(err)
				}
				e := l.Recovered().Corruption
				if e == nil || !strings.Contains(e.Error(), c.place) || !errors.Is(l.Err(), ErrCorrupt) {
					t.Fatalf("recovered %+v, want damage at %s; the log says %v", e, c.place, l.Err())
				}
			default:
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.place) {
					t.Fatalf("open: %v; want %v at %s", err, c.want, c.place)
				}
			}
			if c.want != whole && fmt.Sprint(files(t, mem)) != fmt.Sprint(before) {
				t.Error("the directory was changed")
			}
		})
	}
}

// What a caller may hand over wrongly, at each door of the log.
func TestBadArguments(t *testing.T) {
	h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	good, err := AppendBatch(nil, &h, []Record{{Value: []byte("v")}})
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(b []byte)) []byte {
		b := append([]byte(nil), good...)
		change(b)
		return b
	}
	batch := func(b []byte) func(l *Log) error {
		return func(l *Log) error { return l.StageBatch(0, 1, b, -1) }
	}
	anyError := errors.New("any")
	for _, c := range []struct {
		name string
		do   func(l *Log) error
		want error
	}{
		{"no records", func(l *Log) error { h := h; return l.StageRecords(1, &h, nil) }, ErrBadBatch},
		{"nothing for a batch", batch(nil), ErrBadBatch},
		{"a batch cut off in its header", batch(good[:60]), ErrBadBatch},
		{"a batch cut off in its records", batch(good[:len(good)-1]), ErrBadBatch},
		{"a batch and more", batch(append(good[:len(good):len(good)], 0)), ErrBadBatch},
		{"magic 1", batch(with(func(b []byte) { b[posMagic] = 1 })), ErrBadBatch},
		{"length -1", batch(with(func(b []byte) { binary.BigEndian.PutUint32(b[posLength:], math.MaxUint32) })), ErrBadBatch},
		{"length 2^31-1", batch(with(func(b []byte) { binary.BigEndian.PutUint32(b[posLength:], math.MaxInt32) })), ErrBadBatch},
		{"last offset delta -1", batch(with(func(b []byte) { binary.BigEndian.PutUint32(b[posLastOffsetDelta:], math.MaxUint32) })), ErrBadBatch},
		{"count -1", batch(with(func(b []byte) { binary.BigEndian.PutUint32(b[posCount:], math.MaxUint32) })), ErrBadBatch},
		{"index ahead", func(l *Log) error { return l.StageBatch(9, 1, good, -1) }, anyError},
		{"epoch falls", func(l *Log) error { return l.StageBatch(0, 0, good, -1) }, anyError},
		{"epoch too large for a batch", func(l *Log) error { return l.StageBatch(0, math.MaxInt32+1, good, -1) }, anyError},
		{"data as an entry", func(l *Log) error { return l.StageEntry(KindData, 0, 1, good) }, anyError},
		{"a mark as an entry", func(l *Log) error { return l.StageEntry(kindMark, 0, 1, nil) }, anyError},
		{"kind 0", func(l *Log) error { return l.StageEntry(0, 0, 1, nil) }, anyError},
		{"a huge entry", func(l *Log) error { return l.StageEntry(KindNoop, 0, 1, make([]byte, maxFrameBytes)) }, anyError},
		{"read from -1", func(l *Log) error { _, err := l.ReadFrom(-1); return err }, ErrOffsetGone},
		{"read from 3", func(l *Log) error { _, err := l.ReadFrom(3); return err }, ErrOffsetAhead},
		{"read from the largest offset", func(l *Log) error { _, err := l.ReadFrom(math.MaxInt64); return err }, ErrOffsetAhead},
		{"read from the smallest offset", func(l *Log) error { _, err := l.ReadFrom(math.MinInt64); return err }, ErrOffsetGone},
		{"read from log index 0", func(l *Log) error { _, err := l.ReadFromIndex(0); return err }, ErrOffsetGone},
		{"read from the largest log index", func(l *Log) error { _, err := l.ReadFromIndex(math.MaxUint64); return err }, ErrOffsetAhead},
		{"entry behind the end", func(l *Log) error { _, err := l.Entry(3); return err }, ErrOffsetAhead},
		{"epoch of an entry behind the end", func(l *Log) error { _, err := l.EpochOf(math.MaxUint64); return err }, ErrOffsetAhead},
		{"walk back from 3", func(l *Log) error { _, err := l.ReadBefore(3); return err }, ErrOffsetAhead},
		{"walk back from -1", func(l *Log) error { _, err := l.ReadBefore(-1); return err }, ErrOffsetGone},
		{"scan from -1", func(l *Log) error { return l.Scan(-1, 2, func(*Frame) error { return nil }) }, ErrOffsetGone},
		{"scan from 3", func(l *Log) error { return l.Scan(3, 9, func(*Frame) error { return nil }) }, ErrOffsetAhead},
		{"truncate to 3", func(l *Log) error { return l.TruncateTo(3) }, ErrOffsetAhead},
		{"truncate from log index 0", func(l *Log) error { return l.TruncateFrom(0) }, anyError},
		{"segments of 1 byte", func(l *Log) error { return l.SetConfig(Config{SegmentBytes: 1}) }, anyError},
		{"segments of -1 bytes", func(l *Log) error { return l.SetConfig(Config{SegmentBytes: -1}) }, anyError},
		{"segments of 4 GiB", func(l *Log) error { return l.SetConfig(Config{SegmentBytes: 4 << 30}) }, anyError},
		{"an interval below 0", func(l *Log) error { return l.SetConfig(Config{SyncInterval: -1}) }, anyError},
		{"an index interval below 0", func(l *Log) error { return l.SetConfig(Config{IndexIntervalBytes: -1}) }, anyError},
		{"a cap below 0", func(l *Log) error { return l.SetConfig(Config{CapBytes: -1}) }, anyError},
		{"a reserve below 0", func(l *Log) error { return l.SetConfig(Config{ReserveBytes: -1}) }, anyError},
		{"level 9", func(l *Log) error { return l.SetConfig(Config{Level: 9}) }, anyError},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			l := openTest(t, fs, Config{})
			appendTest(t, l, 1, "v0", "v1")
			l.Lock()
			err := c.do(l)
			if err == nil || c.want != anyError && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := l.StagedBytes(); n != 0 {
				t.Errorf("%d bytes are staged", n)
			}
			l.Unlock()
			appendTest(t, l, 1, "v2")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			wantContents(t, openTest(t, fs, Config{}), 0, 3)
		})
	}
}

// A log whose first segments were taken away is written to again after a repair, which
// says what is missing.
func TestRepairMissingStart(t *testing.T) {
	mem := vfs.NewMem()
	cfg := Config{SegmentBytes: 1024}
	l := filled(t, mem, cfg, 60)
	segs := *l.segs.Load()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, s := range segs[:2] {
		if err := mem.Remove(s.name); err != nil {
			t.Fatal(err)
		}
	}
	l = openTest(t, mem, cfg)
	if n := len(contents(t, l)); int64(n) != 60-segs[2].baseOffset {
		t.Fatalf("%d records can be read, want those from %d to 60", n, segs[2].baseOffset)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := Repair("", &Options{FS: mem, Config: cfg})
	if err != nil || len(report.Damage) != 1 || report.Damage[0].FirstOffset != 0 || report.Damage[0].EndOffset != segs[2].baseOffset || report.LostEnd {
		t.Fatalf("repair: %+v, %v", report, err)
	}
	l = openTest(t, mem, cfg)
	appendTest(t, l, 1, "more")
	if n := len(contents(t, l)); l.StartOffset() != segs[2].baseOffset || l.EndOffset() != 61 || int64(n) != 61-segs[2].baseOffset {
		t.Fatalf("%d records, offsets %d to %d", n, l.StartOffset(), l.EndOffset())
	}
}
