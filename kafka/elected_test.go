package kafka

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/x/embedlog/internal/engine"
)

// A node that was elected and has committed nothing yet does not say where records end, nor
// what became of an epoch: its replica may not know of the last ones.
func TestElectedSaysNoEnds(t *testing.T) {
	c := openTrio(t)
	if _, err := kadm.NewClient(c.client()).CreateTopic(t.Context(), 1, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	if err := c.client(kgo.DefaultProduceTopic("orders")).ProduceSync(t.Context(), kgo.StringRecord("a")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	top, err := c.dbs[0].Engine().Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.net.Elect(engine.LogID{Topic: top.ID()}, 1); err != nil {
		t.Fatal(err)
	}
	w := dialWire(t, c.servers[0])
	behind := func() int16 { // what a fetch from behind the log's end is told
		f := kmsg.NewPtrFetchRequest()
		f.MaxBytes, f.SessionEpoch = 1<<20, -1
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.LastFetchedEpoch, fp.CurrentLeaderEpoch, fp.FetchOffset, fp.PartitionMaxBytes = -1, -1, 1000, 1<<20
		f.Topics = []kmsg.FetchRequestTopic{{TopicID: top.ID(), Partitions: []kmsg.FetchRequestTopicPartition{fp}}}
		return newest[*kmsg.FetchResponse](w, f).Topics[0].Partitions[0].ErrorCode
	}
	ask := func() (epoch, latest, earliest, fetch int16) {
		e := kmsg.NewPtrOffsetForLeaderEpochRequest()
		e.ReplicaID = -1
		ep := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		ep.CurrentLeaderEpoch, ep.LeaderEpoch = -1, 1
		e.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{ep}}}
		l := kmsg.NewPtrListOffsetsRequest()
		l.ReplicaID = -1
		offsetOf := func(at int64) int16 {
			lp := kmsg.NewListOffsetsRequestTopicPartition()
			lp.CurrentLeaderEpoch, lp.Timestamp = -1, at
			l.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{lp}}}
			return newest[*kmsg.ListOffsetsResponse](w, l).Topics[0].Partitions[0].ErrorCode
		}
		f := kmsg.NewPtrFetchRequest()
		f.MaxBytes, f.SessionEpoch = 1<<20, -1
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.LastFetchedEpoch, fp.CurrentLeaderEpoch, fp.FetchOffset, fp.PartitionMaxBytes = 1, -1, 1, 1<<20
		f.Topics = []kmsg.FetchRequestTopic{{TopicID: top.ID(), Partitions: []kmsg.FetchRequestTopicPartition{fp}}}
		return newest[*kmsg.OffsetForLeaderEpochResponse](w, e).Topics[0].Partitions[0].ErrorCode,
			offsetOf(timeLatest), offsetOf(timeEarliest), newest[*kmsg.FetchResponse](w, f).Topics[0].Partitions[0].ErrorCode
	}
	release := c.net.Doubt(engine.LogID{Topic: top.ID()})
	if e, l, s, f := ask(); e != codeNotLeaderOrFollower || l != codeOffsetNotAvailable || s != codeNone || f != codeNotLeaderOrFollower {
		t.Errorf("elected: epoch %d, latest %d, earliest %d, fetch with an epoch %d", e, l, s, f)
	}
	if code := behind(); code != codeNotLeaderOrFollower {
		t.Errorf("behind the end of one that is not sure to lead: %d", code)
	}
	release()
	if code := behind(); code != codeOffsetOutOfRange {
		t.Errorf("behind the end: %d", code)
	}
	for range 100 {
		if e, l, s, f := ask(); e+l+s+f == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the leader does not say it later, either")
}
