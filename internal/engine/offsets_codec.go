package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// The records of __consumer_offsets, in Kafka's encoding
// (https://github.com/apache/kafka/tree/trunk/group-coordinator/src/main/resources/common/message).
// All integers are big-endian; an uvarint is base 128, least significant first. The
// first two bytes of a key are its version and tell what the record is.
//
//	OffsetCommitKey             2 version: 1 (0 is read)   2 length  group   2 length  topic   4 partition
//	OffsetCommitValue           2 version: 4 (0 to 3 are read)
//	                            8 offset   4 leader epoch, -1 unknown (from 3 on)
//	                            uvarint length + 1 (2 length before 4)  metadata
//	                            8 commit time, milliseconds since 1970   8 expiry time (1 only)
//	                            uvarint number of tagged fields (4); then for each, tags growing:
//	                                uvarint tag   uvarint length   bytes
//	                            tag 0: 16 topic id
//	                            tag 10000, ours: nothing; the leader epoch is what a client said
//	GroupMetadataKey            2 version: 2   2 length  group            (its value: classic_codec.go)
//	ConsumerGroupMetadataKey    2 version: 3   2 length  group
//	ShareGroupMetadataKey       2 version: 11  2 length  group            (its value: as the next)
//	ConsumerGroupMetadataValue  2 version: 0   4 epoch   uvarint number of tagged fields ...
//	                            tag 10000, ours: 8 since when the group is unused, by the
//	                                running time of this log in milliseconds
//
// A record without a value is a tombstone.
const (
	offsetKeyVersion     = 1
	classicKeyVersion    = 2
	groupKeyVersion      = 3
	shareGroupKeyVersion = 11
	offsetValueVersion   = 4
	groupValueVersion    = 0
	offsetTagTopicID     = 0
	offsetTagEpochSaid   = 10_000
	groupTagUnused       = 10_000
	maxOffsetTaggedField = 10_000 // of one record; Kafka's bound
)

// errOffsetRecord is wrapped by every refusal of a record's bytes.
var errOffsetRecord = errors.New("not a record of a group's offsets")

// offsetKey is what a record of __consumer_offsets is about.
type offsetKey struct {
	version   int16 // offsetKeyVersion, classicKeyVersion, groupKeyVersion, or one that is passed over
	group     string
	topic     string // of an offset
	partition int32
}

// offsetValue is an OffsetCommitValue.
type offsetValue struct {
	offset       int64
	leaderEpoch  int32
	metadata     string
	commitMillis int64
	topicID      TopicID // zero: not known
	epochSaid    bool
}

func appendInt16String(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// appendOffsetKey encodes the key. Strings are at most 32,767 bytes: callers checked.
func appendOffsetKey(dst []byte, k *offsetKey) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(k.version))
	dst = appendInt16String(dst, k.group)
	if k.version == offsetKeyVersion {
		dst = appendInt16String(dst, k.topic)
		dst = binary.BigEndian.AppendUint32(dst, uint32(k.partition))
	}
	return dst
}

func appendOffsetValue(dst []byte, v *offsetValue) []byte {
	dst = binary.BigEndian.AppendUint16(dst, offsetValueVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(v.leaderEpoch))
	dst = binary.AppendUvarint(dst, uint64(len(v.metadata))+1)
	dst = append(dst, v.metadata...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.commitMillis))
	fields := byte(0)
	if !v.topicID.IsZero() {
		fields++
	}
	if v.epochSaid {
		fields++
	}
	dst = append(dst, fields)
	if !v.topicID.IsZero() {
		dst = append(append(dst, offsetTagTopicID, byte(len(v.topicID))), v.topicID[:]...)
	}
	if v.epochSaid {
		dst = append(binary.AppendUvarint(dst, offsetTagEpochSaid), 0)
	}
	return dst
}

// groupValue is a ConsumerGroupMetadataValue.
type groupValue struct {
	epoch  int32
	unused int64 // since when nobody uses it, see offsetsShard.now, in milliseconds; -1 is not known
}

