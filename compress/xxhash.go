package compress

import (
	"encoding/binary"
	"math/bits"
)

const (
	xxPrime1 uint32 = 2654435761
	xxPrime2 uint32 = 2246822519
	xxPrime3 uint32 = 3266489917
	xxPrime4 uint32 = 668265263
	xxPrime5 uint32 = 374761393
)

// xxHash32 is XXH32 with seed 0, the checksum of LZ4 frames
// (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
func xxHash32(b []byte) uint32 {
	h := xxPrime5
	n := uint32(len(b))
	if len(b) >= 16 {
		var lane [4]uint32
		lane[0], lane[1], lane[2], lane[3] = xxPrime1, xxPrime2, 0, 0
		lane[0] += xxPrime2
		lane[3] -= xxPrime1
		for ; len(b) >= 16; b = b[16:] {
			for k := range lane {
				lane[k] = bits.RotateLeft32(lane[k]+binary.LittleEndian.Uint32(b[4*k:])*xxPrime2, 13) * xxPrime1
			}
		}
		h = bits.RotateLeft32(lane[0], 1) + bits.RotateLeft32(lane[1], 7) +
			bits.RotateLeft32(lane[2], 12) + bits.RotateLeft32(lane[3], 18)
	}
	h += n
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*xxPrime3, 17) * xxPrime4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*xxPrime5, 11) * xxPrime1
	}
	h ^= h >> 15
	h *= xxPrime2
	h ^= h >> 13
	h *= xxPrime3
	return h ^ h>>16
}
