package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// TestFlipEveryBit turns over one bit of a closed log at a time: in its segments of
// 64 KiB, their indexes and the checkpoint. Whatever is read then is right, damage
// is reported, and nothing that was durable is cut: a log that opens for writing
// shows all of it. EMBEDLOG_FLIPS says how many bits are tried; 0 is each of them.
func TestFlipEveryBit(t *testing.T) {
	cfg := Config{Level: Durable, SegmentBytes: 64 << 10, IndexIntervalBytes: 4096}
	original := vfs.NewMem()
	l := openTest(t, original, cfg)
	const records = 320
	value := func(i int) string { return fmt.Sprintf("v%d ", i) + strings.Repeat(string(rune('a'+i%26)), 200) }
	for i := range records {
		appendTest(t, l, 1, value(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	var sizes []int64
	bits := int64(0)
	infos, err := original.List(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if info.Name == lockName || info.Size == 0 {
			continue
		}
		names, sizes = append(names, info.Name), append(sizes, info.Size*8)
		bits += info.Size * 8
	}
	tries := int64(envInt(t, "EMBEDLOG_FLIPS", testcount.N(10000)))
	every := tries == 0
	if every {
		tries = bits
	}
	detected, harmless := 0, 0
	rng := rand.New(rand.NewPCG(1, uint64(bits)))
	for n := range tries {
		bit := n
		if !every {
			bit = rng.Int64N(bits)
		}
		file := 0
		for bit >= sizes[file] {
			bit -= sizes[file]
			file++
		}
		m := original.AfterKill()
		flipBit(t, m, names[file], bit)
		found, err := checkFlipped(m, cfg, records, value)
		if err != nil {
			t.Fatalf("%s, bit %d: %v", names[file], bit, err)
		}
		if found {
			detected++
		} else {
			harmless++
		}
	}
	t.Logf("%d of %d bits: %d detected, %d harmless", tries, bits, detected, harmless)
}

func flipBit(t *testing.T, m *vfs.Mem, name string, bit int64) {
	f, err := m.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// checkFlipped opens the log and reads it forward, going behind damage. found says
// that something was reported.
func checkFlipped(m *vfs.Mem, cfg Config, records int, value func(int) string) (found bool, err error) {
	l, err := Open("", &Options{FS: m, Config: cfg})
	if err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewerFormat) {
			return true, nil
		}
		return false, fmt.Errorf("open: %w", err)
	}
	defer l.Close()
	found = l.Recovered().Corruption != nil
	if !found && l.EndOffset() != int64(records) {
		return false, fmt.Errorf("cut in silence: the log ends at %d of %d", l.EndOffset(), records)
	}
	r, err := l.ReadFrom(l.StartOffset())
	if errors.Is(err, ErrCorrupt) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read: %w", err)
	}
	seen := 0
	for {
		f, err := r.Next()
		var damage *CorruptionError
		if errors.As(err, &damage) {
			found = true
			if _, err := r.Skip(); err != nil {
				return true, nil // nothing whole behind it
			}
			continue
		}
		if err == io.EOF {
			break
		}
		if errors.Is(err, ErrCorrupt) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
		for rec, err := range Batch(f.Payload).Records(1 << 20) {
			if err != nil {
				return false, fmt.Errorf("records at %d: %w", f.Offset, err)
			}
			if rec.Offset < 0 || rec.Offset >= int64(records) || !bytes.Equal(rec.Value, []byte(value(int(rec.Offset)))) {
				return false, fmt.Errorf("wrong record at offset %d: %.20q", rec.Offset, rec.Value)
			}
			seen++
		}
	}
	if !found && seen != records {
		return false, fmt.Errorf("%d records of %d, and nothing reported", seen, records)
	}
	return found, nil
}
