package partition

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/x/embedlog/log"
)

// sampleState has something of everything.
func sampleState() *state {
	s := newState(0)
	step := func(h *log.BatchHeader, m *marker, epoch int32) {
		h.LeaderEpoch = epoch
		o := fromProducer
		if m != nil {
			o = fromCoordinator
		}
		if _, err := put(s, h, m, o, 1<<40); err != nil {
			panic(err)
		}
	}
	step(batch(3, 1, 0, 2), nil, 2)
	step(inTxn(batch(7, 0, 5, 2)), nil, 2)
	step(inTxn(batch(9, 4, 0, 1)), nil, 3)
	step(endTxn(9, 5), &marker{false, 6}, 3)
	last := batch(3, 1, 2, 4)
	last.Attributes |= log.AppendTime
	step(last, nil, 8)
	return s
}

// The bytes of version 1, written by hand from the drawing in state_codec.go.
const sampleHex = "0001" + "000000000000000a" + "00000000000003ee" +
	"00000003" + "00000002" + "0000000000000000" + "00000003" + "0000000000000004" + "00000008" + "0000000000000006" +
	"00000003" +
	"0000000000000003" + "0001" + "ffffffff" + "ffffffffffffffff" + "0000010000000000" + "02" +
	"00000001" + "00000001" + "0000000000000001" + "00000000000003e8" +
	"00000005" + "00000003" + "0000000000000009" + "00000000000003ee" +
	"0000000000000007" + "0000" + "ffffffff" + "0000000000000002" + "0000010000000000" + "01" +
	"00000006" + "00000001" + "0000000000000003" + "00000000000003ea" +
	"0000000000000009" + "0005" + "00000006" + "ffffffffffffffff" + "0000010000000000" + "00" +
	"00000001" + "0000000000000004" + "0000000000000005" +
	"00000001" + "0000000000000009" + "0000000000000004" + "0000000000000005" + "0000000000000002"

func TestStateBytes(t *testing.T) {
	got := hex.EncodeToString(sampleState().appendTo(nil))
	if got != sampleHex {
		t.Fatalf("encoded\n%s, want\n%s", got, sampleHex)
	}
	b, _ := hex.DecodeString(sampleHex)
	s, err := decodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := s.appendTo([]byte("before")); !bytes.Equal(again, append([]byte("before"), b...)) {
		t.Errorf("decoded and encoded\n%x, want\n%x", again, b)
	}
	if s.txns.unstable != 2 || len(s.txns.open) != 1 {
		t.Errorf("decoded transactions: %+v", s.txns)
	}
	if empty := newState(5).appendTo(nil); len(empty) != stateMinimumBytes {
		t.Errorf("an empty state has %d bytes, want %d", len(empty), stateMinimumBytes)
	}
}

// A state with a group's part is version 2, which is version 1 with it behind.
const groupHex = "0000000000000102" + "0000000000000007" + "00000000000000f0" + "0000000000000004" + "07" + "00000003" + "616263"

