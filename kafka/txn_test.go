package kafka

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// protocols are the two transaction protocols that clients speak: with the first
// they add partitions and keep their epoch, with the second the broker does both.
var protocols = map[string][]kgo.Opt{
	"first":  {kgo.MaxVersions(kversion.V3_7_0())},
	"second": nil,
}

func TestTransactions(t *testing.T) {
	for name, opts := range protocols {
		t.Run(name, func(t *testing.T) {
			db := openMemory(t, nil)
			topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
			s := serve(t, db, Options{})
			ctx := deadline(t)
			p := client(t, s, append(opts, kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))...)
			var want []string
			for i := range 6 {
				if err := p.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				for j := range 4 {
					value := fmt.Sprintf("%d-%d", i, j)
					mustProduce(t, p, &kgo.Record{Value: []byte(value)})
					if i%3 != 2 {
						want = append(want, value)
					}
				}
				if err := p.EndTransaction(ctx, i%3 != 2); err != nil {
					t.Fatal(err)
				}
			}
			c := client(t, s, append(opts, kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
			seen := make(map[string]int)
			for _, rec := range consume(t, c, len(want)) {
				seen[string(rec.Value)]++
			}
			for _, value := range want {
				if seen[value] != 1 {
					t.Errorf("%s was read %d times", value, seen[value])
				}
			}
			if len(seen) != len(want) {
				t.Errorf("read %v, want %v", seen, want)
			}
			d, err := db.Engine().Txns().Describe("tx")
			if err != nil || d.Partitions != nil {
				t.Errorf("left: %+v, %v", d, err)
			}
			if name == "second" && d.Epoch < 6 {
				t.Errorf("epoch %d after six transactions, want one for each", d.Epoch)
			}
			if name == "first" && d.Epoch != 0 {
				t.Errorf("epoch %d after six transactions, want the first", d.Epoch)
			}
			// All of it is as it should be at the other door, too.
			n := 0
			for range topic.Scan(t.Context(), &embedlog.ScanOptions{}) {
				n++
			}
			if n != len(want) {
				t.Errorf("%d records at the Go door, want %d", n, len(want))
			}
		})
	}
}

// Who uses an id that somebody has taken over is fenced.
func TestTransactionFences(t *testing.T) {
	for name, opts := range protocols {
		t.Run(name, func(t *testing.T) {
			db := openMemory(t, nil)
			createTopic(t, db, "orders", nil)
			s := serve(t, db, Options{})
			ctx := deadline(t)
			opts := append(opts, kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("orders"))
			first, second := client(t, s, opts...), client(t, s, opts...)
			if err := first.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			mustProduce(t, first, &kgo.Record{Value: []byte("first")})
			if err := second.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			mustProduce(t, second, &kgo.Record{Value: []byte("second")})
			err := first.ProduceSync(ctx, &kgo.Record{Value: []byte("late")}).FirstErr()
			if err == nil {
				err = first.EndTransaction(ctx, true)
			}
			if !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
				t.Errorf("the first goes on with %v", err)
			}
			if err := second.EndTransaction(ctx, true); err != nil {
				t.Fatal(err)
			}
			c := client(t, s, kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
			if got := consume(t, c, 1); len(got) != 1 || string(got[0].Value) != "second" {
				t.Errorf("read %s", got[0].Value)
			}
		})
	}
}

// initTxn gets a producer id and epoch.
func initTxn(t testing.TB, x *raw, id string) (int64, int16) {
	t.Helper()
	q := kmsg.NewPtrInitProducerIDRequest()
	q.Version, q.TransactionTimeoutMillis = 5, 60_000
	q.TransactionalID = &id
	resp := do[*kmsg.InitProducerIDResponse](x, q)
	if resp.ErrorCode != 0 {
		t.Fatalf("init: %+v", resp)
	}
	return resp.ProducerID, resp.ProducerEpoch
}

// A batch of a transaction that its coordinator does not know of would stay open for
// ever: it is refused, or, with the second protocol, makes it known.
func TestProduceInTransaction(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
	id, epoch := initTxn(t, x, "tx")
	h := plain()
	h.ProducerID, h.ProducerEpoch, h.BaseSequence, h.Attributes = id, epoch, 0, log.Transactional
	send := func(version int16, txn string, partition int32, h log.BatchHeader) int16 {
		q := produceRequest(version, topic, partition, batch(t, h, "a"))
		q.TransactionID = &txn
		return produced(t, do[*kmsg.ProduceResponse](x, q)).ErrorCode
	}
	if got := send(10, "tx", 0, h); got != codeInvalidTxnState {
		t.Errorf("not added, version 10: error code %d", got)
	}
	if got := send(11, "tx", 0, h); got != codeTransactionAbortable {
		t.Errorf("not added, version 11: error code %d", got)
	}
	if got := send(11, "other", 0, h); got != codeInvalidProducerIDMapping {
		t.Errorf("somebody else's id: error code %d", got)
	}
	if got := send(12, "tx", 0, h); got != codeNone {
		t.Errorf("version 12 adds it: error code %d", got)
	}
	d, err := db.Engine().Txns().Describe("tx")
	if err != nil || len(d.Partitions) != 1 || d.Partitions[0].Partitions[0] != 0 {
		t.Fatalf("the coordinator knows %+v, %v", d, err)
	}
	h.BaseSequence = 1
	if got := send(11, "tx", 0, h); got != codeNone {
		t.Errorf("added before: error code %d", got)
	}
	// The first protocol adds partitions by a request.
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.Version, add.TransactionalID, add.ProducerID, add.ProducerEpoch = 3, "tx", id, epoch
	add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "orders", Partitions: []int32{1, 5}}}
	codes := func(resp *kmsg.AddPartitionsToTxnResponse) string {
		var b strings.Builder
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				fmt.Fprintf(&b, "%d:%d ", p.Partition, p.ErrorCode)
			}
		}
		return b.String()
	}
	if got := codes(do[*kmsg.AddPartitionsToTxnResponse](x, add)); got != "1:55 5:3 " {
		t.Errorf("one of the partitions is not there: %s", got)
	}
	add.Topics[0].Partitions = []int32{0, 1}
	if got := codes(do[*kmsg.AddPartitionsToTxnResponse](x, add)); got != "0:0 1:0 " {
		t.Errorf("added: %s", got)
	}
	h.BaseSequence = 0
	if got := send(9, "tx", 1, h); got != codeNone {
		t.Errorf("added by request: error code %d", got)
	}
	add.ProducerEpoch--
	if got := codes(do[*kmsg.AddPartitionsToTxnResponse](x, add)); got != "0:90 1:90 " {
		t.Errorf("an old epoch: %s", got)
	}
	add.Version = 1
	if got := codes(do[*kmsg.AddPartitionsToTxnResponse](x, add)); got != "0:47 1:47 " {
		t.Errorf("an old epoch, old client: %s", got)
	}
	// Many transactions at once, and a look.
	add.Version = 5
	add.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{
		{TransactionalID: "tx", ProducerID: id, ProducerEpoch: epoch, VerifyOnly: true, Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "orders", Partitions: []int32{0}}}},
		{TransactionalID: "nobody", ProducerID: 3, Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "orders", Partitions: []int32{0}}}},
	}
	resp := do[*kmsg.AddPartitionsToTxnResponse](x, add)
	if len(resp.Transactions) != 2 || resp.Transactions[0].Topics[0].Partitions[0].ErrorCode != 0 || resp.Transactions[1].Topics[0].Partitions[0].ErrorCode != codeInvalidProducerIDMapping {
		t.Errorf("many transactions: %+v", resp.Transactions)
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = 5, "tx", id, epoch, true
	e := do[*kmsg.EndTxnResponse](x, end)
	if e.ErrorCode != 0 || e.ProducerID != id || e.ProducerEpoch != epoch+1 {
		t.Errorf("end: %+v, want epoch %d", e, epoch+1)
	}
	if again := do[*kmsg.EndTxnResponse](x, end); again.ErrorCode != 0 || again.ProducerEpoch != epoch+1 {
		t.Errorf("end again: %+v", again)
	}
	h.BaseSequence = 2
	if got := send(12, "tx", 0, h); got != codeInvalidProducerEpoch {
		t.Errorf("the epoch before: error code %d", got)
	}
}

