package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

func mustAppend(t testing.TB, p *Partition, o *AppendOptions, values ...string) Result {
	t.Helper()
	var recs []log.Record
	for _, v := range values {
		recs = append(recs, log.Record{Value: []byte(v)})
	}
	res, err := p.Append(context.Background(), recs, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// A fetch waits until MinBytes are there, for MaxWait at most, and not for what
// MaxBytes keeps it from returning anyway.
func TestFetchWaits(t *testing.T) {
	for _, c := range []struct {
		name      string
		q         FetchRequest
		batches   int
		waits     time.Duration
		cancelled bool
		closes    bool
	}{
		{name: "enough is there", q: FetchRequest{MinBytes: 1, MaxWait: time.Minute}, batches: 1},
		{name: "no wait", q: FetchRequest{Offset: 1, MinBytes: 1}},
		{name: "nothing comes", q: FetchRequest{Offset: 4, MinBytes: 1, MaxWait: time.Minute}, waits: time.Minute},
		{name: "the next append", q: FetchRequest{Offset: 1, MinBytes: 1, MaxWait: time.Minute}, batches: 1, waits: time.Second},
		{name: "two appends", q: FetchRequest{Offset: 1, MinBytes: 100, MaxWait: time.Minute}, batches: 2, waits: 2 * time.Second},
		{name: "never enough", q: FetchRequest{MinBytes: 1 << 20, MaxWait: time.Minute}, batches: 4, waits: time.Minute},
		{name: "more than may be returned", q: FetchRequest{MinBytes: 1000, MaxBytes: 100, MaxWait: time.Minute}, batches: 1, waits: time.Second},
		{name: "cancelled", q: FetchRequest{Offset: 4, MinBytes: 1, MaxWait: time.Minute}, waits: 10 * time.Second, cancelled: true},
		{name: "closed", q: FetchRequest{Offset: 4, MinBytes: 1, MaxWait: time.Minute}, waits: 20 * time.Second, closes: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := openTest(t, vfs.NewMem(), Config{Log: log.Config{Level: log.OS}})
				mustAppend(t, p, nil, "first")
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				began := time.Now()
				go func() {
					for range 3 {
						time.Sleep(time.Second)
						p.Append(context.Background(), []log.Record{{Value: []byte("later")}}, nil)
					}
					time.Sleep(7 * time.Second)
					if c.cancelled {
						cancel()
					}
					time.Sleep(10 * time.Second)
					if c.closes {
						p.Close()
					}
				}()
				if c.q.Offset == 4 {
					time.Sleep(5 * time.Second) // until the log ends there
					if !c.cancelled && !c.closes {
						began = time.Now()
					}
				}
				res, err := p.Fetch(ctx, c.q)
				if len(res.Batches) != c.batches || time.Since(began) != c.waits {
					t.Errorf("%d batches after %v, want %d after %v", len(res.Batches), time.Since(began), c.batches, c.waits)
				}
				switch {
				case c.cancelled && err != context.Canceled, c.closes && !errors.Is(err, log.ErrClosed), !c.cancelled && !c.closes && err != nil:
					t.Errorf("error %v", err)
				}
				if n := p.waiters.waiting.Load(); n != 0 || len(p.waiters.list) != 0 {
					t.Errorf("%d waiters are left", n)
				}
				time.Sleep(time.Hour) // for the appends to end
			})
		})
	}
}

// A reader that retention overtakes is told so, and told again, also when the
// bytes it stands at are still in a file.
func TestReaderBelowTheLogStart(t *testing.T) {
	for _, segment := range []int64{1 << 10, 1 << 20} {
		for _, i := range []Isolation{ReadUncommitted, ReadCommitted} {
			t.Run(fmt.Sprintf("segment=%d/isolation=%d", segment, i), func(t *testing.T) {
				p := openTest(t, vfs.NewMem(), Config{Log: log.Config{SegmentBytes: segment}})
				for range 50 {
					mustAppend(t, p, nil, "some value that takes a bit of room")
				}
				r, err := p.ReadFrom(0, &ReaderOptions{Isolation: i})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.TryNext(); err != nil || r.Offset() != 1 {
					t.Fatalf("first batch: %v, then at %d", err, r.Offset())
				}
				if _, err := p.DeleteRecords(context.Background(), 40); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					var out *OffsetOutOfRangeError
					if _, err := r.TryNext(); !errors.As(err, &out) || out.Offset != 1 || out.LogStart != 40 {
						t.Fatalf("read below the log start: %v", err)
					}
				}
			})
		}
	}
}

