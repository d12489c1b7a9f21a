package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// pipelineRig is a client that sends ahead, and partitions whose disk can be held.
type pipelineRig struct {
	*raw
	db    *embedlog.DB
	s     *Server
	topic *embedlog.Topic
	parts []*engine.Partition
	sent  []kmsg.Request // and not answered
	first int32          // the correlation id of sent[0]
	held  []bool
}

func newPipelineRig(t *testing.T, o Options) *pipelineRig {
	t.Helper()
	r := &pipelineRig{db: openMemory(t, nil), first: 1, held: make([]bool, 2)}
	r.s = pipeServer(t, r.db, o)
	r.topic = createTopic(t, r.db, "orders", &embedlog.TopicConfig{Partitions: 2})
	top, err := r.topic.EngineTopic()
	if err != nil {
		t.Fatal(err)
	}
	r.parts = top.Partitions()
	r.dial(t)
	return r
}

func (r *pipelineRig) dial(t *testing.T) { r.raw = dial(t, r.s, nil) }

// hold keeps the disk of a partition busy.
func (r *pipelineRig) hold(partition int) {
	if !r.held[partition] {
		r.parts[partition].Log().Lock()
		r.held[partition] = true
	}
}

func (r *pipelineRig) letGo() {
	for i, p := range r.parts {
		if r.held[i] {
			r.held[i] = false
			p.Log().Unlock()
		}
	}
}

// put sends a request ahead.
func (r *pipelineRig) put(q kmsg.Request) {
	r.t.Helper()
	r.send(q)
	r.sent = append(r.sent, q)
}

func (r *pipelineRig) putValue(partition int32, value string) *kmsg.ProduceRequest {
	r.t.Helper()
	q := produceRequest(11, r.topic, partition, batch(r.t, plain(), value))
	r.put(q)
	return q
}

// get is the next answer.
func (r *pipelineRig) get() kmsg.Response {
	r.t.Helper()
	q := r.sent[0]
	resp := r.recv(q, r.first)
	r.sent, r.first = r.sent[1:], r.first+1
	return resp
}

// answers are those of all that were sent to one partition each, as offsets, or codes: "0 1 !7".
func (r *pipelineRig) answers() string {
	r.t.Helper()
	var words []string
	for len(r.sent) > 0 {
		switch resp := r.get().(type) {
		case *kmsg.ProduceResponse:
			p := produced(r.t, resp)
			if p.ErrorCode != codeNone {
				words = append(words, fmt.Sprint("!", p.ErrorCode))
			} else {
				words = append(words, fmt.Sprint(p.BaseOffset))
			}
		default:
			words = append(words, kmsg.NameForKey(resp.Key()))
		}
	}
	return strings.Join(words, " ")
}

func (r *pipelineRig) want(got, want string) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("got %q, want %q", got, want)
	}
}

// nothingLeft says that all memory was given back once, when no connection is there.
func (r *pipelineRig) nothingLeft() {
	r.t.Helper()
	r.c.Close()
	r.s.running.Wait()
	m := r.s.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.free != m.size {
		r.t.Errorf("%d bytes of %d are free when nobody is there", m.free, m.size)
	}
}

// taken waits until the connection's handler has taken so many requests.
func (r *pipelineRig) taken(n int) {
	r.t.Helper()
	have := func() (n int) {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		for c := range r.s.conns {
			n += int(c.busy.Load()) - len(c.queue)
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); have() < n; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d requests were taken, want %d", have(), n)
		}
	}
}

