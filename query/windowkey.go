package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// WindowKey is the key of rows of a window: a key's in a part of time. The times are whole milliseconds, in UTC.
type WindowKey[K any] struct {
	Key K
	// Start is the window's beginning. Of a session it is the time of its first row.
	Start time.Time
	// End is where the window is over, which does not belong to it. Of a session it is the time of its last row.
	End time.Time
}

// WindowCodec is the codec of windows' keys, whose bytes are in the order of the key's bytes, of the start and of the end.
// Those of one key begin with Prefix:
//
//	key, where 0 is 0 255 ++ 0 1 ++ start ++ end    milliseconds since 1970, big endian, their sign turned round
type WindowCodec[K any] struct{ Key Codec[K] }

// Append implements embedlog.Codec.
func (c WindowCodec[K]) Append(dst []byte, w WindowKey[K]) ([]byte, error) {
	dst, err := c.Prefix(dst, w.Key)
	if err != nil {
		return dst, err
	}
	return appendSpan(dst, w.Start.UnixMilli(), w.End.UnixMilli()), nil
}

// Prefix appends what all windows of a key begin with: see View.Prefix.
func (c WindowCodec[K]) Prefix(dst []byte, key K) ([]byte, error) {
	raw, err := c.Key.Append(nil, key)
	if err != nil {
		return dst, err
	}
	return appendText(dst, raw), nil
}

// Decode implements embedlog.Codec.
func (c WindowCodec[K]) Decode(b []byte) (w WindowKey[K], err error) {
	raw, start, end, err := splitWindow(b)
	if err != nil {
		return w, err
	}
	if w.Key, err = c.Key.Decode(raw); err != nil {
		return w, err
	}
	w.Start, w.End = atMillis(start), atMillis(end)
	return w, nil
}

// place is the part of a key by which partitions are told: windows are where their records are.
func (c WindowCodec[K]) place(raw []byte) []byte {
	key, _, _, err := splitWindow(raw)
	if err != nil {
		return raw
	}
	return placeOf(c.Key, key)
}

// placeOf is what tells the partition of a key's bytes.
func placeOf[K any](c Codec[K], raw []byte) []byte {
	if p, ok := c.(interface{ place(raw []byte) []byte }); ok {
		return p.place(raw)
	}
	return raw
}

func atMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func appendSpan(dst []byte, start, end int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(start)^1<<63)
	return binary.BigEndian.AppendUint64(dst, uint64(end)^1<<63)
}

// spanBytes is the length of what appendSpan appends.
const spanBytes = 16

var errWindowKey = errors.New("query: invalid encoding of a window's key")

// spanOf is the start and the end of a window, by its key's bytes.
func spanOf[B string | []byte](b B) (start, end int64) {
	var s [spanBytes]byte
	copy(s[:], b[len(b)-spanBytes:])
	return int64(binary.BigEndian.Uint64(s[:8]) ^ 1<<63), int64(binary.BigEndian.Uint64(s[8:]) ^ 1<<63)
}

// storedSpan is spanOf of a key that was restored: nobody says that it is a window's.
func storedSpan(store, key string) (start, end int64, err error) {
	if len(key) < spanBytes {
		return 0, 0, fmt.Errorf("store %s: key %q: %w", store, key, errWindowKey)
	}
	start, end = spanOf(key)
	return start, end, nil
}

// splitWindow divides a window's key. The key in it is a new slice.
func splitWindow(b []byte) (key []byte, start, end int64, err error) {
	if len(b) < spanBytes+2 {
		return nil, 0, 0, errWindowKey
	}
	start, end = spanOf(b)
	key, rest, err := cutText(b)
	if err != nil || len(rest) != spanBytes {
		return nil, 0, 0, errWindowKey
	}
	return key, start, end, nil
}

// cutText undoes appendText.
func cutText(b []byte) (text, rest []byte, err error) {
	text = []byte{}
	for i := 0; i < len(b); i++ {
		if b[i] != 0 {
			text = append(text, b[i])
			continue
		}
		if i++; i == len(b) {
			break
		}
		switch b[i] {
		case 1:
			return text, b[i+1:], nil
		case 255:
			text = append(text, 0)
		default:
			return nil, nil, errWindowKey
		}
	}
	return nil, nil, errWindowKey
}
