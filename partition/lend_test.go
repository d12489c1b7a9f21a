package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// lentBytes is the size of values whose batches are written from where they lie, also
// several of them in one mapped group.
const lentBytes = 9 << 10

// filled encodes a batch of one record, whose value of n bytes is name over and over,
// into dst.
func filled(t testing.TB, dst []byte, name string, n int) []byte {
	value := bytes.Repeat([]byte(name), n/len(name)+1)[:n]
	h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	b, err := log.AppendBatch(dst, &h, []log.Record{{Value: value}})
	if err != nil {
		t.Error(err)
	}
	return b
}

// names are the values of the log, which must all be filled with one name.
func names(t testing.TB, p *Partition, width int) (all []string) {
	t.Helper()
	for offset, v := range readAll(t, p, ReadUncommitted) {
		name := v[:width]
		if want := string(bytes.Repeat([]byte(name), len(v)/width+1)[:len(v)]); v != want {
			t.Fatalf("offset %d: what was sent as %q holds other bytes", offset, name)
		}
		all = append(all, name)
	}
	return all
}

// While a group is written that has batches of callers, those callers cannot leave; others
// can, and so can the callers of a group that has copies of all it needs.
func TestLeavingDuringTheWrite(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		lent bool
	}{{"large batch", lentBytes, true}, {"small batch", 100, false}} {
		t.Run(c.name, func(t *testing.T) {
			fault := vfs.NewFault(vfs.NewMem())
			p := openTest(t, fault, Config{})
			mustAppend(t, p, nil, "f")
			ctx, cancel := context.WithCancel(context.Background())
			recordsLeft, batchLeft := make(chan error, 1), make(chan error, 1)
			fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: vfs.Call(func() {
				cancel()
				if err := <-recordsLeft; !errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("who left during the write was told %v", err)
				}
				if !c.lent {
					if err := <-batchLeft; !errors.Is(err, ErrUnknownOutcome) {
						t.Errorf("who left with a batch that was copied was told %v", err)
					}
				}
				free := p.queue.lending.TryLock()
				if free {
					p.queue.lending.Unlock()
				}
				if free == c.lent {
					t.Errorf("callers of batches may leave: %t, their bytes are being written: %t", free, c.lent)
				}
			})})
			batch := filled(t, nil, "b", c.size)
			p.log.Lock()
			wait := queuedAppends(t, p, 3, func(i int) {
				switch i {
				case 0: // writes
					if _, err := p.Append(context.Background(), record("w"), nil); err != nil {
						t.Error(err)
					}
				case 1:
					_, err := p.Append(ctx, record("r"), nil)
					recordsLeft <- err
				case 2:
					_, err := p.AppendBatch(ctx, batch, nil)
					clear(batch)
					batchLeft <- err
				}
			})
			p.log.Unlock()
			wait()
			if c.lent {
				if err := <-batchLeft; err != nil && !errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("who had to wait for the write was told %v", err)
				}
			}
			if got := fmt.Sprint(names(t, p, 1)); got != "[f w r b]" {
				t.Errorf("the log holds %s", got)
			}
		})
	}
}

