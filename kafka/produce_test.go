package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/log"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// produced is the answer for the only partition.
func produced(t testing.TB, resp *kmsg.ProduceResponse) kmsg.ProduceResponseTopicPartition {
	t.Helper()
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("answer for %+v, want one partition", resp.Topics)
	}
	return resp.Topics[0].Partitions[0]
}

// Every version of Produce stores the batch byte for byte, and every version of
// Fetch returns it so.
func TestProduceAndFetchEveryVersion(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	offset := int64(0)
	for version := int16(3); version <= 13; version++ {
		value := fmt.Sprintf("v%d", version)
		p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(version, topic, 0, batch(t, plain(), value, value+"b"))))
		if p.ErrorCode != 0 || p.BaseOffset != offset || p.LogAppendTime != -1 {
			t.Fatalf("version %d: answer %+v, want offset %d", version, p, offset)
		}
		offset += 2
	}
	for version := int16(4); version <= 18; version++ {
		resp := do[*kmsg.FetchResponse](x, fetchRequest(version, topic, 0, 2))
		p := resp.Topics[0].Partitions[0]
		got := values(t, p.RecordBatches)
		if p.ErrorCode != 0 || p.HighWatermark != 22 || p.LastStableOffset != 22 || len(got) != 20 || got[0] != "2:v4" || got[19] != "21:v13b" {
			t.Fatalf("version %d: error %d, high watermark %d, records %v", version, p.ErrorCode, p.HighWatermark, got)
		}
	}
}

