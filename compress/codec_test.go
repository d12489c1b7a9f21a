package compress

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

var all = []Codec{None, Gzip, Snappy, LZ4, Zstd}

func samples() map[string][]byte {
	rng := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 140_000)
	rng.Read(noise)
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, `{"order":%d,"cents":%d,"name":"ann"}`, i, rand.New(rand.NewPCG(1, uint64(i))).IntN(100_000))
	}
	return map[string][]byte{
		"empty":     {},
		"one byte":  {7},
		"short":     []byte("hello, hello, hello, hello"),
		"64 KiB":    bytes.Repeat([]byte("0123456789abcdef"), 4096),
		"64 KiB+1":  append(bytes.Repeat([]byte("0123456789abcdef"), 4096), 1),
		"32 KiB":    noise[:32<<10],
		"noise":     noise,
		"zeros":     make([]byte, 400_000),
		"json":      []byte(text.String()),
		"json 1000": []byte(text.String()[:1000]),
	}
}

func TestRoundTrip(t *testing.T) {
	for name, src := range samples() {
		for _, c := range all {
			for _, level := range []int{-5, 0, 1, 2, 9, 22} {
				packed, err := Encode([]byte("head"), src, c, level)
				if err != nil {
					t.Fatalf("%s/%v/%d: Encode: %v", name, c, level, err)
				}
				if string(packed[:4]) != "head" {
					t.Fatalf("%s/%v/%d: Encode changed what was in dst", name, c, level)
				}
				for _, dst := range [][]byte{nil, []byte("front"), append(make([]byte, 0, len(src)+100), "front"...)} {
					got, err := Decode(dst, packed[4:], c, len(src))
					if err != nil {
						t.Fatalf("%s/%v/%d: Decode: %v", name, c, level, err)
					}
					if !bytes.Equal(got[:len(dst)], dst) || !bytes.Equal(got[len(dst):], src) {
						t.Fatalf("%s/%v/%d: got %d other bytes than the %d that went in", name, c, level, len(got), len(src))
					}
					if cap(dst) >= len(dst)+len(src) && len(src) > 0 && &got[0] != &dst[0] {
						t.Errorf("%s/%v/%d: Decode moved although dst had room", name, c, level)
					}
				}
				if len(src) > 0 {
					got, err := Decode([]byte("front"), packed[4:], c, len(src)-1)
					if !errors.Is(err, ErrTooLarge) || string(got) != "front" {
						t.Fatalf("%s/%v/%d: one byte too many: %v, %d bytes; want ErrTooLarge and dst as it was", name, c, level, err, len(got))
					}
				}
			}
		}
	}
}

// What is compressed gets smaller where it can, also by the higher levels.
func TestRatio(t *testing.T) {
	src := samples()["json"]
	for _, c := range all[1:] {
		fast, _ := Encode(nil, src, c, 1)
		best, _ := Encode(nil, src, c, 22)
		if len(fast) > len(src)/2 {
			t.Errorf("%v: %d bytes became %d", c, len(src), len(fast))
		}
		if c != Snappy && len(best) >= len(fast) {
			t.Errorf("%v: level 22 makes %d bytes, level 1 %d", c, len(best), len(fast))
		}
	}
}

