package log

import (
	"fmt"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A quick look at reading. The benchmarks beside the physical limits are in bench/.

func BenchmarkScan(b *testing.B) {
	for _, batch := range []int{1, 1000} {
		fs, err := vfs.OS(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		defer fs.Close()
		l := openTest(b, fs, Config{Level: OS})
		recs := make([]Record, batch)
		for i := range recs {
			recs[i] = Record{Key: make([]byte, 16), Value: make([]byte, 100), Timestamp: 1_700_000_000_000}
		}
		l.Lock()
		for range 100_000 / batch {
			h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
			if err := l.StageRecords(1, &h, recs); err != nil {
				b.Fatal(err)
			}
			if err := l.Write(); err != nil {
				b.Fatal(err)
			}
		}
		l.Unlock()
		n := 0
		var r RecordReader
		visit := func(f *Frame) error {
			if err := r.Reset(f.Payload, 0); err != nil {
				return err
			}
			for r.Next() {
				n++
			}
			return r.Err()
		}
		for _, mapped := range []bool{true, false} {
			b.Run(fmt.Sprintf("batch=%d/mapped=%t", batch, mapped), func(b *testing.B) {
				n = 0
				b.ReportAllocs()
				for b.Loop() {
					if mapped {
						if err := l.Scan(0, l.EndOffset(), visit); err != nil {
							b.Fatal(err)
						}
						continue
					}
					rd, err := l.ReadFrom(0)
					if err != nil {
						b.Fatal(err)
					}
					rd.Reuse()
					for {
						f, err := rd.Next()
						if err == io.EOF {
							break
						}
						if err == nil {
							err = visit(f)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
			})
		}
	}
}
