package kafka

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetched is the answer for the only partition.
func fetched(t testing.TB, resp *kmsg.FetchResponse) kmsg.FetchResponseTopicPartition {
	t.Helper()
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("answer %+v, want one partition", resp)
	}
	return resp.Topics[0].Partitions[0]
}

func mustAppend(t testing.TB, topic *embedlog.Topic, partition int32, b []byte) {
	t.Helper()
	top, err := topic.EngineTopic()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Partitions()[partition].AppendBatch(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
}

// A fetch waits as long as it says, and not a moment longer than there is something.
func TestFetchWaits(t *testing.T) {
	for _, row := range []struct {
		name      string
		minBytes  int32
		appendAt  []time.Duration
		want      time.Duration
		records   int
		partition int32
	}{
		{name: "nothing comes", minBytes: 1, want: 500 * time.Millisecond},
		{name: "woken by an append", minBytes: 1, appendAt: []time.Duration{200 * time.Millisecond}, want: 200 * time.Millisecond, records: 1},
		{name: "woken in another partition", minBytes: 1, appendAt: []time.Duration{300 * time.Millisecond}, want: 300 * time.Millisecond, records: 1, partition: 2},
		{name: "wants nothing", minBytes: 0, want: 0},
		{name: "not enough yet", minBytes: 150, appendAt: []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}, want: 300 * time.Millisecond, records: 3},
		{name: "never enough", minBytes: 10_000, appendAt: []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}, want: 500 * time.Millisecond, records: 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				x := dial(t, pipeServer(t, db, Options{}), nil)
				topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 3})
				q := fetchRequest(13, topic, 0, 0)
				addFetch(q, topic, 1, 0)
				addFetch(q, topic, 2, 0)
				q.MaxWaitMillis, q.MinBytes = 500, row.minBytes
				began := time.Now()
				go func() {
					for _, at := range row.appendAt {
						time.Sleep(at - time.Since(began))
						mustAppend(t, topic, row.partition, batch(t, plain(), "a"))
					}
				}()
				resp := do[*kmsg.FetchResponse](x, q)
				if got := time.Since(began); got != row.want {
					t.Errorf("answered after %v, want %v", got, row.want)
				}
				var got []string
				for _, top := range resp.Topics {
					got = append(got, values(t, top.Partitions[0].RecordBatches)...)
				}
				if len(got) != row.records {
					t.Errorf("records %v, want %d", got, row.records)
				}
			})
		})
	}
}

// A fetch does not wait where the client has to hear something else than records.
func TestFetchDoesNotWait(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(q *kmsg.FetchRequest)
		code   int16
	}{
		{"past the end", func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].FetchOffset = 99 }, codeOffsetOutOfRange},
		{"negative", func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].FetchOffset = -3 }, codeOffsetOutOfRange},
		{"unknown partition", func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].Partition = 99 }, codeUnknownTopicOrPartition},
		{"unknown topic id", func(q *kmsg.FetchRequest) { q.Topics[0].TopicID = [16]byte{1} }, codeUnknownTopicID},
		{"unknown topic", func(q *kmsg.FetchRequest) { q.Version, q.Topics[0].Topic = 12, "nope" }, codeUnknownTopicOrPartition},
		{"old leader epoch", func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch = 3 }, codeFencedLeaderEpoch},
		{"leader epoch to come", func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch = 5 }, codeUnknownLeaderEpoch},
		{"its leader epoch", func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch, q.MinBytes = 4, 0 }, codeNone},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				x := dial(t, pipeServer(t, db, Options{}), nil)
				topic := createTopic(t, db, "orders", nil)
				top, err := topic.EngineTopic()
				if err != nil {
					t.Fatal(err)
				}
				if err := top.Partitions()[0].SetLeaderEpoch(4); err != nil {
					t.Fatal(err)
				}
				q := fetchRequest(13, topic, 0, 0)
				q.MaxWaitMillis = 10_000
				row.change(q)
				began := time.Now()
				p := fetched(t, do[*kmsg.FetchResponse](x, q))
				if p.ErrorCode != row.code || time.Since(began) != 0 {
					t.Errorf("error code %d after %v, want %d at once", p.ErrorCode, time.Since(began), row.code)
				}
			})
		})
	}
}