// Every prefix of a good stream is refused, and so is a byte behind it.
func TestCutOff(t *testing.T) {
	src := samples()["json 1000"]
	for _, c := range all[1:] {
		packed, err := Encode(nil, src, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range packed {
			if c == Snappy && n == len(snappyHeader) {
				continue // a stream without chunks is a whole one: see TestSnappyForms
			}
			got, err := Decode([]byte("front"), packed[:n], c, 1<<20)
			if !errors.Is(err, ErrCorrupt) || string(got) != "front" {
				t.Errorf("%v: first %d of %d bytes: %v, %d bytes; want ErrCorrupt", c, n, len(packed), err, len(got))
			}
		}
		if _, err := Decode(nil, append(packed[:len(packed):len(packed)], 1), c, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: a byte behind the end: %v, want ErrCorrupt", c, err)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name  string
		codec Codec
		bytes string
		want  error
	}{
		{"snappy: six bytes claim 4 GiB", Snappy, "ffffffff0f 00", ErrCorrupt},
		{"snappy: length of more than 32 bits", Snappy, "ffffffff7f 00", ErrCorrupt},
		{"snappy: literal past the end", Snappy, "05 10 6162", ErrCorrupt},
		{"snappy: literal length past the end", Snappy, "05 f4 01", ErrCorrupt},
		{"snappy: copy from before the start", Snappy, "08 0061 0d02", ErrCorrupt},
		{"snappy: s2's repeat", Snappy, "05 0061 0100", ErrCorrupt},
		{"snappy: longer than it says", Snappy, "01 046162", ErrCorrupt},
		{"snappy: chunk past the end", Snappy, "82534e4150505900 00000001 00000001 00000009 0100", ErrCorrupt},
		{"snappy: chunk of 4 GiB", Snappy, "82534e4150505900 00000001 00000001 ffffffff 0100", ErrCorrupt},
		{"snappy: newer framing", Snappy, "82534e4150505900 00000002 00000002 00000003 010061", ErrCorrupt},
		{"lz4: not a frame", LZ4, "00112233445566778899", ErrCorrupt},
		{"lz4: wrong header checksum", LZ4, "04224d18 6040 83 00000000", ErrCorrupt},
		{"lz4: no end", LZ4, "04224d18 6040 82", ErrCorrupt},
		{"lz4: block past the end", LZ4, "04224d18 6040 82 0a000000 00", ErrCorrupt},
		{"lz4: block larger than allowed", LZ4, "04224d18 6040 82 ffffff7f 00", ErrCorrupt},
		{"lz4: match before the start", LZ4, "04224d18 6040 82 09000000 1061ffff 5062626262 62 00000000", ErrCorrupt},
		{"gzip: not a member", Gzip, "00112233445566778899", ErrCorrupt},
		{"zstd: not a frame", Zstd, "00112233445566778899", ErrCorrupt},
		{"zstd: dictionary", Zstd, "28b52ffd 21 07 05 290000 68656c6c6f", ErrCorrupt},
		{"zstd: claims 2^63 bytes", Zstd, "28b52ffd e0 ffffffffffffff7f 010000", ErrCorrupt},
		{"zstd: 1 MiB and one byte", Zstd, "28b52ffd 00 58 " + strings.Repeat("020010 00", 8) + "0b0000 00", ErrTooLarge},
		{"zstd: window of 3.75 TiB", Zstd, "28b52ffd 00 ff 010000", ErrCorrupt},
	} {
		got, err := Decode([]byte("front"), unhex(t, c.bytes), c.codec, 1<<20)
		if !errors.Is(err, c.want) || string(got) != "front" {
			t.Errorf("%s: got %q, %v; want %v", c.name, got, err, c.want)
		}
	}
	for _, c := range []Codec{-1, 5, 7} {
		if _, err := Decode(nil, []byte{1}, c, 10); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("Decode with %v: %v", c, err)
		}
		if _, err := Encode(nil, []byte{1}, c, 0); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("Encode with %v: %v", c, err)
		}
	}
}

// orders is the text that the files in testdata hold.
func orders() []byte {
	var b []byte
	for i := range 6000 {
		b = fmt.Appendf(b, `{"order":%d,"cents":%d}`, i, i*i%997)
	}
	return b
}

