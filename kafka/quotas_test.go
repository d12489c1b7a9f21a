package kafka

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/testcount"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func setQuota(t testing.TB, db *embedlog.DB, e embedlog.QuotaEntity, name string, value float64) {
	t.Helper()
	if err := db.AlterQuota(t.Context(), e, map[string]float64{name: value}); err != nil {
		t.Fatal(err)
	}
}

// Whoever waits as he is told gets the quota's rate over time, whatever the sizes of
// his requests: never more than a window above it, and all of it when he wants it.
func TestQuotaRate(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 3))
	for range testcount.N(20) {
		synctest.Test(t, func(t *testing.T) {
			db := openMemory(t, nil)
			rate := float64(1 + r.IntN(100_000))
			setQuota(t, db, embedlog.QuotaEntity{User: "a"}, embedlog.QuotaProducerByteRate, rate)
			q := newQuotas(db.Engine())
			began, moved, last := time.Now(), 0.0, 0.0
			for time.Since(began) < time.Hour {
				n := 1 + r.Int64N(int64(3*rate))
				last = float64(n)
				moved += last
				wait := q.Throttle(Moved{Principal: Principal{Type: "User", Name: "a"}, ClientID: "c", ProducedBytes: n})
				if debt := moved - rate*(time.Since(began)+wait+quotaWindow).Seconds(); debt > 1 {
					t.Fatalf("seed %d: %.0f bytes in %v at %.0f a second: %.0f too many", seed, moved, time.Since(began)+wait, rate, debt)
				}
				time.Sleep(wait)
			}
			if least := rate * time.Since(began).Seconds(); moved < least-1 {
				t.Fatalf("seed %d: %.0f bytes in %v at %.0f a second", seed, moved, time.Since(began), rate)
			}
		})
	}
}

// Quotas count for those who share them, and for nobody else.
func TestQuotaShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		q := newQuotas(db.Engine())
		// Each of them takes 100 of what is 100 a second; the second one in a share waits.
		take := func(users ...string) string {
			var waits []string
			for _, u := range users {
				user, client, _ := strings.Cut(u, "/")
				d := q.Throttle(Moved{Principal: Principal{Type: "User", Name: user}, ClientID: client, FetchedBytes: 100})
				waits = append(waits, fmt.Sprint(d.Seconds()))
			}
			time.Sleep(time.Minute)
			return strings.Join(waits, " ")
		}
		if got := take("a/x", "a/x"); got != "0 0" {
			t.Errorf("without quotas: %s", got)
		}
		if len(q.buckets) != 0 {
			t.Errorf("%d buckets without quotas", len(q.buckets))
		}
		setQuota(t, db, embedlog.QuotaEntity{DefaultClientID: true}, embedlog.QuotaConsumerByteRate, 100)
		if got := take("a/x", "b/x", "a/y"); got != "0 1 0" {
			t.Errorf("by client id: %s", got)
		}
		setQuota(t, db, embedlog.QuotaEntity{DefaultUser: true}, embedlog.QuotaConsumerByteRate, 100)
		if got := take("a/x", "b/x", "a/y"); got != "0 0 1" {
			t.Errorf("by user: %s", got)
		}
		setQuota(t, db, embedlog.QuotaEntity{User: "a", DefaultClientID: true}, embedlog.QuotaConsumerByteRate, 100)
		if got := take("a/x", "a/y", "a/x", "b/x", "b/y"); got != "0 0 1 0 1" {
			t.Errorf("by user and client id: %s", got)
		}
		setQuota(t, db, embedlog.QuotaEntity{User: "a", ClientID: "x"}, embedlog.QuotaConsumerByteRate, 50)
		if got := take("a/x", "a/y"); got != "1 0" {
			t.Errorf("another rate for one: %s", got)
		}
		setQuota(t, db, embedlog.QuotaEntity{User: "a", ClientID: "x"}, embedlog.QuotaConsumerByteRate, 1)
		if got := take("a/x"); got != "30" {
			t.Errorf("no wait is longer than %v: %s", maxThrottle, got)
		}
	})
}

