package log

import (
	"bytes"
	"fmt"
	"testing"
)

func benchRecords(n, size int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		recs[i] = Record{Timestamp: 1700000000000 + int64(i/100), Value: bytes.Repeat([]byte{byte(i)}, size)}
	}
	return recs
}

func BenchmarkAppendBatch(b *testing.B) {
	for _, c := range []struct{ n, size int }{{1, 100}, {10, 100}, {1000, 100}, {1000, 1024}} {
		b.Run(fmt.Sprintf("records=%d/size=%d", c.n, c.size), func(b *testing.B) {
			h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
			recs := benchRecords(c.n, c.size)
			dst := make([]byte, 0, EncodedLen(&h, recs))
			b.SetBytes(int64(c.n * c.size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := AppendBatch(dst, &h, recs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.n), "ns/record")
		})
	}
}

func BenchmarkRecordReader(b *testing.B) {
	for _, c := range []struct{ n, size int }{{1, 100}, {10, 100}, {1000, 100}, {1000, 1024}} {
		h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		batch, err := AppendBatch(nil, &h, benchRecords(c.n, c.size))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("form=reader/records=%d/size=%d", c.n, c.size), func(b *testing.B) {
			b.SetBytes(int64(c.n * c.size))
			b.ReportAllocs()
			var r RecordReader
			for b.Loop() {
				n := 0
				for err := r.Reset(batch, 0); err == nil && r.Next(); n++ {
				}
				if n != c.n || r.Err() != nil {
					b.Fatal(n, r.Err())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.n), "ns/record")
		})
		b.Run(fmt.Sprintf("form=seq/records=%d/size=%d", c.n, c.size), func(b *testing.B) {
			b.SetBytes(int64(c.n * c.size))
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for rec, err := range Batch(batch).Records(0) {
					if err != nil || len(rec.Value) != c.size {
						b.Fatal(err)
					}
					n++
				}
				if n != c.n {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.n), "ns/record")
		})
	}
}