// Offsets in a transaction count when it is committed, and not when it is aborted.
func TestTxnOffsetCommit(t *testing.T) {
	for _, version := range []int16{0, 2, 3, 4, 5, 6} {
		t.Run(fmt.Sprint("version=", version), func(t *testing.T) {
			db := openMemory(t, nil)
			x := dial(t, pipeServer(t, db, Options{}), nil)
			topic := createTopic(t, db, "orders", nil)
			for range 10 {
				mustAppend(t, topic, 0, batch(t, plain(), "a"))
			}
			id, epoch := initTxn(t, x, "tx")
			committed := func() int64 {
				list, err := db.Engine().Groups().Committed(t.Context(), "g", nil, true)
				if err != nil {
					t.Fatal(err)
				}
				if len(list) == 0 {
					return -1
				}
				return list[0].Offset
			}
			add := kmsg.NewPtrAddOffsetsToTxnRequest()
			add.Version, add.TransactionalID, add.ProducerID, add.Group = 3, "tx", id, "g"
			q := kmsg.NewPtrTxnOffsetCommitRequest()
			q.Version, q.TransactionalID, q.Group, q.ProducerID, q.Generation = version, "tx", "g", id, -1
			end := kmsg.NewPtrEndTxnRequest()
			end.Version, end.TransactionalID, end.ProducerID = 5, "tx", id
			part := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			q.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "orders", TopicID: topic.ID(), Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{part, part}}}
			q.Topics[0].Partitions[1].Partition = 3
			commit := func(offset int64) (first, second int16) {
				q.Topics[0].Partitions[0].Offset = offset
				q.ProducerEpoch = epoch
				resp := do[*kmsg.TxnOffsetCommitResponse](x, q)
				return resp.Topics[0].Partitions[0].ErrorCode, resp.Topics[0].Partitions[1].ErrorCode
			}
			if version < 5 { // later versions add the group themselves
				if first, _ := commit(4); first != codeInvalidTxnState {
					t.Errorf("the group is not part of the transaction: error code %d", first)
				}
			}
			for i, row := range []struct {
				commit       bool
				offset, want int64
			}{{false, 4, -1}, {true, 5, 5}, {false, 7, 5}, {true, 8, 8}} {
				add.ProducerEpoch = epoch
				if version < 5 {
					if resp := do[*kmsg.AddOffsetsToTxnResponse](x, add); resp.ErrorCode != 0 {
						t.Fatalf("%d: add offsets: %+v", i, resp)
					}
				}
				if first, second := commit(row.offset); first != 0 || second != codeUnknownTopicOrPartition {
					t.Fatalf("%d: commit: error codes %d and %d", i, first, second)
				}
				end.ProducerEpoch, end.Commit = epoch, row.commit
				e := do[*kmsg.EndTxnResponse](x, end)
				if e.ErrorCode != 0 {
					t.Fatalf("%d: end: %+v", i, e)
				}
				epoch = e.ProducerEpoch
				if got := committed(); got != row.want {
					t.Errorf("%d: committed %d, want %d", i, got, row.want)
				}
			}
		})
	}
}

