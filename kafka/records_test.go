package kafka

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kgo"
)

// deadline is a context for what takes no time unless something is broken.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func createTopic(t testing.TB, db *embedlog.DB, name string, c *embedlog.TopicConfig) *embedlog.Topic {
	t.Helper()
	topic, err := db.CreateTopic(t.Context(), name, c)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// mustProduce produces records and waits for them.
func mustProduce(t testing.TB, c *kgo.Client, recs ...*kgo.Record) {
	t.Helper()
	if err := c.ProduceSync(deadline(t), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consume reads n records.
func consume(t testing.TB, c *kgo.Client, n int) (recs []*kgo.Record) {
	t.Helper()
	ctx := deadline(t)
	for len(recs) < n {
		f := c.PollFetches(ctx)
		if err := f.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(recs), n, err)
		}
		recs = append(recs, f.Records()...)
	}
	return recs
}

// A record produced at one door is the same record at the other, with every codec.
func TestRecordsPassBothDoors(t *testing.T) {
	db := openMemory(t, nil)
	s := serve(t, db, Options{})
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			topic := createTopic(t, db, "t-"+name, nil)
			c := client(t, s, kgo.ProducerBatchCompression(codec), kgo.ConsumeTopics("t-"+name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			when := time.UnixMilli(1_700_000_000_123)
			var sent []*kgo.Record
			for i := range 100 {
				sent = append(sent, &kgo.Record{
					Topic: "t-" + name, Key: fmt.Appendf(nil, "k%d", i), Value: bytes.Repeat([]byte("v"), i), Timestamp: when.Add(time.Duration(i) * time.Second),
					Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}},
				})
			}
			mustProduce(t, c, sent...)
			if _, err := topic.Produce(t.Context(), embedlog.Record{Key: []byte("go"), Value: []byte("door"), Timestamp: when}); err != nil {
				t.Fatal(err)
			}
			got := consume(t, c, 101)
			n := 0
			for rec, err := range topic.Scan(t.Context(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				k := got[n]
				if k.Offset != rec.Offset || string(k.Key) != string(rec.Key) || string(k.Value) != string(rec.Value) || !k.Timestamp.Equal(rec.Timestamp) || len(k.Headers) != len(rec.Headers) {
					t.Fatalf("offset %d: the Kafka door has %+v, the Go door %+v", n, k, rec)
				}
				n++
			}
			if n != 101 || string(got[100].Key) != "go" || string(got[57].Value) != string(sent[57].Value) || got[57].Headers[0].Value[0] != 57 {
				t.Fatalf("%d records; record 57 is %+v", n, got[57])
			}
		})
	}
}
