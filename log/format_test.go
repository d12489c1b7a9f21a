package log

import (
	"bytes"
	"encoding/binary"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// drawing returns the fields of the first drawing under a heading of
// docs/format.md: what stands at which byte, and how many there are.
func drawing(t *testing.T, heading string, nth int) (fields []drawnField) {
	t.Helper()
	doc, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(doc), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/format.md has no heading %q", heading)
	}
	for range nth {
		_, part, _ = strings.Cut(part, "\n```\n")
		_, part, _ = strings.Cut(part, "\n```\n")
	}
	_, part, _ = strings.Cut(part, "\n```\n")
	part, _, _ = strings.Cut(part, "\n```\n")
	line := regexp.MustCompile(`^ *(\d+) +(\d+)  (.+)$`)
	for l := range strings.Lines(part) {
		if m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n")); m != nil {
			at, _ := strconv.Atoi(m[1])
			n, _ := strconv.Atoi(m[2])
			fields = append(fields, drawnField{at, n, m[3]})
		}
	}
	return fields
}

type drawnField struct {
	at, n int
	name  string
}

// checkDrawing looks for each value where the drawing puts the field whose
// description begins with the key.
func checkDrawing(t *testing.T, what string, b []byte, fields []drawnField, want map[string]uint64) {
	t.Helper()
	found := map[string]bool{}
	for _, f := range fields {
		for name, v := range want {
			if !strings.HasPrefix(f.name, name) {
				continue
			}
			found[name] = true
			var wide [8]byte
			copy(wide[8-f.n:], b[f.at:f.at+f.n])
			if got := binary.BigEndian.Uint64(wide[:]); got != v {
				t.Errorf("%s: bytes %d to %d are drawn as %q: they hold %#x, want %#x", what, f.at, f.at+f.n, f.name, got, v)
			}
		}
	}
	for name := range want {
		if !found[name] {
			t.Errorf("%s: the drawing has no field %q", what, name)
		}
	}
}

func TestDrawingsAreTrue(t *testing.T) {
	h := segmentHeader{flags: 1, logID: 2, tag: 3, baseOffset: 4, baseIndex: 5, prevEpoch: 6, created: 7, endOffset: 8, endIndex: 9, cleaned: 10, born: 11}
	b := h.encode()
	if len(b) != segmentHeaderLen || string(b[:8]) != "embedlog" {
		t.Errorf("segment header of %d bytes: %q", len(b), b[:8])
	}
	checkDrawing(t, "segment", b, drawing(t, "## Segment", 0), map[string]uint64{
		"format version": formatVersion, "header length": segmentHeaderLen, "flags": 1, "log id": 2, "segment tag": 3,
		"base offset": 4, "base index": 5, "previous epoch": 6, "created": 7, "end offset": 8, "end index": 9,
		"cleaned": 10, "running time": 11, "CRC of bytes 0 to 123": uint64(crc32c(b[:124])),
	})

	frame := make([]byte, frameHeaderLen+BatchHeaderLen)
	putFrame(frame, &frameHeader{kind: KindData, length: BatchHeaderLen, pos: 12, durable: 13, span: 14, tag: 15, index: 16, epoch: 17})
	checkDrawing(t, "frame", frame, drawing(t, "## Frame", 0), map[string]uint64{
		"CRC of bytes 4 to 47": uint64(crc32c(frame[4:])), "magic": frameMagic, "version": frameVersion, "kind": uint64(KindData),
		"payload length": BatchHeaderLen, "position": 12, "durable": 13, "span": 14, "segment tag": 15, "index": 16, "epoch": 17,
	})

	var x sparseIndex
	x.init(nil, 100, 200, 18)
	entry := make([]byte, indexEntryLen)
	sum := func() uint64 {
		return uint64(crc32c(append(binary.BigEndian.AppendUint64(nil, 18), entry[:12]...)))
	}
	x.putPlace(entry, placeEntry{offset: 119, index: 220, pos: 21})
	checkDrawing(t, "index", entry, drawing(t, "## Index", 0), map[string]uint64{
		"first offset of the frame": 19, "first index of the frame": 20, "position": 21, "CRC of the segment tag": sum(),
	})
	x.putTime(entry, timeEntry{timestamp: 22, offset: 123})
	checkDrawing(t, "time index", entry, drawing(t, "## Index", 1), map[string]uint64{
		"the largest timestamp": 22, "first offset of this frame": 23, "CRC of the segment tag": sum(),
	})

	c := checkpoint{logID: 24, start: 25, boundaryIndex: 26, boundaryEpoch: 27, firstComplete: 28, durableBase: 29, durablePos: 30,
		cutPos: 31, cutTag: 32, ran: 33, state: []byte("the owner's")}
	b = c.encode()
	size := len(b) / 2
	if !bytes.Equal(b[:size], b[size:]) || string(b[:8]) != "embedckp" || !bytes.HasPrefix(b[checkpointHeader:], c.state) {
		t.Error("checkpoint: not the same copy twice, or not as drawn")
	}
	checkDrawing(t, "checkpoint", b, drawing(t, "## Checkpoint", 0), map[string]uint64{
		"format version": formatVersion, "length of the whole copy": uint64(size), "log id": 24, "log start offset": 25,
		"boundary index": 26, "boundary epoch": 27, "first complete index": 28, "durable segment": 29, "durable position": 30,
		"cut position": 31, "cut tag": 32, "length of the partition's bytes": 11, "running time": 33,
	})
}
