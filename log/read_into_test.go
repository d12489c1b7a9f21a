package log

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// A reader that is given memory, told what is too large, and made to forget finds the
// same frames as one that is left alone, also when it goes on after more was appended.
func TestReadInto(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("files=%t", mapped), func(t *testing.T) {
			for range testcount.N(20) {
				seed := rand.Uint64()
				rnd := rand.New(rand.NewPCG(seed, 1))
				fs := vfs.FS(vfs.NewMem())
				if mapped {
					fs = osFS(t)
				}
				readIntoOnce(t, rnd, fs, fmt.Sprintf("seed %d", seed))
			}
		})
	}
}

func readIntoOnce(t *testing.T, rnd *rand.Rand, fs vfs.FS, name string) {
	l, err := Open("", &Options{FS: fs, Config: Config{SegmentBytes: 64 << 10, Level: Level(rnd.IntN(3))}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var lent [][]byte
	memory := func(n int) []byte {
		b := make([]byte, n)
		lent = append(lent, b)
		return b
	}
	var r *Reader
	next := int64(0)
	for round := range 30 {
		for range rnd.IntN(5) {
			appendTest(t, l, 1, strings.Repeat("x", rnd.IntN(1<<rnd.IntN(15))))
		}
		if r == nil || rnd.IntN(8) == 0 {
			if r, err = l.ReadFromInto(next, 1+rnd.Int64N(40_000), memory); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		} else {
			r.Into(memory)
		}
		plain, err := l.ReadFrom(next)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range rnd.IntN(6) {
			r.Bound(rnd.Int64N(40_000))
			within := 1 + rnd.IntN(1<<rnd.IntN(15))
			got, err := r.NextWithin(within)
			if err == ErrBeyond {
				if got, err = r.Next(); err == nil && len(got.Payload) <= within {
					t.Fatalf("%s: a frame of %d bytes was beyond %d", name, len(got.Payload), within)
				}
			}
			want, wantErr := plain.Next()
			if err != wantErr || err != nil && err != io.EOF {
				t.Fatalf("%s, round %d: error %v, want %v", name, round, err, wantErr)
			}
			if err == io.EOF {
				break
			}
			if got.Offset != want.Offset || got.NextOffset != want.NextOffset || string(got.Payload) != string(want.Payload) {
				t.Fatalf("%s, round %d: frame at %d with %d bytes, want %d with %d", name, round, got.Offset, len(got.Payload), want.Offset, len(want.Payload))
			}
			next = got.NextOffset
		}
		r.Forget()
		for _, b := range lent { // it is the caller's again
			clear(b)
		}
		lent = nil
	}
}
