package embedlog

import (
	"bytes"
	"time"

	"github.com/x/embedlog/log"
)

// Record is one record of a topic.
//
// Who produces sets Key, Value, Headers and Timestamp, and Topic where the call
// does not name one; the other fields are set by readers. Produce calls copy what
// they need: key, value and headers are the caller's again when they return.
//
// A record that was read owns nothing: its key, value and header values are parts
// of the batch that it came in, stay valid as long as they are held, and keep the
// batch in memory so long. They must not be written to. ConsumerConfig.ReuseBuffers
// makes them valid for a shorter time.
type Record struct {
	Topic     string
	Partition int32
	// LeaderEpoch is that of the record's batch; always 0 without replication.
	LeaderEpoch int32
	Offset      int64
	// Timestamp has milliseconds. Zero, when producing, means now.
	Timestamp time.Time
	// Key nil is none. Records with the same key go to the same partition.
	Key []byte
	// Value nil is a tombstone in a compacted topic: it deletes the key.
	Value   []byte
	Headers []Header
}

// Header is one name and value of a record. Names may repeat, a nil value is null.
type Header = log.Header

// Position is a place in a partition: of one record, or, where something goes on
// from there, of the next one.
type Position struct {
	Topic     string
	Partition int32
	// LeaderEpoch is that of the record before a position one goes on from, or of the
	// record itself. -1 is not known; zero, in a position made by hand, is that of a
	// database without replication.
	LeaderEpoch int32
	Offset      int64
}

// Position is the record's own place.
func (r *Record) Position() Position {
	return Position{Topic: r.Topic, Partition: r.Partition, LeaderEpoch: r.LeaderEpoch, Offset: r.Offset}
}

// Header returns the value of the record's last header of that name, and whether
// there is one.
func (r *Record) Header(name string) (value []byte, ok bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return r.Headers[i].Value, true
		}
	}
	return nil, false
}

// setRead makes r what a reader is given of lr. Headers are copied, because a
// log.RecordReader uses theirs again; keys and values are shared with the batch.
func (r *Record) setRead(topic string, partition, epoch int32, lr *log.Record) {
	r.Topic, r.Partition, r.LeaderEpoch, r.Offset = topic, partition, epoch, lr.Offset
	r.Timestamp = timeOf(lr.Timestamp)
	r.Key, r.Value, r.Headers = lr.Key, lr.Value, nil
	if len(lr.Headers) > 0 {
		r.Headers = append([]Header(nil), lr.Headers...)
	}
}

// copyBytes makes r independent of the batch that it was read from.
func (r *Record) copyBytes() {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
}

// setProduced makes lr what is appended for r, at now if r has no time of its own.
// Nothing is copied: the append does that.
func setProduced(lr *log.Record, r *Record, now int64) {
	lr.Timestamp = now
	if !r.Timestamp.IsZero() {
		lr.Timestamp = r.Timestamp.UnixMilli()
	}
	lr.Key, lr.Value, lr.Headers = r.Key, r.Value, r.Headers
}

// noTimestamp is how a batch says that a record has no time.
const noTimestamp = -1

func timeOf(ms int64) time.Time {
	if ms == noTimestamp {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// What a record takes in a batch besides its bytes, at most: seven varints and a
// byte of attributes, and two lengths for each header.
const (
	recordOverhead = 40
	headerOverhead = 10
)

// recordBytes is an upper bound of what r takes in an uncompressed batch.
func recordBytes(r *Record) int {
	n := recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += headerOverhead + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}
