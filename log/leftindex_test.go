package log

import (
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A power cut can bring an index back that is of before a truncation. Its entries are
// well formed, and wrong: the newest record is found all the same.
func TestIndexFromBeforeTruncation(t *testing.T) {
	cfg := Config{SegmentBytes: 1 << 10, IndexIntervalBytes: 100}
	for _, bad := range []struct {
		name  string
		shift int64 // of the place's position
		time  int64
	}{
		{"a place where no frame begins", 7, 1},
		{"a timestamp that is gone", 0, 1 << 50},
		{"both", 7, 1 << 50},
	} {
		t.Run(bad.name, func(t *testing.T) {
			fs := vfs.NewMem()
			l := openTest(t, fs, cfg)
			const records = 20
			for range records {
				appendTest(t, l, 1, "a value of some length, so that segments are closed soon enough")
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openTest(t, fs, cfg)
			defer l.Close()
			want, ok, err := l.MaxTimestamp()
			if err != nil || !ok {
				t.Fatalf("before: %+v %t %v", want, ok, err)
			}
			segs := *l.segs.Load()
			if len(segs) < 2 {
				t.Fatalf("%d segments", len(segs))
			}
			s := segs[0]
			p, ok, err := s.index.floorPlace(func(placeEntry) bool { return false })
			if err != nil || !ok {
				t.Fatalf("no index: %v", err)
			}
			p.pos += bad.shift
			var place, time [indexEntryLen]byte
			s.index.putPlace(place[:], p)
			s.index.putTime(time[:], timeEntry{bad.time, p.offset})
			for name, b := range map[string][]byte{s.index.places.name: place[:], s.index.times.name: time[:]} {
				if err := writeEntries(fs, name, 0, b, true); err != nil {
					t.Fatal(err)
				}
			}
			s.index.places.inFile, s.index.times.inFile = 1, 1
			s.maxTimestamp.Store(unknownTimestamp)
			got, ok, err := l.MaxTimestamp()
			if err != nil || !ok || got != want {
				t.Fatalf("newest: %+v %t %v, want %+v", got, ok, err, want)
			}
		})
	}
}
