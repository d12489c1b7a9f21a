package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/x/embedlog/log"
)

// The records of __transaction_state, in Kafka's encoding (TransactionLogKey
// version 0, TransactionLogValue versions 0 and 1:
// https://github.com/apache/kafka/tree/trunk/transaction-coordinator/src/main/resources/common/message).
// All integers are big-endian; an uvarint is base 128, least significant first.
//
//	key    2 version: 0   2 length  transactional id
//
//	value  2 version: 1 (0 is read)
//	       8 producer id   2 epoch   4 timeout, milliseconds   1 state (txnState)
//	       uvarint number of topics + 1, 0 is null; then for each:
//	           uvarint length + 1  topic   uvarint number + 1  4 each partition   uvarint 0: no tagged fields
//	       8 last change   8 start of the transaction or -1, both milliseconds since 1970
//	       uvarint number of tagged fields; then for each, tags growing:
//	           uvarint tag   uvarint length   bytes
//
// Version 0 has 2-byte lengths of strings, 4-byte counts (-1 is null) and no
// tagged fields. A record without a value is a tombstone: the id is forgotten.
const (
	txnKeyVersion   = 0
	txnValueVersion = 1

	txnTagPrevious = 0 // 8: the producer id before the last change of it
	txnTagNext     = 1 // 8: the producer id that the next transaction gets, when the epochs of this one are used up
	txnTagVersion  = 2 // 2: the client's transaction protocol
	// txnTagOwner is ours, far from Kafka's numbers: 1 byte, a txnOwner. Kafka passes over it.
	txnTagOwner = 10000
)

// txnOwner says whose a transactional id is.
type txnOwner int8

const (
	// ownerClient is a client of the Kafka door: it may outlive our process, so what
	// it was told is on disk before it is told.
	ownerClient txnOwner = iota
	// ownerLocal is a caller in this process. None of them outlives it, so what they
	// had open when the database was opened is aborted.
	ownerLocal
	// ownerAnonymous is such a caller with an id that was made up for it: nobody asks
	// for the id again in another run.
	ownerAnonymous
)

// txnTopic are partitions of one topic in a transaction.
type txnTopic struct {
	Topic      string
	Partitions []int32
}

// txnValue is a TransactionLogValue. Ids that there are none of are -1.
type txnValue struct {
	ProducerID         int64
	PreviousProducerID int64
	NextProducerID     int64
	Epoch              int16
	TimeoutMillis      int32
	State              txnState
	Topics             []txnTopic // nil is null
	UpdatedMillis      int64
	StartedMillis      int64 // -1: none
	ClientVersion      int16
	Owner              txnOwner
}

// errTxnRecord is wrapped by every refusal of a record's bytes.
var errTxnRecord = errors.New("not a record of a transaction's state")

// maxTxnTags bounds the tagged fields of one record. Kafka's bound.
const maxTxnTags = 10000

func appendTxnKey(dst []byte, id string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, txnKeyVersion)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(id)))
	return append(dst, id...)
}

// parseTxnKey returns the transactional id of a key. A newer version is an error
// that matches log.ErrNewerFormat.
func parseTxnKey(b []byte) (id string, err error) {
	r := txnReader{b: b}
	if v := r.int16(); r.err == nil && v != txnKeyVersion {
		return "", fmt.Errorf("%w: key version %d: %w", errTxnRecord, v, log.ErrNewerFormat)
	}
	id = r.string(int(r.int16()))
	return id, r.end()
}

