package kafka

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/log"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// pipeServer is a server that listens nowhere: connections are pipes. It works in a
// synctest bubble.
func pipeServer(t testing.TB, db *embedlog.DB, o Options) *Server {
	t.Helper()
	limits, err := o.Limits.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(db, &o, limits)
	t.Cleanup(func() { s.Close() })
	return s
}

// raw is a client without any cleverness.
type raw struct {
	t           testing.TB
	c           net.Conn
	correlation int32
}

// dial connects to a server through a pipe. auth, if not nil, is what the connection
// has to go through.
func dial(t testing.TB, s *Server, auth authenticator) *raw {
	t.Helper()
	ours, theirs := net.Pipe()
	l := &listener{advertise: endpoint{"127.0.0.1", 9092}, auth: func(net.Conn) authenticator { return auth }}
	if auth == nil {
		l.auth = nil
	}
	s.serve(l, theirs)
	t.Cleanup(func() { ours.Close() })
	return &raw{t: t, c: ours}
}

// send sends a request at its version.
func (x *raw) send(q kmsg.Request) {
	x.t.Helper()
	x.correlation++
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))
	if _, err := x.c.Write(f.AppendRequest(nil, q, x.correlation)); err != nil {
		x.t.Fatalf("send %s: %v", kmsg.NameForKey(q.Key()), err)
	}
}

// recv reads the answer to q with that correlation id.
func (x *raw) recv(q kmsg.Request, correlation int32) kmsg.Response {
	x.t.Helper()
	resp, err := x.tryRecv(q, correlation)
	if err != nil {
		x.t.Fatalf("receive %s: %v", kmsg.NameForKey(q.Key()), err)
	}
	return resp
}

func (x *raw) tryRecv(q kmsg.Request, correlation int32) (kmsg.Response, error) {
	b, err := readFrame(x.c)
	if err != nil {
		return nil, err
	}
	if got := int32(binary.BigEndian.Uint32(b)); got != correlation {
		return nil, fmt.Errorf("correlation id %d, want %d", got, correlation)
	}
	b = b[4:]
	if q.IsFlexible() && q.Key() != apiVersionsKey {
		b = b[1:]
	}
	resp := q.ResponseKind()
	if err := resp.ReadFrom(b); err != nil {
		return nil, err
	}
	if again := resp.AppendTo(nil); len(again) != len(b) {
		return nil, fmt.Errorf("%d bytes of answer, kmsg makes %d of it: %+v", len(b), len(again), resp)
	}
	return resp, nil
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// do sends a request and returns its answer.
func do[R kmsg.Response](x *raw, q kmsg.Request) R {
	x.t.Helper()
	x.send(q)
	return x.recv(q, x.correlation).(R)
}

// gone says that the server has closed the connection without another byte.
func (x *raw) gone() {
	x.t.Helper()
	if n, err := x.c.Read(make([]byte, 1)); n != 0 || err == nil {
		x.t.Fatalf("the connection is still open: %d bytes, error %v", n, err)
	}
}

// batch encodes a record batch.
func batch(t testing.TB, h log.BatchHeader, values ...string) []byte {
	t.Helper()
	var recs []log.Record
	for i, v := range values {
		recs = append(recs, log.Record{Timestamp: int64(1000 + i), Value: []byte(v)})
	}
	b, err := log.AppendBatch(nil, &h, recs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// plain is the header of a batch without a producer.
func plain() log.BatchHeader {
	return log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
}

// produceRequest asks for one batch to be appended to one partition.
func produceRequest(version int16, topic *embedlog.Topic, partition int32, records []byte) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks, q.TimeoutMillis = version, -1, 10_000
	addProduce(q, topic, partition, records)
	return q
}

func addProduce(q *kmsg.ProduceRequest, topic *embedlog.Topic, partition int32, records []byte) {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic.Name(), topic.ID()
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
}

// fetchRequest asks for one partition.
func fetchRequest(version int16, topic *embedlog.Topic, partition int32, offset int64) *kmsg.FetchRequest {
	q := kmsg.NewPtrFetchRequest()
	q.Version, q.MaxBytes, q.MinBytes = version, 1<<20, 1
	q.SessionEpoch = -1
	addFetch(q, topic, partition, offset)
	return q
}

func addFetch(q *kmsg.FetchRequest, topic *embedlog.Topic, partition int32, offset int64) {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.LastFetchedEpoch, p.CurrentLeaderEpoch = partition, offset, 1<<20, -1, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic.Name(), topic.ID()
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
}

// values decodes the records of a fetch's partition.
func values(t testing.TB, records []byte) (list []string) {
	t.Helper()
	for len(records) > 0 {
		size := 12 + int(binary.BigEndian.Uint32(records[8:]))
		var r log.RecordReader
		if err := r.Reset(records[:size], 1<<20); err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			list = append(list, fmt.Sprintf("%d:%s", r.Record().Offset, r.Record().Value))
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		records = records[size:]
	}
	return list
}