// A wait ends when its topic is deleted, when the client goes, and when the server
// shuts down; the last with an answer.
func TestFetchWaitEnds(t *testing.T) {
	begin := func(t *testing.T) (*embedlog.DB, *Server, *raw, *kmsg.FetchRequest) {
		db := openMemory(t, nil)
		s := pipeServer(t, db, Options{})
		x := dial(t, s, nil)
		q := fetchRequest(13, createTopic(t, db, "orders", nil), 0, 0)
		q.MaxWaitMillis = 60_000
		x.send(q)
		synctest.Wait()
		return db, s, x, q
	}
	t.Run("topic deleted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db, _, x, q := begin(t)
			began := time.Now()
			if err := db.DeleteTopic(t.Context(), "orders"); err != nil {
				t.Fatal(err)
			}
			p := fetched(t, x.recv(q, x.correlation).(*kmsg.FetchResponse))
			if p.ErrorCode != codeUnknownTopicOrPartition || time.Since(began) != 0 {
				t.Errorf("error code %d after %v", p.ErrorCode, time.Since(began))
			}
		})
	})
	t.Run("client gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, s, x, _ := begin(t)
			began := time.Now()
			x.c.Close()
			s.running.Wait()
			if got := time.Since(began); got != 0 {
				t.Errorf("the connection's goroutines ended after %v", got)
			}
		})
	})
	t.Run("shutdown", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, s, x, q := begin(t)
			began := time.Now()
			done := make(chan error)
			go func() { done <- s.Shutdown(t.Context()) }()
			if p := fetched(t, x.recv(q, x.correlation).(*kmsg.FetchResponse)); p.ErrorCode != 0 || len(p.RecordBatches) != 0 {
				t.Errorf("answer %+v", p)
			}
			if err := <-done; err != nil || time.Since(began) != 0 {
				t.Errorf("shut down after %v: %v", time.Since(began), err)
			}
			x.gone()
		})
	})
}

// The first batch comes whatever its size, others only where they fit.
func TestFetchLimits(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 3})
	size := 0
	for p := range int32(3) {
		for i := range 3 {
			b := batch(t, plain(), fmt.Sprintf("%d-%d-%s", p, i, strings.Repeat("x", 1000)))
			size = len(b)
			mustAppend(t, topic, p, b)
		}
	}
	for _, row := range []struct {
		name                string
		maxBytes, partition int
		want                [3]int
	}{
		{"all", 1 << 20, 1 << 20, [3]int{3, 3, 3}},
		{"one of each", 1 << 20, size, [3]int{1, 1, 1}},
		{"five together", 5 * size, 1 << 20, [3]int{3, 2, 0}},
		{"none but the first", 1, 1 << 20, [3]int{1, 0, 0}},
		{"none but the first of a partition", 1 << 20, 1, [3]int{1, 0, 0}},
		{"one more does not fit", 2*size - 1, 1 << 20, [3]int{1, 0, 0}},
		{"no bytes at all", 0, 0, [3]int{1, 0, 0}},
	} {
		q := fetchRequest(13, topic, 0, 0)
		addFetch(q, topic, 1, 0)
		addFetch(q, topic, 2, 0)
		q.MaxBytes = int32(row.maxBytes)
		for i := range q.Topics {
			q.Topics[i].Partitions[0].PartitionMaxBytes = int32(row.partition)
		}
		var got [3]int
		for i, top := range do[*kmsg.FetchResponse](x, q).Topics {
			p := top.Partitions[0]
			got[i] = len(values(t, p.RecordBatches))
			if p.ErrorCode != 0 || p.HighWatermark != 3 || p.LogStartOffset != 0 {
				t.Errorf("%s: %+v", row.name, p)
			}
		}
		if got != row.want {
			t.Errorf("%s: %v records, want %v", row.name, got, row.want)
		}
	}
}