func appendTxnValue(dst []byte, v *txnValue) []byte {
	be := binary.BigEndian
	dst = be.AppendUint16(dst, txnValueVersion)
	dst = be.AppendUint64(dst, uint64(v.ProducerID))
	dst = be.AppendUint16(dst, uint16(v.Epoch))
	dst = be.AppendUint32(dst, uint32(v.TimeoutMillis))
	dst = append(dst, byte(v.State))
	if v.Topics == nil {
		dst = append(dst, 0)
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(v.Topics))+1)
	}
	for _, t := range v.Topics {
		dst = binary.AppendUvarint(dst, uint64(len(t.Topic))+1)
		dst = append(dst, t.Topic...)
		dst = binary.AppendUvarint(dst, uint64(len(t.Partitions))+1)
		for _, p := range t.Partitions {
			dst = be.AppendUint32(dst, uint32(p))
		}
		dst = append(dst, 0)
	}
	dst = be.AppendUint64(dst, uint64(v.UpdatedMillis))
	dst = be.AppendUint64(dst, uint64(v.StartedMillis))
	// Fields that have their default are left out, as Kafka does.
	n := 0
	for _, set := range []bool{v.PreviousProducerID != -1, v.NextProducerID != -1, v.ClientVersion != 0, v.Owner != ownerClient} {
		if set {
			n++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	if v.PreviousProducerID != -1 {
		dst = be.AppendUint64(append(dst, txnTagPrevious, 8), uint64(v.PreviousProducerID))
	}
	if v.NextProducerID != -1 {
		dst = be.AppendUint64(append(dst, txnTagNext, 8), uint64(v.NextProducerID))
	}
	if v.ClientVersion != 0 {
		dst = be.AppendUint16(append(dst, txnTagVersion, 2), uint16(v.ClientVersion))
	}
	if v.Owner != ownerClient {
		dst = append(binary.AppendUvarint(dst, txnTagOwner), 1, byte(v.Owner))
	}
	return dst
}

// parseTxnValue reads versions 0 and 1. Tagged fields that are not known are
// passed over. A newer version is an error that matches log.ErrNewerFormat.
// What it allocates is bounded by the length of b.
func parseTxnValue(b []byte) (*txnValue, error) {
	r := txnReader{b: b}
	version := r.int16()
	if r.err == nil && (version < 0 || version > txnValueVersion) {
		return nil, fmt.Errorf("%w: value version %d: %w", errTxnRecord, version, log.ErrNewerFormat)
	}
	r.flexible = version >= 1
	v := &txnValue{PreviousProducerID: -1, NextProducerID: -1}
	v.ProducerID = r.int64()
	v.Epoch = r.int16()
	v.TimeoutMillis = r.int32()
	v.State = txnState(r.int8())
	// A topic takes at least its two lengths.
	if n, null := r.count(2); !null {
		v.Topics = make([]txnTopic, 0, n)
		for range n {
			t := txnTopic{Topic: r.shortString()}
			partitions, _ := r.count(4)
			t.Partitions = make([]int32, 0, partitions)
			for range partitions {
				t.Partitions = append(t.Partitions, r.int32())
			}
			r.tags(func(uint64, *txnReader) {})
			if r.err != nil {
				break
			}
			v.Topics = append(v.Topics, t)
		}
	}
	v.UpdatedMillis = r.int64()
	v.StartedMillis = r.int64()
	r.tags(func(tag uint64, field *txnReader) {
		switch tag {
		case txnTagPrevious:
			v.PreviousProducerID = field.int64()
		case txnTagNext:
			v.NextProducerID = field.int64()
		case txnTagVersion:
			v.ClientVersion = field.int16()
		case txnTagOwner:
			v.Owner = txnOwner(field.int8())
		default:
			field.b = nil
		}
	})
	if err := r.end(); err != nil {
		return nil, err
	}
	return v, v.check()
}

// check refuses what no coordinator writes.
func (v *txnValue) check() error {
	switch {
	case !v.State.known():
		return fmt.Errorf("%w: state %d", errTxnRecord, v.State)
	case v.Owner < ownerClient || v.Owner > ownerAnonymous:
		return fmt.Errorf("%w: owner %d", errTxnRecord, v.Owner)
	case v.ProducerID < -1, v.PreviousProducerID < -1, v.NextProducerID < -1, v.Epoch < -1:
		return fmt.Errorf("%w: producer %d, epoch %d", errTxnRecord, v.ProducerID, v.Epoch)
	}
	for _, t := range v.Topics {
		if slices.ContainsFunc(t.Partitions, func(p int32) bool { return p < 0 }) {
			return fmt.Errorf("%w: a partition of %q is negative", errTxnRecord, t.Topic)
		}
	}
	return nil
}

// txnReader takes fields from the front of b. After the first error it answers zeros.
type txnReader struct {
	b        []byte
	flexible bool
	err      error
}

func (r *txnReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errTxnRecord, what)
	}
	r.b = nil
}

func (r *txnReader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b) {
		r.fail("too short")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *txnReader) int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (r *txnReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *txnReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *txnReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *txnReader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("a number that does not end")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// length reads the number of bytes or elements that follow; -1 is null.
func (r *txnReader) length(fixed func() int64) int64 {
	if !r.flexible {
		return fixed()
	}
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.fail("a length that cannot be")
		return 0
	}
	return int64(v) - 1
}

// count reads the number of elements of an array, each of which takes at least
// so many bytes: what is not there is not allocated for.
func (r *txnReader) count(elementBytes int) (n int, null bool) {
	c := r.length(func() int64 { return int64(r.int32()) })
	if r.err != nil || c == -1 {
		return 0, true
	}
	if c < 0 || c > int64(len(r.b)/elementBytes) {
		r.fail("more elements than bytes")
		return 0, true
	}
	return int(c), false
}

func (r *txnReader) shortString() string {
	return r.string(int(r.length(func() int64 { return int64(r.int16()) })))
}

func (r *txnReader) string(n int) string {
	b := r.take(n)
	if !utf8.Valid(b) {
		r.fail("a name that is not UTF-8")
		return ""
	}
	return string(b)
}

// tags reads tagged fields, where the version has them.
func (r *txnReader) tags(f func(tag uint64, field *txnReader)) {
	if !r.flexible {
		return
	}
	n := r.uvarint()
	if n > maxTxnTags {
		r.fail("too many tagged fields")
	}
	for next := uint64(0); n > 0 && r.err == nil; n-- {
		tag, size := r.uvarint(), r.uvarint()
		if tag < next {
			r.fail("tagged fields out of order")
			return
		}
		next = tag + 1
		if size > math.MaxInt32 {
			r.fail("a length that cannot be")
			return
		}
		field := txnReader{b: r.take(int(size))}
		if r.err != nil {
			return
		}
		f(tag, &field)
		if err := field.end(); err != nil {
			r.fail(fmt.Sprintf("tagged field %d", tag))
		}
	}
}

// end is nil when everything was read and nothing is left.
func (r *txnReader) end() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail(fmt.Sprintf("%d bytes behind the end", len(r.b)))
	}
	return r.err
}