func TestPipelinedProduce(t *testing.T) {
	for _, row := range []struct {
		name string
		run  func(r *pipelineRig)
		want string
	}{
		{"in order", func(r *pipelineRig) {
			for i := range 6 {
				r.putValue(0, fmt.Sprint(i))
			}
			r.taken(6)
		}, "0 1 2 3 4 5"},
		{"more than are begun", func(r *pipelineRig) {
			for i := range maxBegun + aheadFrames {
				r.putValue(0, fmt.Sprint(i))
			}
			r.taken(maxBegun)
		}, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"},
		{"the first is out of time", func(r *pipelineRig) {
			q := produceRequest(11, r.topic, 0, batch(r.t, plain(), "a"))
			q.TimeoutMillis = 20
			r.put(q)
			r.putValue(0, "b")
			r.putValue(0, "c")
			if p := produced(r.t, r.get().(*kmsg.ProduceResponse)); p.ErrorCode != codeRequestTimedOut {
				r.t.Errorf("the first: %+v", p)
			}
		}, "0 1"},
		{"a bad one in between", func(r *pipelineRig) {
			r.putValue(0, "a")
			q := produceRequest(11, r.topic, 0, batch(r.t, plain(), "b"))
			q.Topics[0].Partitions[0].Records[30] ^= 1
			r.put(q)
			r.putValue(0, "c")
			r.taken(2)
		}, fmt.Sprintf("0 !%d 1", codeCorruptMessage)},
		{"another request in between", func(r *pipelineRig) {
			r.putValue(0, "a")
			r.put(apiVersionsRequest(3))
			r.putValue(0, "b")
			r.taken(1)
		}, "0 ApiVersions 1"},
		{"a sequence gap and its repetition", func(r *pipelineRig) {
			h := plain()
			h.ProducerID, h.ProducerEpoch = 9, 0
			for _, sequence := range []int32{0, 2, 1, 1, 2} {
				h.BaseSequence = sequence
				r.put(produceRequest(11, r.topic, 0, batch(r.t, h, "v")))
			}
			r.taken(5)
		}, fmt.Sprintf("0 !%d 1 1 2", codeOutOfOrderSequenceNumber)},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newPipelineRig(t, Options{})
			r.hold(0)
			t.Cleanup(r.letGo)
			row.run(r)
			r.letGo()
			r.want(r.answers(), row.want)
			r.nothingLeft()
		})
	}
}

// A request that is not to be answered takes its place among those that are.
func TestPipelinedProduceWithoutAcks(t *testing.T) {
	r := newPipelineRig(t, Options{})
	r.hold(0)
	t.Cleanup(r.letGo)
	r.putValue(0, "a")
	q := produceRequest(11, r.topic, 0, batch(t, plain(), "b"))
	q.Acks = 0
	r.send(q)
	last := produceRequest(11, r.topic, 0, batch(t, plain(), "c"))
	r.send(last)
	r.taken(1)
	r.letGo()
	r.want(r.answers(), "0")
	if p := produced(t, r.recv(last, 3).(*kmsg.ProduceResponse)); p.BaseOffset != 2 {
		t.Errorf("answer %+v, want offset 2", p)
	}
	r.nothingLeft()
}

// What was begun takes effect although its client has gone, and then nothing is left of it.
func TestPipelinedProduceThenGone(t *testing.T) {
	for name, end := range map[string]func(r *pipelineRig){
		"connection": func(r *pipelineRig) { r.c.Close(); r.letGo() },
		"close": func(r *pipelineRig) {
			done := make(chan struct{})
			go func() { r.s.Close(); close(done) }()
			<-r.s.life.Done()
			r.letGo()
			<-done
		},
		"shutdown without time": func(r *pipelineRig) {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			done := make(chan struct{})
			go func() { r.s.Shutdown(ended); close(done) }()
			<-r.s.draining.Done()
			r.letGo()
			<-done
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newPipelineRig(t, Options{})
			r.hold(0)
			t.Cleanup(r.letGo)
			for i := range 5 {
				r.putValue(0, fmt.Sprint(i))
			}
			r.taken(5)
			end(r)
			r.nothingLeft()
			if end := r.parts[0].LogEnd(); name == "connection" && end != 5 {
				t.Errorf("the log ends at %d, want 5", end)
			}
		})
	}
}

// A shutdown with time answers what was begun.
func TestPipelinedProduceThenShutdown(t *testing.T) {
	r := newPipelineRig(t, Options{})
	r.hold(0)
	t.Cleanup(r.letGo)
	for i := range 5 {
		r.putValue(0, fmt.Sprint(i))
	}
	r.taken(5)
	done := make(chan error, 1)
	go func() { done <- r.s.Shutdown(context.Background()) }()
	<-r.s.draining.Done()
	r.letGo()
	r.want(r.answers(), "0 1 2 3 4")
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.nothingLeft()
}