func TestInitProducerID(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	for _, row := range []struct {
		name    string
		version int16
		id      *string
		timeout int32
		pid     int64
		epoch   int16
		code    int16
	}{
		{"idempotent", 0, nil, 0, -1, -1, codeNone},
		{"idempotent, asks again", 4, nil, 0, 5, 3, codeNone},
		{"transactional", 5, kmsg.StringPtr("tx"), 60_000, -1, -1, codeNone},
		{"empty id", 5, kmsg.StringPtr(""), 60_000, -1, -1, codeInvalidRequest},
		{"no time", 5, kmsg.StringPtr("tx"), 0, -1, -1, codeInvalidTransactionTimeout},
		{"too much time", 5, kmsg.StringPtr("tx"), 3_600_000, -1, -1, codeInvalidTransactionTimeout},
		{"half of what it has", 5, kmsg.StringPtr("tx"), 60_000, 5, -1, codeInvalidRequest},
		{"somebody else's", 5, kmsg.StringPtr("tx"), 60_000, 999, 0, codeProducerFenced},
		{"somebody else's, old client", 3, kmsg.StringPtr("tx"), 60_000, 999, 0, codeInvalidProducerEpoch},
	} {
		q := kmsg.NewPtrInitProducerIDRequest()
		q.Version, q.TransactionalID, q.TransactionTimeoutMillis, q.ProducerID, q.ProducerEpoch = row.version, row.id, row.timeout, row.pid, row.epoch
		resp := do[*kmsg.InitProducerIDResponse](x, q)
		if resp.ErrorCode != row.code || (resp.ProducerID < 0) != (row.code != 0) {
			t.Errorf("%s: %+v, want error code %d", row.name, resp, row.code)
		}
	}
}

