package kafka

import (
	"fmt"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/log"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestListOffsets(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
	top, err := topic.EngineTopic()
	if err != nil {
		t.Fatal(err)
	}
	part := top.Partitions()[0]
	at := func(ms ...int64) []byte { // one record at each time
		h := plain()
		var recs []log.Record
		for _, m := range ms {
			recs = append(recs, log.Record{Timestamp: m, Value: []byte("a")})
		}
		b, err := log.AppendBatch(nil, &h, recs)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mustAppend(t, topic, 0, at(100, 200))  // 0, 1
	mustAppend(t, topic, 0, at(300, 9000)) // 2, 3
	if err := part.SetLeaderEpoch(2); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, topic, 0, at(400, 500)) // 4, 5
	if _, err := part.DeleteRecords(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	h := plain()
	h.ProducerID, h.ProducerEpoch, h.BaseSequence, h.Attributes = 1, 0, 0, log.Transactional
	mustAppend(t, topic, 0, batch(t, h, "undecided")) // 6, at 1000

	for _, row := range []struct {
		name      string
		time      int64
		version   int16
		committed bool
		code      int16
		offset    int64
		timestamp int64
		epoch     int32
	}{
		{"latest", -1, 7, false, 0, 7, -1, 2},
		{"latest committed", -1, 7, true, 0, 6, -1, 2},
		{"earliest", -2, 7, false, 0, 1, -1, 0},
		{"newest", -3, 7, false, 0, 3, 9000, 0},
		{"newest, before there was", -3, 6, false, codeUnsupportedVersion, -1, -1, -1},
		{"earliest local", -4, 8, false, 0, 1, -1, 0},
		{"earliest local, before there was", -4, 7, false, codeUnsupportedVersion, -1, -1, -1},
		{"latest tiered", -5, 9, false, 0, -1, -1, -1},
		{"earliest pending upload", -6, 11, false, 0, -1, -1, -1},
		{"earliest pending upload, before there was", -6, 10, false, codeUnsupportedVersion, -1, -1, -1},
		{"what there is not", -7, 11, false, codeUnsupportedVersion, -1, -1, -1},
		{"at its time", 300, 7, false, 0, 2, 300, 0},
		{"before its time", 250, 7, false, 0, 2, 300, 0},
		{"before the log start", 0, 7, false, 0, 1, 200, 0},
		{"out of order", 301, 7, false, 0, 3, 9000, 0},
		{"after all", 9001, 7, false, 0, -1, -1, -1},
	} {
		q := kmsg.NewPtrListOffsetsRequest()
		q.Version = row.version
		if row.committed {
			q.IsolationLevel = 1
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp, p.CurrentLeaderEpoch = row.time, -1
		q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
		got := do[*kmsg.ListOffsetsResponse](x, q).Topics[0].Partitions[0]
		if got.ErrorCode != row.code || got.Offset != row.offset || got.Timestamp != row.timestamp || got.LeaderEpoch != row.epoch {
			t.Errorf("%s: %+v, want %+v", row.name, got, row)
		}
	}

	// What cannot be answered has its own error; the rest is answered.
	q := kmsg.NewPtrListOffsetsRequest()
	q.Version = 4
	for _, p := range []struct{ partition, epoch int32 }{{0, 1}, {0, 2}, {1, -1}, {2, -1}} {
		x := kmsg.NewListOffsetsRequestTopicPartition()
		x.Partition, x.CurrentLeaderEpoch, x.Timestamp = p.partition, p.epoch, -1
		q.Topics = append(q.Topics, kmsg.ListOffsetsRequestTopic{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{x}})
	}
	q.Topics = append(q.Topics, kmsg.ListOffsetsRequestTopic{Topic: "nope", Partitions: q.Topics[2].Partitions})
	got := ""
	for _, top := range do[*kmsg.ListOffsetsResponse](x, q).Topics {
		got += fmt.Sprintf("%d:%d ", top.Partitions[0].ErrorCode, top.Partitions[0].Offset)
	}
	if want := "42:-1 42:-1 0:0 3:-1 3:-1 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	q.Topics = q.Topics[:1] // epoch 1, no more named twice
	if p := do[*kmsg.ListOffsetsResponse](x, q).Topics[0].Partitions[0]; p.ErrorCode != codeFencedLeaderEpoch {
		t.Errorf("an old leader epoch: %+v", p)
	}

	// Where leaders' records end.
	for _, row := range []struct {
		epoch, known int32
		code         int16
		found        int32
		end          int64
	}{
		{0, -1, 0, 0, 4}, {1, -1, 0, 0, 4}, {2, 2, 0, 2, 7}, {3, -1, 0, -1, -1}, {2, 1, codeFencedLeaderEpoch, -1, -1}, {2, 3, codeUnknownLeaderEpoch, -1, -1},
	} {
		q := kmsg.NewPtrOffsetForLeaderEpochRequest()
		q.Version = 4
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.LeaderEpoch, p.CurrentLeaderEpoch = row.epoch, row.known
		q.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}}}
		got := do[*kmsg.OffsetForLeaderEpochResponse](x, q).Topics[0].Partitions[0]
		if got.ErrorCode != row.code || got.LeaderEpoch != row.found || got.EndOffset != row.end {
			t.Errorf("epoch %d: %+v, want %+v", row.epoch, got, row)
		}
	}
}