func TestGroupStateBytes(t *testing.T) {
	s := sampleState()
	s.group = &GroupState{Index: 0x102, Epoch: 7, Members: []byte("abc"), MembersIndex: 0xf0, LogStart: 4, Doubtful: true, Weak: true, Open: true}
	want := "0002" + sampleHex[4:] + groupHex
	if got := hex.EncodeToString(s.appendTo(nil)); got != want {
		t.Fatalf("encoded\n%s, want\n%s", got, want)
	}
	b, _ := hex.DecodeString(want)
	back, err := decodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := back.clone().appendTo(nil); !bytes.Equal(again, b) {
		t.Errorf("decoded and encoded\n%x, want\n%x", again, b)
	}
	for n := range b {
		if _, err := decodeState(b[:n]); err == nil {
			t.Errorf("accepted the first %d of %d bytes", n, len(b))
		}
	}
	for name, bad := range map[string]string{
		"unknown flag":       strings.Replace(want, "07"+"00000003"+"616263", "0f"+"00000003"+"616263", 1),
		"more than there is": strings.Replace(want, "00000003"+"616263", "00000004"+"616263", 1),
		"a byte behind":      want + "00",
		"negative start":     strings.Replace(want, "00000000000000f0"+"0000000000000004", "00000000000000f0"+"8000000000000004", 1),
	} {
		b, _ := hex.DecodeString(bad)
		if _, err := decodeState(b); err == nil || bad == want {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStateRefuses(t *testing.T) {
	good, _ := hex.DecodeString(sampleHex)
	for n := range good {
		if _, err := decodeState(good[:n]); err == nil {
			t.Errorf("accepted the first %d of %d bytes", n, len(good))
		}
	}
	if _, err := decodeState(append(bytes.Clone(good), 0)); err == nil {
		t.Error("accepted a byte behind the end")
	}
	newer := bytes.Clone(good)
	newer[1] = 3
	if _, err := decodeState(newer); !errors.Is(err, log.ErrNewerFormat) {
		t.Errorf("version 3: %v", err)
	}
	tests := []struct {
		name string
		// The first occurrence of old is replaced by new, of the same length.
		old, new string
	}{
		{"version 0", "0001000000000000000a", "0000000000000000000a"},
		{"negative end", "0001000000000000000a", "0001f00000000000000a"},
		{"end below the batches", "0001000000000000000a", "00010000000000000009"},
		{"more epochs than bytes", "00000003" + "00000002", "7fffffff" + "00000002"},
		{"huge number of epochs", "00000003" + "00000002", "ffffffff" + "00000002"},
		{"epochs fall", "00000003" + "0000000000000004", "00000001" + "0000000000000004"},
		{"epoch starts do not grow", "00000003" + "0000000000000004", "00000003" + "0000000000000000"},
		{"negative epoch", "00000002" + "0000000000000000", "80000002" + "0000000000000000"},
		{"negative epoch start", "00000002" + "0000000000000000", "00000002" + "8000000000000000"},
		{"producer ids fall", "0000000000000009" + "0005", "0000000000000006" + "0005"},
		{"producer twice", "0000000000000009" + "0005", "0000000000000007" + "0005"},
		{"negative producer id", "0000000000000003" + "0001", "8000000000000003" + "0001"},
		{"negative producer epoch", "0000000000000003" + "0001", "0000000000000003" + "ffff"},
		{"coordinator epoch", "0005" + "00000006", "0005" + "fffffffe"},
		{"transaction's offset below -1", "ffffffff" + "0000000000000002", "ffffffff" + "fffffffffffffffe"},
		{"transaction begins behind the end", "ffffffff" + "0000000000000002", "ffffffff" + "000000000000000a"},
		{"six batches", "0000010000000000" + "02", "0000010000000000" + "06"},
		{"negative sequence", "02" + "00000001", "02" + "80000001"},
		{"negative delta", "00000005" + "00000003", "00000005" + "80000003"},
		{"batches overlap", "00000005" + "00000003", "00000005" + "00000008"},
		{"batch behind the end", "0000000000000009" + "00000000000003ee", "000000000000000a" + "00000000000003ee"},
		{"ended before it began", "0000000000000004" + "0000000000000005" + "00000001", "0000000000000005" + "0000000000000005" + "00000001"},
		{"ended behind the end", "0000000000000004" + "0000000000000005" + "00000001", "0000000000000004" + "000000000000000a" + "00000001"},
		{"aborted behind the end", "0000000000000005" + "0000000000000002", "000000000000000a" + "0000000000000002"},
		{"aborted by nobody", "00000001" + "0000000000000009", "00000001" + "8000000000000009"},
		{"stable behind the marker", "0000000000000005" + "0000000000000002", "0000000000000005" + "0000000000000007"},
		{"stable below 0", "0000000000000005" + "0000000000000002", "0000000000000005" + "8000000000000002"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(sampleHex, tt.old) != 1 || len(tt.old) != len(tt.new) {
				t.Fatalf("%q occurs %d times", tt.old, strings.Count(sampleHex, tt.old))
			}
			b, err := hex.DecodeString(strings.Replace(sampleHex, tt.old, tt.new, 1))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeState(b); err == nil {
				t.Error("accepted")
			}
		})
	}
	two := newState(9)
	for id := range int64(2) {
		p := newProducer(id)
		p.epoch, p.txnFirst = 0, 5
		two.producers[id] = &p
	}
	if _, err := decodeState(two.appendTo(nil)); err == nil {
		t.Error("accepted two transactions that begin at one offset")
	}
}

// The numbers in a snapshot are not believed before the bytes are there.
func TestStateDecodeAllocatesLittle(t *testing.T) {
	b := make([]byte, stateHeaderBytes, 1<<16)
	b[1] = stateVersion
	b = append(b, 0xff, 0xff, 0xff, 0xff)
	b = b[:cap(b)]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := decodeState(b); err == nil {
			t.Fatal("accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > uint64(len(b)) {
		t.Errorf("%d bytes allocated for a snapshot of %d bytes that is refused at byte 10", n, len(b))
	}
}

// FuzzState takes its bytes twice: as a snapshot, and as a log to replay.
// Neither may panic; what is accepted encodes to the same bytes; and what replay
// makes of any log can be written and read again.
func FuzzState(f *testing.F) {
	sample, _ := hex.DecodeString(sampleHex)
	f.Add(sample)
	grouped, _ := hex.DecodeString("0002" + sampleHex[4:] + groupHex)
	f.Add(grouped)
	f.Add(newState(0).appendTo(nil))
	f.Add(newState(1 << 62).appendTo(nil))
	f.Add(bytes.Repeat([]byte{1, 2, 0, 3, 0, 9, 4, 1}, 20))
	f.Add(bytes.Repeat([]byte{0xff, 0x31, 7, 0x10, 0x80, 0}, 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err == nil {
			if got := s.appendTo(nil); !bytes.Equal(got, b) {
				t.Fatalf("accepted\n%x and encoded\n%x", b, got)
			}
			s.txns.advance(s.end)
			s.txns.abortedIn(nil, 0, s.end)
			s.clone()
		} else {
			s = newState(0)
		}
		const step = 12
		for len(b) >= step {
			h, m := fuzzedBatch(s.end, b)
			b = b[step:]
			fault := s.replay(&h, int64(b0(b))*1000, func() (marker, bool, error) { return m, m.coordinatorEpoch%5 != 4, nil })
			if fault != nil && !errors.Is(fault, log.ErrBadBatch) {
				t.Fatal(fault)
			}
		}
		encoded := s.appendTo(nil)
		back, err := decodeState(encoded)
		if err != nil {
			t.Fatalf("what replay made cannot be read: %v\n%x", err, encoded)
		}
		if again := back.appendTo(nil); !bytes.Equal(again, encoded) {
			t.Fatalf("replayed\n%x, decoded\n%x", encoded, again)
		}
	})
}

func b0(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// fuzzedBatch makes of 12 bytes a header that package log would let through
// (offsets in range, deltas not negative), near the end of the log.
func fuzzedBatch(end int64, b []byte) (log.BatchHeader, marker) {
	word := binary.BigEndian.Uint32(b[8:])
	h := log.BatchHeader{
		BaseOffset: max(0, end+int64(int8(b[0]))/16), LastOffsetDelta: int32(b[1] >> 2),
		ProducerID: int64(b[2]%8) - 1, ProducerEpoch: int16(b[3]%8) - 1, BaseSequence: int32(word),
		LeaderEpoch: int32(int8(b[4])), Attributes: log.Attributes(b[5]), MaxTimestamp: int64(word),
		Count: int32(b[6] % 2),
	}
	if h.BaseOffset > 1<<62 { // package log refuses offsets that overflow
		h.BaseOffset = 1 << 62
	}
	return h, marker{commit: b[7]&1 != 0, coordinatorEpoch: int32(int8(b[7]))}
}
