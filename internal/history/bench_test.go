package history

import (
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"testing"
)

// long is a correct history of any length, made while it is walked over: producers,
// each second one with transactions of two batches, and readers of all there is.
type long struct{ records, keys, readers, batch int }

func (l long) Ops() iter.Seq2[*Op, error] {
	return func(yield func(*Op, error) bool) {
		next := make([]int64, l.keys)
		read := make([]int64, l.keys)
		clock := int64(0)
		value := int64(0)
		keys := make([]Key, l.keys)
		for i := range keys {
			keys[i] = Key{"t", int32(i)}
		}
		var op Op
		for n := 0; n < l.records; {
			clock++
			producer := int(clock) % l.keys
			op = Op{Process: int32(producer), Kind: OpSend, Outcome: OK, Start: clock, End: clock + 1, Sends: op.Sends[:0]}
			batches := 1
			if producer%2 == 1 {
				op.Kind, batches = OpTxn, 2
			}
			for b := range batches {
				k := (producer + b) % l.keys
				run := Run{Key: keys[k]}
				for range l.batch {
					run.Records = append(run.Records, Record{next[k], value})
					next[k]++
					value++
				}
				n += l.batch
				if op.Kind == OpTxn {
					next[k]++ // the marker
				}
				op.Sends = append(op.Sends, run)
			}
			if !yield(&op, nil) {
				return
			}
			for _, run := range op.Sends {
				for r := range l.readers {
					poll := Op{Process: int32(1000 + r), Kind: OpPoll, Outcome: OK, Start: clock + 2, End: clock + 3, Polls: []Run{run}}
					if !yield(&poll, nil) {
						return
					}
				}
				read[run.Key.Partition] = next[run.Key.Partition]
			}
			clock += 3
		}
	}
}

func TestLongHistory(t *testing.T) {
	r := check(t, long{records: 20_000, keys: 6, readers: 3, batch: 20}, nil)
	if got := found(r); got != "" {
		t.Errorf("found %s\n%v", got, r)
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, source := range []string{"memory", "file"} {
		for _, records := range []int{100_000, 2_000_000} {
			b.Run(fmt.Sprintf("source=%s/sent=%d/polled=%d", source, records, 3*records), func(b *testing.B) {
				var src Source = long{records: records, keys: 16, readers: 3, batch: 50}
				if source == "file" {
					path := filepath.Join(b.TempDir(), "h")
					w, err := OpenWriter(path)
					if err != nil {
						b.Fatal(err)
					}
					for op := range src.Ops() {
						if err := w.Append(op); err != nil {
							b.Fatal(err)
						}
					}
					size, _ := w.file.Seek(0, 2)
					b.SetBytes(2 * size) // two walks
					w.Close()
					src = OpenFiles(path)
				}
				var before, after runtime.MemStats
				for b.Loop() {
					runtime.GC()
					runtime.ReadMemStats(&before)
					r, err := Check(src, nil)
					if err != nil || len(r.Anomalies) > 0 {
						b.Fatal(err, r)
					}
					runtime.ReadMemStats(&after)
				}
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(records), "allocated-B/record")
				b.ReportMetric(float64(after.Sys)/(1<<20), "process-MiB")
			})
		}
	}
}
