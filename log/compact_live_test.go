package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// TestCompactReaders has readers of all kinds go through a log that is compacted
// and deleted from while it is written. Each must see offsets grow, and the last
// value of every key of the part that nobody writes any more.
func TestCompactReaders(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": osFS(t)} {
		t.Run(name, func(t *testing.T) {
			k := newKeyed(11)
			cfg := Config{SegmentBytes: 2048, IndexIntervalBytes: 300}
			l := openTest(t, fs, cfg)
			for range 300 {
				if err := k.step(l); err != nil {
					t.Fatal(err)
				}
			}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			var walks atomic.Int64
			for kind := range 3 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := walkGrowing(l, kind); err != nil {
							t.Errorf("reader %d: %v", kind, err)
							return
						}
						walks.Add(1)
					}
				})
			}
			for round := range 9 {
				for range 20 {
					if err := k.step(l); err != nil {
						t.Fatal(err)
					}
				}
				p := k.policy()
				p.SegmentBytes, p.MapBytes = 4096, 400*(round%3)
				report, err := l.Compact(context.Background(), p)
				if err != nil {
					t.Fatal(err)
				}
				if err := k.checkClean(l, report.CleanedOffset); err != nil {
					t.Fatal(err)
				}
			}
			for walks.Load() < 20 && !t.Failed() {
				retain(t, l, RetentionPolicy{Bytes: 9000, Upto: l.EndOffset()})
			}
			close(stop)
			wg.Wait()
			wantVerified(t, l)
		})
	}
}

// walkGrowing reads the whole log in one of three ways.
func walkGrowing(l *Log, kind int) error {
	next := int64(-1)
	see := func(f *Frame) error {
		if f.Kind != KindData {
			return nil
		}
		// A batch that was merged meanwhile may begin before the place that was reached.
		if f.NextOffset <= next {
			return fmt.Errorf("frame of [%d, %d) behind offset %d", f.Offset, f.NextOffset, next)
		}
		next = f.NextOffset
		for rec, err := range Batch(f.Payload).Records(0) {
			if err != nil {
				return err
			}
			if rec.Offset < f.Offset || rec.Offset >= f.NextOffset {
				return fmt.Errorf("record %d in a frame of [%d, %d)", rec.Offset, f.Offset, f.NextOffset)
			}
		}
		return nil
	}
	start := l.StartOffset()
	if kind == 0 {
		err := l.Scan(start, l.EndOffset(), see)
		if errors.Is(err, ErrOffsetGone) {
			return nil
		}
		return err
	}
	r, err := l.ReadFrom(start)
	for err == nil {
		if kind == 1 {
			r.Reuse()
		}
		var f *Frame
		if f, err = r.Next(); err == nil {
			err = see(f)
		}
	}
	if err == io.EOF || errors.Is(err, ErrOffsetGone) {
		return nil // retention was faster
	}
	return err
}

// steps makes a log with something to compact.
func steps(t *testing.T, fs vfs.FS, cfg Config) (*Log, *keyed) {
	t.Helper()
	k := newKeyed(5)
	l := openTest(t, fs, cfg)
	for range 200 {
		if err := k.step(l); err != nil {
			t.Fatal(err)
		}
	}
	return l, k
}

