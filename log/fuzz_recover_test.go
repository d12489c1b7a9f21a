package log

import (
	"errors"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// FuzzRecover opens a directory of arbitrary bytes: a segment, its indexes and a
// checkpoint. Opening ends with a log or an error, never a panic; reading ends; and
// what one open shows, the next one shows.
func FuzzRecover(f *testing.F) {
	fs := vfs.NewMem()
	l := openTest(f, fs, Config{SegmentBytes: 64 << 10, IndexIntervalBytes: 256})
	appendTest(f, l, 1, "one", "two", "three")
	appendTest(f, l, 2, "four")
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	names := []string{segmentName(0, logSuffix), segmentName(0, indexSuffix), segmentName(0, timeIndexSuffix), checkpointName}
	var seeds [4][]byte
	for i, name := range names {
		if file, err := fs.Open(name); err == nil {
			info, _ := file.Info()
			seeds[i] = make([]byte, info.Size)
			file.ReadAt(seeds[i], 0)
			file.Close()
		}
	}
	f.Add(seeds[0], seeds[1], seeds[2], seeds[3])
	f.Add(seeds[0], []byte{}, []byte{}, []byte{})
	f.Add(seeds[0][:len(seeds[0])-70], seeds[1], seeds[2], []byte{})
	f.Fuzz(func(t *testing.T, segment, index, times, checkpoint []byte) {
		m := vfs.NewMem()
		for i, b := range [][]byte{segment, index, times, checkpoint} {
			if len(b) == 0 {
				continue
			}
			file, err := m.Create(names[i])
			if err != nil {
				t.Fatal(err)
			}
			file.WriteAt(b, 0)
			file.Sync()
			file.Close()
		}
		end := int64(-1)
		for range 2 {
			l, err := Open("", &Options{FS: m, Config: Config{SegmentBytes: 64 << 10, IndexIntervalBytes: 256}})
			if err != nil {
				return
			}
			if end >= 0 && l.EndOffset() != end {
				t.Fatalf("the log ended at %d, and at %d when opened again", end, l.EndOffset())
			}
			end = l.EndOffset()
			r, err := l.ReadFrom(l.StartOffset())
			for frames := 0; err == nil; frames++ {
				if frames > len(segment) {
					t.Fatal("reading does not end")
				}
				_, err = r.Next()
				var damage *CorruptionError
				if errors.As(err, &damage) {
					_, err = r.Skip()
				}
			}
			if err != io.EOF && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("read: %v", err)
			}
			l.Close()
		}
	})
}
