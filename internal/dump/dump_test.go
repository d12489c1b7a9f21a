package dump_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/dump"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// fill makes a partition with several segments: plain, compressed and
// transactional batches, a marker, an end.
func fill(t *testing.T, fs vfs.FS, closed bool) *partition.Partition {
	t.Helper()
	p, err := partition.Open("", &partition.Options{FS: fs, Config: partition.Config{
		Log: log.Config{SegmentBytes: 4096, IndexIntervalBytes: 512}, Compression: compress.Zstd,
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 40 {
		recs := []log.Record{{Timestamp: int64(1000 + i), Key: []byte("ann"), Value: []byte(strings.Repeat("v", i*10)), Headers: []log.Header{{Key: "h", Value: []byte{0xff}}}}, {Timestamp: int64(1000 + i), Value: []byte{0xfe, byte(i)}}}
		var o *partition.AppendOptions
		if i%4 == 0 {
			o = &partition.AppendOptions{Producer: &partition.Producer{ID: 7, Sequence: int32(i / 4 * 2), Transactional: true}}
		}
		if _, err := p.Append(ctx, recs, o); err != nil {
			t.Fatal(err)
		}
		if i == 20 {
			if _, err := p.EndTransaction(ctx, 7, 0, false, 3, false); err != nil {
				t.Fatal(err)
			}
		}
		if i%15 == 14 {
			p.Log().Lock()
			err := p.Log().Roll()
			p.Log().Unlock()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if closed {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Cleanup(func() { p.Close() })
	}
	return p
}

var everything = dump.Options{Frames: true, Batches: true, Records: true, Indexes: true, Format: dump.JSON}

// contents is what lies in fs, as text to compare.
func contents(t *testing.T, fs vfs.FS) string {
	t.Helper()
	infos, err := fs.List(".")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, info := range infos {
		f, err := fs.Open(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size)
		if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		f.Close()
		fmt.Fprintf(&all, "%s %d %08x\n", info.Name, info.Size, crc32.ChecksumIEEE(b))
	}
	return all.String()
}

// parse reads JSON lines.
func parse(t *testing.T, out []byte) (lines []map[string]any) {
	t.Helper()
	for l := range bytes.Lines(out) {
		var m map[string]any
		d := json.NewDecoder(bytes.NewReader(l))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		lines = append(lines, m)
	}
	return lines
}

// summary counts the lines of each type and lists the offsets of the records.
func summary(lines []map[string]any) (counts map[string]int, offsets []string) {
	counts = make(map[string]int)
	for _, l := range lines {
		counts[l["type"].(string)]++
		if l["type"] == "record" {
			offsets = append(offsets, l["offset"].(json.Number).String())
		}
	}
	return counts, offsets
}

func TestEverythingIsPrinted(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprintf("closed=%t", closed), func(t *testing.T) {
			fs := vfs.NewMem()
			fill(t, fs, closed)
			before := contents(t, fs)
			var out bytes.Buffer
			if err := dump.Log(&out, fs, &everything); err != nil {
				t.Fatalf("%v\n%s", err, out.Bytes())
			}
			if after := contents(t, fs); after != before {
				t.Errorf("files changed:\n%s\n%s", before, after)
			}
			counts, offsets := summary(parse(t, out.Bytes()))
			if counts["segment"] != 3 || counts["batch"] != 41 || counts["frame"] != 41 || counts["record"] != 81 || counts["end"] != 3 || counts["checkpoint"] != 1 || counts["total"] != 1 || counts["damage"] != 0 {
				t.Errorf("counts: %v", counts)
			}
			if counts["index"] == 0 && closed {
				t.Error("no index entries")
			}
			for i, o := range offsets {
				if o != fmt.Sprint(i) {
					t.Fatalf("record %d has offset %s", i, o)
				}
			}
		})
	}
}

func TestTextNamesWhatItShows(t *testing.T) {
	fs := vfs.NewMem()
	fill(t, fs, true)
	o := everything
	o.Format = dump.Text
	o.Decode = func(rec *log.Record) (any, bool) {
		return map[string]int64{"decoded": rec.Offset}, rec.Offset == 1
	}
	var out bytes.Buffer
	if err := dump.Log(&out, fs, &o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"checkpoint: log ", "segment 00000000000000000000.log: ", "  frame at 128: ", "    batch 0-1: 2 records", "transactional", "compression zstd",
		"      record 0: 1970-01-01T00:00:01.000Z key \"ann\" value \"\" header \"h\"=base64:/w==", "record 1: 1970-01-01T00:00:01.000Z {\"decoded\":1}",
		"marker abort coordinator epoch 3", "  mark at ", "  index: offset ", "  index by time: ", "value base64:/gI=", "key null", "total: 3 segments, 41 frames, 41 batches, 81 records, 0 damaged places",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestRangeOfOffsets(t *testing.T) {
	fs := vfs.NewMem()
	fill(t, fs, true)
	for _, row := range []struct {
		from, to    int64
		first, last string
	}{
		{0, 0, "0", "80"}, {40, 44, "40", "44"}, {41, 42, "40", "41"}, {42, 43, "42", "42"}, {79, 0, "79", "80"}, {0, 1, "0", "1"},
	} {
		o := everything
		o.From, o.To = row.from, row.to
		var out bytes.Buffer
		if err := dump.Log(&out, fs, &o); err != nil {
			t.Fatal(err)
		}
		_, offsets := summary(parse(t, out.Bytes()))
		if len(offsets) == 0 || offsets[0] != row.first || offsets[len(offsets)-1] != row.last {
			t.Errorf("%d to %d: got %v, want %s to %s", row.from, row.to, offsets, row.first, row.last)
		}
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, fs vfs.FS, name string, pos int64) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x41
	if _, err := f.WriteAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
}

// One byte anywhere: it is reported, and what is whole is printed as before.
func TestDamageIsReportedAndPassedOver(t *testing.T) {
	pristine := vfs.NewMem()
	fill(t, pristine, true)
	var out bytes.Buffer
	if err := dump.Log(&out, pristine, &everything); err != nil {
		t.Fatal(err)
	}
	lines := parse(t, out.Bytes())
	counts, _ := summary(lines)
	ends := make(map[string]int64) // where the frames of a file end
	for _, l := range lines {
		if l["type"] == "end" {
			ends[l["file"].(string)], _ = l["position"].(json.Number).Int64()
		}
	}
	files, err := log.SegmentFiles(pristine)
	if err != nil {
		t.Fatal(err)
	}
	for n, f := range files { // all is durable, in the last one, too
		for pos := int64(0); pos < ends[f.Name]; pos += 37 {
			fs := pristine.AfterKill()
			flip(t, fs, f.Name, pos)
			out.Reset()
			err := dump.Log(&out, fs, &everything)
			if !errors.Is(err, log.ErrCorrupt) {
				t.Fatalf("segment %d byte %d: %v", n, pos, err)
			}
			got, _ := summary(parse(t, out.Bytes()))
			lost := counts["batch"] - got["batch"]
			if pos < 128 && lost != 0 || lost < 0 || lost > 1 || got["damage"] == 0 || got["damage"] > 2 {
				t.Fatalf("segment %d byte %d: %d batches lost, %d damaged places\n%s", n, pos, lost, got["damage"], out.Bytes())
			}
		}
	}
	for _, name := range []string{"checkpoint", "00000000000000000000.index", "00000000000000000000.timeindex"} {
		fs := pristine.AfterKill()
		flip(t, fs, name, 5)
		if name == "checkpoint" { // it is there twice
			info, _ := fs.Stat(name)
			flip(t, fs, name, info.Size/2+5)
		}
		if err := dump.Log(&out, fs, &everything); !errors.Is(err, log.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was never known to be durable was torn by the crash; what was is damaged, whether
// the checkpoint, a later frame or an end mark says so.
func TestTornIsNoDamage(t *testing.T) {
	for _, row := range []struct {
		name    string
		level   log.Level
		closed  bool
		damaged bool
	}{
		{"never synced", log.OS, false, false},
		{"synced and marked", log.Durable, false, true},
		{"closed", log.OS, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			fs := vfs.NewMem()
			p, err := partition.Open("", &partition.Options{FS: fs, Config: partition.Config{Log: log.Config{Level: row.level}}})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if _, err := p.Append(context.Background(), []log.Record{{Value: fmt.Append(nil, "value ", i)}}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if row.closed {
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
			}
			killed := fs.AfterKill()
			p.Close() // of a log whose files are gone: it ends what runs, and fails
			const file = "00000000000000000000.log"
			var out bytes.Buffer
			if err := dump.Log(&out, killed, &everything); err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			var last int64 // where the last frame begins
			for _, l := range parse(t, out.Bytes()) {
				if l["type"] == "frame" {
					last, _ = l["position"].(json.Number).Int64()
				}
			}
			flip(t, killed, file, last+70)
			out.Reset()
			err = dump.Log(&out, killed, &everything)
			counts, offsets := summary(parse(t, out.Bytes()))
			if errors.Is(err, log.ErrCorrupt) != row.damaged || (counts["damage"] > 0) != row.damaged || len(offsets) != 2 {
				t.Errorf("%v, %v\n%s", err, counts, &out)
			}
			// The log itself is of the same opinion.
			again, err := partition.Open("", &partition.Options{FS: killed})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			r, err := again.Log().Verify(context.Background())
			if err != nil || (len(r.Problems) > 0) != row.damaged {
				t.Errorf("verify: %v, %v", r.Problems, err)
			}
		})
	}
}

// Any bytes at all: no panic, no endless loop.
func FuzzFiles(f *testing.F) {
	mem := vfs.NewMem()
	p, err := partition.Open("", &partition.Options{FS: mem})
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if _, err := p.Append(context.Background(), []log.Record{{Value: []byte("x")}}, nil); err != nil {
			f.Fatal(err)
		}
	}
	p.Close()
	read := func(name string) []byte {
		file, err := mem.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		defer file.Close()
		info, _ := file.Info()
		b := make([]byte, info.Size)
		file.ReadAt(b, 0)
		return b
	}
	seg := read("00000000000000000000.log")
	f.Add(seg, read("checkpoint"), []byte{})
	f.Add(append(seg[:len(seg):len(seg)], seg[128:]...), []byte("embedckp"), make([]byte, 64))
	f.Fuzz(func(t *testing.T, seg, ckpt, index []byte) {
		fs := vfs.NewMem()
		for name, b := range map[string][]byte{"00000000000000000000.log": seg, "checkpoint": ckpt, "00000000000000000000.index": index} {
			file, err := fs.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			file.WriteAt(b, 0)
			file.Close()
		}
		var out bytes.Buffer
		if err := dump.Log(&out, fs, &everything); err != nil && !errors.Is(err, log.ErrCorrupt) && !errors.Is(err, log.ErrNewerFormat) {
			t.Fatal(err)
		}
		parse(t, out.Bytes())
	})
}
