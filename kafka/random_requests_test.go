package kafka

import (
	"iter"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/testcount"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// asker makes requests up: of the right form, with words and numbers that mean
// something here, null wherever there may be null, and things named twice.
type asker struct {
	r     *rand.Rand
	ids   [][16]byte
	words []string
}

var askedNumbers = []int64{-3, -2, -1, 0, 1, 2, 3, 5, 100, 1 << 15, 1<<31 - 1, 1<<63 - 1, -1 << 63}

func (a *asker) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		t := v.Type()
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && f.Name != "Version" && f.Type != reflect.TypeFor[kmsg.Tags]() {
				a.fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		if a.r.IntN(3) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		a.fill(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, a.r.IntN(70))
			for i := range b {
				b[i] = byte(a.r.IntN(4) * a.r.IntN(256))
			}
			v.SetBytes(b)
			return
		}
		n := a.r.IntN(4)
		if a.r.IntN(8) == 0 {
			v.SetZero()
			return
		}
		list := reflect.MakeSlice(v.Type(), n, n)
		for i := range n {
			if i > 0 && a.r.IntN(4) == 0 {
				list.Index(i).Set(list.Index(i - 1))
			} else {
				a.fill(list.Index(i))
			}
		}
		v.Set(list)
	case reflect.Array:
		v.Set(reflect.ValueOf(a.ids[a.r.IntN(len(a.ids))]))
	case reflect.String:
		v.SetString(a.words[a.r.IntN(len(a.words))])
	case reflect.Bool:
		v.SetBool(a.r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := askedNumbers[a.r.IntN(len(askedNumbers))]
		if a.r.IntN(3) > 0 {
			n = int64(a.r.IntN(4)) // what most things are numbered with
		}
		v.SetInt(n)
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(a.r.IntN(4)))
	case reflect.Float64:
		v.SetFloat([]float64{-1, 0, 1, 1e18, 1e300}[a.r.IntN(5)])
	}
}

// Whatever somebody asks who may do everything, and others beside him: it is answered or
// the connection ends, and the server goes on.
func TestRandomRequests(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	words := []string{"", "orders", "other", "g", "h", "tx", "consumer", "range", "retention.ms", "cleanup.policy", "compact", "1", "user", "client-id", "ip", "User:a", "*",
		"kafka-cluster", "\xff", "a\x00b", "127.0.0.1", "Ongoing", "(", "o.*", "producer_byte_rate", "SCRAM-SHA-256", "uniform"}
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, &embedlog.Options{MaintenanceInterval: -1})
		ids := [][16]byte{{}, {1}, createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2}).ID(), createTopic(t, db, "other", nil).ID()}
		auth := db.Authorizer(&embedlog.AuthorizerOptions{SuperUsers: []embedlog.Principal{Anonymous}})
		s := pipeServer(t, db, Options{Authorizer: auth, Throttler: &moves{}})
		var clients sync.WaitGroup
		var mu sync.Mutex
		answered := make(map[int16]int)
		for i := range uint64(3) {
			a := &asker{r: rand.New(rand.NewPCG(seed, i)), words: words, ids: ids}
			clients.Go(func() {
				for key := range a.ask(t, s, testcount.N(70)) {
					mu.Lock()
					answered[key]++
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		for _, api := range apis {
			if api != nil && api.key != saslHandshakeKey && api.key != saslAuthenticateKey && answered[api.key] == 0 && testcount.N(70) == 70 {
				t.Errorf("%s was never answered", kmsg.NameForKey(api.key))
			}
		}
		do[*kmsg.MetadataResponse](dial(t, s, nil), kmsg.NewPtrMetadataRequest())
	})
}

// ask sends requests of all APIs, so many rounds, and says which were answered.
func (a *asker) ask(t *testing.T, s *Server, rounds int) iter.Seq[int16] {
	return func(yield func(int16) bool) {
		var x *raw
		for range rounds {
			for _, api := range apis {
				if api == nil || api.key == saslHandshakeKey || api.key == saslAuthenticateKey {
					continue
				}
				if x == nil {
					x = dial(t, s, nil)
				}
				q := kmsg.RequestForKey(api.key)
				a.fill(reflect.ValueOf(q).Elem())
				q.SetVersion(api.min + int16(a.r.IntN(int(api.max-api.min)+1)))
				x.c.SetDeadline(time.Now().Add(24 * time.Hour))
				_, err := x.c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, q, 1))
				if err == nil {
					_, err = readFrame(x.c)
				}
				if err != nil {
					x.c.Close()
					x = nil
				} else if !yield(api.key) {
					return
				}
			}
		}
	}
}

// Two settings without a value ended the program once.
func TestAlterConfigsToNothing(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	q := kmsg.NewPtrAlterConfigsRequest()
	nothing := []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms"}, {Name: "segment.ms"}, {Name: "retention.bytes"}}
	q.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders", Configs: nothing}}
	if resp := do[*kmsg.AlterConfigsResponse](x, q); resp.Resources[0].ErrorCode != codeInvalidRequest {
		t.Errorf("answered with %+v", resp)
	}
}
