package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// queuedAppends starts n appends of one record each while the caller holds the
// writer's lock, and waits until all of them are in the open group. The first one
// writes the group as soon as the lock is free.
func queuedAppends(t *testing.T, p *Partition, n int, run func(i int)) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { run(i) })
		for deadline := time.Now().Add(10 * time.Second); ; {
			p.queue.mu.Lock()
			have := len(p.queue.open)
			p.queue.mu.Unlock()
			if have == i+1 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("append %d did not get into the queue: %d are there", i, have)
			}
			time.Sleep(10 * time.Microsecond)
		}
	}
	return wg.Wait
}

// A caller that leaves before its turn has written nothing, whether it would have
// written for the others or not, and the others' records are written.
func TestCancelBeforeTaken(t *testing.T) {
	for leaves := range 3 {
		t.Run(fmt.Sprint("caller=", leaves), func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), Config{Log: log.Config{Level: log.OS}})
			ctx, cancel := context.WithCancel(context.Background())
			left := make(chan struct{})
			var errs [3]error
			p.log.Lock()
			wait := queuedAppends(t, p, 3, func(i int) {
				use := context.Background()
				if i == leaves {
					use = ctx
				}
				_, errs[i] = p.Append(use, record(fmt.Sprint(i)), nil)
				if i == leaves {
					close(left)
				}
			})
			cancel()
			if leaves > 0 {
				<-left // it need not wait for the writer
			}
			p.log.Unlock()
			wait()
			var want []string
			for i := range 3 {
				if i == leaves {
					if errs[i] != context.Canceled {
						t.Errorf("who left got %v, want context.Canceled itself", errs[i])
					}
					continue
				}
				want = append(want, fmt.Sprint(i))
				if errs[i] != nil {
					t.Errorf("caller %d got %v", i, errs[i])
				}
			}
			if got := readAll(t, p, ReadUncommitted); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("the log holds %v, want %v", got, want)
			}
		})
	}
}

// A caller that leaves while the disk is being waited for is told where its
// records lie, and they are there.
func TestCancelWhenTaken(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	p := openTest(t, fault, Config{})
	if _, err := p.Append(context.Background(), record("before"), nil); err != nil {
		t.Fatal(err)
	}
	syncing, goOn := make(chan struct{}), make(chan struct{})
	fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Effect: vfs.Call(func() { close(syncing); <-goOn })})
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	var first error
	p.log.Lock()
	wait := queuedAppends(t, p, 2, func(i int) {
		if i == 0 {
			_, first = p.Append(context.Background(), record("0"), nil)
			return
		}
		_, err := p.Append(ctx, []log.Record{{Value: []byte("1a")}, {Value: []byte("1b")}}, nil)
		left <- err
	})
	p.log.Unlock()
	<-syncing
	cancel()
	err := <-left
	var unknown *UnknownOutcomeError
	if !errors.As(err, &unknown) || !errors.Is(err, context.Canceled) || unknown.BaseOffset != 2 || unknown.LastOffset != 3 {
		t.Fatalf("who left was told %v, want the unknown outcome of offsets 2 to 3", err)
	}
	close(goOn)
	wait()
	if first != nil {
		t.Fatal(first)
	}
	if got := readAll(t, p, ReadUncommitted); fmt.Sprint(got) != "[before 0 1a 1b]" {
		t.Fatalf("the log holds %v", got)
	}
}

