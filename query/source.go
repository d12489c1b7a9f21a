package query

import (
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/log"
)

// source is a topic as it is read with two codecs. A task has one reader and one decoder for it, whatever number of nodes stands on it.
type source struct {
	topic *embedlog.Topic
	// same tells whether another source decodes in the same way.
	key, value any
	build      func(b *builder) decoder
}

// decoder takes the records of a source's topic in a task.
type decoder interface {
	// join is called before the first batch: other tasks of the process may decode the same.
	join(partitions []int32) (leave func())
	// begin is called before the records of a batch are taken, all of them, in their order.
	begin(b *embedlog.Batch)
	// take decodes a record and keeps it for flush. An error says that it cannot be decoded.
	// stream is the time of its partition then.
	take(rec *embedlog.Record, stream int64) error
	// flush hands what was taken to the operators.
	flush()
	// next is the offset of the first record that was taken and not handed to the operators; there is none when it is false. flushOne hands them this one.
	next() (offset int64, ok bool)
	flushOne()
}

// emit hands what was taken to the operators: record by record where one of them depends on the order of records in a topic that it
// has on two ways.
func (t *task) emit(decs []decoder) {
	for t.single {
		first, some := int64(0), false
		for _, d := range decs {
			if offset, ok := d.next(); ok && (!some || offset < first) {
				first, some = offset, true
			}
		}
		if !some {
			break
		}
		for _, d := range decs {
			if offset, ok := d.next(); ok && offset == first {
				d.flushOne()
			}
		}
		t.runLater()
	}
	for _, d := range decs {
		d.flush()
	}
}

// sourcePortOf is the decoder of a source in a task.
type sourcePortOf[K, V any] struct {
	source  *source
	key     Codec[K]
	value   Codec[V]
	bare    bool // the key's bytes are its one encoding
	shared  *decoding[K, V]
	batch   *decodedBatch[K, V] // what another one has decoded; nil: nobody has
	row     int                 // of batch, the next one
	pending []delta[K, V]
	offsets []int64 // of pending
	handed  int     // of pending, what the operators have
	outs    []func([]delta[K, V])
}

func newSource[K, V any](t *embedlog.Topic, key Codec[K], value Codec[V]) *source {
	s := &source{topic: t, key: key, value: value}
	s.build = func(*builder) decoder {
		return &sourcePortOf[K, V]{source: s, key: key, value: value, bare: canonical(key)}
	}
	return s
}

// sourcePort is the task's decoder of a source.
func sourcePort[K, V any](b *builder, s *source, _ Codec[K], _ Codec[V]) *sourcePortOf[K, V] {
	return b.task.decoder(b, s).(*sourcePortOf[K, V])
}

func (s *sourcePortOf[K, V]) to(f func([]delta[K, V])) { s.outs = append(s.outs, f) }

func (s *sourcePortOf[K, V]) join(partitions []int32) (leave func()) {
	s.shared, leave = joinDecoding[K, V](s.source, partitions)
	return leave
}

func (s *sourcePortOf[K, V]) begin(b *embedlog.Batch) {
	s.batch, s.row = nil, 0
	if s.shared == nil {
		return
	}
	e, mine := s.shared.find(b)
	if e == nil {
		return
	}
	if mine {
		e.fill(b, s.decode)
	}
	if <-e.ready; e.whole {
		s.batch = e
	}
}

func (s *sourcePortOf[K, V]) take(rec *embedlog.Record, stream int64) (err error) {
	n := len(s.pending)
	if s.batch != nil {
		s.pending = append(s.pending, s.batch.rows[s.row])
		if s.batch.errs != nil {
			err = s.batch.errs[s.row]
		}
		s.row++
	} else {
		s.pending = append(s.pending, delta[K, V]{})
		err = s.decode(&s.pending[n], rec)
	}
	if err != nil {
		s.pending = s.pending[:n]
		return err
	}
	s.pending[n].time.stream = stream
	s.offsets = append(s.offsets, rec.Offset)
	return nil
}