func TestProduceRefusals(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	orders := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
	compacted := createTopic(t, db, "compacted", &embedlog.TopicConfig{Cleanup: embedlog.Compact})
	small := createTopic(t, db, "small", &embedlog.TopicConfig{MaxRecordBytes: 200})
	gone := createTopic(t, db, "gone", nil)
	if err := db.DeleteTopic(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Engine().Groups().OffsetsPartition(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	internal, err := db.Topic("__consumer_offsets")
	if err != nil {
		t.Fatal(err)
	}
	good := batch(t, plain(), "a")
	change := func(f func(b []byte)) []byte {
		b := slices.Clone(good)
		f(b)
		return b
	}
	compressed, err := log.CompressBatch(nil, batch(t, plain(), strings.Repeat("a", 1000)), compress.Zstd, 0)
	if err != nil {
		t.Fatal(err)
	}
	transactional := plain()
	transactional.ProducerID, transactional.ProducerEpoch, transactional.BaseSequence, transactional.Attributes = 5, 0, 0, log.Transactional
	control := plain()
	control.Attributes = log.Control
	outOfOrder := plain()
	outOfOrder.ProducerID, outOfOrder.ProducerEpoch, outOfOrder.BaseSequence = 77, 0, 0

	for _, row := range []struct {
		name      string
		version   int16
		topic     *embedlog.Topic
		partition int32
		records   []byte
		change    func(q *kmsg.ProduceRequest)
		code      int16
	}{
		{"good", 13, orders, 0, good, nil, codeNone},
		{"unknown topic", 12, gone, 0, good, nil, codeUnknownTopicOrPartition},
		{"unknown topic id", 13, gone, 0, good, nil, codeUnknownTopicID},
		{"unknown partition", 13, orders, 2, good, nil, codeUnknownTopicOrPartition},
		{"negative partition", 13, orders, -1, good, nil, codeUnknownTopicOrPartition},
		{"illegal name", 12, orders, 0, good, func(q *kmsg.ProduceRequest) { q.Topics[0].Topic = "a/b" }, codeInvalidTopicException},
		{"internal topic", 13, internal, 0, good, nil, codeInvalidTopicException},
		{"acks 2", 13, orders, 0, good, func(q *kmsg.ProduceRequest) { q.Acks = 2 }, codeInvalidRequiredAcks},
		{"acks -2", 13, orders, 0, good, func(q *kmsg.ProduceRequest) { q.Acks = -2 }, codeInvalidRequiredAcks},
		{"no records", 13, orders, 0, nil, nil, codeInvalidRecord},
		{"a few bytes", 13, orders, 0, []byte{1, 2, 3}, nil, codeInvalidRecord},
		{"message format 1", 13, orders, 0, change(func(b []byte) { b[batchMagicAt] = 1 }), nil, codeInvalidRecord},
		{"two batches", 13, orders, 0, append(slices.Clone(good), good...), nil, codeInvalidRecord},
		{"less than it claims", 13, orders, 0, good[:len(good)-1], nil, codeCorruptMessage},
		{"wrong checksum", 13, orders, 0, change(func(b []byte) { b[len(b)-1] ^= 1 }), nil, codeCorruptMessage},
		{"control batch", 13, orders, 0, batch(t, control, "a"), nil, codeInvalidRecord},
		{"zstd before it was allowed", 6, orders, 0, compressed, nil, codeUnsupportedCompressionType},
		{"zstd", 7, orders, 0, compressed, nil, codeNone},
		{"transactional without an id", 13, orders, 0, batch(t, transactional, "a"), nil, codeTransactionalIDAuthorizationFailed},
		{"keyless in a compacted topic", 13, compacted, 0, good, nil, codeInvalidRecord},
		{"too large", 13, small, 0, batch(t, plain(), string(make([]byte, 300))), nil, codeMessageTooLarge},
		{"first sequence", 13, orders, 0, batch(t, outOfOrder, "a"), nil, codeNone},
		{"sequence gap", 13, orders, 0, func() []byte { h := outOfOrder; h.BaseSequence = 5; return batch(t, h, "a") }(), nil, codeOutOfOrderSequenceNumber},
		{"old epoch", 13, orders, 0, func() []byte {
			h := outOfOrder
			h.ProducerID, h.ProducerEpoch = 78, 3
			produced(t, do[*kmsg.ProduceResponse](x, produceRequest(13, orders, 0, batch(t, h, "b"))))
			h.ProducerEpoch = 2
			return batch(t, h, "a")
		}(), nil, codeInvalidProducerEpoch},
	} {
		q := produceRequest(row.version, row.topic, row.partition, row.records)
		if row.change != nil {
			row.change(q)
		}
		p := produced(t, do[*kmsg.ProduceResponse](x, q))
		if p.ErrorCode != row.code || (row.code != 0) != (p.BaseOffset == -1) {
			t.Errorf("%s: answer %+v, want error code %d", row.name, p, row.code)
		}
		if row.code != codeNone && row.version >= produceRecordErrors && (p.ErrorMessage == nil || *p.ErrorMessage == "") {
			t.Errorf("%s: no error message", row.name)
		}
	}
}

// Which records were refused is said for each. (KIP-467)
func TestProduceNamesBadRecords(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	compacted := createTopic(t, db, "compacted", &embedlog.TopicConfig{Cleanup: embedlog.Compact})
	h := plain()
	b, err := log.AppendBatch(nil, &h, []log.Record{{Key: []byte("k")}, {Value: []byte("a")}, {Key: []byte("k")}, {Value: []byte("b")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []int16{8, 9, 13} {
		p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(version, compacted, 0, b)))
		if p.ErrorCode != codeInvalidRecord || len(p.ErrorRecords) != 2 || p.ErrorRecords[0].RelativeOffset != 1 || p.ErrorRecords[1].RelativeOffset != 3 ||
			p.ErrorRecords[0].ErrorMessage == nil || !strings.Contains(*p.ErrorRecords[0].ErrorMessage, "no key") {
			t.Errorf("version %d: answer %+v, want records 1 and 3", version, p)
		}
	}
	if got, _ := compacted.EngineTopic(); got.Partitions()[0].LogEnd() != 0 {
		t.Error("something was written")
	}
}

// A batch that is sent again gets the offsets of the original, and is there once.
func TestProduceDuplicate(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	h := plain()
	h.ProducerID, h.ProducerEpoch = 9, 0
	for i := range 5 {
		h.BaseSequence = int32(2 * i)
		if p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(11, topic, 0, batch(t, h, "a", "b")))); p.ErrorCode != 0 {
			t.Fatalf("answer %+v", p)
		}
	}
	h.BaseSequence = 2
	p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(11, topic, 0, batch(t, h, "a", "b"))))
	if p.ErrorCode != 0 || p.BaseOffset != 2 {
		t.Errorf("answer %+v, want offset 2 of the original", p)
	}
	if top, _ := topic.EngineTopic(); top.Partitions()[0].LogEnd() != 10 {
		t.Errorf("log ends at %d, want 10", top.Partitions()[0].LogEnd())
	}
}

