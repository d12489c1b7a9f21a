package log_test

import (
	"fmt"
	"io"
	"os"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/log"
)

// temp opens a new log in a directory that goes away.
func temp(c log.Config) (l *log.Log, remove func()) {
	dir, err := os.MkdirTemp("", "embedlog")
	if err != nil {
		panic(err)
	}
	l, err = log.Open(dir, &log.Options{Config: c})
	if err != nil {
		panic(err)
	}
	return l, func() {
		l.Close()
		os.RemoveAll(dir)
	}
}

// write appends a batch for each value, as one group, and makes it durable.
func write(l *log.Log, epoch uint64, values ...string) error {
	l.Lock()
	defer l.Unlock()
	for i, v := range values {
		h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		rec := log.Record{Value: []byte(v), Timestamp: 1000 * int64(i+1)}
		if err := l.StageRecords(epoch, &h, []log.Record{rec}); err != nil {
			return err // ErrGroupFull would say: Write first
		}
	}
	if err := l.Write(); err != nil {
		return err
	}
	return l.Sync()
}

func Example() {
	l, remove := temp(log.Config{})
	defer remove()
	if err := write(l, 1, "a", "b"); err != nil {
		fmt.Println(err)
	}
	r, err := l.ReadFrom(0)
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		f, err := r.Next()
		if err == io.EOF {
			break // for now: Next may be called again
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		for rec := range log.Batch(f.Payload).Records(0) {
			fmt.Printf("%d %s, index %d, epoch %d\n", rec.Offset, rec.Value, f.Index, f.Epoch)
		}
	}
	fmt.Println("durable below", l.DurableOffset())
	// Output:
	// 0 a, index 1, epoch 1
	// 1 b, index 2, epoch 1
	// durable below 2
}

func ExampleLog_Scan() {
	l, remove := temp(log.Config{})
	defer remove()
	if err := write(l, 1, "a", "b", "c"); err != nil {
		fmt.Println(err)
	}
	bytes := 0
	err := l.Scan(1, l.EndOffset(), func(f *log.Frame) error {
		bytes += len(f.Payload) // valid until f returns
		return nil
	})
	fmt.Println(bytes, err)
	// Output: 138 <nil>
}

func ExampleLog_ReadBefore() {
	l, remove := temp(log.Config{})
	defer remove()
	if err := write(l, 1, "a", "b", "c"); err != nil {
		fmt.Println(err)
	}
	b, err := l.ReadBefore(l.EndOffset())
	if err != nil {
		fmt.Println(err)
		return
	}
	for f, err := b.Next(); err == nil; f, err = b.Next() {
		fmt.Println(f.Offset)
	}
	// Output:
	// 2
	// 1
	// 0
}

func ExampleLog_OffsetForTime() {
	l, remove := temp(log.Config{})
	defer remove()
	if err := write(l, 1, "a", "b", "c"); err != nil {
		fmt.Println(err)
	}
	found, ok, err := l.OffsetForTime(1500)
	fmt.Println(found.Offset, found.Timestamp, ok, err)
	// Output: 1 2000 true <nil>
}

// A replicator takes a tail back that another leader's log does not have.
func ExampleLog_TruncateFrom() {
	l, remove := temp(log.Config{})
	defer remove()
	if err := write(l, 1, "a", "b", "c"); err != nil {
		fmt.Println(err)
	}
	l.Lock()
	err := l.TruncateFrom(2) // log index 2 is the second frame
	l.Unlock()
	fmt.Println(l.EndOffset(), err)
	fmt.Println(write(l, 2, "other"), l.EndOffset())
	// Output:
	// 1 <nil>
	// <nil> 2
}

func ExampleLog_TruncateTo() {
	l, remove := temp(log.Config{})
	defer remove()
	if err := write(l, 1, "a", "b", "c"); err != nil {
		fmt.Println(err)
	}
	l.Lock()
	err := l.TruncateTo(2)
	l.Unlock()
	fmt.Println(l.StartOffset(), err)
	_, err = l.ReadFrom(1)
	fmt.Println(err)
	// Output:
	// 2 <nil>
	// offset 1: the log starts at 2: embedlog: offset below the log start offset
}

func ExampleCheckBatch() {
	h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	batch, err := log.AppendBatch(nil, &h, []log.Record{{Value: make([]byte, 1000)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	small, err := log.CompressBatch(nil, batch, compress.Zstd, 0)
	fmt.Println(len(small) < len(batch), err)
	h, err = log.CheckBatch(small, log.Limits{})
	fmt.Println(h.Count, h.Attributes.Codec(), err)
	small[len(small)-1] ^= 1
	_, err = log.CheckBatch(small, log.Limits{})
	fmt.Println(err)
	// Output:
	// true <nil>
	// 1 zstd <nil>
	// record batch at offset 0: byte 17: checksum is wrong
}

func ExampleRecordReader() {
	h := log.BatchHeader{BaseOffset: 10, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	batch, err := log.AppendBatch(nil, &h, []log.Record{{Key: []byte("k"), Value: []byte("v")}, {Key: []byte("k")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	var r log.RecordReader
	for err = r.Reset(batch, 0); err == nil && r.Next(); {
		rec := r.Record()
		fmt.Printf("%d %s=%q tombstone %t\n", rec.Offset, rec.Key, rec.Value, rec.Value == nil)
	}
	fmt.Println(r.Err())
	// Output:
	// 10 k="v" tombstone false
	// 11 k="" tombstone true
	// <nil>
}

func ExampleEndTxnMarker() {
	key, value := log.EndTxnMarker(true, 3)
	t, epoch, err := log.ParseControl(&log.Record{Key: key, Value: value})
	fmt.Println(t == log.ControlCommit, epoch, err)
	// Output: true 3 <nil>
}

// Logs that share a cache share a bound on open files.
func ExampleFileCache() {
	files := log.NewFileCache(10)
	for range 20 {
		dir, err := os.MkdirTemp("", "embedlog")
		if err != nil {
			fmt.Println(err)
			return
		}
		defer os.RemoveAll(dir)
		l, err := log.Open(dir, &log.Options{Files: files})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer l.Close()
	}
	fmt.Println(files.Open() <= 10)
	// Output: true
}
