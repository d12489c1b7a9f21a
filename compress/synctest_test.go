package compress

import (
	"bytes"
	"testing"
	"testing/synctest"
)

// What one bubble leaves in the pools, another one and code outside of any may use: a
// channel among it would end the process. So a user's tests that produce and consume
// compressed batches can be bubbles.
func TestBubblesShareThePools(t *testing.T) {
	trip := func(t *testing.T) {
		for name, src := range samples() {
			for _, c := range all {
				for _, level := range []int{0, 9} {
					packed, err := Encode(nil, src, c, level)
					if err != nil {
						t.Fatalf("%v: %s: %v", c, name, err)
					}
					if back, err := Decode(nil, packed, c, len(src)); err != nil || !bytes.Equal(back, src) {
						t.Fatalf("%v: %s: %d bytes back, %v", c, name, len(back), err)
					}
				}
			}
		}
	}
	synctest.Test(t, trip)
	synctest.Test(t, trip)
	trip(t)
}

func BenchmarkZstd(b *testing.B) {
	src := samples()["json 1000"]
	packed, err := Encode(nil, src, Zstd, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("op=encode", func(b *testing.B) {
		dst := make([]byte, 0, 2*len(src))
		b.SetBytes(int64(len(src)))
		for b.Loop() {
			if _, err := Encode(dst, src, Zstd, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("op=decode", func(b *testing.B) {
		dst := make([]byte, 0, 2*len(src))
		b.SetBytes(int64(len(src)))
		for b.Loop() {
			if _, err := Decode(dst, packed, Zstd, len(src)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
