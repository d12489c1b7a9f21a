package kafka

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill gives every field of a message something at random.
func fill(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			if rng.IntN(4) == 0 {
				v.Addr().Interface().(*kmsg.Tags).Set(1000+rng.Uint32N(5), make([]byte, rng.IntN(200)))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(rng, v.Field(i))
			}
		}
	case reflect.Slice:
		n := rng.IntN(4)
		if n == 3 {
			v.SetZero()
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.Pointer:
		if rng.IntN(3) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(rng, v.Elem())
	case reflect.String:
		v.SetString("abcdefghijklmnopqrstuvwxyz"[:rng.IntN(26)])
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(rng.Uint64()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(rng.Uint64())
	case reflect.Float64:
		v.SetFloat(rng.Float64())
	default:
		panic(v.Type().String())
	}
}

// What kmsg writes is walked to its last byte, and no prefix of it is taken for a
// whole: for every version of every API that is served by kmsg.
func TestShapeWalksWhatKmsgWrites(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for key := range int16(len(apis)) {
		a := apiOf(key)
		if a == nil || a.borrows {
			continue
		}
		for version := a.min; version <= a.max; version++ {
			s := shapeOfRequest(key, version)
			for range 30 {
				q := kmsg.RequestForKey(key)
				fill(rng, reflect.ValueOf(q).Elem())
				q.SetVersion(version)
				b := q.AppendTo(nil)
				w := walker{b: b, flexible: s.tags}
				if !w.walk(s) || len(w.b) != 0 {
					t.Fatalf("seed %d: %s version %d: walked to %d bytes before the end, error %v, of %+v", seed, kmsg.NameForKey(key), version, len(w.b), w.err, q)
				}
				if len(b) == 0 {
					continue
				}
				if _, err := s.check(b[:rng.IntN(len(b))]); err == nil {
					t.Fatalf("seed %d: %s version %d: a prefix of %d bytes passes: %+v", seed, kmsg.NameForKey(key), version, len(b), q)
				}
			}
		}
	}
}

func TestShapeRefusesWhatIsNotThere(t *testing.T) {
	i32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	varint := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	zeros := func(n int) []byte { return make([]byte, n) }
	for _, row := range []struct {
		name    string
		key     int16
		version int16
		bytes   [][]byte
		ok      bool
	}{
		{"no topics", 3, 1, [][]byte{i32(0)}, true},
		{"all topics", 3, 1, [][]byte{i32(1<<32 - 1)}, true},
		{"an array in its bytes", 3, 1, [][]byte{i32(3), zeros(6)}, true},
		{"an array of more than its bytes", 3, 1, [][]byte{i32(4), zeros(6)}, false},
		{"a long array over few bytes", 3, 1, [][]byte{i32(1 << 30), zeros(6)}, false},
		{"an array too long whatever its bytes", 3, 1, [][]byte{i32(1_000_001), zeros(2_000_002)}, false},
		{"the longest array", 3, 1, [][]byte{i32(1_000_000), zeros(2_000_000)}, true},
		{"text past the end", 3, 1, [][]byte{i32(1), {0x7f, 0xff}, zeros(10)}, false},
		{"compact array", 3, 9, [][]byte{varint(2), {2, 'a', 0}, zeros(3), {0}}, true},
		{"compact array of more than its bytes", 3, 9, [][]byte{varint(1 << 31), {2, 'a', 0}, zeros(3), {0}}, false},
		{"a varint of 64 bits", 3, 9, [][]byte{varint(1 << 63), {2, 'a', 0}, zeros(3), {0}}, false},
		{"tagged field", 3, 9, [][]byte{varint(1), zeros(3), {1, 77, 1, 5}}, true},
		{"a billion tagged fields", 3, 9, [][]byte{varint(1), zeros(3), varint(1 << 30)}, false},
		{"10,001 tagged fields", 3, 9, [][]byte{varint(1), zeros(3), varint(10_001), zeros(20_002)}, false},
		{"tagged field past the end", 3, 9, [][]byte{varint(1), zeros(3), {1, 77, 9, 5}}, false},
	} {
		var b []byte
		for _, part := range row.bytes {
			b = append(b, part...)
		}
		if _, err := shapeOfRequest(row.key, row.version).check(b); (err == nil) != row.ok {
			t.Errorf("%s: error %v, want ok %t", row.name, err, row.ok)
		}
	}
}

// What a message may make kmsg allocate is near what the walk says it will.
func TestShapeKnowsWhatItCosts(t *testing.T) {
	q := kmsg.NewPtrMetadataRequest()
	q.Version = 9
	for i := range 20_000 {
		topic := fmt.Sprintf("t%d", i)
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &topic
		q.Topics = append(q.Topics, rt)
	}
	b := q.AppendTo(nil)
	need, err := shapeOfRequest(3, 9).check(b)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := kmsg.NewPtrMetadataRequest().ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := int64(after.TotalAlloc - before.TotalAlloc); got > 2*need {
		t.Errorf("kmsg allocates %d bytes, %d were reckoned with", got, need)
	}
}