// Requests are counted by their time, those that wait for something are not.
func TestQuotaOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		setQuota(t, db, embedlog.QuotaEntity{User: "a"}, embedlog.QuotaRequestPercentage, 10)
		q := newQuotas(db.Engine())
		m := Moved{Principal: Principal{Type: "User", Name: "a"}, Key: 3, Duration: 100 * time.Millisecond}
		if d := q.Throttle(m); d != 0 {
			t.Errorf("a tenth of a second: %v", d)
		}
		if d := q.Throttle(m); d != time.Second {
			t.Errorf("another one: %v", d)
		}
	})
}

// moves is a Throttler that keeps what it is told.
type moves struct {
	mu   sync.Mutex
	list []Moved
}

func (m *moves) Throttle(x Moved) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, x)
	return 0
}

// last is how long the last request of an API took, -1 when there was none.
func (m *moves) last(key int16) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range slices.Backward(m.list) {
		if x.Key == key {
			return x.Duration
		}
	}
	return -1
}

// A request's time is counted without that for which it waits for records or members.
// In the bubble nothing but waiting takes time.
func TestWaitingIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		topic := createTopic(t, db, "orders", nil)
		told := &moves{}
		s := pipeServer(t, db, Options{Throttler: told})
		x, y := dial(t, s, nil), dial(t, s, nil)
		q := fetchRequest(12, topic, 0, 0)
		q.MaxWaitMillis = 5000
		began := time.Now()
		do[*kmsg.FetchResponse](x, q)
		if took := time.Since(began); took != 5*time.Second || told.last(1) != 0 {
			t.Errorf("a fetch took %v, and %v was counted", took, told.last(1))
		}
		join := kmsg.NewPtrJoinGroupRequest()
		join.Version, join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = 3, "g", 10_000, 20_000, "consumer"
		join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}}
		began = time.Now()
		a := do[*kmsg.JoinGroupResponse](x, join)
		if took := time.Since(began); took == 0 || told.last(11) != 0 || a.ErrorCode != 0 {
			t.Fatalf("a join took %v, and %v was counted: error code %d", took, told.last(11), a.ErrorCode)
		}
		join.Group, join.MemberID = "g", ""
		y.send(join) // waits for the first one to join again
		synctest.Wait()
		again := *join
		again.MemberID = a.MemberID
		do[*kmsg.JoinGroupResponse](x, &again)
		b := y.recv(join, y.correlation).(*kmsg.JoinGroupResponse)
		last := kmsg.NewPtrSyncGroupRequest()
		last.Version, last.Group, last.Generation, last.MemberID = 3, "g", b.Generation, b.MemberID
		began = time.Now()
		if resp := do[*kmsg.SyncGroupResponse](y, last); resp.ErrorCode != codeRebalanceInProgress { // the leader never brings them
			t.Errorf("sync: %+v", resp)
		}
		if took := time.Since(began); took < time.Second || told.last(14) != 0 {
			t.Errorf("a sync took %v, and %v was counted", took, told.last(14))
		}
	})
}

