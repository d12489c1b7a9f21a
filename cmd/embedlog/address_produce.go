package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
)

// kafkaProducer is a session's producer: of one topic.
type kafkaProducer struct {
	cl         *kgo.Client
	topic      string
	partitions int
}

// deliveryTimeout is how long records are tried again: somebody sits there, or a
// script, that is better told soon than goes on waiting.
const deliveryTimeout = 10 * time.Second

var kafkaCompressions = map[string]kgo.CompressionCodec{
	"": kgo.NoCompression(), "none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (k *kafkaDoor) openProducer(ctx context.Context, q sock.Producer) (none, error) {
	k.closeProducer()
	m, err := k.admin.Metadata(ctx, q.Topic)
	if err != nil {
		return none{}, err
	}
	if err := topicError(q.Topic, m.Topics[q.Topic].Err); err != nil {
		return none{}, err
	}
	codec, ok := kafkaCompressions[q.Compression]
	if !ok {
		return none{}, &sock.Error{Code: sock.CodeInvalid, Message: fmt.Sprintf("no compression %q", q.Compression)}
	}
	opts := append(k.opts[:len(k.opts):len(k.opts)],
		kgo.DefaultProduceTopic(q.Topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(&namedPartitioner{kgo.StickyKeyPartitioner(nil)}),
		kgo.UnknownTopicRetries(1),
		// Without this a record on its way would wait for a broker that is gone, for ever. What
		// is given up is reported as unknown, and nothing is sent twice.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerBatchMaxBytes(k.batchBytes(ctx, q.Topic)), kgo.MaxBufferedRecords(1<<20),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return none{}, err
	}
	k.producer = &kafkaProducer{cl, q.Topic, len(m.Topics[q.Topic].Partitions)}
	return none{}, nil
}

// batchBytes is the largest batch that the topic takes; Kafka's default where it is
// not for us to know.
func (k *kafkaDoor) batchBytes(ctx context.Context, topic string) int32 {
	const usual, most = 1_000_012, sock.MaxRequestBytes
	described, err := k.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return usual
	}
	for _, r := range described {
		for _, c := range r.Configs {
			if c.Key == "max.message.bytes" {
				if n, err := strconv.ParseInt(c.MaybeValue(), 10, 64); err == nil && n > 0 {
					return int32(min(n, most))
				}
			}
		}
	}
	return usual
}

func (k *kafkaDoor) closeProducer() {
	if k.producer != nil {
		k.producer.cl.Close()
		k.producer = nil
	}
}

// produce sends the records of one request and waits for all of them. The reply says
// what became of each.
func (k *kafkaDoor) produce(ctx context.Context, payload []byte) (any, error) {
	p := k.producer
	if p == nil {
		return nil, errors.New("records before a producer was opened")
	}
	in, err := sock.DecodeRecords(payload)
	if err != nil {
		return nil, err
	}
	out := sock.Produced{Acks: make([]sock.Ack, len(in))}
	at := make(map[*kgo.Record]int, len(in))
	var recs []*kgo.Record
	first, why := len(in), error(nil)
	fail := func(i int, err error) {
		if i < first {
			first, why = i, err
		}
	}
	for i := range in {
		r := &in[i]
		out.Acks[i] = sock.Ack{Partition: -1, Offset: -1}
		if int(r.Partition) >= p.partitions {
			err := &embedlog.UnknownPartitionError{Topic: p.topic, Partition: r.Partition, Partitions: p.partitions}
			fail(i, &sock.Error{Code: sock.CodeUnknownPart, Message: err.Error()})
			continue
		}
		rec := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: r.Time, Partition: r.Partition}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		recs, at[rec] = append(recs, rec), i
	}
	// The client's own timeout counts from a record's timestamp, which may be any.
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	for _, r := range p.cl.ProduceSync(ctx, recs...) {
		i := at[r.Record]
		if r.Err != nil {
			fail(i, r.Err)
			continue
		}
		out.Acks[i] = sock.Ack{Partition: r.Record.Partition, Offset: r.Record.Offset}
	}
	if why != nil {
		if out.Err = k.at.notProduced(why, p.topic); errors.Is(why, kerr.InvalidRecord) && in[first].Key == nil {
			out.Err.Message += "; a compacted topic takes no record without a key"
		}
	}
	return sock.AppendProduced(nil, out), nil
}

// notProduced says why a record was not written, or that nobody knows.
func (d *address) notProduced(err error, topic string) *sock.Error {
	var k *kerr.Error
	var e *sock.Error
	var dial *dialError
	unknown := func(why string) *sock.Error {
		return &sock.Error{Code: sock.CodeUnknownOutcome, Message: fmt.Sprintf("not acknowledged within %v, it may be there or not: %s", deliveryTimeout, why)}
	}
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &dial): // it may have been sent before the connection was gone
		return unknown(dial.Error())
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries), errors.Is(err, context.DeadlineExceeded):
		return unknown(d.hosts[0] + " does not answer")
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return unknownTopic(topic).(*sock.Error)
	case errors.As(err, &k) && kafkaCodes[k] == sock.CodeTooLarge:
		return &sock.Error{Code: sock.CodeTooLarge, Message: "the record is larger than max.message.bytes of topic " + topic + " allows"}
	}
	told := d.told(err)
	if errors.As(told, &e) {
		return e
	}
	return &sock.Error{Code: sock.CodeFailure, Message: told.Error()}
}

// namedPartitioner lets a record name its partition; -1 leaves it to the key, and
// without one to chance, as Kafka's clients do.
type namedPartitioner struct{ byKey kgo.Partitioner }

func (p *namedPartitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return &namedTopicPartitioner{p.byKey.ForTopic(topic)}
}

type namedTopicPartitioner struct{ kgo.TopicPartitioner }

func (p *namedTopicPartitioner) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || p.TopicPartitioner.RequiresConsistency(r)
}

func (p *namedTopicPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return p.TopicPartitioner.Partition(r, n)
}

// OnNewBatch implements kgo.TopicPartitionerOnNewBatch: records without a key go on to
// another partition.
func (p *namedTopicPartitioner) OnNewBatch() {
	if b, ok := p.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		b.OnNewBatch()
	}
}