func TestDescribeAndListTransactions(t *testing.T) {
	now := time.Now()
	db := openMemory(t, &embedlog.Options{Now: func() time.Time { return now }, MaintenanceInterval: -1})
	x := dial(t, pipeServer(t, db, Options{}), nil)
	topic := createTopic(t, db, "orders", nil)
	idle, _ := initTxn(t, x, "idle")
	open, epoch := initTxn(t, x, "open")
	err := db.Engine().Txns().AddPartitions(t.Context(), "open", open, epoch, []engine.TopicPartitions{{Topic: topic.ID(), Partitions: []int32{0}}})
	if err != nil {
		t.Fatal(err)
	}
	h := plain()
	h.ProducerID, h.ProducerEpoch, h.BaseSequence, h.Attributes = open, epoch, 0, log.Transactional
	mustAppend(t, topic, 0, batch(t, h, "a", "b"))
	now = now.Add(30 * time.Second)

	d := kmsg.NewPtrDescribeTransactionsRequest()
	d.TransactionalIDs = []string{"open", "idle", "nobody"}
	states := do[*kmsg.DescribeTransactionsResponse](x, d).TransactionStates
	if s := states[0]; s.ErrorCode != 0 || s.State != "Ongoing" || s.ProducerID != open || s.TimeoutMillis != 60_000 || s.StartTimestamp != now.Add(-30*time.Second).UnixMilli() || len(s.Topics) != 1 || s.Topics[0].Topic != "orders" {
		t.Errorf("open: %+v", s)
	}
	if s := states[1]; s.ErrorCode != 0 || s.State != "Empty" || s.ProducerID != idle || s.StartTimestamp != -1 {
		t.Errorf("idle: %+v", s)
	}
	if s := states[2]; s.ErrorCode != codeTransactionalIDNotFound {
		t.Errorf("nobody: %+v", s)
	}
	for _, row := range []struct {
		name    string
		change  func(q *kmsg.ListTransactionsRequest)
		want    string
		unknown int
	}{
		{"all", func(q *kmsg.ListTransactionsRequest) {}, "idle open", 0},
		{"by state", func(q *kmsg.ListTransactionsRequest) { q.StateFilters = []string{"Ongoing", "Weird"} }, "open", 1},
		{"by producer", func(q *kmsg.ListTransactionsRequest) { q.ProducerIDFilters = []int64{idle} }, "idle", 0},
		{"by duration", func(q *kmsg.ListTransactionsRequest) { q.DurationFilterMillis = 29_000 }, "open", 0},
		{"by a longer one", func(q *kmsg.ListTransactionsRequest) { q.DurationFilterMillis = 31_000 }, "", 0},
		{"by pattern", func(q *kmsg.ListTransactionsRequest) { q.TransactionalIDPattern = kmsg.StringPtr("i.*") }, "idle", 0},
		{"by a part", func(q *kmsg.ListTransactionsRequest) { q.TransactionalIDPattern = kmsg.StringPtr("pe") }, "", 0},
	} {
		q := kmsg.NewPtrListTransactionsRequest()
		q.Version = 2
		row.change(q)
		resp := do[*kmsg.ListTransactionsResponse](x, q)
		var got []string
		for _, s := range resp.TransactionStates {
			got = append(got, s.TransactionalID)
		}
		if strings.Join(got, " ") != row.want || len(resp.UnknownStateFilters) != row.unknown {
			t.Errorf("%s: %v, unknown %v", row.name, got, resp.UnknownStateFilters)
		}
	}
	q := kmsg.NewPtrListTransactionsRequest()
	q.Version, q.TransactionalIDPattern = 2, kmsg.StringPtr("(")
	if resp := do[*kmsg.ListTransactionsResponse](x, q); resp.ErrorCode != codeInvalidRegularExpression {
		t.Errorf("a bad pattern: %+v", resp)
	}

	p := kmsg.NewPtrDescribeProducersRequest()
	p.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0, 1}}}
	parts := do[*kmsg.DescribeProducersResponse](x, p).Topics[0].Partitions
	if len(parts[0].ActiveProducers) != 1 || parts[0].ActiveProducers[0].ProducerID != open || parts[0].ActiveProducers[0].LastSequence != 1 || parts[0].ActiveProducers[0].CurrentTxnStartOffset != 0 {
		t.Errorf("producers: %+v", parts[0])
	}
	if parts[1].ErrorCode != codeUnknownTopicOrPartition {
		t.Errorf("a partition that is not there: %+v", parts[1])
	}
}

