package partition

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// TryAppend appends where Append would find nobody writing, refuses what Append
// refuses, and otherwise leaves everything as it was.
func TestTryAppend(t *testing.T) {
	ctx := context.Background()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	rec := []log.Record{{Key: []byte("k"), Value: []byte("v")}}
	for _, row := range []struct {
		name  string
		cfg   Config
		ctx   context.Context
		recs  []log.Record
		setup func(p *Partition) (undo func())
		done  bool
		is    error
	}{
		{"alone", Config{}, ctx, rec, nil, true, nil},
		{"cancelled", Config{}, cancelled, rec, nil, false, nil},
		{"compressed", Config{Compression: compress.LZ4}, ctx, rec, nil, false, nil},
		{"append time", Config{AppendTime: true}, ctx, rec, nil, false, nil},
		{"somebody writes", Config{}, ctx, rec, func(p *Partition) func() { p.log.Lock(); return p.log.Unlock }, false, nil},
		{"too large", Config{MaxBatchBytes: 100}, ctx, []log.Record{{Value: make([]byte, 100)}}, nil, true, ErrRecordTooLarge},
		{"no key", Config{RequireKeys: true}, ctx, []log.Record{{Value: []byte("v")}}, nil, true, ErrInvalidRecord},
		{"no records", Config{}, ctx, nil, nil, true, ErrInvalidRecord},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), row.cfg)
			// The first record of a leader epoch is one to look at.
			if _, err := p.Append(ctx, rec, nil); err != nil {
				t.Fatal(err)
			}
			undo := func() {}
			if row.setup != nil {
				undo = row.setup(p)
			}
			res, done, err := p.TryAppend(row.ctx, row.recs)
			undo()
			if done != row.done || !errors.Is(err, row.is) {
				t.Fatalf("done %t, %v; want %t, %v", done, err, row.done, row.is)
			}
			want := int64(1)
			if done && err == nil {
				want = 2
				if res.BaseOffset != 1 || res.LastOffset != 1 {
					t.Errorf("%+v", res)
				}
			}
			if p.HighWatermark() != want || p.LogEnd() != want {
				t.Errorf("high watermark %d, log end %d, want %d", p.HighWatermark(), p.LogEnd(), want)
			}
		})
	}
}

// Nothing moves to the heap, the record neither.
func TestTryAppendAllocs(t *testing.T) {
	p := openDisk(t, Config{Log: log.Config{Level: log.OS}})
	ctx, value := context.Background(), make([]byte, 100)
	if _, err := p.Append(ctx, []log.Record{{Value: value}}, nil); err != nil {
		t.Fatal(err)
	}
	wantAllocs(t, 0, func() {
		recs := [1]log.Record{{Value: value}}
		if _, done, err := p.TryAppend(ctx, recs[:]); err != nil || !done {
			t.Fatal(done, err)
		}
	})
}