// What other programs wrote: the command line tools of gzip, lz4 and zstd, and
// python-snappy. The small files hold the first 2,000 bytes.
func TestForeign(t *testing.T) {
	all := orders()
	for _, c := range []struct {
		file  string
		codec Codec
		want  []byte
	}{
		{"small.gz", Gzip, all[:2000]},
		{"two.gz", Gzip, all[:2000]}, // two members
		{"bare.snappy", Snappy, all[:2000]},
		{"framed.snappy", Snappy, all[:2000]}, // chunks of 512 bytes
		{"small.lz4", LZ4, all[:2000]},
		{"linked.lz4", LZ4, all}, // blocks refer to earlier ones; checksums of blocks and content; its size
		{"small.zst", Zstd, all[:2000]},
		{"two.zst", Zstd, all[:2000]}, // two frames
		{"checked.zst", Zstd, all},
	} {
		packed, err := os.ReadFile("testdata/" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode([]byte("front"), packed, c.codec, len(c.want))
		if err != nil || string(got[:5]) != "front" || !bytes.Equal(got[5:], c.want) {
			t.Errorf("%s: %d bytes, %v; want the %d bytes of the text", c.file, len(got), err, len(c.want))
		}
		if _, err := Decode(nil, packed, c.codec, len(c.want)-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s into one byte less: %v, want ErrTooLarge", c.file, err)
		}
		if !strings.HasPrefix(c.file, "linked") && c.file != "checked.zst" {
			continue
		}
		for i := 0; i < len(packed); i += 97 { // both carry checksums: every flipped bit shows
			bad := bytes.Clone(packed)
			bad[i] ^= 1
			if got, err := Decode(nil, bad, c.codec, 1<<20); err == nil && !bytes.Equal(got, c.want) {
				t.Errorf("%s with byte %d flipped: other data and no error", c.file, i)
			}
		}
	}
}

func TestSnappyForms(t *testing.T) {
	for _, c := range []struct{ name, bytes, want string }{
		{"bare", "06 046162 0102", "ababab"},
		{"no chunks", "82534e4150505900 00000001 00000001", ""},
		{"bare and empty", "00", ""},
		{"two chunks", "82534e4150505900 00000001 00000001 00000003 010061 00000004 02046263", "abc"},
		{"two streams", "82534e4150505900 00000001 00000001 00000003 010061 82534e4150505900 00000001 00000001 00000004 02046263", "abc"},
		{"long literal", "03 f002 616263", "abc"},
		{"copy with two bytes", "06 046162 0e0200", "ababab"},
		{"copy with four bytes", "06 046162 0f02000000", "ababab"},
	} {
		got, err := Decode(nil, unhex(t, c.bytes), Snappy, 100)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestXXHash32(t *testing.T) {
	for _, c := range []struct {
		in   string
		want uint32
	}{ // from the reference implementation, xxhsum
		{"", 0x02cc5d05},
		{"a", 0x550d7456},
		{"abc", 0x32d153ff},
		{"Nobody inspects the spammish repetition", 0xe2293b2f},
	} {
		if got := xxHash32([]byte(c.in)); got != c.want {
			t.Errorf("xxHash32(%q) = %#x, want %#x", c.in, got, c.want)
		}
	}
}

// allocated is how many bytes f takes in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A bomb of 1 GiB of zeros takes no more memory than the bound allows, and neither
// does a short claim.
func TestBombs(t *testing.T) {
	const limit = 1 << 20
	zeros := make([]byte, 64<<20)
	bombs := map[string]struct {
		codec Codec
		bytes []byte
	}{
		"snappy, 6 bytes that claim 4 GiB":   {Snappy, unhex(t, "ffffffff0f00")},
		"zstd, a claim of 1 MiB in 17 bytes": {Zstd, unhex(t, "28b52ffd a0 00001000 010000")},
	}
	for _, c := range all[1:] {
		packed, err := Encode(nil, zeros, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		bombs[c.String()+", 64 MiB of zeros"] = struct {
			codec Codec
			bytes []byte
		}{c, packed}
	}
	// 8,192 blocks of 128 KiB of one byte each, and no size in the header: 1 GiB.
	zstdBomb := unhex(t, "28b52ffd 00 38")
	for i := range 8192 {
		word := uint32(128<<10<<3 | 1<<1)
		if i == 8191 {
			word |= 1
		}
		zstdBomb = append(zstdBomb, byte(word), byte(word>>8), byte(word>>16), 0)
	}
	bombs["zstd, 1 GiB of zeros"] = struct {
		codec Codec
		bytes []byte
	}{Zstd, zstdBomb}
	for name, bomb := range bombs {
		var err error
		got := allocated(func() { _, err = Decode(nil, bomb.bytes, bomb.codec, limit) })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		// The codec's own tables come once, from the pool: 1 MiB at most.
		if got > 2*limit+64<<10+1<<20 {
			t.Errorf("%s: took %d bytes", name, got)
		}
	}
}

// The pools keep small work from allocating, and keep no goroutines.
func TestPooled(t *testing.T) {
	src := samples()["json 1000"]
	before := runtime.NumGoroutine()
	for _, c := range all {
		packed, err := Encode(nil, src, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		dst, back := make([]byte, 0, 4096), make([]byte, 0, 4096)
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := Encode(dst, src, c, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := Decode(back, packed, c, 4096); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 3 && !raceEnabled { // under the race detector, pools forget at random
			t.Errorf("%v: %v allocations for a round trip into buffers with room", c, allocs)
		}
	}
	// The runtime's own, for finalizers, comes and goes.
	for until := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
}

func TestNames(t *testing.T) {
	for i, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		c, err := Parse(strings.ToUpper(name))
		if err != nil || c != Codec(i) || c.String() != name {
			t.Errorf("Parse(%q) = %v, %v", name, c, err)
		}
	}
	if _, err := Parse("uncompressed"); !errors.Is(err, ErrUnknownCodec) {
		t.Errorf("Parse of an unknown name: %v", err)
	}
	if got := Codec(6).String(); got != "codec(6)" {
		t.Errorf("String of an unknown codec: %q", got)
	}
}

func FuzzDecompress(f *testing.F) {
	for name, src := range samples() {
		if len(src) > 70_000 {
			continue
		}
		_ = name
		for _, c := range all {
			packed, err := Encode(nil, src, c, 0)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(int8(c), packed)
		}
	}
	f.Add(int8(Snappy), []byte("\x05\x10hello"))
	const limit = 1 << 16
	f.Fuzz(func(t *testing.T, codec int8, src []byte) {
		c := Codec(codec)
		got, err := Decode([]byte("front"), src, c, limit)
		if err != nil {
			if string(got) != "front" {
				t.Fatalf("%v: dst changed by an error: %q", c, got)
			}
			return
		}
		if len(got) > limit+5 || string(got[:5]) != "front" {
			t.Fatalf("%v: %d bytes, more than the bound, or dst changed", c, len(got))
		}
		// What was accepted means the same with an exact bound, and survives a round trip.
		again, err := Decode(nil, src, c, len(got)-5)
		if err != nil || !bytes.Equal(again, got[5:]) {
			t.Fatalf("%v: a second time: %d bytes, %v", c, len(again), err)
		}
		packed, err := Encode(nil, again, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(nil, packed, c, len(again))
		if err != nil || !bytes.Equal(back, again) {
			t.Fatalf("%v: decode(encode(x)) is not x: %v", c, err)
		}
	})
}
