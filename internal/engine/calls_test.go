package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func sampleBatch(t testing.TB, values ...string) []byte {
	t.Helper()
	h := log.BatchHeader{ProducerID: 7, ProducerEpoch: 2, BaseSequence: 5, BaseOffset: 10, LastOffsetDelta: int32(len(values) - 1)}
	var recs []log.Record
	for i, v := range values {
		recs = append(recs, log.Record{Value: []byte(v), Offset: h.BaseOffset + int64(i)})
	}
	b, err := log.AppendBatchAt(nil, &h, recs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppendRequest(t *testing.T) {
	p := &Partition{topicID: TopicID{1, 15: 3}, id: 300}
	batch := sampleBatch(t, "a")
	for _, o := range []*partition.AppendOptions{
		nil, {Expect: true, ExpectedOffset: 1 << 40}, {Internal: true, FixMaxTimestamp: true},
		{Producer: &partition.Producer{TxnV2: true}}, {Producer: &partition.Producer{Coordinator: true}, Expect: true},
	} {
		request := append(appendAppendHead(nil, p, o), batch...)
		if len(request)-len(batch) > maxAppendHead {
			t.Errorf("%d bytes before the batch", len(request)-len(batch))
		}
		r, got, err := decodeAppend(request)
		if err != nil || !bytes.Equal(got, batch) || r.topic != p.topicID || r.partition != p.id {
			t.Fatalf("%+v: %+v, %v", o, r, err)
		}
		want := partition.AppendOptions{}
		if o != nil {
			want = *o
		}
		producer := partition.Producer{}
		if want.Producer != nil {
			producer = *want.Producer
		}
		want.Producer = nil
		if !reflect.DeepEqual(r.options, want) || r.producer != producer {
			t.Errorf("got %+v %+v, want %+v", r.options, r.producer, o)
		}
	}
	want := partition.Result{BaseOffset: 1 << 50, LastOffset: 1<<50 + 3, AppendTime: -1, LogStart: 9, Duplicate: true}
	got, epoch, err := decodeResult(appendResult(nil, &want, 12))
	if err != nil || got != want || epoch != 12 {
		t.Errorf("got %+v, %d, %v", got, epoch, err)
	}
}

func TestIsIdempotent(t *testing.T) {
	batch := sampleBatch(t, "a")
	plain, err := log.AppendBatch(nil, &log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, []log.Record{{Value: []byte("a")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		batch []byte
		o     *partition.AppendOptions
		want  bool
	}{
		{"of an idempotent producer", batch, nil, true},
		{"of nobody", plain, nil, false},
		{"of a coordinator", batch, &partition.AppendOptions{Producer: &partition.Producer{Coordinator: true}}, false},
		{"not a batch", []byte("x"), nil, false},
	} {
		if got := isIdempotent(row.batch, row.o); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
	for _, row := range []struct {
		name string
		o    *partition.AppendOptions
		want bool
	}{
		{"nothing said", nil, true},
		{"a producer", &partition.AppendOptions{Producer: &partition.Producer{ID: 1}}, true},
		{"in one epoch", &partition.AppendOptions{LeaderEpoch: 3}, false},
		{"verified here", &partition.AppendOptions{Producer: &partition.Producer{Verified: &partition.Verification{}}}, false},
	} {
		if got := mayForward(row.o); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}

func FuzzDecodeAppend(f *testing.F) {
	p := &Partition{topicID: TopicID{1}, id: 3}
	f.Add(append(appendAppendHead(nil, p, &partition.AppendOptions{Expect: true}), "batch"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, batch, err := decodeAppend(b)
		if err != nil {
			if !errors.Is(err, errAppendRequest) {
				t.Fatal(err)
			}
			return
		}
		q := &Partition{topicID: r.topic, id: r.partition}
		o := r.options
		o.Producer = &r.producer
		again, batch2, err := decodeAppend(append(appendAppendHead(nil, q, &o), batch...))
		if err != nil || !reflect.DeepEqual(again, r) || !bytes.Equal(batch, batch2) {
			t.Fatalf("%+v, then %+v: %v", r, again, err)
		}
	})
}

func FuzzDecodeRead(f *testing.F) {
	one := make([]byte, readHead-1)
	one[readHead-2], one[8*4+7] = 1, 12
	batch := sampleBatch(f, "a", "b")
	one = append(append(one, byte(len(batch))), batch...)
	f.Add(one, int64(10))
	if a, err := decodeRead(one, 10); err != nil || len(a.batches) != 1 || a.next != 12 {
		f.Fatalf("%+v, %v", a, err)
	}
	f.Add(make([]byte, readHead-1), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, from int64) {
		a, err := decodeRead(b, from)
		if err != nil {
			return
		}
		at := from
		for _, batch := range a.batches {
			h, err := batch.Header()
			if err != nil || h.LastOffset() < at || !log.VerifyBatchCRC(batch) {
				t.Fatalf("batch of %d to %d behind %d: %v", h.BaseOffset, h.LastOffset(), at, err)
			}
			at = h.LastOffset() + 1
		}
		if a.next < at {
			t.Fatalf("next is %d behind %d", a.next, at)
		}
	})
}

// Nobody leads: what a call does then, in virtual time.
func TestRoute(t *testing.T) {
	lost := fmt.Errorf("node 2: %w", errAnswerLost)
	nobody := &partition.NotLeaderError{Leader: -1, LeaderEpoch: 3}
	two := &partition.NotLeaderError{Leader: 2, LeaderEpoch: 3}
	closed := fmt.Errorf("node 2: %w", errPeerCloses)
	type step struct {
		node int32 // who is asked; -1 is here
		err  error
	}
	for _, row := range []struct {
		name        string
		again, firm bool
		steps       []step // the last one is repeated
		want        []error
		not         []error
		took        time.Duration // at least
	}{
		{name: "here", steps: []step{{-1, nil}}},
		{name: "where it is said", steps: []step{{-1, two}, {2, nil}}},
		{name: "refused", steps: []step{{-1, two}, {2, ErrTopicExists}}, want: []error{ErrTopicExists}, not: []error{partition.ErrUnknownOutcome}},
		{name: "moved meanwhile", steps: []step{{-1, two}, {2, &partition.NotLeaderError{Leader: 3}}, {3, nil}}},
		{name: "nobody, then here", steps: []step{{-1, nobody}, {-1, nobody}, {-1, nil}}, took: 2 * firstPause},
		{name: "nobody", steps: []step{{-1, nobody}}, want: []error{partition.ErrNotLeader}, not: []error{partition.ErrUnknownOutcome}, took: leaderPatience},
		{name: "a closing peer", steps: []step{{-1, two}, {2, closed}, {-1, nil}}},
		{name: "an unreachable peer", steps: []step{{-1, two}, {2, ErrPeerUnreachable}, {-1, two}, {2, nil}}},
		{name: "no answer", steps: []step{{-1, two}, {2, lost}}, want: []error{partition.ErrUnknownOutcome, errAnswerLost}},
		{name: "no answer, may be sent again", again: true, steps: []step{{-1, two}, {2, lost}, {-1, two}, {2, nil}}},
		{name: "no answer, then refused", again: true, steps: []step{{-1, two}, {2, lost}, {-1, ErrTopicExists}},
			want: []error{partition.ErrUnknownOutcome, ErrTopicExists}},
		{name: "no answer, then refused, which is so", again: true, firm: true, steps: []step{{-1, two}, {2, lost}, {-1, ErrTopicExists}},
			want: []error{ErrTopicExists}, not: []error{partition.ErrUnknownOutcome}},
		{name: "no answer, then nobody", again: true, steps: []step{{-1, two}, {2, lost}, {-1, nobody}},
			want: []error{partition.ErrUnknownOutcome, partition.ErrNotLeader}, took: leaderPatience},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &Engine{cluster: selfOnly{}}
				e.life, e.die = context.WithCancel(context.Background())
				defer e.die()
				n := 0
				take := func(node int32) error {
					s := row.steps[min(n, len(row.steps)-1)]
					if n++; s.node != node && n <= len(row.steps) {
						t.Errorf("step %d: node %d was asked, want %d", n, node, s.node)
					}
					return s.err
				}
				r := route{e: e, what: "test", again: row.again, firm: row.firm}
				began := time.Now()
				err := r.run(context.Background(), func(context.Context) error { return take(-1) }, func(_ context.Context, node int32) error { return take(node) })
				if err == nil != (len(row.want) == 0) {
					t.Errorf("got %v", err)
				}
				for _, want := range row.want {
					if !errors.Is(err, want) {
						t.Errorf("got %v, want %v", err, want)
					}
				}
				for _, not := range row.not {
					if errors.Is(err, not) {
						t.Errorf("got %v", err)
					}
				}
				if n < len(row.steps) {
					t.Errorf("%d of %d steps", n, len(row.steps))
				}
				if took := time.Since(began); took < row.took || took > row.took+longestPause {
					t.Errorf("it took %v, want %v", took, row.took)
				}
			})
		})
	}
}

// selfOnly is a Cluster of which only the node's number is asked.
type selfOnly struct{ Cluster }

func (selfOnly) Self() int32 { return 1 }
