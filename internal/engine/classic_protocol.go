package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// What consumers of the classic protocol tell each other through the group, in
// Kafka's encoding (ConsumerProtocolSubscription and ConsumerProtocolAssignment).
// All integers are big-endian; a string has 2 bytes of length, bytes and arrays have
// 4, and a length of -1 is null.
//
//	Subscription  2 version: 0 to 3, and later ones as 3
//	              topics: array of string   user data: bytes
//	              owned: array of (string topic, array of 4 partition)      from 1 on
//	              4 generation in which it had them                         from 2 on
//	              rack: string                                              from 3 on
//	Assignment    2 version
//	              array of (string topic, array of 4 partition)   user data: bytes
//
// There are clients that say version 1 and leave out what is owned: what is missing
// at the end of a subscription is empty. What follows the last field is passed over.
const consumerProtocolVersion = 3

// errConsumerProtocol is wrapped by every refusal of a member's bytes.
var errConsumerProtocol = errors.New("not the consumer protocol")

// namedParts are partitions of one topic.
type namedParts struct {
	topic      string
	partitions []int32
}

// consumerSubscription is what a consumer wants and has.
type consumerSubscription struct {
	version int16
	topics  []string
	owned   []namedParts // what it keeps through the rebalance; none of an eager member
	rack    string
}

func parseConsumerSubscription(b []byte) (s consumerSubscription, err error) {
	r := protocolReader{b: b}
	s.version = r.version()
	for n := r.count(2); n > 0 && r.err == nil; n-- {
		s.topics = append(s.topics, r.text())
	}
	r.skipBytes()
	if s.version >= 1 && len(r.b) > 0 {
		s.owned = r.parts()
	}
	if s.version >= 2 && len(r.b) > 0 {
		r.int32()
	}
	if s.version >= 3 && len(r.b) > 0 {
		s.rack = r.text()
	}
	if r.err != nil {
		return consumerSubscription{}, r.err
	}
	return s, nil
}

// parseConsumerAssignment reads an assignment. No bytes are an empty one.
func parseConsumerAssignment(b []byte) (list []namedParts, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := protocolReader{b: b}
	r.version()
	list = r.parts()
	if len(r.b) > 0 {
		r.skipBytes()
	}
	if r.err != nil {
		return nil, r.err
	}
	return list, nil
}

// appendConsumerAssignment encodes an assignment, with null user data.
func appendConsumerAssignment(dst []byte, version int16, list []namedParts) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(version))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(list)))
	for _, t := range list {
		dst = appendInt16String(dst, t.topic)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.partitions)))
		for _, p := range t.partitions {
			dst = binary.BigEndian.AppendUint32(dst, uint32(p))
		}
	}
	return binary.BigEndian.AppendUint32(dst, math.MaxUint32)
}

// protocolReader reads fields until one is wrong; after that all are zero.
type protocolReader struct {
	b   []byte
	err error
}

func (r *protocolReader) must(ok bool, what string) {
	if !ok && r.err == nil {
		r.err = fmt.Errorf("%w: bad %s", errConsumerProtocol, what)
	}
}

func (r *protocolReader) take(n int) []byte {
	r.must(n <= len(r.b), "length")
	if r.err != nil {
		return make([]byte, 4)[:min(n, 4)]
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *protocolReader) int16() int16 { return int16(binary.BigEndian.Uint16(r.take(2))) }
func (r *protocolReader) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }

func (r *protocolReader) version() int16 {
	v := r.int16()
	r.must(v >= 0, "version")
	return min(v, consumerProtocolVersion)
}

// count reads the length of an array whose elements take at least so many bytes.
func (r *protocolReader) count(elementBytes int) int {
	n := int(r.int32())
	r.must(n >= -1 && n <= len(r.b)/elementBytes, "array")
	if r.err != nil {
		return 0
	}
	return max(n, 0)
}

func (r *protocolReader) text() string {
	n := r.int16()
	r.must(n >= -1, "string")
	if r.err != nil || n < 0 {
		return ""
	}
	b := r.take(int(n))
	r.must(utf8.Valid(b), "string")
	if r.err != nil {
		return ""
	}
	return string(b)
}

func (r *protocolReader) skipBytes() {
	n := r.int32()
	r.must(n >= -1, "bytes")
	if r.err == nil && n > 0 {
		r.must(int(n) <= len(r.b), "length")
		if r.err == nil {
			r.b = r.b[n:]
		}
	}
}

func (r *protocolReader) parts() (list []namedParts) {
	for n := r.count(6); n > 0 && r.err == nil; n-- {
		t := namedParts{topic: r.text()}
		for n := r.count(4); n > 0 && r.err == nil; n-- {
			t.partitions = append(t.partitions, r.int32())
		}
		list = append(list, t)
	}
	return list
}

// named returns partitions with the names of their topics, by name. Topics that are
// gone are left out.
func (v *topicsView) named(parts groupParts) (list []namedParts) {
	for id, partitions := range parts {
		if t, ok := v.byID[id]; ok {
			list = append(list, namedParts{t.name, partitions})
		}
	}
	slices.SortFunc(list, func(a, b namedParts) int { return strings.Compare(a.topic, b.topic) })
	return list
}

// parts returns those of the partitions that there are.
func (v *topicsView) parts(list []namedParts) groupParts {
	var found []TopicPartitions
	for _, n := range list {
		if t, ok := v.byName[n.topic]; ok {
			there := slices.DeleteFunc(slices.Clone(n.partitions), func(p int32) bool { return p < 0 || p >= t.partitions })
			found = append(found, TopicPartitions{t.id, there})
		}
	}
	return newGroupParts(found)
}
