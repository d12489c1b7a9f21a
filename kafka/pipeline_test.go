package kafka

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// slowDisk is a database whose topic's partition 0 waits in its next sync until it is
// released.
type slowDisk struct {
	topic    *embedlog.Topic
	server   *Server
	syncs    atomic.Int32 // of the partition, while it is slow
	syncing  chan struct{}
	released chan struct{}
}

func newSlowDisk(t *testing.T) *slowDisk {
	fault := vfs.NewFault(vfs.NewMem())
	db, err := embedlog.OpenFS(fault, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &slowDisk{topic: createTopic(t, db, "orders", nil), syncing: make(chan struct{}, 100), released: make(chan struct{})}
	fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "topics/*/0/*.log", Count: -1, Effect: vfs.Call(func() {
		d.syncs.Add(1)
		d.syncing <- struct{}{}
		<-d.released
	})})
	d.server = pipeServer(t, db, Options{})
	return d
}

// until waits for something that comes without anybody's doing.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it does not come", what)
		}
	}
}

// taken waits until the handler of the only connection has taken n requests.
func (d *slowDisk) taken(t *testing.T, n int32) {
	t.Helper()
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	for c := range d.server.conns {
		until(t, fmt.Sprint(n, " requests are taken up"), func() bool { return c.busy.Load() == n && len(c.queue) == 0 })
	}
}

// Requests that arrive while one waits for the disk are begun: one sync serves them.
func TestProduceIsBegunAhead(t *testing.T) {
	d := newSlowDisk(t)
	x := dial(t, d.server, nil)
	const n = 5
	var sent [n]*kmsg.ProduceRequest
	for i := range sent {
		sent[i] = produceRequest(13, d.topic, 0, batch(t, plain(), fmt.Sprint(i)))
		x.send(sent[i])
		if i == 0 {
			<-d.syncing
		}
	}
	d.taken(t, n)
	close(d.released)
	for i, q := range sent {
		if p := produced(t, x.recv(q, int32(i+1)).(*kmsg.ProduceResponse)); p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Errorf("request %d: %+v", i, p)
		}
	}
	// The last one may still be about to be begun when the disk is released.
	if got := d.syncs.Load(); got > 3 {
		t.Errorf("%d requests took %d syncs", n, got)
	}
}

// Other requests see what was sent before them, and a bad one says so in its turn.
func TestRequestsBehindProduceWait(t *testing.T) {
	d := newSlowDisk(t)
	x := dial(t, d.server, nil)
	good := produceRequest(13, d.topic, 0, batch(t, plain(), "good"))
	broken := batch(t, plain(), "broken")
	broken[len(broken)-1] ^= 1
	bad := produceRequest(13, d.topic, 0, broken)
	again := produceRequest(13, d.topic, 0, batch(t, plain(), "again"))
	ends := kmsg.NewPtrListOffsetsRequest()
	ends.Version = 5
	of := kmsg.NewListOffsetsRequestTopic()
	of.Topic = "orders"
	end := kmsg.NewListOffsetsRequestTopicPartition()
	end.Timestamp = -1
	of.Partitions = append(of.Partitions, end)
	ends.Topics = append(ends.Topics, of)
	x.send(good)
	<-d.syncing
	x.send(bad)
	x.send(again)
	x.send(ends)
	d.taken(t, 4)
	close(d.released)
	for i, c := range []struct {
		q      *kmsg.ProduceRequest
		code   int16
		offset int64
	}{{good, codeNone, 0}, {bad, codeCorruptMessage, -1}, {again, codeNone, 1}} {
		if p := produced(t, x.recv(c.q, int32(i+1)).(*kmsg.ProduceResponse)); p.ErrorCode != c.code || p.BaseOffset != c.offset {
			t.Errorf("request %d: %+v, want code %d, offset %d", i, p, c.code, c.offset)
		}
	}
	if p := x.recv(ends, 4).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]; p.Offset != 2 {
		t.Errorf("the log ends at %d for who asked behind two records", p.Offset)
	}
}

