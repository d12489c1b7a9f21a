package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// The frames of the mutex limit are ours: a log made of them is read by our reader.
func TestMutexLimitWritesOurFrames(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the mapping that is written is Linux's")
	}
	r := rep{Dir: t.TempDir(), Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 4, Records: 400}
	if res, err := limitMutex().run(&r); err != nil || res.Records != r.Records {
		t.Fatalf("%+v, error %v", res, err)
	}
	limit, err := os.ReadFile(filepath.Join(r.Dir, "limit"))
	if err != nil {
		t.Fatal(err)
	}
	one := rep{Dir: t.TempDir(), Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 400}
	if err := writeOurs(&one); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(one.Dir, "00000000000000000000.log"))
	if err != nil {
		t.Fatal(err)
	}
	const header, frame = 128, ourFrameBytes + log.BatchHeaderLen + 9 + keyBytes + 100
	for i := range 400 {
		a, b := limit[i*frame:][:frame], data[header+i*frame:][:frame]
		// They differ in what belongs to a file, and in the order of the records.
		if !bytes.Equal(a[4:12], b[4:12]) || !bytes.Equal(a[32:40], b[32:40]) || !bytes.Equal(a[ourFrameBytes:][:17], b[ourFrameBytes:][:17]) {
			t.Fatalf("frame %d:\n%x of the limit\n%x of ours", i, a, b)
		}
		if !log.VerifyBatchCRC(a[ourFrameBytes:]) {
			t.Fatalf("frame %d of the limit: wrong checksum", i)
		}
	}
}

// Everything that our side says it appended can be read.
func TestOursAppendWhatTheyCount(t *testing.T) {
	for _, c := range []struct {
		name string
		rep  rep
		run  subject
		more int64 // records that are appended before the clock starts
	}{
		{"os", rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 3000}, appendOurs, 1},
		{"os, batches", rep{Level: "os", ValueBytes: 1024, Batch: 1000, Goroutines: 1, Records: 5000}, appendOurs, 1000},
		{"os, 8 goroutines", rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 8, Records: 800}, appendOurs, 1},
		{"interval", rep{Level: "interval", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 3000}, appendOurs, 1},
		{"durable, 64 goroutines", rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 64, Records: 640}, appendOurs, 1},
		{"recycled", rep{Level: "durable", ValueBytes: 100, Batch: 1000, Goroutines: 1, Records: 7000, Bytes: 1 << 20}, appendRecycled, 2000},
		{"wake", rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 200}, wakeOurs, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.rep
			r.Dir = t.TempDir()
			res, err := c.run(&r)
			if err != nil || res.Records != r.Records {
				t.Fatalf("%d records, error %v; want %d", res.Records, err, r.Records)
			}
			p, err := partition.Open(r.Dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var n int64
			err = p.Log().Scan(p.LogStart(), p.HighWatermark(), func(f *log.Frame) error {
				for rec, err := range log.Batch(f.Payload).Records(0) {
					if err != nil || len(rec.Key) != keyBytes || len(rec.Value) != r.ValueBytes || rec.Timestamp <= 0 {
						t.Fatalf("record %d: %v, error %v", rec.Offset, rec, err)
					}
					n++
				}
				return nil
			})
			if want := r.Records + c.more; err != nil || n != want {
				t.Errorf("read %d records, error %v; want %d", n, err, want)
			}
		})
	}
}

// Both ways to scan see every record, and notice damage.
func TestOursScan(t *testing.T) {
	for _, c := range []struct {
		name string
		run  subject
	}{{"copied", scanCopied}, {"mapped", scanMapped}} {
		t.Run(c.name, func(t *testing.T) {
			r := rep{Dir: t.TempDir(), ValueBytes: 100, Batch: 10, Records: 500}
			if err := writeOurs(&r); err != nil {
				t.Fatal(err)
			}
			res, err := c.run(&r)
			if err != nil || res.Records != 500 {
				t.Fatalf("%d records, error %v", res.Records, err)
			}
			f, err := os.OpenFile(filepath.Join(r.Dir, "00000000000000000000.log"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("!!"), 30_000); err != nil {
				t.Fatal(err)
			}
			if res, err := c.run(&r); err == nil {
				t.Errorf("damage went unnoticed: %+v", res)
			}
		})
	}
}