// A transaction ends while a batch of it is on its way, on another connection: the batch
// has been verified, and comes behind the marker. It would stay open for ever.
func TestProduceRacesEnd(t *testing.T) {
	for _, row := range []struct {
		name             string
		produce, commits int16 // versions
		code             int16
	}{
		{"first protocol", 9, 4, codeInvalidTxnState},
		{"first protocol, abortable", 11, 4, codeInvalidTxnState},
		{"partitions added as in the second, ended as in the first", 12, 4, codeInvalidTxnState},
		{"second protocol", 12, 5, codeInvalidProducerEpoch},
	} {
		t.Run(row.name, func(t *testing.T) {
			fault := vfs.NewFault(vfs.NewMem())
			db, err := embedlog.OpenFS(fault, &embedlog.Options{MaintenanceInterval: -1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			s := pipeServer(t, db, Options{})
			x, other := dial(t, s, nil), dial(t, s, nil)
			// Without a sync to wait for, the request's batches are appended in their order.
			fast := &embedlog.TopicConfig{Durability: embedlog.OS}
			first, orders := createTopic(t, db, "first", fast), createTopic(t, db, "orders", fast)
			mustAppend(t, first, 0, batch(t, plain(), "a"))
			id, epoch := initTxn(t, x, "tx")
			add := kmsg.NewPtrAddPartitionsToTxnRequest()
			add.Version, add.TransactionalID, add.ProducerID, add.ProducerEpoch = 3, "tx", id, epoch
			add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			if resp := do[*kmsg.AddPartitionsToTxnResponse](x, add); resp.Topics[0].Partitions[0].ErrorCode != 0 {
				t.Fatalf("add: %+v", resp)
			}
			ended := int16(-1)
			end := sync.OnceFunc(func() {
				q := kmsg.NewPtrEndTxnRequest()
				q.Version, q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit = row.commits, "tx", id, epoch, true
				ended = do[*kmsg.EndTxnResponse](other, q).ErrorCode
			})
			for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpStore} {
				fault.Add(vfs.Rule{Op: op, Glob: "topics/" + first.ID().String() + "/0/*.log", Effect: vfs.Call(end)})
			}
			h := plain()
			h.ProducerID, h.ProducerEpoch, h.BaseSequence, h.Attributes = id, epoch, 0, log.Transactional
			q := produceRequest(row.produce, first, 0, batch(t, plain(), "b"))
			q.TransactionID = kmsg.StringPtr("tx")
			addProduce(q, orders, 0, batch(t, h, "late"))
			resp := do[*kmsg.ProduceResponse](x, q)
			if ended != codeNone {
				t.Fatalf("the end, in between: error code %d", ended)
			}
			if a, b := resp.Topics[0].Partitions[0].ErrorCode, resp.Topics[1].Partitions[0].ErrorCode; a != codeNone || b != row.code {
				t.Errorf("error codes %d and %d, want 0 and %d", a, b, row.code)
			}
			if d, err := db.Engine().Txns().Describe("tx"); err != nil || len(d.Partitions) > 0 {
				t.Fatalf("the coordinator knows %+v, %v", d, err)
			}
			top, err := orders.EngineTopic()
			if err != nil {
				t.Fatal(err)
			}
			p := top.Partitions()[0]
			if stable, end := p.LastStable(), p.HighWatermark(); stable != end {
				t.Errorf("the last stable offset is %d, the log ends at %d: a transaction is open that nobody ends", stable, end)
			}
		})
	}
}