// A caller's bytes are its own again when the call returns, however it returns. The
// race detector looks for reads that come later, and the values for bytes that
// changed under the writer.
func TestCallersBytesAreTheirs(t *testing.T) {
	for _, level := range []log.Level{log.Durable, log.OS} {
		t.Run(level.String(), func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), Config{Log: log.Config{Level: level, SegmentBytes: 64 << 10}})
			const callers = 8
			each := testcount.N(300)
			var mu sync.Mutex
			acked := map[int64]string{}
			left := 0
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(c), 9))
					value := make([]byte, 64)
					recs := make([]log.Record, 1)
					for i := range each {
						want := fmt.Sprintf("%02d.%05d", c, i)
						for at := 0; at < len(value); at += 8 {
							copy(value[at:], want)
						}
						recs[0] = log.Record{Value: value, Timestamp: int64(i)}
						ctx, cancel := context.WithCancel(context.Background())
						if n := rnd.IntN(3); n > 0 {
							spins := rnd.IntN(n * 500)
							go func() {
								for range spins {
								}
								cancel()
							}()
						}
						var res Result
						var err error
						if c%2 == 0 {
							res, err = p.Append(ctx, recs, nil)
						} else {
							h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
							b, eerr := log.AppendBatch(nil, &h, recs)
							if eerr != nil {
								t.Error(eerr)
							}
							keep := bytes.Clone(b)
							res, err = p.AppendBatch(ctx, b, nil)
							if !bytes.Equal(b, keep) {
								t.Error("AppendBatch changed the caller's batch")
							}
							clear(b)
						}
						clear(value)
						recs[0] = log.Record{}
						cancel()
						mu.Lock()
						switch {
						case err == nil:
							acked[res.BaseOffset] = want
						case errors.Is(err, context.Canceled):
							left++
						default:
							t.Error(err)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			values := readAll(t, p, ReadUncommitted)
			for offset, want := range acked {
				if offset >= int64(len(values)) || values[offset][:8] != want {
					t.Fatalf("offset %d: acknowledged was %q, the log has %d records", offset, want, len(values))
				}
			}
			for offset, v := range values {
				for at := 8; at < len(v); at += 8 {
					if v[at:at+8] != v[:8] {
						t.Fatalf("offset %d holds a torn value %q", offset, v)
					}
				}
			}
			t.Logf("%d acknowledged, %d left, %d in the log", len(acked), left, len(values))
		})
	}
}

// When the records of several callers were to share a batch and the batch could
// not be staged, every one of them is told.
func TestMergedCallersShareAFailure(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	p := openTest(t, fault, Config{Log: log.Config{SegmentBytes: 1 << 10}})
	if _, err := p.Append(context.Background(), []log.Record{{Value: make([]byte, 1000)}}, nil); err != nil {
		t.Fatal(err)
	}
	// The next group begins a new segment, for which there is no room.
	fault.Add(vfs.Rule{Op: vfs.OpCreate, Glob: "*.log", Effect: vfs.Fail(vfs.ErrNoSpace)})
	var errs [4]error
	p.log.Lock()
	wait := queuedAppends(t, p, 4, func(i int) { _, errs[i] = p.Append(context.Background(), record(fmt.Sprint(i)), nil) })
	p.log.Unlock()
	wait()
	for i, err := range errs {
		if !errors.Is(err, log.ErrNoSpace) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("caller %d: %v, want no space and nothing written", i, err)
		}
	}
	if end := p.LogEnd(); end != 1 {
		t.Fatalf("the log ends at %d, want 1", end)
	}
	if res, err := p.Append(context.Background(), record("later"), nil); err != nil || res.BaseOffset != 1 {
		t.Fatalf("when there is room: %+v, %v", res, err)
	}
}