// A wrong maximum timestamp is put right, as Kafka does.
func TestProducePutsMaxTimestampRight(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	b := batch(t, plain(), "a", "b")
	log.SetAppendTime(b, 5) // sets maximum timestamp and checksum, and a bit that a client must not set
	if p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(11, topic, 0, b))); p.ErrorCode != codeCorruptMessage {
		t.Fatalf("answer %+v to append time from a client", p)
	}
	binary.BigEndian.PutUint16(b[batchAttributesAt:], 0)
	h, err := log.ParseBatchHeader(b)
	if err != nil || h.MaxTimestamp != 5 {
		t.Fatal(h, err)
	}
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[batchAttributesAt:], crc32.MakeTable(crc32.Castagnoli)))
	if p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(11, topic, 0, b))); p.ErrorCode != 0 {
		t.Fatalf("answer %+v", p)
	}
	f := do[*kmsg.FetchResponse](x, fetchRequest(11, topic, 0, 0)).Topics[0].Partitions[0]
	if h, err := log.ParseBatchHeader(f.RecordBatches); err != nil || h.MaxTimestamp != 1001 || !log.VerifyBatchCRC(f.RecordBatches) {
		t.Errorf("stored with maximum timestamp %d, want 1001; error %v", h.MaxTimestamp, err)
	}
}

// Without acknowledgement nothing is answered, also when it went wrong: then the
// connection is closed.
func TestProduceWithoutAcks(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	q := produceRequest(11, topic, 0, batch(t, plain(), "a"))
	q.Acks = 0
	x.send(q)
	if resp := do[*kmsg.FetchResponse](x, fetchRequest(11, topic, 0, 0)); len(values(t, resp.Topics[0].Partitions[0].RecordBatches)) != 1 {
		t.Error("the record is not there")
	}
	q.Topics[0].Partitions[0].Partition = 7
	x.send(q)
	x.gone()
}

// What was read is done, although the client has gone.
func TestProduceThenClose(t *testing.T) {
	db := openMemory(t, nil)
	s := pipeServer(t, db, Options{})
	topic := createTopic(t, db, "orders", nil)
	x := dial(t, s, nil)
	q := produceRequest(11, topic, 0, batch(t, plain(), "a"))
	q.Acks = 0
	for range 5 {
		x.send(q)
	}
	x.c.Close()
	s.running.Wait()
	if top, _ := topic.EngineTopic(); top.Partitions()[0].LogEnd() != 5 {
		t.Errorf("log ends at %d, want 5", top.Partitions()[0].LogEnd())
	}
}

