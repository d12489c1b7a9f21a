package soak

import (
	"encoding/binary"
	"fmt"
)

// Encode is the bytes of a value: the value, and padding that follows from it, so that
// a record that was mixed with another is noticed.
func Encode(value int64, size int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(value))
	return pad(b, uint64(value), size)
}

func pad(b []byte, x uint64, size int) []byte {
	for len(b) < size {
		x = x*6364136223846793005 + 1442695040888963407
		b = append(b, byte(x>>56))
	}
	return b
}

// Decode is the value of bytes.
func Decode(b []byte) (int64, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("a record of %d bytes", len(b))
	}
	value := int64(binary.BigEndian.Uint64(b))
	if want := Encode(value, len(b)); string(want) != string(b) {
		return 0, fmt.Errorf("a record of value %d with other bytes than were sent: %x", value, b)
	}
	return value, nil
}
