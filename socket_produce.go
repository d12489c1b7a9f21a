package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/sock"
)

// sessionProducer is a session's producer: of one topic.
type sessionProducer struct {
	*Producer
	topic string
}

// sessionDelivery is how long a session's records are tried again: somebody sits
// there, or a script, that is better told of a full disk soon than goes on waiting.
const sessionDelivery = 10 * time.Second

func (s *session) openProducer(_ context.Context, q sock.Producer) (none, error) {
	s.closeProducer()
	if _, err := s.db.Topic(q.Topic); err != nil {
		return none{}, err
	}
	codec, err := codecOf(q.Compression)
	if err != nil {
		return none{}, err
	}
	p, err := s.db.Producer(&ProducerConfig{Compression: codec, Partitioner: byNameOrKey(), DeliveryTimeout: sessionDelivery})
	if err != nil {
		return none{}, err
	}
	s.producer = &sessionProducer{p, q.Topic}
	return none{}, nil
}

func codecOf(name string) (compress.Codec, error) {
	for c := compress.None; c.Valid(); c++ {
		if c.String() == name || name == "" {
			return c, nil
		}
	}
	return 0, &sock.Error{Code: sock.CodeInvalid, Message: fmt.Sprintf("no compression %q", name)}
}

func (s *session) closeProducer() {
	if s.producer != nil {
		if err := s.producer.Close(); err != nil {
			s.db.engine.Logger().Warn("close a session's producer", "error", err)
		}
		s.producer = nil
	}
}

// produce appends the records of one request and waits for all of them. The reply
// says what became of each; only a request that is none is an error.
func (s *session) produce(ctx context.Context, payload []byte) (any, error) {
	if s.producer == nil {
		return nil, &sock.Error{Code: sock.CodeProtocol, Message: "records before a producer was opened"}
	}
	in, err := sock.DecodeRecords(payload)
	if err != nil {
		return nil, &sock.Error{Code: sock.CodeProtocol, Message: err.Error()}
	}
	recs := make([]Record, len(in))
	for i := range in {
		r := &in[i]
		recs[i] = Record{Topic: s.producer.topic, Partition: r.Partition, Timestamp: r.Time, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	places, err := s.producer.Produce(ctx, recs...)
	if e := (*ProduceError)(nil); errors.As(err, &e) {
		err = e.Unwrap()[0] // of the first record that failed
	}
	out := sock.Produced{Acks: make([]sock.Ack, len(in))}
	for i := range out.Acks {
		out.Acks[i] = sock.Ack{Partition: -1, Offset: -1}
		if i < len(places) && (err == nil || places[i].Offset >= 0) {
			out.Acks[i] = sock.Ack{Partition: places[i].Partition, Offset: places[i].Offset}
		}
	}
	if err != nil {
		out.Err = sessionError(err)
		if out.Err.Code == sock.CodeClosing && acked(out.Acks) > 0 {
			out.Err.Code = sock.CodeFailure // something was done: the client must not send all of it again
		}
	}
	return sock.AppendProduced(nil, out), nil
}

func acked(acks []sock.Ack) (n int) {
	for _, a := range acks {
		if a.Offset >= 0 {
			n++
		}
	}
	return n
}

// byNameOrKey is the partitioner of sessions: a record may name its partition;
// otherwise its key decides, and without one those without share evenly.
func byNameOrKey() func(*Record, int) int32 {
	keyless := new(sticky)
	keyless.sent.Store(rand.Uint64() >> 2) // sessions do not all begin with partition 0
	return func(r *Record, partitions int) int32 {
		switch {
		case r.Partition >= 0:
			return r.Partition
		case r.Key != nil:
			return KeyPartition(r.Key, partitions)
		}
		return keyless.next(recordBytes(r), partitions)
	}
}