// Many partitions in one request: each has its own answer, in the request's order.
func TestProduceManyPartitions(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 40})
	other := createTopic(t, db, "other", nil)
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks, q.TimeoutMillis = 13, -1, 10_000
	for i := range int32(41) { // the last is not there
		addProduce(q, topic, i, batch(t, plain(), fmt.Sprint(i)))
	}
	addProduce(q, other, 0, batch(t, plain(), "other"))
	addProduce(q, topic, 3, batch(t, plain(), "again"))
	resp := do[*kmsg.ProduceResponse](x, q)
	if len(resp.Topics) != 43 {
		t.Fatalf("%d answers, want 43", len(resp.Topics))
	}
	for i, top := range resp.Topics {
		p, want := top.Partitions[0], codeNone
		switch i {
		case 40:
			want = codeUnknownTopicOrPartition
		case 42:
			want = codeInvalidRequest
		}
		if p.ErrorCode != want || p.Partition != q.Topics[i].Partitions[0].Partition || top.TopicID != q.Topics[i].TopicID {
			t.Errorf("answer %d is %+v, want error code %d", i, p, want)
		}
	}
	for i := range int32(40) {
		f := do[*kmsg.FetchResponse](x, fetchRequest(13, topic, i, 0)).Topics[0].Partitions[0]
		if got := values(t, f.RecordBatches); len(got) != 1 || got[0] != fmt.Sprintf("0:%d", i) {
			t.Errorf("partition %d has %v", i, got)
		}
	}
}

// Append time is answered.
func TestProduceAppendTime(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{AppendTime: true})
	p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(9, topic, 0, batch(t, plain(), "a"))))
	if p.ErrorCode != 0 || p.LogAppendTime < 1_600_000_000_000 {
		t.Errorf("answer %+v, want the time of the append", p)
	}
}

// The hand-written messages and kmsg's agree, whatever is in them.
func FuzzProduceRequest(f *testing.F) {
	for _, version := range []int16{3, 8, 9, 12, 13} {
		q := kmsg.NewPtrProduceRequest()
		q.Version, q.Acks = version, -1
		if version > 8 {
			q.TransactionID = kmsg.StringPtr("tx")
		}
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = "orders", [16]byte{1, 2, 3}
		for range 2 {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Records = []byte("records")
			t.Partitions = append(t.Partitions, p)
		}
		q.Topics = append(q.Topics, t, t)
		f.Add(version, q.AppendTo(nil))
	}
	s := pipeServer(f, openMemory(f, nil), Options{})
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < 3 || version > 13 {
			return
		}
		r := &request{srv: s, conn: &conn{}, version: version, out: &output{}}
		q := &producer{}
		err := q.read(r, body)
		s.memory.release(r.reserved)
		theirs := kmsg.NewPtrProduceRequest()
		theirs.Version = version
		if err != nil {
			return // kmsg lets more pass: it takes null for an empty array's element, and more tags
		}
		if err := theirs.ReadFrom(body); err != nil {
			t.Fatalf("kmsg: %v", err)
		}
		if len(theirs.Topics) != len(q.topics) || theirs.Acks != q.acks || (theirs.TransactionID != nil) != q.transactional {
			t.Fatalf("kmsg has %+v, we have %+v", theirs, q)
		}
		at := 0
		for i, top := range theirs.Topics {
			if top.Topic != q.topics[i].name || top.TopicID != q.topics[i].id || len(top.Partitions) != q.topics[i].parts {
				t.Fatalf("topic %d: kmsg has %+v, we have %+v", i, top, q.topics[i])
			}
			for _, p := range top.Partitions {
				ours := &q.parts[at]
				if p.Partition != ours.index || string(p.Records) != string(ours.records) {
					t.Fatalf("partition %d: kmsg has %+v, we have %+v", at, p, ours)
				}
				// An answer with everything in it.
				ours.code, ours.err = int16(at%3), errors.New("because")
				at++
			}
		}
		q.write(r)
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = version
		if err := resp.ReadFrom(r.out.b); err != nil {
			t.Fatalf("kmsg cannot read our answer: %v", err)
		}
		if again := resp.AppendTo(nil); string(again) != string(r.out.b) {
			t.Fatalf("kmsg writes the answer as\n%x, we wrote\n%x", again, r.out.b)
		}
	})
}
