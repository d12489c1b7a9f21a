package log

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// Indexes are caches. Whatever becomes of their files, a read from any offset or log index and a search for any time find the
// record that they should.
func TestDamagedIndexesFindTheTruth(t *testing.T) {
	cfg := Config{Level: Durable, SegmentBytes: 16 << 10, IndexIntervalBytes: 512}
	original := vfs.NewMem()
	l := openTest(t, original, cfg)
	const records = 400
	for i := range records {
		appendTest(t, l, 1, fmt.Sprintf("%d %0100d", i, i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	infos, err := original.List(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	sizes := make(map[string]int64)
	for _, info := range infos {
		if IsIndexName(info.Name) && info.Size > 0 {
			names, sizes[info.Name] = append(names, info.Name), info.Size
		}
	}
	if len(names) < 4 {
		t.Fatalf("index files %v", names)
	}
	// The records are whole, so nothing of it is damage to whoever reads.
	check := func(what string, m *vfs.Mem) {
		t.Helper()
		l, err := Open("", &Options{FS: m, Config: cfg})
		if err != nil {
			t.Errorf("%s: it does not open: %v", what, err)
			return
		}
		defer l.Close()
		for o := int64(0); o < records; o += 3 {
			r, err := l.ReadFrom(o)
			var f *Frame
			if err == nil {
				f, err = r.Next()
			}
			if err != nil || Batch(f.Payload).BaseOffset() != o {
				t.Errorf("%s: read from %d: %v", what, o, err)
			}
			e, err := l.Entry(uint64(o) + 1)
			if err != nil || Batch(e.Payload).BaseOffset() != o {
				t.Errorf("%s: entry %d: %v", what, o+1, err)
			}
			p, ok, err := l.OffsetForTime(1000 + o)
			if err != nil || !ok || p.Offset != o {
				t.Errorf("%s: time %d: offset %d, %t, %v", what, 1000+o, p.Offset, ok, err)
			}
		}
		if _, ok, err := l.OffsetForTime(1000 + records); ok || err != nil {
			t.Errorf("%s: a time behind all: %t, %v", what, ok, err)
		}
		if p, ok, err := l.MaxTimestamp(); err != nil || !ok || p.Timestamp != 1000+records-1 {
			t.Errorf("%s: the newest: %+v, %t, %v", what, p, ok, err)
		}
	}
	rewrite := func(m *vfs.Mem, name string, change func(b []byte) []byte) {
		t.Helper()
		f, err := m.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, sizes[name])
		if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		f.Close()
		if err := m.Remove(name); err != nil {
			t.Fatal(err)
		}
		if b = change(b); b == nil {
			return
		}
		if err := writeNew(m, name, b); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(b []byte) []byte{
		"removed":  func([]byte) []byte { return nil },
		"emptied":  func([]byte) []byte { return []byte{} },
		"zeroed":   func(b []byte) []byte { clear(b); return b },
		"halved":   func(b []byte) []byte { return b[:len(b)/2] },
		"torn":     func(b []byte) []byte { return b[:max(len(b)-3, 0)] },
		"doubled":  func(b []byte) []byte { return append(b, b...) },
		"of ones":  func(b []byte) []byte { return []byte(fmt.Sprintf("%0*d", len(b), 1)) },
		"reversed": func(b []byte) []byte { return append(append([]byte{}, b[len(b)/2:]...), b[:len(b)/2]...) },
	} {
		m := original.AfterKill()
		for _, name := range names {
			rewrite(m, name, change)
		}
		check(what, m)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range testcount.N(300) {
		m := original.AfterKill()
		name := names[rng.IntN(len(names))]
		bit := rng.Int64N(sizes[name] * 8)
		flipBit(t, m, name, bit)
		check(fmt.Sprintf("%s, bit %d", name, bit), m)
		if t.Failed() {
			break
		}
	}
}
