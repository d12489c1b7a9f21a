package sock

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/x/embedlog/log"
)

// Record is one record on its way, in either direction.
type Record struct {
	Topic     string // empty in a produce request: the session's producer knows it
	Partition int32  // -1 lets the partitioner choose
	Offset    int64  // -1 in a produce request
	Epoch     int32  // leader epoch; -1 unknown
	Time      time.Time
	Key       []byte // nil is none
	Value     []byte // nil is a tombstone
	Headers   []Header
}

// Header is one header of a record; a nil value is null.
type Header = log.Header

// Size is about what the record takes in a frame.
func (r *Record) Size() int {
	n := 32 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 8 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// minRecordLen is the least that a record takes: a count of records is believed
// no further than the bytes that are there.
const minRecordLen = 8

// AppendRecords encodes records behind dst:
//
//	uvarint count, then each:
//	  bytes topic (empty: as the record before), varint partition, offset, epoch,
//	  varint timestamp in milliseconds +1 (0: none), nullable key, nullable value,
//	  uvarint headers: bytes key, nullable value
//
// bytes is a uvarint length and the bytes; nullable has length + 1, 0 for null.
func AppendRecords(dst []byte, recs []Record) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(recs)))
	topic := ""
	for i := range recs {
		r := &recs[i]
		if r.Topic == topic {
			dst = append(dst, 0)
		} else {
			topic = r.Topic
			dst = appendBytes(dst, topic)
		}
		dst = binary.AppendVarint(dst, int64(r.Partition))
		dst = binary.AppendVarint(dst, r.Offset)
		dst = binary.AppendVarint(dst, int64(r.Epoch))
		ms := int64(0)
		if !r.Time.IsZero() {
			ms = r.Time.UnixMilli() + 1
		}
		dst = binary.AppendVarint(dst, ms)
		dst = appendNullable(dst, r.Key)
		dst = appendNullable(dst, r.Value)
		dst = binary.AppendUvarint(dst, uint64(len(r.Headers)))
		for _, h := range r.Headers {
			dst = appendBytes(dst, h.Key)
			dst = appendNullable(dst, h.Value)
		}
	}
	return dst
}

// DecodeRecords reads what AppendRecords made. Keys, values and header values
// alias b.
func DecodeRecords(b []byte) ([]Record, error) {
	d := decoder{b: b}
	n := d.count(minRecordLen)
	recs := make([]Record, 0, n)
	topic := ""
	for range n {
		var r Record
		if t := d.bytes(); len(t) > 0 {
			topic = string(t)
		}
		r.Topic = topic
		r.Partition = d.int32()
		r.Offset = d.varint()
		r.Epoch = d.int32()
		if ms := d.varint(); ms != 0 {
			r.Time = time.UnixMilli(ms - 1)
		}
		r.Key = d.nullable()
		r.Value = d.nullable()
		if h := d.count(2); h > 0 {
			r.Headers = make([]Header, h)
			for i := range r.Headers {
				r.Headers[i] = Header{Key: string(d.bytes()), Value: d.nullable()}
			}
		}
		if d.err != nil {
			return nil, d.err
		}
		recs = append(recs, r)
	}
	return recs, d.end()
}

// Ack says what became of one record of a produce request.
type Ack struct {
	Partition int32
	Offset    int64 // -1: not acknowledged
}

// Produced is the reply to OpProduce. Err is why the first record that was not
// acknowledged was not; nil when all were.
type Produced struct {
	Acks []Ack
	Err  *Error
}

// AppendProduced encodes p behind dst: uvarint count, varint partition and offset
// each, then bytes of the
// error's code and message, both empty for none.
func AppendProduced(dst []byte, p Produced) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(p.Acks)))
	for _, a := range p.Acks {
		dst = binary.AppendVarint(dst, int64(a.Partition))
		dst = binary.AppendVarint(dst, a.Offset)
	}
	if p.Err == nil {
		return append(dst, 0, 0)
	}
	dst = appendBytes(dst, string(p.Err.Code))
	return appendBytes(dst, p.Err.Message)
}

// DecodeProduced reads what AppendProduced made.
func DecodeProduced(b []byte) (Produced, error) {
	d := decoder{b: b}
	p := Produced{Acks: make([]Ack, d.count(2))}
	for i := range p.Acks {
		p.Acks[i] = Ack{Partition: d.int32(), Offset: d.varint()}
	}
	code, message := string(d.bytes()), string(d.bytes())
	if code != "" {
		p.Err = &Error{Code: Code(code), Message: message}
	} else if message != "" {
		d.fail("an error without a code")
	}
	return p, d.end()
}

func appendBytes[T string | []byte](dst []byte, b T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendNullable(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b))+1)
	return append(dst, b...)
}

// decoder reads fields and remembers the first thing that is wrong.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrProtocol, what)
	}
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int32() int32 {
	v := d.varint()
	if int64(int32(v)) != v {
		d.fail("a number is too large")
		return 0
	}
	return int32(v)
}

// count reads how many things of at least size bytes follow.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/size) {
		d.fail("a count is larger than what follows")
		return 0
	}
	return int(v)
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail("bytes are cut off")
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func (d *decoder) nullable() []byte {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	return d.take(n - 1)
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes are left over")
	}
	return d.err
}