// A topic that is deleted under what was begun: each is answered, in order, and the
// connection lives on.
func TestPipelinedProduceAndDeletion(t *testing.T) {
	r := newPipelineRig(t, Options{})
	r.hold(0)
	t.Cleanup(r.letGo)
	for i := range 5 {
		r.putValue(0, fmt.Sprint(i))
	}
	r.taken(5)
	done := make(chan error, 1)
	go func() { done <- r.db.DeleteTopic(context.Background(), "orders") }()
	r.letGo()
	for i := range 5 {
		if p := produced(t, r.get().(*kmsg.ProduceResponse)); p.ErrorCode != codeUnknownTopicOrPartition && (p.ErrorCode != codeNone || p.BaseOffset != int64(i)) {
			t.Errorf("answer %d: %+v", i, p)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.putValue(0, "x")
	r.want(r.answers(), fmt.Sprint("!", codeUnknownTopicOrPartition))
	r.nothingLeft()
}

// Less memory than what could be begun is no reason to stop.
func TestPipelinedProduceInLittleMemory(t *testing.T) {
	r := newPipelineRig(t, Options{Limits: Limits{FrameBytes: 4 << 10, ConnectionMemoryBytes: 8 << 10, MemoryBytes: 8 << 10}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 30 {
			f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))
			q := produceRequest(11, r.topic, 0, batch(t, plain(), strings.Repeat("v", 3000)))
			if _, err := r.c.Write(f.AppendRequest(nil, q, 1)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range 30 {
		resp, err := r.tryRecv(produceRequest(11, r.topic, 0, nil), 1)
		if err != nil {
			t.Fatal(err)
		}
		if p := produced(t, resp.(*kmsg.ProduceResponse)); p.BaseOffset != int64(i) {
			t.Fatalf("answer %d: %+v", i, p)
		}
	}
	<-done
	r.nothingLeft()
}

// Random requests to partitions whose disk is busy now and then: answers come in order, and the log
// has what they say, where they say it.
func TestPipelinedProduceAtRandom(t *testing.T) {
	for seed := range uint64(testcount.N(20)) {
		r := newPipelineRig(t, Options{})
		rnd := rand.New(rand.NewPCG(seed, 5))
		const requests = 40
		type sent struct {
			q     *kmsg.ProduceRequest
			parts []int32
		}
		list := make(chan sent, requests)
		go func() {
			defer close(list)
			for i := range requests {
				x := sent{parts: []int32{int32(rnd.IntN(2))}}
				x.q = produceRequest(11, r.topic, x.parts[0], batch(t, plain(), fmt.Sprint(i)))
				if rnd.IntN(4) == 0 {
					other := 1 - x.parts[0]
					x.parts = append(x.parts, other)
					addProduce(x.q, r.topic, other, batch(t, plain(), fmt.Sprint(i)))
				}
				if rnd.IntN(10) == 0 {
					x.q.TimeoutMillis = 1
				}
				f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))
				if _, err := r.c.Write(f.AppendRequest(nil, x.q, int32(i))); err != nil {
					t.Error(err)
					return
				}
				list <- x
				if rnd.IntN(3) == 0 {
					p := r.parts[rnd.IntN(2)]
					p.Log().Lock()
					time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond) // for the requests to meet a busy disk; nothing depends on it
					p.Log().Unlock()
				}
			}
		}()
		var next [2]int64
		i := int32(0)
		for x := range list {
			resp, err := r.tryRecv(x.q, i)
			if err != nil {
				t.Fatalf("seed %d, request %d: %v", seed, i, err)
			}
			i++
			for j, topic := range resp.(*kmsg.ProduceResponse).Topics {
				p, at := topic.Partitions[0], x.parts[j]
				switch {
				case p.ErrorCode == codeRequestTimedOut:
				case p.ErrorCode != codeNone:
					t.Errorf("seed %d, request %d: code %d", seed, i-1, p.ErrorCode)
				case p.BaseOffset < next[at]:
					t.Errorf("seed %d, request %d: offset %d of partition %d, after %d", seed, i-1, p.BaseOffset, at, next[at]-1)
				default:
					next[at] = p.BaseOffset + 1
				}
			}
		}
		r.nothingLeft()
		if t.Failed() {
			return
		}
	}
}