// controller_mutation_rate: partitions made and deleted, strictly for who knows the
// code. (KIP-599)
func TestQuotaOfMutations(t *testing.T) {
	create := func(version int16, partitions int32, names ...string) kmsg.Request {
		q := kmsg.NewPtrCreateTopicsRequest()
		q.Version, q.TimeoutMillis = version, 60_000
		for _, name := range names {
			topic := kmsg.NewCreateTopicsRequestTopic()
			topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
			q.Topics = append(q.Topics, topic)
		}
		return q
	}
	add := func(version int16, name string, total int32) kmsg.Request {
		q := kmsg.NewPtrCreatePartitionsRequest()
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = name, total
		q.Version, q.TimeoutMillis, q.Topics = version, 60_000, []kmsg.CreatePartitionsRequestTopic{topic}
		return q
	}
	remove := func(version int16, name string) kmsg.Request {
		q := kmsg.NewPtrDeleteTopicsRequest()
		topic := kmsg.NewDeleteTopicsRequestTopic()
		topic.Topic = &name
		q.Version, q.TimeoutMillis, q.TopicNames, q.Topics = version, 60_000, []string{name}, []kmsg.DeleteTopicsRequestTopic{topic}
		return q
	}
	validate := create(7, 100, "v")
	validate.(*kmsg.CreateTopicsRequest).ValidateOnly = true
	type step struct {
		name  string
		q     kmsg.Request
		codes string
		wait  time.Duration // that the answer says
	}
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"within", []step{{"create", create(7, 2, "a"), "0", 0}}},
		{"one request goes over it, the rest of it is refused", []step{{"create", create(7, 6, "a", "b"), "0 89", 2 * time.Second}, {"later", create(7, 1, "b"), "0", 500 * time.Millisecond}}},
		{"older clients are told to wait", []step{{"create", create(5, 6, "a", "b"), "0 0", 5 * time.Second}}},
		{"partitions", []step{{"create", create(7, 1, "a"), "0", 0}, {"add", add(3, "a", 8), "0", 3 * time.Second}, {"add", add(3, "a", 12), "0", 2 * time.Second}}},
		{"deleting", []step{{"create", create(7, 2, "a"), "0", 0}, {"delete", remove(6, "a"), "0", time.Second}, {"delete", remove(5, "a"), "3", 0}}},
		{"what fails or is only tried is not counted", []step{{"try", validate, "0", 0}, {"add", add(3, "nope", 100), "3", 0}, {"create", create(7, 2, "a"), "0", 0}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				setQuota(t, db, embedlog.QuotaEntity{DefaultUser: true}, embedlog.QuotaControllerMutationRate, 2)
				x := dial(t, pipeServer(t, db, Options{}), nil)
				for _, s := range row.steps {
					began := time.Now()
					x.send(s.q)
					var codes []string
					var wait int32
					switch resp := x.recv(s.q, x.correlation).(type) {
					case *kmsg.CreateTopicsResponse:
						wait = resp.ThrottleMillis
						for _, a := range resp.Topics {
							codes = append(codes, fmt.Sprint(a.ErrorCode))
						}
					case *kmsg.CreatePartitionsResponse:
						wait = resp.ThrottleMillis
						for _, a := range resp.Topics {
							codes = append(codes, fmt.Sprint(a.ErrorCode))
						}
					case *kmsg.DeleteTopicsResponse:
						wait = resp.ThrottleMillis
						for _, a := range resp.Topics {
							codes = append(codes, fmt.Sprint(a.ErrorCode))
						}
					}
					if got := strings.Join(codes, " "); got != s.codes || time.Duration(wait)*time.Millisecond != s.wait {
						t.Errorf("%s: codes %s, wait %d ms, after %v; want %s, %v", s.name, got, wait, time.Since(began), s.codes, s.wait)
					}
				}
			})
		})
	}
	// Two connections of one user pay together, and a strict client is refused.
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		setQuota(t, db, embedlog.QuotaEntity{DefaultUser: true}, embedlog.QuotaControllerMutationRate, 2)
		s := pipeServer(t, db, Options{})
		x, y := dial(t, s, nil), dial(t, s, nil)
		do[*kmsg.CreateTopicsResponse](x, create(7, 6, "a"))
		for _, q := range []kmsg.Request{create(6, 1, "b"), remove(5, "a"), add(3, "a", 9)} {
			y.send(q)
			text := fmt.Sprintf("%+v", y.recv(q, y.correlation))
			if !strings.Contains(text, "ErrorCode:89") || !strings.Contains(text, "ThrottleMillis:") {
				t.Errorf("%T: %s", q, text)
			}
			time.Sleep(time.Millisecond)
			y = dial(t, s, nil) // the one before is left alone for a while
		}
		if topics := db.Engine().Topics(); len(topics) != 1 || len(topics[0].Partitions()) != 6 {
			t.Errorf("there are %v", topics)
		}
	})
}

