package log

import "math/bits"

// fields is where the parts of a record lie. A null field ends before it starts.
type fields struct {
	timestamp, delta int64 // relative to the batch's
	key, keyEnd      int
	value, valueEnd  int
	headers          int64 // how many; they start at headersStart and must end at end
	headersStart     int
	end              int
}

// parse finds the parts of the record at b[pos]. Headers are counted, not looked
// at; without any the record must end there. Lengths are compared with the bytes
// that are left in 64 bits, so nothing overflows. Nearly every varint has one byte
// and the rest two: those are decoded here, a third faster than by a call.
func (f *fields) parse(b []byte, pos int) (reason string) {
	i := pos
	var u uint64
	switch w := b[pos:]; {
	case len(w) < minRecordBytes:
		return "record is cut off"
	case w[0] < 0x80:
		u, i = uint64(w[0]), i+1
	case w[1] < 0x80:
		u, i = uint64(w[0]&0x7f)|uint64(w[1])<<7, i+2
	default:
		if u, i = uvarint(b, pos, 32); i < 0 {
			return "record length is not a varint"
		}
	}
	if size := unzigzag(u); size < minRecordBytes-1 || size > int64(len(b)-i) {
		return "record length is out of bounds"
	} else {
		f.end = i + int(size)
	}
	b = b[:f.end]
	i++ // attributes: none are defined, and ignored as Kafka's readers do

	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		u, i = uint64(b[i]), i+1
	} else if u, i = uvarint(b, i, 64); i < 0 {
		return "timestamp is not a varint"
	}
	f.timestamp = unzigzag(u)

	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		u, i = uint64(b[i]), i+1
	} else if uint(i+1) < uint(len(b)) && b[i+1] < 0x80 {
		u, i = uint64(b[i]&0x7f)|uint64(b[i+1])<<7, i+2
	} else if u, i = uvarint(b, i, 32); i < 0 {
		return "offset delta is not a varint"
	}
	f.delta = unzigzag(u)

	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		u, i = uint64(b[i]), i+1
	} else if u, i = uvarint(b, i, 32); i < 0 {
		return "key length is not a varint"
	}
	size := unzigzag(u)
	if size < -1 || size > int64(len(b)-i) {
		return "key is out of bounds"
	}
	f.key, f.keyEnd = i, i+int(size)
	i += int(max(size, 0))

	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		u, i = uint64(b[i]), i+1
	} else if uint(i+1) < uint(len(b)) && b[i+1] < 0x80 {
		u, i = uint64(b[i]&0x7f)|uint64(b[i+1])<<7, i+2
	} else if u, i = uvarint(b, i, 32); i < 0 {
		return "value length is not a varint"
	}
	size = unzigzag(u)
	if size < -1 || size > int64(len(b)-i) {
		return "value is out of bounds"
	}
	f.value, f.valueEnd = i, i+int(size)
	i += int(max(size, 0))

	if i == len(b)-1 && b[i] == 0 {
		f.headers, f.headersStart = 0, f.end
		return ""
	}
	if u, i = uvarint(b, i, 32); i < 0 {
		return "number of headers is not a varint"
	}
	f.headers, f.headersStart = unzigzag(u), i
	// Each header takes two bytes or more.
	if f.headers < 0 || f.headers > int64(len(b)-i)/2 {
		return "number of headers is out of bounds"
	}
	if f.headers == 0 && i != f.end {
		return "record is longer than its fields"
	}
	return ""
}

// parseHeader finds the key and value of the header at b[i]. Next is the place
// behind it.
func (f *fields) parseHeader(b []byte, i int) (next int, reason string) {
	u, i := uvarint(b, i, 32)
	if i < 0 {
		return 0, "header key length is not a varint"
	}
	size := unzigzag(u)
	if size < 0 || size > int64(len(b)-i) {
		return 0, "header key is out of bounds"
	}
	f.key, f.keyEnd = i, i+int(size)
	if u, i = uvarint(b, f.keyEnd, 32); i < 0 {
		return 0, "header value length is not a varint"
	}
	size = unzigzag(u)
	if size < -1 || size > int64(len(b)-i) {
		return 0, "header value is out of bounds"
	}
	f.value, f.valueEnd = i, i+int(size)
	return i + int(max(size, 0)), ""
}

// uvarint reads 7 bits a byte, the lowest first, of a number of the given bits.
// Next is the place behind it, negative when it is cut off or too large. Needless
// zero groups are accepted within Kafka's limits of 5 and 10 bytes.
func uvarint(b []byte, i, width int) (v uint64, next int) {
	for shift := 0; shift < width; shift += 7 {
		if uint(i) >= uint(len(b)) {
			return 0, -1
		}
		c := uint64(b[i])
		i++
		if shift+7 > width && c&0x7f>>(width-shift) != 0 {
			return 0, -1
		}
		v |= c & 0x7f << shift
		if c < 0x80 {
			return v, i
		}
	}
	return 0, -1
}

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// uvarintLen is the number of 7-bit groups in v: ceil(bits/7), without a division.
func uvarintLen(v uint64) int { return (bits.Len64(v|1)*9 + 64) >> 6 }

// putUvarint writes v at b[i] and returns the place behind it.
func putUvarint(b []byte, i int, v uint64) int {
	for v >= 0x80 {
		b[i] = byte(v) | 0x80
		v >>= 7
		i++
	}
	b[i] = byte(v)
	return i + 1
}