// What does not fit behind what there is does not make a fetch that wants more go
// round: it waits.
func TestFetchDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		x := dial(t, pipeServer(t, db, Options{}), nil)
		topic := createTopic(t, db, "orders", nil)
		mustAppend(t, topic, 0, batch(t, plain(), strings.Repeat("a", 100)))
		mustAppend(t, topic, 0, batch(t, plain(), strings.Repeat("b", 10_000)))
		q := fetchRequest(13, topic, 0, 0)
		q.MaxWaitMillis, q.MinBytes, q.MaxBytes = 700, 5000, 6000
		began := time.Now()
		p := fetched(t, do[*kmsg.FetchResponse](x, q)) // the bubble's clock moves only when everybody waits
		if got := len(values(t, p.RecordBatches)); got != 1 || time.Since(began) != 700*time.Millisecond {
			t.Errorf("%d records after %v", got, time.Since(began))
		}
	})
}

func TestFetchSessions(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	q := fetchRequest(13, topic, 0, 0)
	q.SessionEpoch = 0
	if resp := do[*kmsg.FetchResponse](x, q); resp.ErrorCode != 0 || resp.SessionID != 0 || len(resp.Topics) != 1 {
		t.Errorf("asked for a session: %+v", resp)
	}
	q.SessionID, q.SessionEpoch = 7, 1
	if resp := do[*kmsg.FetchResponse](x, q); resp.ErrorCode != codeFetchSessionIDNotFound || len(resp.Topics) != 0 {
		t.Errorf("went on with a session: %+v", resp)
	}
}

// A reader of committed records sees up to the last stable offset, and is told
// which transactions to leave out.
func TestFetchReadCommitted(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	top, err := topic.EngineTopic()
	if err != nil {
		t.Fatal(err)
	}
	part := top.Partitions()[0]
	txn := func(id int64, sequence int32, values ...string) {
		h := plain()
		h.ProducerID, h.ProducerEpoch, h.BaseSequence, h.Attributes = id, 0, sequence, log.Transactional
		mustAppend(t, topic, 0, batch(t, h, values...))
	}
	end := func(id int64, commit bool) {
		if _, err := part.EndTransaction(t.Context(), id, 0, commit, 0, false); err != nil {
			t.Fatal(err)
		}
	}
	txn(1, 0, "aborted")    // 0
	txn(2, 0, "committed")  // 1
	end(1, false)           // 2
	txn(3, 0, "undecided")  // 3
	end(2, true)            // 4
	txn(4, 0, "aborted, 2") // 5
	end(4, false)           // 6

	q := fetchRequest(13, topic, 0, 0)
	q.IsolationLevel = 1
	p := fetched(t, do[*kmsg.FetchResponse](x, q))
	if p.HighWatermark != 7 || p.LastStableOffset != 3 || !slices.Equal(values(t, p.RecordBatches)[:2], []string{"0:aborted", "1:committed"}) {
		t.Errorf("%+v", p)
	}
	if len(p.AbortedTransactions) != 1 || p.AbortedTransactions[0].ProducerID != 1 || p.AbortedTransactions[0].FirstOffset != 0 {
		t.Errorf("aborted %+v", p.AbortedTransactions)
	}
	q.IsolationLevel = 0
	if p := fetched(t, do[*kmsg.FetchResponse](x, q)); len(values(t, p.RecordBatches)) != 7 || p.AbortedTransactions != nil {
		t.Errorf("uncommitted: %+v", p)
	}
	end(3, true)
	q.IsolationLevel = 1
	if p := fetched(t, do[*kmsg.FetchResponse](x, q)); p.LastStableOffset != 8 || len(p.AbortedTransactions) != 2 {
		t.Errorf("all decided: %+v", p)
	}
}

