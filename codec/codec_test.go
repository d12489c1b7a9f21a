package codec

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/x/embedlog"
)

type order struct {
	Who   string
	Cents int64
	Tags  []string `json:",omitempty"`
}

// What is encoded reads back, behind other bytes too, which stay.
func roundTrip[T any](t *testing.T, name string, c embedlog.Codec[T], values ...T) {
	t.Helper()
	for _, v := range values {
		for _, prefix := range []string{"", "before"} {
			dst := []byte(prefix)
			if prefix == "" {
				dst = nil
			}
			b, err := c.Append(dst, v)
			if err != nil || !bytes.HasPrefix(b, []byte(prefix)) {
				t.Errorf("%s: Append(%q, %v) = %q, %v", name, prefix, v, b, err)
				continue
			}
			got, err := c.Decode(b[len(prefix):])
			if err != nil || !reflect.DeepEqual(got, v) {
				t.Errorf("%s: %#v read back as %#v, %v", name, v, got, err)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, "String", embedlog.Codec[string](String), "", "ann", "\x00\xff")
	roundTrip(t, "Bytes", embedlog.Codec[[]byte](Bytes), []byte{}, []byte("x"))
	roundTrip(t, "Int64", embedlog.Codec[int64](Int64), 0, 1, -1, math.MaxInt64, math.MinInt64)
	roundTrip(t, "JSON", embedlog.Codec[order](JSON[order]{}), order{}, order{"ann", 450, []string{"a"}})
}

// Null and empty are two things in a record.
func TestNullAndEmpty(t *testing.T) {
	if b, _ := String.Append(nil, ""); b == nil {
		t.Error("an empty string became null, which deletes in a compacted topic")
	}
	if b, _ := Bytes.Append(nil, nil); b != nil {
		t.Errorf("null became %q", b)
	}
	if b, _ := Bytes.Append(nil, []byte{}); b == nil {
		t.Error("empty bytes became null")
	}
}

func TestInt64IsKafkasLong(t *testing.T) {
	b, _ := Int64.Append(nil, 258)
	if want := []byte{0, 0, 0, 0, 0, 0, 1, 2}; !bytes.Equal(b, want) {
		t.Errorf("258 is % x, want % x", b, want)
	}
}

func TestBadBytes(t *testing.T) {
	for _, b := range [][]byte{nil, {}, []byte("1234567"), []byte("123456789")} {
		if v, err := Int64.Decode(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("Int64 of %q: %d, %v", b, v, err)
		}
	}
	for _, b := range []string{"", "{", `{"Cents":"x"}`, `{} {}`} {
		if v, err := (JSON[order]{}).Decode([]byte(b)); !errors.Is(err, ErrInvalid) {
			t.Errorf("JSON of %q: %v, %v", b, v, err)
		}
	}
	if b, err := (JSON[chan int]{}).Append([]byte("kept"), nil); err == nil || string(b) != "kept" {
		t.Errorf("a channel as JSON: %q, %v", b, err)
	}
}