// A client that goes away, or a server that stops, leaves nothing behind: what was
// begun is in the log, all memory is given back.
func TestConnectionEndsWithProduceUnderWay(t *testing.T) {
	for _, stops := range []bool{false, true} {
		t.Run(fmt.Sprint("server stops=", stops), func(t *testing.T) {
			d := newSlowDisk(t)
			x := dial(t, d.server, nil)
			for i := range 3 {
				x.send(produceRequest(13, d.topic, 0, batch(t, plain(), fmt.Sprint(i))))
				if i == 0 {
					<-d.syncing
				}
			}
			d.taken(t, 3)
			closed := make(chan error, 1)
			if stops {
				go func() { closed <- d.server.Close() }()
				<-d.server.life.Done()
			} else {
				x.c.Close()
				closed <- nil
			}
			close(d.released)
			if err := <-closed; err != nil {
				t.Error(err)
			}
			if !stops {
				until(t, "the connection ends", func() bool {
					d.server.mu.Lock()
					defer d.server.mu.Unlock()
					return len(d.server.conns) == 0
				})
			}
			if used := d.server.memory.used(); used != 0 {
				t.Errorf("%d bytes are reserved", used)
			}
			ends, err := d.topic.ListOffsets(t.Context(), embedlog.Latest)
			if err != nil || ends[0].Offset < 1 || !stops && ends[0].Offset != 3 {
				t.Errorf("the log ends at %+v, %v", ends, err)
			}
		})
	}
}

// However requests follow each other, each is answered as if it had been alone.
func TestPipelinedAnswersAreThoseInSequence(t *testing.T) {
	for range testcount.N(20) {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 4))
		db := openMemory(t, nil)
		topics := []*embedlog.Topic{
			createTopic(t, db, "durable", &embedlog.TopicConfig{Partitions: 2}),
			createTopic(t, db, "os", &embedlog.TopicConfig{Partitions: 2, Durability: embedlog.OS}),
		}
		x := dial(t, pipeServer(t, db, Options{}), nil)
		type part struct {
			topic int
			index int32
		}
		next, sequence := map[part]int64{}, map[part]int32{}
		type expected struct {
			q       *kmsg.ProduceRequest
			codes   []int16
			offsets []int64
		}
		answers := make(chan expected, 1000)
		sent := make(chan struct{})
		var requests []*kmsg.ProduceRequest
		for range 60 {
			q := kmsg.NewPtrProduceRequest()
			q.Version, q.Acks, q.TimeoutMillis = 13, []int16{-1, 1}[rnd.IntN(2)], 10_000
			e := expected{q: q}
			parts := []part{{0, 0}, {0, 1}, {1, 0}, {1, 1}}
			rnd.Shuffle(len(parts), func(i, k int) { parts[i], parts[k] = parts[k], parts[i] })
			for _, p := range parts[:1+rnd.IntN(2)] {
				h := plain()
				h.ProducerID, h.ProducerEpoch, h.BaseSequence = 5, 0, sequence[p]
				code, offset := codeNone, next[p]
				switch rnd.IntN(8) {
				case 0:
					h.BaseSequence += 3
					code, offset = codeOutOfOrderSequenceNumber, -1
					if next[p] == 0 {
						h.BaseSequence, code = -1, codeCorruptMessage // a producer that nobody knows may begin anywhere
					}
				case 1:
					code, offset = codeCorruptMessage, -1
				default:
					next[p]++
					sequence[p]++
				}
				b := batch(t, h, "v")
				if code == codeCorruptMessage {
					b[len(b)-1] ^= 1
				}
				addProduce(q, topics[p.topic], p.index, b)
				e.codes, e.offsets = append(e.codes, code), append(e.offsets, offset)
			}
			requests = append(requests, q)
			answers <- e
		}
		close(answers)
		go func() {
			defer close(sent)
			for _, q := range requests {
				x.send(q)
			}
		}()
		n := int32(0)
		for e := range answers {
			n++
			resp := x.recv(e.q, n).(*kmsg.ProduceResponse)
			var codes []int16
			var offsets []int64
			for _, top := range resp.Topics {
				for _, p := range top.Partitions {
					codes, offsets = append(codes, p.ErrorCode), append(offsets, p.BaseOffset)
				}
			}
			if !slices.Equal(codes, e.codes) || !slices.Equal(offsets, e.offsets) {
				t.Fatalf("seed %d, request %d: codes %v, offsets %v; want %v, %v", seed, n, codes, offsets, e.codes, e.offsets)
			}
		}
		<-sent
	}
}

