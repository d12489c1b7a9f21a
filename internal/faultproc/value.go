package faultproc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/x/embedlog/log"
)

// A record's value is made from the id of its append alone, so that one read back
// can be told from every other one, and from a damaged one:
//
//	LIFE.WORKER.NUMBER[SIZE]/RECORD/RECORDS padding
//
// SIZE is s (up to 300 bytes and now and then 3000), b (100 KiB) or h (700 KiB,
// which is more than goes through a mapping at once), or c, which is like s but
// with one of 16 keys, for compaction.

func value(id string, k, n int) []byte {
	head := fmt.Sprintf("%s/%d/%d ", id, k, n)
	h := fnv.New64a()
	h.Write([]byte(head))
	x := h.Sum64()
	size := int(x % 300)
	switch id[len(id)-1] {
	case 'b':
		size = 100 << 10
	case 'h':
		size = 700 << 10
	default:
		if x>>32%16 == 0 {
			size = 3000
		}
	}
	v := make([]byte, len(head), len(head)+size+8)
	copy(v, head)
	for len(v) < len(head)+size {
		// xorshift: the padding of two values shares nothing.
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v = binary.BigEndian.AppendUint64(v, x)
	}
	return v
}

// parseValue takes a value apart and checks every byte of it.
func parseValue(v []byte) (id string, k, n int, err error) {
	head, _, ok := bytes.Cut(v, []byte(" "))
	parts := strings.Split(string(head[:min(len(head), 100)]), "/")
	if ok && len(parts) == 3 && len(parts[0]) > 1 {
		k, _ = strconv.Atoi(parts[1])
		n, _ = strconv.Atoi(parts[2])
		if bytes.Equal(value(parts[0], k, n), v) {
			return parts[0], k, n, nil
		}
	}
	return "", 0, 0, fmt.Errorf("a value that nobody sent: %d bytes, %.60q", len(v), v)
}

func key(id string, k int) []byte {
	if id[len(id)-1] != 'c' {
		return []byte(id)
	}
	h := fnv.New32a()
	fmt.Fprint(h, id, k)
	return fmt.Appendf(nil, "key %d", h.Sum32()>>8%16)
}

// records are the records of an append.
func records(id string, n int) []log.Record {
	recs := make([]log.Record, n)
	for k := range recs {
		recs[k] = log.Record{Key: key(id, k), Value: value(id, k, n), Timestamp: 1000}
	}
	return recs
}

// worker is what orders appends: of two by one worker of one life, the one with
// the larger number was begun after the other had ended.
func worker(id string) (name string, number int) {
	i := strings.LastIndexByte(id, '.')
	number, _ = strconv.Atoi(strings.TrimRight(id[i+1:], "sbhc"))
	return id[:i], number
}