// TestCompactFails stops a compaction by each kind of failure: nothing is left of
// it, and the next one does the work.
func TestCompactFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	for _, c := range []struct {
		name string
		ctx  context.Context
		fail func(f *vfs.Fault, l *Log, k *keyed, p *CompactPolicy)
		want error
	}{
		{"cancelled", cancelled, func(_ *vfs.Fault, _ *Log, _ *keyed, p *CompactPolicy) {
			p.SegmentBytes = 1 << 20 // one group: nothing is replaced before all is read
			judge, n := p.Batch, 0
			p.Batch = func(h *BatchHeader, b []byte) BatchVerdict {
				if n++; n == 150 {
					cancel()
				}
				return judge(h, b)
			}
		}, context.Canceled},
		{"disk full", context.Background(), func(f *vfs.Fault, _ *Log, _ *keyed, _ *CompactPolicy) {
			f.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log.tmp", Effect: vfs.Full(100)})
		}, ErrNoSpace},
		{"byte cap", context.Background(), func(_ *vfs.Fault, l *Log, _ *keyed, _ *CompactPolicy) {
			cfg := l.Config()
			cfg.CapBytes = l.AllocatedBytes() + 100
			l.SetConfig(cfg)
		}, ErrNoSpace},
		{"damage", context.Background(), func(f *vfs.Fault, l *Log, _ *keyed, _ *CompactPolicy) {
			f.Add(vfs.Rule{Op: vfs.OpRead, Glob: (*l.segs.Load())[0].name, Count: -1, Effect: vfs.Flip(700)})
		}, ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := vfs.NewFault(vfs.NewMem())
			cfg := Config{SegmentBytes: 2048, IndexIntervalBytes: 300, NoZeroing: true}
			l, k := steps(t, f, cfg)
			segs, used := *l.segs.Load(), l.AllocatedBytes()
			p := k.policy()
			c.fail(f, l, k, &p)
			if _, err := l.Compact(c.ctx, p); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			f.Clear()
			if err := l.SetConfig(cfg); err != nil {
				t.Fatal(err)
			}
			if err := l.Err(); err != nil {
				t.Fatal(err)
			}
			if got := *l.segs.Load(); len(got) != len(segs) || got[0] != segs[0] {
				t.Fatal("segments were replaced")
			}
			if got := l.AllocatedBytes(); got != used {
				t.Errorf("%d bytes are allocated, before it were %d", got, used)
			}
			if got := leftovers(t, f); len(got) > 0 {
				t.Errorf("left over: %v", got)
			}
			report, err := l.Compact(context.Background(), k.policy())
			if err != nil || report.RecordsKept >= report.RecordsRead {
				t.Fatalf("%+v %v", report, err)
			}
			if err := k.checkClean(l, report.CleanedOffset); err != nil {
				t.Fatal(err)
			}
			wantVerified(t, l)
		})
	}
}

// TestTruncateCompacted: what compaction joined cannot be cut apart.
func TestTruncateCompacted(t *testing.T) {
	l, k := steps(t, vfs.NewMem(), Config{SegmentBytes: 2048})
	if _, err := l.Compact(context.Background(), k.policy()); err != nil {
		t.Fatal(err)
	}
	first := l.FirstCompleteIndex()
	before, err := readModel(l)
	if err != nil {
		t.Fatal(err)
	}
	l.Lock()
	defer l.Unlock()
	if err := l.TruncateFrom(first - 1); err == nil {
		t.Fatalf("truncated below the first complete index %d", first)
	}
	if after, err := readModel(l); err != nil || len(after) != len(before) || l.Err() != nil {
		t.Fatalf("%d records became %d: %v %v", len(before), len(after), err, l.Err())
	}
	if err := l.TruncateFrom(first); err != nil {
		t.Fatal(err)
	}
}

func TestKeyMap(t *testing.T) {
	m := newKeyMap(1000 * keySlotBytes)
	n := int64(0)
	for m.put(fmt.Append(nil, "key", n), n) {
		n++
	}
	if n < 300 || n > 750 {
		t.Fatalf("%d keys fit", n)
	}
	if !m.put([]byte("key7"), 5000) {
		t.Fatal("a key that is there has no room")
	}
	for i := range n {
		want := i
		if i == 7 {
			want = 5000
		}
		if got, ok := m.get(fmt.Append(nil, "key", i)); !ok || got != want {
			t.Fatalf("key%d: got %d %t, want %d", i, got, ok, want)
		}
	}
	if _, ok := m.get([]byte("other")); ok {
		t.Fatal("a key that was never put is there")
	}
	m.clear()
	if _, ok := m.get([]byte("key7")); ok {
		t.Fatal("a key is there after clear")
	}
}
