package partition_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// temp opens a new partition in a directory that goes away.
func temp(c partition.Config) (p *partition.Partition, remove func()) {
	dir, err := os.MkdirTemp("", "embedlog")
	if err != nil {
		panic(err)
	}
	p, err = partition.Open(dir, &partition.Options{Config: c})
	if err != nil {
		panic(err)
	}
	return p, func() {
		p.Close()
		os.RemoveAll(dir)
	}
}

func values(vs ...string) (recs []log.Record) {
	for i, v := range vs {
		recs = append(recs, log.Record{Value: []byte(v), Timestamp: 1000 * int64(i+1)})
	}
	return recs
}

func Example() {
	p, remove := temp(partition.Config{})
	defer remove()
	ctx := context.Background()

	res, err := p.Append(ctx, values("a", "b"), nil)
	fmt.Println("offsets", res.BaseOffset, "to", res.LastOffset, err)

	r, err := p.ReadFrom(0, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	batch, err := r.Next(ctx) // would wait if there were nothing
	if err != nil {
		fmt.Println(err)
		return
	}
	for rec, err := range batch.Records(0) {
		fmt.Printf("%d %s %v\n", rec.Offset, rec.Value, err)
	}
	// Output:
	// offsets 0 to 1 <nil>
	// 0 a <nil>
	// 1 b <nil>
}

// A producer that does not know whether its append arrived sends it again.
func ExampleProducer() {
	p, remove := temp(partition.Config{})
	defer remove()
	o := &partition.AppendOptions{Producer: &partition.Producer{ID: 7, Sequence: 0}}
	for range 2 {
		res, err := p.Append(context.Background(), values("a"), o)
		fmt.Println(res.BaseOffset, res.Duplicate, err)
	}
	fmt.Println(p.LogEnd())
	// Output:
	// 0 false <nil>
	// 0 true <nil>
	// 1
}

func ExampleAppendOptions() {
	p, remove := temp(partition.Config{})
	defer remove()
	_, err := p.Append(context.Background(), values("a"), &partition.AppendOptions{Expect: true, ExpectedOffset: 3})
	var unexpected *partition.UnexpectedOffsetError
	fmt.Println(errors.As(err, &unexpected), err)
	// Output: true append expected offset 3, the log ends at 0
}

func ExamplePartition_EndTransaction() {
	p, remove := temp(partition.Config{})
	defer remove()
	ctx := context.Background()
	pr := &partition.Producer{ID: 7, Transactional: true}
	if _, err := p.Append(ctx, values("a", "b"), &partition.AppendOptions{Producer: pr}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(p.LastStable(), p.HighWatermark())
	if _, err := p.EndTransaction(ctx, 7, 0, true, 0, false); err != nil {
		fmt.Println(err)
	}
	fmt.Println(p.LastStable(), p.HighWatermark()) // the marker takes an offset, too
	// Output:
	// 0 2
	// 3 3
}

func ExamplePartition_Fetch() {
	p, remove := temp(partition.Config{})
	defer remove()
	ctx := context.Background()
	for _, v := range []string{"a", "b", "c"} {
		if _, err := p.Append(ctx, values(v), nil); err != nil {
			fmt.Println(err)
		}
	}
	// The first batch comes whole, whatever MaxBytes says.
	res, err := p.Fetch(ctx, partition.FetchRequest{Offset: 1, MaxBytes: 1})
	fmt.Println(len(res.Batches), res.Next, res.HighWatermark, err)
	// With nothing there it waits.
	res, err = p.Fetch(ctx, partition.FetchRequest{Offset: 3, MinBytes: 1, MaxWait: time.Millisecond})
	fmt.Println(len(res.Batches), res.Next, err)
	_, err = p.Fetch(ctx, partition.FetchRequest{Offset: 9})
	fmt.Println(errors.Is(err, partition.ErrOffsetOutOfRange), err)
	// Output:
	// 1 2 3 <nil>
	// 0 3 <nil>
	// true fetch: offset 9 is outside of the log's 0 to 3
}

func ExamplePartition_DeleteRecords() {
	p, remove := temp(partition.Config{})
	defer remove()
	ctx := context.Background()
	if _, err := p.Append(ctx, values("a", "b", "c"), nil); err != nil {
		fmt.Println(err)
	}
	fmt.Println(p.DeleteRecords(ctx, 2))
	_, err := p.ReadFrom(0, nil)
	fmt.Println(err)
	// Output:
	// 2 <nil>
	// fetch: offset 0 is outside of the log's 2 to 3
}

func ExamplePartition_SetLevel() {
	p, remove := temp(partition.Config{Log: log.Config{Level: log.OS}})
	defer remove()
	ctx := context.Background()
	if _, err := p.Append(ctx, values("a"), nil); err != nil { // survives a kill, not a power cut
		fmt.Println(err)
	}
	// From here on each append is durable when it returns, and what came before is.
	fmt.Println(p.SetLevel(log.Durable), p.Config().Log.Level)
	// Output: <nil> durable
}

func ExamplePartition_OffsetForTime() {
	p, remove := temp(partition.Config{})
	defer remove()
	if _, err := p.Append(context.Background(), values("a", "b", "c"), nil); err != nil {
		fmt.Println(err)
	}
	found, ok, err := p.OffsetForTime(1500)
	fmt.Println(found.Offset, found.Timestamp, ok, err)
	// Output: 1 2000 true <nil>
}

func ExamplePartition_EpochEnd() {
	p, remove := temp(partition.Config{})
	defer remove()
	ctx := context.Background()
	for epoch := range int32(2) {
		if err := p.SetLeaderEpoch(epoch); err != nil {
			fmt.Println(err)
		}
		if _, err := p.Append(ctx, values("a", "b"), nil); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(p.EpochEnd(0))
	fmt.Println(p.EpochEnd(1))
	// Output:
	// 0 2
	// 1 4
}

// Readers of committed records leave out what was aborted.
func ExampleReaderOptions() {
	p, remove := temp(partition.Config{})
	defer remove()
	ctx := context.Background()
	txn := &partition.AppendOptions{Producer: &partition.Producer{ID: 7, Transactional: true}}
	_, err1 := p.Append(ctx, values("taken back"), txn)
	_, err2 := p.EndTransaction(ctx, 7, 0, false, 0, false)
	_, err3 := p.Append(ctx, values("kept"), nil)
	r, err4 := p.ReadFrom(0, &partition.ReaderOptions{Isolation: partition.ReadCommitted})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		fmt.Println(err)
		return
	}
	batch, err := r.TryNext()
	if err != nil {
		fmt.Println(err)
		return
	}
	for rec := range batch.Records(0) {
		fmt.Printf("%d %s\n", rec.Offset, rec.Value)
	}
	_, err = r.TryNext()
	fmt.Println(err)
	// Output:
	// 2 kept
	// EOF
}
