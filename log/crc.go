package log

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the CRC-32C of b.
func crc32c(b []byte) uint32 { return crc32cUpdate(0, b) }

// crc32cUpdate goes on from crc, the checksum of the bytes before b.
func crc32cUpdate(crc uint32, b []byte) uint32 {
	return crc32.Update(crc, castagnoli, b)
}
