package query

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// benchRow is the value of the benchmarks' records: a number in two bytes, so that it is the view that is measured.
type benchRow uint16

type benchCodec struct{}

func (benchCodec) Append(dst []byte, v benchRow) ([]byte, error) {
	return binary.BigEndian.AppendUint16(dst, uint16(v)), nil
}

func (benchCodec) Decode(b []byte) (benchRow, error) {
	return benchRow(binary.BigEndian.Uint16(b)), nil
}

const benchKeys = 1000

// benchTopic is a topic of a record for each of some keys, in one batch.
func benchTopic(b *testing.B) (*embedlog.DB, *embedlog.Topic) {
	db, err := embedlog.Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	top, err := db.CreateTopic(context.Background(), "rows", &embedlog.TopicConfig{Durability: embedlog.OS})
	if err != nil {
		b.Fatal(err)
	}
	recs := make([]embedlog.Record, benchKeys)
	for i := range recs {
		recs[i].Key, _ = codec.Int64.Append(nil, int64(i)*7919%benchKeys)
		recs[i].Value, _ = benchCodec{}.Append(nil, benchRow(i))
		recs[i].Timestamp = time.UnixMilli(1_700_000_000_000 + int64(i))
	}
	if _, err := top.Produce(context.Background(), recs...); err != nil {
		b.Fatal(err)
	}
	return db, top
}

// BenchmarkTake is what a task does with a batch of 1,000 records that are in memory: decoding and operators, without reading and commits.
// Its keys are there from the first time on.
func BenchmarkTake(b *testing.B) {
	db, top := benchTopic(b)
	rows := From(top, codec.Int64, Codec[benchRow](benchCodec{}))
	amount := func(_ int64, v benchRow) int64 { return int64(v) }
	group := func(_ int64, v benchRow) int64 { return int64(v % 100) }
	sum := func(acc int64, _ int64, v benchRow) int64 { return acc + int64(v) }
	for _, c := range []struct {
		of  string
		add func(g *Graph)
	}{
		{"latest", func(g *Graph) { Add(g, "v", TableFrom(top, codec.Int64, Codec[benchRow](benchCodec{}))) }},
		{"fold", func(g *Graph) { Add(g, "v", Fold(rows, codec.Int64, sum, nil)) }},
		{"groups", func(g *Graph) { Add(g, "v", Fold(GroupBy(rows, codec.Int64, group), codec.Int64, sum, nil)) }},
		{"sum", func(g *Graph) { Add(g, "v", Sum(rows, amount)) }},
		{"topn", func(g *Graph) { Add(g, "v", TopN(rows, 10, amount)) }},
		{"hopping", func(g *Graph) { Add(g, "v", Count(Windowed(rows, Hopping(10*time.Second, 2*time.Second)))) }},
		{"final", func(g *Graph) { Add(g, "v", Final(Count(Windowed(rows, Tumbling(10*time.Second))))) }},
		{"table-groups", func(g *Graph) {
			Add(g, "v", Sum(GroupBy(Fold(rows, codec.Int64, sum, nil), codec.Int64, func(k, _ int64) int64 { return k % 100 }), func(_, v int64) int64 { return v }))
		}},
		{"join-table", func(g *Graph) {
			Add(g, "v", Count(JoinTable(rows, Fold(rows, codec.Int64, sum, nil), func(_ int64, _ benchRow, s int64) int64 { return s })))
		}},
	} {
		b.Run("of="+c.of, func(b *testing.B) {
			g := NewGraph(db, "bench", nil)
			c.add(g)
			g.plan()
			t := g.newTask(0)
			batch := benchBatch(b, db)
			b.ReportAllocs()
			for b.Loop() {
				if err := t.take(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchKeys, "ns/record")
		})
	}
}

func benchBatch(b *testing.B, db *embedlog.DB) *embedlog.Batch {
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "rows"}}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for batch, err := range c.Batches(context.Background()) {
		if err != nil {
			b.Fatal(err)
		}
		return batch
	}
	return nil
}

// BenchmarkCommitted is what a commit makes of 1,000 changed rows before it writes them.
func BenchmarkCommitted(b *testing.B) {
	db, top := benchTopic(b)
	g := NewGraph(db, "bench", nil)
	Add(g, "v", TableFrom(top, codec.Int64, Codec[benchRow](benchCodec{})))
	g.plan()
	t := g.newTask(0)
	if err := t.take(context.Background(), benchBatch(b, db)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if recs, err := t.stores[0].changes(nil, "topic", 0); err != nil || len(recs) != benchKeys {
			b.Fatal(len(recs), err)
		}
	}
}

// BenchmarkGet is a read of one row: as it is, or with what was written before the call.
func BenchmarkGet(b *testing.B) {
	_, top := benchTopic(b)
	v, err := Materialize("view", TableFrom(top, codec.Int64, Codec[benchRow](benchCodec{})))
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	if err := v.Graph().CatchUp(ctx); err != nil {
		b.Fatal(err)
	}
	for _, sees := range []string{"now", "written"} {
		get := v.GetNow
		if sees == "written" {
			get = v.Get
		}
		b.Run(fmt.Sprintf("sees=%s", sees), func(b *testing.B) {
			b.ReportAllocs()
			k := int64(0)
			for b.Loop() {
				if _, ok, err := get(ctx, k); !ok || err != nil {
					b.Fatal(ok, err)
				}
				k = (k + 7) % benchKeys
			}
		})
	}
}
