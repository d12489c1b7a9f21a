package query

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
)

// A list reads back with what is null, empty or long in it, behind other bytes too; a cut of it is an error or a shorter list.
func TestListCodec(t *testing.T) {
	c := listOf(Codec[[]byte](codec.Bytes))
	lists := [][][]byte{
		nil, {nil}, {{}}, {[]byte("a"), nil, {}, []byte("b")},
		{bytes.Repeat([]byte("x"), 125), bytes.Repeat([]byte("y"), 126), bytes.Repeat([]byte("z"), 127), bytes.Repeat([]byte("w"), 70_000), []byte("end")},
	}
	for _, list := range lists {
		for _, prefix := range []string{"", "before"} {
			b, err := c.Append([]byte(prefix), list)
			if err != nil || !strings.HasPrefix(string(b), prefix) {
				t.Fatalf("%.20q: %v", list, err)
			}
			b = b[len(prefix):]
			if got, err := c.Decode(b); err != nil || !reflect.DeepEqual(got, list) {
				t.Errorf("%.20q reads back as %.20q, error %v", list, got, err)
			}
			for i := 0; i < len(b); i += 1 + len(b)/200 {
				if got, err := c.Decode(b[:i]); err == nil && len(got) >= len(list) {
					t.Errorf("%d bytes of %d are %.20q", i, len(b), got)
				}
			}
		}
	}
	if _, ok := listOf(Codec[int](codec.JSON[int]{})).(codec.JSON[[]int]); !ok {
		t.Error("a list of JSON values is not JSON")
	}
}

// No bytes panic, and what they are is what is written again.
func TestListCodecOfAnything(t *testing.T) {
	c := listOf(Codec[[]byte](codec.Bytes))
	rng := rand.New(rand.NewPCG(1, 2))
	for range testcount.N(20_000) {
		b := make([]byte, rng.IntN(8))
		for i := range b {
			b[i] = []byte{0, 1, 2, 3, 0x7f, 0x80, 0xff, byte(rng.Uint32())}[rng.IntN(8)]
		}
		list, err := c.Decode(b)
		if err != nil {
			continue
		}
		again, err := c.Append(nil, list)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Decode(again); err != nil || !reflect.DeepEqual(got, list) {
			t.Fatalf("%q is %q, and that %q, error %v", b, list, got, err)
		}
	}
}