// Where the client's log and ours part is said when it asks with the epoch of its
// last record.
func TestFetchDivergingEpoch(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	top, err := topic.EngineTopic()
	if err != nil {
		t.Fatal(err)
	}
	part := top.Partitions()[0]
	for epoch := range int32(3) {
		if err := part.SetLeaderEpoch(2 * epoch); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, topic, 0, batch(t, plain(), "a", "b"))
	}
	for _, row := range []struct {
		offset     int64
		epoch      int32
		foundEpoch int32
		end        int64
		code       int16
	}{
		{2, 0, -1, -1, codeNone},             // all of epoch 0
		{3, 0, 0, 2, codeNone},               // more of it than there is
		{4, 2, -1, -1, codeNone},             //
		{4, 3, 2, 4, codeNone},               // an epoch that nobody here wrote in
		{6, 4, -1, -1, codeNone},             //
		{6, 9, -1, -1, codeOffsetOutOfRange}, // an epoch to come
		{6, -1, -1, -1, codeNone},            // not said
	} {
		q := fetchRequest(13, topic, 0, row.offset)
		q.Topics[0].Partitions[0].LastFetchedEpoch = row.epoch
		p := fetched(t, do[*kmsg.FetchResponse](x, q))
		if p.ErrorCode != row.code || p.DivergingEpoch.Epoch != row.foundEpoch || p.DivergingEpoch.EndOffset != row.end {
			t.Errorf("offset %d after epoch %d: error code %d, diverging %+v, want %+v", row.offset, row.epoch, p.ErrorCode, p.DivergingEpoch, row)
		}
		if row.end >= 0 && len(p.RecordBatches) > 0 {
			t.Errorf("offset %d after epoch %d: records beside a diverging epoch", row.offset, row.epoch)
		}
	}
}

// zstd is not for clients who could not know it.
func TestFetchZstd(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	b, err := log.CompressBatch(nil, batch(t, plain(), strings.Repeat("a", 1000)), compress.Zstd, 0)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, topic, 0, b)
	for version, want := range map[int16]int16{9: codeUnsupportedCompressionType, 10: codeNone} {
		p := fetched(t, do[*kmsg.FetchResponse](x, fetchRequest(version, topic, 0, 0)))
		if p.ErrorCode != want || (len(p.RecordBatches) == 0) != (want != 0) {
			t.Errorf("version %d: %+v", version, p)
		}
	}
}

// Batches large and small come out as they lie in the log, whatever way they take.
func TestFetchLargeAndSmallBatches(t *testing.T) {
	db := openMemory(t, nil)
	s := serve(t, db, Options{})
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{MaxRecordBytes: 8 << 20})
	c := client(t, s)
	var want [][]byte
	for i, size := range []int{10, 5_000_000, 10, pieceBytes, 0, 100_000, 1, 3_000_000} {
		b := batch(t, plain(), strings.Repeat(fmt.Sprint(i), size))
		mustAppend(t, topic, 0, b)
		log.SetBatchOffset(b, int64(i), 0)
		want = append(want, b)
	}
	q := fetchRequest(13, topic, 0, 0)
	q.MaxBytes, q.Topics[0].Partitions[0].PartitionMaxBytes = 50<<20, 50<<20
	resp, err := q.RequestWith(deadline(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if p := fetched(t, resp); !bytes.Equal(p.RecordBatches, bytes.Join(want, nil)) {
		t.Errorf("%d bytes that are not the %d of the batches", len(p.RecordBatches), len(bytes.Join(want, nil)))
	}
	if got := s.memory.used(); got != 0 {
		t.Errorf("%d bytes are reserved when all is done", got)
	}
}

// Under a small budget a fetch gets less, and always something.
func TestFetchWithLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		s := pipeServer(t, db, Options{Limits: Limits{FrameBytes: 1 << 20, MemoryBytes: 1 << 20}})
		x := dial(t, s, nil)
		topic := createTopic(t, db, "orders", nil)
		for range 10 {
			mustAppend(t, topic, 0, batch(t, plain(), strings.Repeat("a", 200_000)))
		}
		q := fetchRequest(13, topic, 0, 0)
		q.MaxBytes, q.Topics[0].Partitions[0].PartitionMaxBytes = 50<<20, 50<<20
		if got := len(values(t, fetched(t, do[*kmsg.FetchResponse](x, q)).RecordBatches)); got < 1 || got > 5 {
			t.Errorf("%d records of 200,000 bytes in 1 MiB", got)
		}
		synctest.Wait()
		if got := s.memory.used(); got != 0 {
			t.Errorf("%d bytes are reserved when all is done", got)
		}
		s.memory.take(1<<20-1000, 0) // others have it, but for what the request itself takes
		if got := len(values(t, fetched(t, do[*kmsg.FetchResponse](x, q)).RecordBatches)); got != 1 {
			t.Errorf("%d records without memory, want 1", got)
		}
	})
}

