package engine

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"
)

// The record of a classic group, in Kafka's encoding, under a GroupMetadataKey
// (offsets_codec.go). Strings and bytes are as in an OffsetCommitValue of that kind:
// 2 and 4 bytes of length, -1 for null, before version 4; an uvarint from then on.
//
//	GroupMetadataValue  2 version: 3 (0 to 4 are read)
//	                    protocol type   4 generation   protocol or null   leader or null
//	                    8 milliseconds since 1970 (from 2 on)
//	                    4 number of members; for each:
//	                        member id   instance id or null (from 3 on)   client id   client host
//	                        4 rebalance timeout, milliseconds (from 1 on)   4 session timeout
//	                        bytes subscription   bytes assignment
//
// A subscription is the metadata of the generation's protocol; those of others are not
// kept.
const (
	classicValueVersion    = 3
	classicValueMaxVersion = 4
)

// classicRecord is a GroupMetadataValue.
type classicRecord struct {
	protocolType string
	generation   int32
	protocol     string // empty is null, also for leader and instance
	leader       string
	millis       int64 // -1 not known
	members      []classicRecordMember
}

type classicRecordMember struct {
	id, instance, client, host string
	rebalance, session         time.Duration
	subscription, assignment   []byte
}

func appendNullable16(dst []byte, s string) []byte {
	if s == "" {
		return binary.BigEndian.AppendUint16(dst, math.MaxUint16)
	}
	return appendInt16String(dst, s)
}

func appendMillis32(dst []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(min(max(d.Milliseconds(), 0), math.MaxInt32)))
}

func appendBytes32(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

// appendClassicValue encodes a record. Strings are at most 32,767 bytes: callers checked.
func appendClassicValue(dst []byte, v *classicRecord) []byte {
	dst = binary.BigEndian.AppendUint16(dst, classicValueVersion)
	dst = appendInt16String(dst, v.protocolType)
	dst = binary.BigEndian.AppendUint32(dst, uint32(v.generation))
	dst = appendNullable16(dst, v.protocol)
	dst = appendNullable16(dst, v.leader)
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.millis))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(v.members)))
	for i := range v.members {
		m := &v.members[i]
		dst = appendInt16String(dst, m.id)
		dst = appendNullable16(dst, m.instance)
		dst = appendInt16String(dst, m.client)
		dst = appendInt16String(dst, m.host)
		dst = appendMillis32(dst, m.rebalance)
		dst = appendMillis32(dst, m.session)
		dst = appendBytes32(dst, m.subscription)
		dst = appendBytes32(dst, m.assignment)
	}
	return dst
}

func parseClassicValue(b []byte) (v classicRecord, err error) {
	r := classicReader{offsetReader: offsetReader{b: b}}
	version := int16(r.uint16())
	r.must(version >= 0 && version <= classicValueMaxVersion, "version")
	r.flexible = version >= 4
	v.protocolType = r.string()
	v.generation = int32(r.uint32())
	r.must(v.generation >= 0, "generation")
	v.protocol, v.leader, v.millis = r.nullable(), r.nullable(), -1
	if version >= 2 {
		v.millis = int64(r.uint64())
	}
	for n := r.count(); n > 0 && r.err == nil; n-- {
		m := classicRecordMember{id: r.string()}
		if version >= 3 {
			m.instance = r.nullable()
		}
		m.client, m.host = r.string(), r.string()
		m.rebalance = -1
		if version >= 1 {
			m.rebalance = r.millis()
		}
		m.session = r.millis()
		if m.rebalance < 0 {
			m.rebalance = m.session // as in Kafka, where a member said one timeout only
		}
		r.must(m.session >= 0, "session timeout")
		m.subscription, m.assignment = r.bytes(), r.bytes()
		r.tags()
		v.members = append(v.members, m)
	}
	r.tags()
	return v, r.end()
}

// classicReader reads what differs between versions.
type classicReader struct {
	offsetReader
	flexible bool
}

func (r *classicReader) string() string {
	if r.flexible {
		return r.compactString()
	}
	return r.string16()
}

func (r *classicReader) nullable() string {
	null := len(r.b) >= 2 && r.b[0] == 0xff && r.b[1] == 0xff
	if r.flexible {
		null = len(r.b) >= 1 && r.b[0] == 0
	}
	switch {
	case !null:
		return r.string()
	case r.flexible:
		r.take(1)
	default:
		r.take(2)
	}
	return ""
}

func (r *classicReader) millis() time.Duration {
	return time.Duration(int32(r.uint32())) * time.Millisecond
}

func (r *classicReader) bytes() []byte {
	b := r.take(r.length())
	if r.err != nil {
		return nil
	}
	return bytes.Clone(b)
}

func (r *classicReader) length() uint64 {
	if !r.flexible {
		return uint64(r.uint32())
	}
	n := r.uvarint()
	r.must(n > 0, "length")
	return max(n, 1) - 1
}

// count reads how many members there are: each takes at least 18 bytes, and 15 in the
// compact form.
func (r *classicReader) count() uint64 {
	n, least := r.length(), uint64(18)
	if r.flexible {
		least = 15
	}
	r.must(n <= uint64(len(r.b))/least, "number of members")
	return n
}

func (r *classicReader) tags() {
	if r.flexible {
		r.tagged(func(uint64, []byte) {})
	}
}