// decode makes a row of a record, without the stream time. d is new.
func (s *sourcePortOf[K, V]) decode(d *delta[K, V], rec *embedlog.Record) (err error) {
	d.tombstone = rec.Value == nil
	d.time, d.weight, d.null = moment{ms: millisOf(rec.Timestamp)}, 1, rec.Key == nil
	if rec.Key != nil {
		if d.key, err = s.key.Decode(rec.Key); err != nil {
			return fmt.Errorf("decode the key: %w", err)
		}
		if s.bare {
			d.raw = rec.Key
		}
	}
	if rec.Value != nil {
		if d.val, err = s.value.Decode(rec.Value); err != nil {
			return fmt.Errorf("decode the value: %w", err)
		}
	}
	return nil
}

func (s *sourcePortOf[K, V]) flush() {
	s.hand(len(s.pending))
	clear(s.pending) // they hold their batch
	s.pending, s.offsets, s.handed = s.pending[:0], s.offsets[:0], 0
}

func (s *sourcePortOf[K, V]) next() (offset int64, ok bool) {
	if s.handed == len(s.pending) {
		return 0, false
	}
	return s.offsets[s.handed], true
}

func (s *sourcePortOf[K, V]) flushOne() { s.hand(s.handed + 1) }

// hand gives the operators what was taken, up to an end.
func (s *sourcePortOf[K, V]) hand(end int) {
	if from := s.handed; from < end {
		s.handed = end
		for _, f := range s.outs {
			f(s.pending[from:end])
		}
	}
}

// records walks a batch's records as its Records does, in one record that is written again for each.
func records(b *embedlog.Batch) iter.Seq2[*embedlog.Record, error] {
	return func(yield func(*embedlog.Record, error) bool) {
		rec := &embedlog.Record{Topic: b.Topic, Partition: b.Partition, LeaderEpoch: b.LeaderEpoch}
		var rr log.RecordReader
		err := rr.Reset(b.Bytes(), 0)
		for err == nil && rr.Next() {
			r := rr.Record()
			if r.Offset < b.FirstOffset {
				continue
			}
			rec.Offset, rec.Key, rec.Value, rec.Headers = r.Offset, r.Key, r.Value, nil
			if rec.Timestamp = (time.Time{}); r.Timestamp != noTimestamp {
				rec.Timestamp = time.UnixMilli(r.Timestamp)
			}
			if r.Headers != nil {
				rec.Headers = append([]embedlog.Header(nil), r.Headers...)
			}
			if !yield(rec, nil) {
				return
			}
		}
		if err = rr.Err(); err != nil {
			yield(nil, &embedlog.ReadError{Topic: b.Topic, Partition: b.Partition, Offset: b.FirstOffset, Next: b.LastOffset + 1, Err: err})
		}
	}
}

// noTimestamp is a record's that has none.
const noTimestamp = -1

// The headers of a record in a dead-letter topic: where it came from, and why. The record itself is as it was.
const (
	HeaderTopic     = "embedlog.dead.topic"
	HeaderPartition = "embedlog.dead.partition"
	HeaderOffset    = "embedlog.dead.offset"
	HeaderReason    = "embedlog.dead.reason"
)

// deadLetter is what becomes of a record that cannot be decoded.
func deadLetter(topic string, rec *embedlog.Record, why error) embedlog.Record {
	dead := embedlog.Record{Topic: topic, Key: rec.Key, Value: rec.Value, Timestamp: rec.Timestamp}
	dead.Headers = append(dead.Headers, rec.Headers...)
	add := func(name, value string) {
		dead.Headers = append(dead.Headers, embedlog.Header{Key: name, Value: []byte(value)})
	}
	add(HeaderTopic, rec.Topic)
	add(HeaderPartition, strconv.Itoa(int(rec.Partition)))
	add(HeaderOffset, strconv.FormatInt(rec.Offset, 10))
	add(HeaderReason, why.Error())
	return dead
}

// same says whether another source reads the same topic with the same codecs.
func (s *source) same(o *source) bool {
	return s.topic.ID() == o.topic.ID() && equal(s.key, o.key) && equal(s.value, o.value)
}

// equal compares codecs. Those that cannot be compared are not the same.
func equal(a, b any) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && reflect.ValueOf(a).Comparable() && a == b
}