// Clients make up client ids; what is kept of them has a bound.
func TestQuotaBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		setQuota(t, db, embedlog.QuotaEntity{DefaultClientID: true}, embedlog.QuotaProducerByteRate, 100)
		q := newQuotas(db.Engine())
		q.Throttle(Moved{Principal: Anonymous, ClientID: strings.Repeat("c", 32_000), ProducedBytes: 200})
		for i := range 2*maxBuckets + 10 {
			q.Throttle(Moved{Principal: Anonymous, ClientID: fmt.Sprint(i), ProducedBytes: 200})
		}
		if n := len(q.buckets); n > maxBuckets+1 {
			t.Errorf("%d buckets", n)
		}
		if d := q.Throttle(Moved{Principal: Anonymous, ClientID: "another", ProducedBytes: 1}); d != maxThrottle {
			t.Errorf("one that found no room waits %v", d)
		}
		for key := range q.buckets {
			if len(key.share.ClientID) > maxBucketName {
				t.Fatalf("a bucket's name has %d bytes", len(key.share.ClientID))
			}
		}
		time.Sleep(24 * time.Hour)
		if d := q.Throttle(Moved{Principal: Anonymous, ClientID: "later", ProducedBytes: 1}); d != 0 || len(q.buckets) > 2 {
			t.Errorf("a day later: %v, %d buckets", d, len(q.buckets))
		}
	})
}

// A client over its quota is told for how long, and not looked at before.
func TestQuotaOnAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		topic := createTopic(t, db, "orders", nil)
		s := pipeServer(t, db, Options{})
		records := batch(t, plain(), strings.Repeat("v", 2000))
		x := dial(t, s, nil)
		q := produceRequest(9, topic, 0, records)
		if r := do[*kmsg.ProduceResponse](x, q); r.ThrottleMillis != 0 {
			t.Fatalf("without a quota: %d ms", r.ThrottleMillis)
		}
		setQuota(t, db, embedlog.QuotaEntity{DefaultUser: true}, embedlog.QuotaProducerByteRate, 1000)
		began := time.Now()
		r := do[*kmsg.ProduceResponse](x, q)
		wait := time.Duration(float64(len(records)-1000)/1000*1e9) * time.Nanosecond
		if d := time.Duration(r.ThrottleMillis) * time.Millisecond; d != wait.Truncate(time.Millisecond) || time.Since(began) != 0 {
			t.Fatalf("%d bytes at 1000 a second: told to wait %v after %v, want %v", len(records), d, time.Since(began), wait)
		}
		do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest())
		if took := time.Since(began); took != wait.Truncate(time.Millisecond) {
			t.Fatalf("the next request was answered after %v, want %v", took, wait)
		}
		// Another user, or another connection of the same one, pays for itself.
		y := dial(t, s, known{Type: "User", Name: "other"})
		began = time.Now()
		do[*kmsg.MetadataResponse](y, kmsg.NewPtrMetadataRequest())
		if took := time.Since(began); took != 0 {
			t.Errorf("another user waits %v", took)
		}
	})
}

// Connections of an address come no faster than they may.
func TestQuotaOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		setQuota(t, db, embedlog.QuotaEntity{IP: "10.0.0.1"}, embedlog.QuotaConnectionCreationRate, 2)
		q := newQuotas(db.Engine())
		var got []time.Duration
		for range 5 {
			got = append(got, q.connect("10.0.0.1"))
		}
		if want := "[0s 0s 500ms 1s 1.5s]"; fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
		if d := q.connect("10.0.0.2"); d != 0 {
			t.Errorf("another address waits %v", d)
		}
		setQuota(t, db, embedlog.QuotaEntity{DefaultIP: true}, embedlog.QuotaConnectionCreationRate, 1)
		s := pipeServer(t, db, Options{}) // whose connections all are from "pipe"
		began := time.Now()
		do[*kmsg.MetadataResponse](dial(t, s, nil), kmsg.NewPtrMetadataRequest())
		do[*kmsg.MetadataResponse](dial(t, s, nil), kmsg.NewPtrMetadataRequest())
		if took := time.Since(began); took != time.Second {
			t.Errorf("the second connection was served after %v", took)
		}
	})
}

func BenchmarkQuotas(b *testing.B) {
	for _, set := range []bool{false, true} {
		b.Run(fmt.Sprintf("set=%t", set), func(b *testing.B) {
			db := openMemory(b, nil)
			if set {
				if err := db.AlterQuota(b.Context(), embedlog.QuotaEntity{DefaultUser: true}, map[string]float64{embedlog.QuotaProducerByteRate: 1e15}); err != nil {
					b.Fatal(err)
				}
			}
			q := newQuotas(db.Engine())
			m := Moved{Principal: Anonymous, ClientID: "c", ProducedBytes: 100}
			b.ReportAllocs()
			for b.Loop() {
				q.Throttle(m)
			}
		})
	}
}
