package query

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// sevens is a codec of decimal numbers that refuses those that divide by seven.
type sevens struct{}

func (sevens) Append(dst []byte, v int64) ([]byte, error) { return strconv.AppendInt(dst, v, 10), nil }

func (sevens) Decode(b []byte) (int64, error) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err == nil && n%7 == 0 {
		err = fmt.Errorf("%d divides by seven", n)
	}
	return n, err
}

// A stream that is joined with a table of its own topic meets what the table has at each record, its own included, in whatever batches
// they come, also where the one way cannot decode what the other one can.
func TestJoinWithItsOwnTopic(t *testing.T) {
	ctx, db := context.Background(), embedlogtest.Open(t, nil)
	top, err := db.CreateTopic(ctx, "numbers", nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 700 // more than two chunks
	want := map[string]int64{}
	latest := map[string]int64{}
	var recs []embedlog.Record
	for i := range int64(n) {
		key := strconv.FormatInt(i*i%5, 10)
		recs = append(recs, embedlog.Record{Key: []byte(key), Value: strconv.AppendInt(nil, i, 10)})
		if i%7 != 0 {
			latest[key] = i // what the table can decode
		}
		if v, ok := latest[key]; ok {
			want[key] = want[key]*31 + v
		}
	}
	if _, err := top.Produce(ctx, recs...); err != nil { // one batch
		t.Fatal(err)
	}
	g := NewGraph(db.DB, "own", nil)
	rows := JoinTable(From(top, codec.String, codec.Bytes), TableFrom(top, codec.String, Codec[int64](sevens{})), func(_ string, _ []byte, row int64) int64 { return row })
	v := Add(g, "sums", Fold(rows, codec.Int64, func(acc int64, _ string, row int64) int64 { return acc*31 + row }, nil))
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for key, sum := range want {
		if got, ok, err := v.Get(ctx, key); got != sum || !ok || err != nil {
			t.Errorf("key %s: %d, %t, error %v; want %d", key, got, ok, err, sum)
		}
	}
	if s := g.Stats(); s.DeadLetters != n/7 {
		t.Errorf("%d records are dead, want %d", s.DeadLetters, n/7)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}
