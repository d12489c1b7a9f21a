package wire

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Name string
	N    int32
}

type all struct {
	inner2
	B     bool
	I     int64
	I16   int16
	U     uint8
	F     float64
	S     string
	Raw   []byte
	ID    [16]byte
	List  []inner
	Ptr   *inner
	Map   map[string]float64
	Wait  time.Duration
	At    time.Time
	Empty []string
	Nil   []string
	Err   error
	Local func() `wire:"-"`
	small int
}

// inner2 is not exported, and so not sent.
type inner2 struct{ X int }

func sample() all {
	return all{
		B: true, I: math.MinInt64, I16: -3, U: 255, F: -1.5, S: "na\xffme", Raw: []byte{}, ID: [16]byte{1, 15: 9},
		List: []inner{{"a", 1}, {}, {"c", -1}}, Ptr: &inner{"p", 7}, Map: map[string]float64{"x": 1, "": 2},
		Wait: time.Minute, At: time.UnixMilli(1700000000001).UTC(), Empty: []string{},
	}
}

func TestValuesArrive(t *testing.T) {
	var c Codec
	want := sample()
	want.Local, want.small = func() {}, 5
	b, err := c.Append([]byte("head"), &want)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := c.Append(nil, want)
	if !bytes.Equal(b[4:], again) || string(b[:4]) != "head" {
		t.Error("equal values have different bytes")
	}
	var got all
	if err := c.Decode(again, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("got  %+v\nwant %+v", got, sample())
	}
	for n := range again {
		if err := c.Decode(again[:n], &all{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("the first %d of %d bytes: %v", n, len(again), err)
		}
	}
}

// A peer of another version has fields that this one does not, and the other way round.
func TestOtherVersion(t *testing.T) {
	type newer struct {
		Name  string
		Added []inner
	}
	var c Codec
	b, err := c.Append(nil, newer{"a", []inner{{"b", 1}}})
	if err != nil {
		t.Fatal(err)
	}
	var old inner
	if err := c.Decode(b, &old); err != nil || old != (inner{Name: "a"}) {
		t.Errorf("%+v, %v", old, err)
	}
	b, _ = c.Append(nil, inner{"a", 2})
	var is newer
	if err := c.Decode(b, &is); err != nil || is.Name != "a" || is.Added != nil {
		t.Errorf("%+v, %v", is, err)
	}
}

func TestWhatCannotBeSent(t *testing.T) {
	type cycle struct{ Next *cycle }
	x := &cycle{}
	x.Next = x
	var c Codec
	for _, v := range []any{struct{ F func() }{func() {}}, struct{ C chan int }{make(chan int)}, x, []*inner{nil}} {
		if _, err := c.Append(nil, v); err == nil || !strings.Contains(err.Error(), "wire: ") {
			t.Errorf("%T: %v", v, err)
		}
	}
}

// A few bytes that claim much are refused before much is allocated.
func TestDecodeIsBounded(t *testing.T) {
	var c Codec
	lie := []byte{1, 4, 'L', 'i', 's', 't', 5, 0xff, 0xff, 0xff, 0xff, 0x0f}
	if err := c.Decode(lie, &all{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("%v", err)
	}
	type fat struct{ X [4096]int64 }
	type fats struct{ List []fat }
	b := []byte{1, 4, 'L', 'i', 's', 't'}
	n := 1000
	body := append([]byte{0xe8, 0x07}, bytes.Repeat([]byte{1, 0}, n)...)
	b = append(appendBytes(b, body), []byte{}...)
	if err := c.Decode(b, &fats{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("32 MB of %d bytes: %v", len(b), err)
	}
}

func FuzzDecode(f *testing.F) {
	var c Codec
	v := sample()
	b, _ := c.Append(nil, &v)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var v all
		if c.Decode(b, &v) != nil {
			return
		}
		again, err := c.Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		var w all
		if err := c.Decode(again, &w); err != nil {
			t.Fatal(err)
		}
	})
}