// A failed sync leaves the outcome of its whole group open, duplicates within the
// group included, and a known one to what came before.
func TestFailedSyncIsUnknown(t *testing.T) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem)
	p := openTest(t, fault, Config{})
	ctx := context.Background()
	seq := func(n int32) *AppendOptions { return &AppendOptions{Producer: &Producer{ID: 1, Sequence: n}} }
	if _, err := p.Append(ctx, record("0"), seq(0)); err != nil {
		t.Fatal(err)
	}
	fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Effect: vfs.FailSync()})
	var errs [4]error
	var res [4]Result
	p.log.Lock()
	wait := queuedAppends(t, p, 4, func(i int) {
		res[i], errs[i] = p.Append(ctx, record("x"), seq([]int32{1, 1, 0, 7}[i]))
	})
	p.log.Unlock()
	wait()
	for i := range 2 {
		var unknown *UnknownOutcomeError
		if !errors.As(errs[i], &unknown) || unknown.BaseOffset != 1 || !errors.Is(errs[i], log.ErrStorageFailed) {
			t.Errorf("append %d: %v, want the unknown outcome of offset 1", i, errs[i])
		}
	}
	if errs[2] != nil || !res[2].Duplicate || res[2].BaseOffset != 0 {
		t.Errorf("repetition of what was durable before: %+v, %v", res[2], errs[2])
	}
	if !errors.Is(errs[3], ErrOutOfOrderSequence) || errors.Is(errs[3], ErrUnknownOutcome) {
		t.Errorf("gap: %v", errs[3])
	}
	if hw := p.HighWatermark(); hw != 1 {
		t.Errorf("high watermark %d, want 1: what was not synced is not readable", hw)
	}
	if _, err := p.Append(ctx, record("y"), nil); !errors.Is(err, log.ErrStorageFailed) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("append after a failed sync: %v, want a plain failure", err)
	}
	p.Close()
	p = openTest(t, mem.AfterKill(), Config{})
	if d, err := p.Append(ctx, record("x"), seq(1)); err != nil || d.BaseOffset != 1 {
		t.Fatalf("the producer's retry: %+v, %v", d, err)
	}
}

// No batch is larger than MaxBatchBytes, to the byte, and none below is refused.
func TestMaxBatchBytes(t *testing.T) {
	ctx := context.Background()
	manyHeaders := make([]log.Header, 300)
	for _, c := range []struct {
		name string
		recs func(n int) []log.Record
		max  int
	}{
		{"value", func(n int) []log.Record { return []log.Record{{Value: make([]byte, n)}} }, 1000},
		{"records", func(n int) []log.Record { return append(make([]log.Record, 50), log.Record{Key: make([]byte, n)}) }, 1000},
		{"headers", func(n int) []log.Record {
			return []log.Record{{Value: make([]byte, n), Headers: manyHeaders}}
		}, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), Config{MaxBatchBytes: c.max, Log: log.Config{Level: log.OS}})
			taken, refused := 0, 0
			for n := 200; n < 1000; n++ {
				h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
				b, err := log.AppendBatch(nil, &h, c.recs(n))
				if err != nil {
					t.Fatal(err)
				}
				_, err = p.Append(ctx, c.recs(n), nil)
				_, berr := p.AppendBatch(ctx, b, nil)
				if len(b) <= c.max {
					taken++
					if err != nil || berr != nil {
						t.Fatalf("batch of %d bytes: %v, %v", len(b), err, berr)
					}
					continue
				}
				refused++
				var large *RecordTooLargeError
				if !errors.As(err, &large) || large.Bytes != int64(len(b)) || !errors.Is(berr, ErrRecordTooLarge) {
					t.Fatalf("batch of %d bytes: %v, %v", len(b), err, berr)
				}
			}
			if taken == 0 || refused == 0 {
				t.Fatalf("%d taken, %d refused: the boundary was not met", taken, refused)
			}
		})
	}
}

func TestMergedBatchesStayWithinTheLimit(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{MaxBatchBytes: 400, Log: log.Config{Level: log.OS}})
	p.log.Lock()
	wait := queuedAppends(t, p, 40, func(i int) {
		rec := log.Record{Value: make([]byte, i*7%200), Timestamp: int64(1) << (i % 62), Headers: make([]log.Header, i%3)}
		if _, err := p.Append(context.Background(), []log.Record{rec}, nil); err != nil {
			t.Error(err)
		}
	})
	p.log.Unlock()
	wait()
	res, err := p.Fetch(context.Background(), FetchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Batches) >= 40 || res.Next != 40 {
		t.Fatalf("%d batches up to offset %d: nothing was merged, or something is missing", len(res.Batches), res.Next)
	}
	for _, b := range res.Batches {
		if len(b) > 400 {
			t.Errorf("merged batch of %d bytes, the limit is 400", len(b))
		}
	}
}

