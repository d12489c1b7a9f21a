package log

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
)

// A frame that is longer than what a reader believes would be written, acknowledged,
// and never read again: it must be refused.
func TestStageRecordsLargerThanAFrame(t *testing.T) {
	l := openTest(t, vfs.NewMem(), Config{})
	l.Lock()
	defer l.Unlock()
	h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	if err := l.StageRecords(1, &h, []Record{{Value: make([]byte, maxFrameBytes)}}); !errors.Is(err, ErrBadBatch) {
		t.Fatalf("a batch larger than a frame: %v", err)
	}
	if n := l.StagedBytes(); n != 0 {
		t.Fatalf("%d bytes are staged", n)
	}
}

// Recompression may make a batch larger than a frame can be. It must keep its codec then.
func TestCompactKeepsBatchesReadable(t *testing.T) {
	fs := vfs.NewMem()
	cfg := Config{}
	l := openTest(t, fs, cfg)
	h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	const half = maxFrameBytes/2 + 100
	recs := []Record{{Key: []byte("a"), Value: make([]byte, half)}, {Key: []byte("b"), Value: make([]byte, half)}, {Key: []byte("c")}}
	b, err := AppendBatch(nil, &h, recs)
	if err == nil {
		b, err = CompressBatch(nil, b, compress.Zstd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Lock()
	for range 2 {
		if err := errors.Join(l.StageBatch(0, 1, b, -1), l.Write()); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(l.Sync(), l.Roll(), l.Sync())
	l.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	report, err := l.Compact(context.Background(), CompactPolicy{Upto: l.EndOffset(), Recompress: true, Codec: compress.None})
	if err != nil || report.SegmentsNow != 1 {
		t.Fatalf("compact: %+v, %v", report, err)
	}
	r, err := l.ReadFrom(0)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for {
		f, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = f.NextOffset
	}
	if last != 6 {
		t.Fatalf("what is left ends at %d, want 6", last)
	}
}

// Entries without offsets cannot be spread over segments, which are named for an
// offset: a segment full of them takes no more, and none gets a position that does
// not fit its frame.
func TestPositionsStayBelow4GiB(t *testing.T) {
	l := openTest(t, vfs.NewMem(), Config{})
	l.Lock()
	defer l.Unlock()
	real := l.w.pos
	l.w.pos = maxPosition - 50
	err := l.StageEntry(KindNoop, 0, 1, nil)
	l.Discard()
	l.w.pos = real
	if err == nil {
		t.Fatal("a frame got a position that does not fit")
	}
	if err := errors.Join(l.StageEntry(KindNoop, 0, 1, nil), l.Write()); err != nil {
		t.Fatal(err)
	}
}

// What the owner wants back must be something that the next open takes.
func TestCheckpointIsNeverTooLargeToRead(t *testing.T) {
	fs := vfs.NewMem()
	size := maxCheckpoint
	open := func() *Log {
		l, err := Open("", &Options{FS: fs, Snapshot: func(b []byte) []byte { return append(b, make([]byte, size)...) }})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	appendTest(t, l, 1, "v0")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	size = 100
	l = open()
	defer l.Close()
	wantContents(t, l, 0, 1)
}
