package partition

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// On a full disk ordinary appends end, small internal ones and the ends of
// transactions go on, and so does deletion; with room all is as before.
func TestInternalAppendsOnAFullDisk(t *testing.T) {
	for _, level := range []log.Level{log.Durable, log.OS} {
		t.Run(level.String(), func(t *testing.T) {
			fs := vfs.NewMem(vfs.Capacity(512 << 10))
			cfg := Config{Log: log.Config{Level: level, SegmentBytes: 32 << 10, ReserveBytes: 64 << 10}}
			p := openTest(t, fs, cfg)
			ctx := context.Background()
			txn := &AppendOptions{Producer: &Producer{ID: 3, Transactional: true}}
			if _, err := p.Append(ctx, record("txn"), txn); err != nil {
				t.Fatal(err)
			}
			var want []string
			want = append(want, "txn")
			fill := func() {
				t.Helper()
				for i := 0; ; i++ {
					v := fmt.Sprint(len(want), ":", string(make([]byte, 3000)))
					_, err := p.Append(ctx, record(v), nil)
					if errors.Is(err, log.ErrNoSpace) {
						return
					}
					if err != nil || i > 1000 {
						t.Fatalf("append %d: %v", i, err)
					}
					want = append(want, v)
				}
			}
			fill()
			for i := range 20 {
				v := fmt.Sprint("commit ", i)
				if _, err := p.Append(ctx, record(v), &AppendOptions{Internal: true}); err != nil {
					t.Fatalf("internal append %d on a full disk: %v", i, err)
				}
				want = append(want, v)
			}
			if _, err := p.EndTransaction(ctx, 3, 0, true, 1, false); err != nil {
				t.Fatalf("end of a transaction on a full disk: %v", err)
			}
			if _, err := p.Append(ctx, record(string(make([]byte, 40<<10))), nil); !errors.Is(err, log.ErrNoSpace) {
				t.Fatalf("ordinary append on a full disk: %v", err)
			}
			if got := readAll(t, p, ReadCommitted); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got %d records, want %d", len(got), len(want))
			}
			if _, err := p.DeleteRecords(ctx, p.HighWatermark()/2); err != nil {
				t.Fatalf("delete on a full disk: %v", err)
			}
			if _, err := p.Append(ctx, record("again"), nil); err != nil {
				t.Fatalf("append with room: %v", err)
			}
			end := p.HighWatermark()
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if got := openTest(t, fs.AfterKill(), cfg).HighWatermark(); got != end {
				t.Fatalf("high watermark %d after reopening, want %d", got, end)
			}
		})
	}
}

// Who leaves when his append found the disk full takes his bytes along: it is not tried
// again in the reserve, and he is told so.
func TestLeavingBeforeTheReserve(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	p := openTest(t, fault, Config{Log: log.Config{ReserveBytes: 64 << 10}})
	mustAppend(t, p, nil, "first")
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: vfs.Full(0)})
	fault.Add(vfs.Rule{Op: vfs.OpTruncate, Glob: "reserve", Effect: vfs.Call(func() {
		cancel()
		if err := <-left; !errors.Is(err, log.ErrNoSpace) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("who left was told %v", err)
		}
	})})
	var errs [3]error
	p.log.Lock()
	wait := queuedAppends(t, p, 3, func(i int) {
		switch i {
		case 0:
			_, errs[0] = p.Append(context.Background(), record("ordinary"), nil)
		case 1:
			batch := filled(t, nil, "x", 3000)
			_, err := p.AppendBatch(ctx, batch, &AppendOptions{Internal: true})
			copy(batch, filled(t, nil, "y", 3000)) // the next request
			left <- err
		case 2:
			_, errs[2] = p.Append(context.Background(), record("internal"), &AppendOptions{Internal: true})
		}
	})
	p.log.Unlock()
	wait()
	if fault.Hits() != 2 || !errors.Is(errs[0], log.ErrNoSpace) || errs[2] != nil {
		t.Fatalf("%d hits, the others were told %v", fault.Hits(), errs)
	}
	if got := fmt.Sprint(readAll(t, p, ReadUncommitted)); got != "[first internal]" {
		t.Fatalf("the log holds %s", got)
	}
}