// The limit is on what is stored: records that compress well may be larger, a batch
// that gets larger by recompression may not.
func TestMaxBatchBytesIsOfTheStoredBatch(t *testing.T) {
	ctx := context.Background()
	big := []log.Record{{Value: make([]byte, 5000)}}
	p := openTest(t, vfs.NewMem(), Config{MaxBatchBytes: 1000, Compression: compress.Zstd})
	if _, err := p.Append(ctx, big, nil); err != nil {
		t.Fatalf("5000 zeros, compressed: %v", err)
	}
	noise := make([]byte, 5000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	if _, err := p.Append(ctx, []log.Record{{Value: noise}}, nil); !errors.Is(err, ErrRecordTooLarge) {
		t.Fatalf("5000 random bytes: %v", err)
	}
	res, err := p.Fetch(ctx, FetchRequest{})
	if err != nil || len(res.Batches) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	plain := openTest(t, vfs.NewMem(), Config{MaxBatchBytes: 1000, Recompress: true})
	if _, err := plain.AppendBatch(ctx, res.Batches[0], nil); !errors.Is(err, ErrRecordTooLarge) {
		t.Fatalf("a batch that is too large once it is not compressed any more: %v", err)
	}
	if end := plain.LogEnd(); end != 0 {
		t.Fatalf("the log ends at %d", end)
	}
}

func TestRefusedRecords(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{RequireKeys: true})
	ctx := context.Background()
	var invalid *InvalidRecordError
	_, err := p.Append(ctx, []log.Record{{Key: []byte("k")}, {}, {Key: []byte{}}, {}}, nil)
	if !errors.As(err, &invalid) || len(invalid.Records) != 2 || invalid.Records[0].Index != 1 || invalid.Records[1].Index != 3 {
		t.Errorf("records without keys: %v", err)
	}
	h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	b, _ := log.AppendBatch(nil, &h, []log.Record{{Key: []byte("k")}, {}})
	invalid = nil
	if _, err := p.AppendBatch(ctx, b, nil); !errors.As(err, &invalid) || len(invalid.Records) != 1 || invalid.Records[0].Index != 1 {
		t.Errorf("batch with a record without a key: %v", err)
	}
	if _, err := p.Append(ctx, nil, nil); !errors.Is(err, ErrInvalidRecord) {
		t.Errorf("no records: %v", err)
	}
	for _, pr := range []Producer{{ID: -1, Transactional: true}, {ID: -1}, {ID: 1, Epoch: -1}, {ID: 1, Sequence: -1}} {
		if _, err := p.Append(ctx, record("x"), &AppendOptions{Producer: &pr}); !errors.Is(err, ErrInvalidRecord) {
			t.Errorf("producer %+v: %v", pr, err)
		}
	}
	if end := p.LogEnd(); end != 0 {
		t.Fatalf("the log ends at %d", end)
	}
}

// Within a group each append is judged as if it came alone, in their order.
func TestExpectedOffsetsWithinAGroup(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	var errs [5]error
	p.log.Lock()
	wait := queuedAppends(t, p, 5, func(i int) {
		o := &AppendOptions{Expect: true, ExpectedOffset: []int64{0, 0, 1, 3, 2}[i]}
		_, errs[i] = p.Append(context.Background(), record(fmt.Sprint(i)), o)
	})
	p.log.Unlock()
	wait()
	for i, ok := range []bool{true, false, true, false, true} {
		if (errs[i] == nil) != ok || !ok && !errors.Is(errs[i], ErrUnexpectedOffset) {
			t.Errorf("append %d: %v", i, errs[i])
		}
	}
	if got := fmt.Sprint(readAll(t, p, ReadUncommitted)); got != "[0 2 4]" {
		t.Fatalf("the log holds %v", got)
	}
}

