package log

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// Checksums in pieces are the checksum, at every length around a piece's.
func TestCRC32C(t *testing.T) {
	if got := crc32c([]byte("123456789")); got != 0xE3069283 { // the check value of CRC-32C
		t.Fatalf("crc32c = %#x, want 0xe3069283", got)
	}
	b := make([]byte, 9000)
	rng := rand.NewChaCha8([32]byte{3})
	rng.Read(b)
	for n := range b {
		if got, want := crc32c(b[:n]), crc32.Checksum(b[:n], castagnoli); got != want {
			t.Fatalf("%d bytes: got %#x, want %#x", n, got, want)
		}
	}
	if got, want := crc32cUpdate(crc32c(b[:5000]), b[5000:]), crc32cHot(b); got != want {
		t.Fatalf("in two steps %#x, in one %#x", got, want)
	}
}

func BenchmarkCRC32C(b *testing.B) {
	memory := make([]byte, 256<<20) // past every cache
	for i := range memory {
		memory[i] = byte(i * i)
	}
	for _, size := range []int{108, 16 << 10, 120 << 10, 1 << 20} {
		for _, piece := range []int{0, crcPieceBytes} {
			for _, cold := range []bool{false, true} {
				b.Run(fmt.Sprintf("size=%d/piece=%d/cold=%t", size, piece, cold), func(b *testing.B) {
					b.SetBytes(int64(size))
					at := 0
					for b.Loop() {
						p := memory[at : at+size]
						if cold {
							if at += size; at > len(memory)-2*size {
								at = 0
							}
						}
						if piece == 0 {
							crc32.Update(0, castagnoli, p)
							continue
						}
						var crc uint32
						for len(p) > piece {
							crc = crc32.Update(crc, castagnoli, p[:piece])
							p = p[piece:]
						}
						crc32.Update(crc, castagnoli, p)
					}
				})
			}
		}
	}
}
