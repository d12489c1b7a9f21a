package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

func openTest(t testing.TB, fs vfs.FS, cfg Config) *Partition {
	t.Helper()
	p, err := Open("", &Options{FS: fs, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func record(v string) []log.Record {
	return []log.Record{{Key: []byte("k"), Value: []byte(v), Timestamp: 1000}}
}

func readAll(t testing.TB, p *Partition, i Isolation) (values []string) {
	t.Helper()
	r, err := p.ReadFrom(p.LogStart(), &ReaderOptions{Isolation: i})
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := r.TryNext()
		if err == io.EOF {
			return values
		}
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range b.Records(0) {
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(rec.Value))
		}
	}
}

func TestAppendConcurrently(t *testing.T) {
	for _, level := range []log.Level{log.Durable, log.Interval, log.OS} {
		t.Run(level.String(), func(t *testing.T) {
			fs := vfs.NewMem()
			p := openTest(t, fs, Config{Log: log.Config{Level: level, SegmentBytes: 8 << 10}})
			const callers, each = 16, 100
			var mu sync.Mutex
			at := map[int64]string{}
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					last := int64(-1)
					for i := range each {
						v := fmt.Sprint(c, ".", i)
						res, err := p.Append(context.Background(), record(v), nil)
						if err != nil {
							t.Error(err)
							return
						}
						if res.BaseOffset <= last || res.LastOffset != res.BaseOffset {
							t.Errorf("caller %d: offset %d after %d", c, res.BaseOffset, last)
						}
						if hw := p.HighWatermark(); hw <= res.LastOffset {
							t.Errorf("offset %d acknowledged, high watermark %d", res.LastOffset, hw)
						}
						last = res.BaseOffset
						mu.Lock()
						at[last] = v
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			check := func(p *Partition) {
				t.Helper()
				got := readAll(t, p, ReadUncommitted)
				if len(got) != callers*each {
					t.Fatalf("got %d records, want %d", len(got), callers*each)
				}
				for i, v := range got {
					if at[int64(i)] != v {
						t.Fatalf("offset %d holds %q, %q was acknowledged there", i, v, at[int64(i)])
					}
				}
			}
			check(p)
			check(openTest(t, fs.AfterKill(), Config{Log: log.Config{Level: level, SegmentBytes: 8 << 10}}))
		})
	}
}

func TestIdempotenceAndTransactions(t *testing.T) {
	fs := vfs.NewMem()
	p := openTest(t, fs, Config{})
	ctx := context.Background()
	txn := func(seq int32) *AppendOptions {
		return &AppendOptions{Producer: &Producer{ID: 7, Epoch: 0, Sequence: seq, Transactional: true}}
	}
	must := func(res Result, err error) Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	must(p.Append(ctx, record("a"), nil))
	must(p.Append(ctx, record("b"), txn(0)))
	if d := must(p.Append(ctx, record("b"), txn(0))); !d.Duplicate || d.BaseOffset != 1 {
		t.Fatalf("duplicate: %+v", d)
	}
	if _, err := p.Append(ctx, record("x"), txn(5)); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Fatalf("gap: %v", err)
	}
	must(p.Append(ctx, record("c"), nil))
	if hw, lso := p.HighWatermark(), p.LastStable(); hw != 3 || lso != 1 {
		t.Fatalf("high watermark %d, last stable %d", hw, lso)
	}
	if got := fmt.Sprint(readAll(t, p, ReadCommitted)); got != "[a]" {
		t.Fatalf("committed: %v", got)
	}
	fs = fs.AfterKill()
	p = openTest(t, fs, Config{})
	if d := must(p.Append(ctx, record("b"), txn(0))); !d.Duplicate || d.BaseOffset != 1 {
		t.Fatalf("duplicate after restart: %+v", d)
	}
	must(p.EndTransaction(ctx, 7, 0, false, 1, false))
	must(p.Append(ctx, record("d"), txn(1)))
	must(p.EndTransaction(ctx, 7, 0, true, 1, false))
	for range 2 {
		if got := fmt.Sprint(readAll(t, p, ReadCommitted)); got != "[a c d]" {
			t.Fatalf("committed: %v", got)
		}
		if got := fmt.Sprint(readAll(t, p, ReadUncommitted)); got != "[a b c d]" {
			t.Fatalf("all: %v", got)
		}
		res, err := p.Fetch(ctx, FetchRequest{Isolation: ReadCommitted})
		if err != nil || len(res.Aborted) != 1 || res.Aborted[0] != (AbortedTxn{7, 1}) || res.Next != 6 {
			t.Fatalf("fetch: %+v, %v", res, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Append(ctx, record("x"), nil); !errors.Is(err, log.ErrClosed) {
			t.Fatalf("append after close: %v", err)
		}
		fs = fs.AfterKill()
		p = openTest(t, fs, Config{})
	}
	if _, err := p.Append(ctx, record("x"), &AppendOptions{Expect: true, ExpectedOffset: 5}); !errors.Is(err, ErrUnexpectedOffset) {
		t.Fatalf("expected offset: %v", err)
	}
	must(p.Append(ctx, record("e"), &AppendOptions{Expect: true, ExpectedOffset: 6}))
}

func TestReaderWaits(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	r, err := p.ReadFrom(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		b, err := r.Next(context.Background())
		if err == nil && len(b) == 0 {
			err = errors.New("empty batch")
		}
		got <- err
	}()
	if _, err := p.Append(context.Background(), record("a"), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait: %v", err)
	}
	go func() {
		_, err := r.Next(context.Background())
		got <- err
	}()
	p.Close()
	if err := <-got; !errors.Is(err, log.ErrClosed) {
		t.Fatalf("closed while waiting: %v", err)
	}
}