// Append times follow the clock when it is set forward, and stay where they were
// when it is set back, also across a restart.
func TestAppendTimeNeverGoesBack(t *testing.T) {
	now := time.UnixMilli(1000)
	fs := vfs.NewMem()
	open := func() *Partition {
		p, err := Open("", &Options{FS: fs, Now: func() time.Time { return now }, Config: Config{AppendTime: true}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	p := open()
	last := int64(0)
	for i, at := range []int64{1000, 1_700_000_000_000, 5000, 5000, 1_700_000_000_005} {
		now = time.UnixMilli(at)
		res, err := p.Append(context.Background(), record("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := max(last, at); res.AppendTime != want {
			t.Fatalf("append %d at %d got the time %d, want %d", i, at, res.AppendTime, want)
		}
		last = max(last, at)
		if i == 2 {
			p.Close()
			fs = fs.AfterKill()
			p = open()
		}
	}
	b, err := p.Fetch(context.Background(), FetchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, batch := range b.Batches {
		if h, err := log.Batch(batch).Header(); err != nil || !h.Attributes.Has(log.AppendTime) || !log.VerifyBatchCRC(batch) {
			t.Fatalf("batch %d: %+v, %v", i, h, err)
		}
	}
}

// A producer's clock that ran ahead, kept in the checkpoint, must not make segments
// look old: each append would begin a new one.
func TestClockSetBackBeforeOpen(t *testing.T) {
	mem := vfs.NewMem()
	ctx := context.Background()
	p := openTest(t, mem, Config{})
	p.clock = newClock(time.Now().Add(1000 * 24 * time.Hour).UnixMilli())
	if _, err := p.Append(ctx, record("a"), &AppendOptions{Producer: &Producer{ID: 1}}); err != nil {
		t.Fatal(err)
	}
	p.Close()
	mem = mem.AfterKill()
	p = openTest(t, mem, Config{})
	for range 10 {
		if _, err := p.Append(ctx, record("b"), nil); err != nil {
			t.Fatal(err)
		}
	}
	list, err := mem.List(".")
	if err != nil {
		t.Fatal(err)
	}
	segments := 0
	for _, f := range list {
		if len(f.Name) == 24 && f.Name[20:] == ".log" {
			segments++
		}
	}
	if segments != 1 {
		t.Fatalf("11 small appends are in %d segments", segments)
	}
}

// An open that fails leaves what the next one needs: producers whose records are
// deleted are in the checkpoint only.
func TestFailedOpenKeepsTheState(t *testing.T) {
	mem := vfs.NewMem()
	ctx := context.Background()
	retry := &AppendOptions{Producer: &Producer{ID: 1, Sequence: 5}}
	p := openTest(t, mem, Config{Log: log.Config{SegmentBytes: 1 << 10}})
	if _, err := p.Append(ctx, record("a"), retry); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Append(ctx, []log.Record{{Value: make([]byte, 2000)}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.DeleteRecords(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Append(ctx, record("b"), nil); err != nil {
		t.Fatal(err)
	}
	for skip := 0; ; skip++ {
		mem = mem.AfterKill() // the checkpoint is behind the log: its end is replayed
		fault := vfs.NewFault(mem, vfs.Rule{Op: vfs.OpRead, Glob: "*.log", Skip: skip, Effect: vfs.Fail(nil)})
		p, err := Open("", &Options{FS: fault})
		if err == nil {
			p.Close()
		}
		if fault.Hits() == 0 {
			if err != nil || skip < 3 {
				t.Fatalf("%d reads failed, and then: %v", skip, err)
			}
			return // every read of an open has failed once
		}
		again, err := Open("", &Options{FS: mem})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := again.Append(ctx, record("a"), retry); err != nil || !d.Duplicate {
			t.Fatalf("after read %d had failed: %+v, %v", skip, d, err)
		}
		if _, err := again.Append(ctx, record("b"), nil); err != nil {
			t.Fatal(err)
		}
	}
}