func FuzzFetchRequest(f *testing.F) {
	for _, version := range []int16{4, 5, 7, 9, 11, 12, 13, 15, 17, 18} {
		q := kmsg.NewPtrFetchRequest()
		q.Version, q.MaxWaitMillis, q.MaxBytes, q.Rack = version, 10, 1000, "rack"
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = "orders", [16]byte{1, 2, 3}
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes = 5, 100
		t.Partitions = append(t.Partitions, p, p)
		q.Topics = append(q.Topics, t, t)
		q.ForgottenTopics = append(q.ForgottenTopics, kmsg.FetchRequestForgottenTopic{Topic: "gone", Partitions: []int32{1, 2}})
		f.Add(version, q.AppendTo(nil), []byte("batch"))
	}
	s := pipeServer(f, openMemory(f, nil), Options{})
	f.Fuzz(func(t *testing.T, version int16, body, records []byte) {
		if version < 4 || version > 18 {
			return
		}
		r := &request{srv: s, conn: &conn{}, version: version, out: &output{}}
		q := &r.conn.fetch
		session, err := q.read(r, body)
		s.memory.release(r.reserved)
		if err != nil {
			return // kmsg lets more pass
		}
		theirs := kmsg.NewPtrFetchRequest()
		theirs.Version = version
		if err := theirs.ReadFrom(body); err != nil {
			// It looks into tagged fields that mean nothing here.
			if version >= fetchFlexible {
				return
			}
			t.Fatalf("kmsg: %v", err)
		}
		if len(theirs.Topics) != len(q.topics) || (theirs.IsolationLevel == 1) != (q.isolation == partition.ReadCommitted) || (session != 0) != (version >= 7 && theirs.SessionEpoch > 0) {
			t.Fatalf("kmsg has %+v, we have %+v", theirs, q)
		}
		at := 0
		for i, top := range theirs.Topics {
			if top.Topic != q.topics[i].name || top.TopicID != q.topics[i].id || len(top.Partitions) != q.topics[i].parts {
				t.Fatalf("topic %d: kmsg has %+v, we have %+v", i, top, q.topics[i])
			}
			for _, p := range top.Partitions {
				ours := &q.parts[at]
				if p.Partition != ours.index || p.FetchOffset != ours.offset || max(p.PartitionMaxBytes, 0) != int32(ours.maxBytes) ||
					version >= 9 && p.CurrentLeaderEpoch != ours.leaderEpoch || version >= 12 && p.LastFetchedEpoch != ours.lastEpoch {
					t.Fatalf("partition %d: kmsg has %+v, we have %+v", at, p, ours)
				}
				// An answer with everything in it.
				ours.batches, ours.size = [][]byte{records, records}, 2*len(records)
				ours.aborted = []partition.AbortedTxn{{ProducerID: 1, FirstOffset: int64(at)}}
				switch at % 3 {
				case 1:
					ours.diverge, ours.epoch, ours.end = true, 3, 77
				case 2:
					ours.code, ours.err = codeNotLeaderOrFollower, &partition.NotLeaderError{Leader: 5, LeaderEpoch: 6}
				}
				at++
			}
		}
		q.write(r, session)
		var wire []byte
		from := 0
		for _, p := range r.out.pieces {
			wire = append(append(wire, r.out.b[from:p.at]...), p.p...)
			from = p.at
		}
		wire = append(wire, r.out.b[from:]...)
		resp := kmsg.NewPtrFetchResponse()
		resp.Version = version
		if err := resp.ReadFrom(wire); err != nil {
			t.Fatalf("kmsg cannot read our answer: %v", err)
		}
		if again := resp.AppendTo(nil); string(again) != string(wire) {
			t.Fatalf("kmsg writes the answer as\n%x, we wrote\n%x", again, wire)
		}
	})
}