func appendGroupValue(dst []byte, v groupValue) []byte {
	dst = binary.BigEndian.AppendUint16(dst, groupValueVersion)
	dst = binary.BigEndian.AppendUint32(dst, uint32(v.epoch))
	if v.unused < 0 {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(append(dst, 1), groupTagUnused)
	return binary.BigEndian.AppendUint64(append(dst, 8), uint64(v.unused))
}

// parseOffsetKey reads a key. A version that is not known gives a key with nothing
// but the version, and no error: Kafka passes over such records.
func parseOffsetKey(b []byte) (k offsetKey, err error) {
	r := offsetReader{b: b}
	k.version = int16(r.uint16())
	switch k.version {
	case 0, offsetKeyVersion:
		k.version = offsetKeyVersion
		k.group, k.topic, k.partition = r.string16(), r.string16(), int32(r.uint32())
		r.must(k.partition >= 0, "partition")
	case classicKeyVersion, groupKeyVersion, shareGroupKeyVersion:
		k.group = r.string16()
	default:
		r.must(k.version >= 0, "version")
		r.b = nil
	}
	return k, r.end()
}

func parseOffsetValue(b []byte) (v offsetValue, err error) {
	r := offsetReader{b: b}
	version := int16(r.uint16())
	r.must(version >= 0 && version <= offsetValueVersion, "version")
	v.offset, v.leaderEpoch = int64(r.uint64()), -1
	r.must(v.offset >= NoOffset, "offset")
	if version >= 3 {
		v.leaderEpoch = int32(r.uint32())
		r.must(v.leaderEpoch >= -1, "leader epoch")
	}
	if version >= 4 {
		v.metadata = r.compactString()
	} else {
		v.metadata = r.string16()
	}
	v.commitMillis = int64(r.uint64())
	if version == 1 {
		r.uint64() // when it expires: Kafka does not look at it either
	}
	if version >= 4 {
		r.tagged(func(tag uint64, b []byte) {
			switch tag {
			case offsetTagTopicID:
				r.must(copy(v.topicID[:], b) == len(v.topicID) && len(b) == len(v.topicID), "topic id")
			case offsetTagEpochSaid:
				r.must(len(b) == 0, "mark of an epoch")
				v.epochSaid = true
			}
		})
	}
	return v, r.end()
}

func parseGroupValue(b []byte) (v groupValue, err error) {
	r := offsetReader{b: b}
	v.unused = -1
	r.must(r.uint16() == groupValueVersion, "version")
	v.epoch = int32(r.uint32())
	r.must(v.epoch >= 0, "epoch")
	r.tagged(func(tag uint64, b []byte) {
		if tag != groupTagUnused {
			return
		}
		if r.must(len(b) == 8, "time"); r.err == nil {
			v.unused = int64(binary.BigEndian.Uint64(b))
			r.must(v.unused >= 0, "time")
		}
	})
	return v, r.end()
}

// offsetReader reads fields until one is wrong; after that all are zero.
type offsetReader struct {
	b   []byte
	err error
}

func (r *offsetReader) must(ok bool, what string) {
	if !ok && r.err == nil {
		r.err = fmt.Errorf("%w: bad %s", errOffsetRecord, what)
	}
}

func (r *offsetReader) take(n uint64) []byte {
	r.must(n <= uint64(len(r.b)), "length")
	if r.err != nil {
		return make([]byte, 8)[:min(n, 8)]
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *offsetReader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *offsetReader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *offsetReader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// uvarint reads a number of at most 32 bits, in its shortest form.
func (r *offsetReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.must(n > 0 && v <= math.MaxUint32 && (n == 1 || r.b[n-1] != 0), "varint")
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *offsetReader) text(b []byte) string {
	r.must(utf8.Valid(b), "string")
	if r.err != nil {
		return ""
	}
	return string(b)
}

func (r *offsetReader) string16() string {
	n := r.uint16()
	r.must(n <= math.MaxInt16, "length")
	return r.text(r.take(uint64(n)))
}

func (r *offsetReader) compactString() string {
	n := r.uvarint()
	r.must(n > 0, "length")
	if r.err != nil {
		return ""
	}
	return r.text(r.take(n - 1))
}

func (r *offsetReader) tagged(f func(tag uint64, b []byte)) {
	n, last := r.uvarint(), int64(-1)
	r.must(n <= maxOffsetTaggedField, "number of tagged fields")
	for ; n > 0 && r.err == nil; n-- {
		tag := r.uvarint()
		r.must(int64(tag) > last, "order of tagged fields")
		last = int64(tag)
		if b := r.take(r.uvarint()); r.err == nil {
			f(tag, b)
		}
	}
}

func (r *offsetReader) end() error {
	r.must(len(r.b) == 0, "length")
	return r.err
}

// offsetsPartitionOf is the partition of __consumer_offsets that a group's records
// are in: Kafka's choice, Utils.abs(groupId.hashCode()) % partitions, where the hash
// is Java's, over UTF-16 units.
func offsetsPartitionOf(group string, partitions int) int32 {
	var h int32
	for _, c := range group {
		if c >= 0x10000 {
			c -= 0x10000
			h = 31*h + (0xd800 + c>>10)
			c = 0xdc00 + c&0x3ff
		}
		h = 31*h + c
	}
	if h == math.MinInt32 {
		h = 0
	} else if h < 0 {
		h = -h
	}
	return h % int32(partitions)
}