// Whatever becomes of an append, its caller's bytes are his own when he has been told: he
// encodes the next batch into them, as a connection reads the next request into a frame.
// The log's values tell whether the writer met other bytes than were checked, and the race
// detector whether it read them later.
func TestLentBytesAreTheirs(t *testing.T) {
	for _, level := range []log.Level{log.Durable, log.OS} {
		t.Run(level.String(), func(t *testing.T) {
			fault := vfs.NewFault(vfs.NewMem())
			p := openTest(t, fault, Config{Log: log.Config{Level: level, SegmentBytes: 256 << 10}})
			const callers, width = 6, 8
			each := testcount.N(120)
			// Some callers give up while a group is being written.
			var cancels [callers]atomic.Pointer[context.CancelFunc]
			fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Count: -1, Effect: vfs.Call(func() {
				for range rand.IntN(callers) {
					if cancel := cancels[rand.IntN(callers)].Load(); cancel != nil {
						(*cancel)()
					}
				}
				for range 100 {
					runtime.Gosched() // they go, if they may
				}
			})})
			var mu sync.Mutex
			sent := map[string]bool{} // whether it was acknowledged; what is open is not in it
			left, unknown, failed := 0, 0, 0
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(c), 3))
					var frame []byte
					var line Line
					var leads sync.WaitGroup
					for i := range each {
						name := fmt.Sprintf("%02d.%04d ", c, i)
						size := []int{100, lentBytes, 3 * lentBytes, 80_000}[rnd.IntN(4)]
						frame = filled(t, frame[:0], name, size)
						ctx, cancel := context.WithCancel(context.Background())
						cancels[c].Store(&cancel)
						if rnd.IntN(20) == 0 {
							fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Skip: rnd.IntN(3), Effect: vfs.Full(rnd.IntN(20_000))})
						}
						var err error
						if c%2 == 0 {
							_, err = p.AppendBatch(ctx, frame, nil)
						} else {
							var b Begun
							if b, err = p.BeginBatch(frame, nil, &line, leads.Go); err != nil {
								cancel()
								t.Error(err)
								return
							}
							select {
							case <-b.Done():
								_, err = b.Finish()
							case <-ctx.Done():
								_, err = b.Leave(ctx)
							}
						}
						cancel()
						mu.Lock()
						switch {
						case errors.Is(err, ErrUnknownOutcome):
							unknown++
						case errors.Is(err, context.Canceled):
							left++
							sent[name] = false
						case errors.Is(err, log.ErrNoSpace):
							failed++
							sent[name] = false
						case err != nil:
							t.Error(err)
						default:
							sent[name] = true
						}
						mu.Unlock()
					}
					leads.Wait()
				})
			}
			wg.Wait()
			there := map[string]int{}
			for _, name := range names(t, p, width) {
				there[name]++
			}
			for name, acked := range sent {
				if want := map[bool]int{true: 1}[acked]; there[name] != want {
					t.Errorf("%q is in the log %d times, acknowledged %t", name, there[name], acked)
				}
			}
			t.Logf("%d in the log, %d left before, %d while the writer was at it, %d found the disk full", len(there), left, unknown, failed)
		})
	}
}

// The log's time goes into the header of what is written, not into the callers' bytes, for
// each of several large batches in one group.
func TestAppendTimeOfLentBatches(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	p, err := Open("", &Options{FS: vfs.NewMem(), Now: func() time.Time { return at }, Config: Config{AppendTime: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.log.Lock()
	wait := queuedAppends(t, p, 5, func(i int) {
		b := filled(t, nil, fmt.Sprint(i), lentBytes*(i%3))
		keep := bytes.Clone(b)
		if res, err := p.AppendBatch(context.Background(), b, nil); err != nil || res.AppendTime != at.UnixMilli() {
			t.Errorf("append %d: %+v, %v", i, res, err)
		}
		if !bytes.Equal(b, keep) {
			t.Errorf("append %d changed its caller's batch", i)
		}
	})
	p.log.Unlock()
	wait()
	res, err := p.Fetch(context.Background(), FetchRequest{})
	if err != nil || len(res.Batches) != 5 {
		t.Fatalf("%d batches, %v", len(res.Batches), err)
	}
	for i, b := range res.Batches {
		h, err := log.Batch(b).Header()
		if err != nil || !log.VerifyBatchCRC(b) || !h.Attributes.Has(log.AppendTime) || h.MaxTimestamp != at.UnixMilli() || h.BaseOffset != int64(i) {
			t.Errorf("batch %d: %+v, %v, checksum right: %t", i, h, err, log.VerifyBatchCRC(b))
		}
	}
	for i, v := range readAll(t, p, ReadUncommitted) {
		if v != strings.Repeat(fmt.Sprint(i), lentBytes*(i%3)) {
			t.Errorf("the value of record %d is another", i)
		}
	}
}