// A quota that is set is kept: nothing is begun ahead of it.
func TestNothingIsBegunAheadOfQuotas(t *testing.T) {
	db := openMemory(t, nil)
	topic := createTopic(t, db, "orders", nil)
	s := pipeServer(t, db, Options{})
	c := newConn(s, &listener{}, &sink{})
	part, err := db.Engine().Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	p, err := part.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	may := func(acks int16) bool {
		q := &producer{acks: acks, parts: []producePart{{part: p}}}
		begins, _ := q.how(&request{srv: s, conn: c})
		return begins
	}
	if !may(-1) || !may(1) || may(0) {
		t.Errorf("begun: acks all %t, 1 %t, 0 %t", may(-1), may(1), may(0))
	}
	quota := embedlog.QuotaEntity{DefaultUser: true}
	if err := db.AlterQuota(t.Context(), quota, map[string]float64{embedlog.QuotaProducerByteRate: 1e9}); err != nil {
		t.Fatal(err)
	}
	if may(-1) {
		t.Error("begun ahead of a quota")
	}
	if err := db.AlterQuota(t.Context(), quota, nil, embedlog.QuotaProducerByteRate); err != nil || !may(-1) {
		t.Errorf("begun %t when the quota is gone, error %v", may(-1), err)
	}
	if err := topic.Alter(t.Context(), map[string]string{"embedlog.durability": "os"}); err != nil {
		t.Fatal(err)
	}
	if may(-1) {
		t.Error("what does not wait for the disk is begun ahead")
	}
}

// Small requests that wait for nothing are handled by the reader, one among others too;
// a frame that is none ends the connection from there as well.
func TestQuickProduce(t *testing.T) {
	db := openMemory(t, nil)
	durable := createTopic(t, db, "durable", nil)
	quick := createTopic(t, db, "quick", &embedlog.TopicConfig{Durability: embedlog.OS})
	s := pipeServer(t, db, Options{})
	x := dial(t, s, nil)
	var c *conn
	s.mu.Lock()
	for c = range s.conns {
	}
	s.mu.Unlock()
	next := map[*embedlog.Topic]int64{}
	for i, topic := range []*embedlog.Topic{quick, quick, durable, durable, quick, quick, quick, durable} {
		// The answer comes before the frame is given back.
		until(t, "the last request ends", func() bool { return c.busy.Load() == 0 })
		p := produced(t, do[*kmsg.ProduceResponse](x, produceRequest(13, topic, 0, batch(t, plain(), "v"))))
		if p.ErrorCode != 0 || p.BaseOffset != next[topic] || c.quick.Load() != (topic == quick) {
			t.Errorf("request %d: %+v, want offset %d; quick %t", i, p, next[topic], c.quick.Load())
		}
		next[topic]++
	}
	do[*kmsg.ProduceResponse](x, produceRequest(13, quick, 0, batch(t, plain(), "v")))
	until(t, "the last request ends", func() bool { return c.busy.Load() == 0 })
	if _, err := x.c.Write([]byte{0, 0, 0, 12, 0, produceKey, 0, 13, 0, 0, 0, 1, 0, 9, 'x', 'y'}); err != nil {
		t.Fatal(err)
	}
	x.gone()
	until(t, "the connection ends", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
	if used := s.memory.used(); used != 0 {
		t.Errorf("%d bytes are reserved", used)
	}
}