// A log start that lies within a batch of an open transaction shows none of it.
func TestLogStartWithinAnOpenTransaction(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	txn := &AppendOptions{Producer: &Producer{ID: 1, Transactional: true}}
	mustAppend(t, p, txn, "a", "b", "c", "d")
	if _, err := p.DeleteRecords(context.Background(), 2); err != nil {
		t.Fatal(err)
	}
	r, err := p.ReadFrom(2, &ReaderOptions{Isolation: ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := r.TryNext(); err != io.EOF {
		t.Fatalf("a batch of %d bytes of an open transaction, %v", len(b), err)
	}
	if _, err := p.EndTransaction(context.Background(), 1, 0, true, 0, false); err != nil {
		t.Fatal(err)
	}
	if b, err := r.TryNext(); err != nil {
		t.Fatalf("committed: %d bytes, %v", len(b), err)
	}
}

// held is a replicator that stores at once and commits when it is told to.
type held struct {
	p    *Partition
	next uint64
	goOn chan struct{}
}

func (h *held) LeaderEpoch() (int32, error) { return 1, nil }

func (h *held) Propose(_ context.Context, _ int32, _ int64, batches [][]byte) (Proposal, error) {
	var entries []Entry
	for _, b := range batches {
		h.next++
		entries = append(entries, Entry{Kind: log.KindData, Index: h.next, Epoch: 1, Data: bytes.Clone(b)})
	}
	if err := h.p.Store(entries); err != nil {
		return nil, err
	}
	return heldProposal{h, h.next}, nil
}

type heldProposal struct {
	h     *held
	index uint64
}

func (q heldProposal) Wait(ctx context.Context) error {
	select {
	case <-q.h.goOn:
		return q.h.p.Commit(q.index)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// One caller of a group may leave; what the others wait for goes on.
func TestReplicatedCallersLeaveAlone(t *testing.T) {
	for leaves := range 3 {
		t.Run(fmt.Sprint("caller=", leaves), func(t *testing.T) {
			h := &held{goOn: make(chan struct{})}
			p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: h})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			h.p = p
			ctx, cancel := context.WithCancel(context.Background())
			var errs [3]error
			left := make(chan struct{})
			p.proposing.Lock()
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
			p.proposing.Unlock()
			for p.LogEnd() != 3 {
				time.Sleep(10 * time.Microsecond)
			}
			cancel()
			<-left
			var unknown *UnknownOutcomeError
			if err := errs[leaves]; !errors.As(err, &unknown) || unknown.BaseOffset != int64(leaves) || !errors.Is(err, context.Canceled) {
				t.Fatalf("who left was told %v", err)
			}
			if hw := p.HighWatermark(); hw != 0 {
				t.Fatalf("high watermark %d before anything is committed", hw)
			}
			close(h.goOn)
			wait()
			for i, err := range errs {
				if i != leaves && err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			}
			if got := fmt.Sprint(readAll(t, p, ReadUncommitted)); got != "[0 1 2]" {
				t.Fatalf("the log holds %v", got)
			}
		})
	}
}

// A marker above the high watermark does not let go: until a majority has it the
// transaction is undecided.
func TestMarkerAboveTheHighWatermark(t *testing.T) {
	h := &held{goOn: make(chan struct{}, 1)}
	p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	h.p = p
	h.goOn <- struct{}{}
	mustAppend(t, p, &AppendOptions{Producer: &Producer{ID: 1, Transactional: true}}, "a")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := p.EndTransaction(ctx, 1, 0, true, 0, false)
		done <- err
	}()
	for p.LogEnd() != 2 {
		time.Sleep(10 * time.Microsecond)
	}
	if hw, stable := p.HighWatermark(), p.LastStable(); hw != 1 || stable != 0 {
		t.Fatalf("high watermark %d, last stable %d; want 1, 0", hw, stable)
	}
	cancel()
	if err := <-done; !errors.Is(err, ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if err := p.Commit(2); err != nil {
		t.Fatal(err)
	}
	if hw, stable := p.HighWatermark(), p.LastStable(); hw != 2 || stable != 2 {
		t.Fatalf("high watermark %d, last stable %d; want 2, 2", hw, stable)
	}
}
