package partition

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// syncs counts what a file system is asked to make durable.
type syncs struct {
	mu   sync.Mutex
	data int // of segments
	last time.Time
}

func watchSyncs(f *vfs.Fault) *syncs {
	s := &syncs{}
	f.OnOp(func(op vfs.Op, name string) {
		if (op == vfs.OpDatasync || op == vfs.OpSync) && strings.HasSuffix(name, ".log") {
			s.mu.Lock()
			s.data++
			s.last = time.Now()
			s.mu.Unlock()
		}
	})
	return s
}

func (s *syncs) count() (int, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data, s.last
}

// Interval acknowledges without a sync, and everything acknowledged is durable
// within the interval, at whatever time after the last sync it came.
func TestIntervalSyncsInTime(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(interval.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				fault := vfs.NewFault(mem)
				p := openTest(t, fault, Config{Log: log.Config{Level: log.Interval, SyncInterval: interval}})
				s := watchSyncs(fault)
				for i := range 20 {
					time.Sleep(time.Duration(i) * interval / 7)
					before, _ := s.count()
					asked := time.Now()
					if _, err := p.Append(context.Background(), record(fmt.Sprint(i)), nil); err != nil {
						t.Fatal(err)
					}
					if now, _ := s.count(); now != before || !time.Now().Equal(asked) {
						t.Fatalf("append %d waited: %d syncs before, %d after", i, before, now)
					}
					time.Sleep(interval)
					synctest.Wait()
					if durable := p.log.DurableOffset(); durable != int64(i)+1 {
						t.Fatalf("append %d: after %v the log is durable up to %d", i, interval, durable)
					}
				}
				// A power cut now takes nothing.
				after := mem.AfterCrash(vfs.Bits(0))
				q, err := Open("", &Options{FS: after})
				if err != nil {
					t.Fatal(err)
				}
				defer q.Close()
				if got := len(readAll(t, q, ReadUncommitted)); got != 20 {
					t.Fatalf("after a power cut %d records are there, 20 were synced", got)
				}
			})
		})
	}
}

// What a sync in the background cannot write stops the partition: nothing is
// acknowledged over pages that may be lost.
func TestIntervalFailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewMem())
		p := openTest(t, fault, Config{Log: log.Config{Level: log.Interval, SyncInterval: 20 * time.Millisecond}})
		if _, err := p.Append(context.Background(), record("a"), nil); err != nil {
			t.Fatal(err)
		}
		fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Effect: vfs.FailSync()})
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if fault.Hits() != 1 {
			t.Fatalf("%d syncs failed", fault.Hits())
		}
		for range 2 {
			if _, err := p.Append(context.Background(), record("b"), nil); !errors.Is(err, log.ErrStorageFailed) {
				t.Fatalf("append after a sync failed in the background: %v", err)
			}
		}
		if err := p.Sync(context.Background()); !errors.Is(err, log.ErrStorageFailed) {
			t.Fatalf("sync: %v", err)
		}
		if got := fmt.Sprint(readAll(t, p, ReadUncommitted)); got != "[a]" {
			t.Fatalf("the log holds %v", got)
		}
	})
}

// A second after the last append everything is synced, the mark behind it too, so
// that the next open reads nothing again; then no timer runs any more.
func TestIdleSettles(t *testing.T) {
	for _, level := range []log.Level{log.Durable, log.Interval, log.OS} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				fault := vfs.NewFault(mem)
				p := openTest(t, fault, Config{Log: log.Config{Level: level}})
				s := watchSyncs(fault)
				if _, err := p.Append(context.Background(), record("a"), nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				count, last := s.count()
				if count == 0 || time.Since(last) < time.Second/2 {
					t.Fatalf("%d syncs, the last %v ago", count, time.Since(last))
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if now, _ := s.count(); now != count {
					t.Fatalf("an idle log was synced %d times more", now-count)
				}
				q, err := Open("", &Options{FS: mem.AfterCrash(vfs.Bits(0))})
				if err != nil {
					t.Fatal(err)
				}
				defer q.Close()
				if rec := q.Recovered(); q.HighWatermark() != 1 || rec.CutBytes != 0 || rec.RewrittenBytes != 0 {
					t.Fatalf("after a power cut: log end %d, %+v", q.HighWatermark(), rec)
				}
			})
		})
	}
}

// Close leaves no goroutine and no timer: synctest fails when one is left, and a
// sync an hour later would be seen. It also may be called while appends go on.
func TestCloseLeavesNothing(t *testing.T) {
	for _, level := range []log.Level{log.Durable, log.Interval, log.OS} {
		t.Run(level.String(), func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					fault := vfs.NewFault(vfs.NewMem())
					p, err := Open("", &Options{FS: fault, Config: Config{Log: log.Config{Level: level}}})
					if err != nil {
						t.Fatal(err)
					}
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() {
							for {
								_, err := p.Append(context.Background(), []log.Record{{Value: make([]byte, 5000)}}, nil)
								if errors.Is(err, log.ErrClosed) {
									return
								}
								if err != nil {
									t.Error(err)
									return
								}
							}
						})
						wg.Go(func() {
							r, err := p.ReadFrom(0, &ReaderOptions{Reuse: true})
							for err == nil {
								_, err = r.Next(context.Background())
							}
							if !errors.Is(err, log.ErrClosed) {
								t.Errorf("reader: %v", err)
							}
						})
					}
					if _, err := p.Append(context.Background(), record("a"), nil); err != nil {
						t.Error(err)
					}
					if err := p.Close(); err != nil {
						t.Error(err)
					}
					wg.Wait()
					s := watchSyncs(fault)
					time.Sleep(time.Hour)
					if n, _ := s.count(); n != 0 {
						t.Errorf("%d syncs after Close", n)
					}
				})
			}
		})
	}
}

// Going to Durable makes durable what was acknowledged before, also while appends
// go on, and from then on each append is when it returns.
func TestLevelChangesWhileAppending(t *testing.T) {
	mem := vfs.NewMem()
	p := openTest(t, mem, Config{Log: log.Config{Level: log.OS}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := p.Append(context.Background(), record("x"), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 30 {
		res, err := p.Append(context.Background(), record("y"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SetLevel(log.Durable); err != nil {
			t.Fatal(err)
		}
		if d := p.log.DurableOffset(); d <= res.LastOffset {
			t.Fatalf("offset %d was acknowledged before the level rose, durable is %d", res.LastOffset, d)
		}
		if res, err = p.Append(context.Background(), record("z"), nil); err != nil {
			t.Fatal(err)
		}
		if d := p.log.DurableOffset(); d <= res.LastOffset {
			t.Fatalf("offset %d was acknowledged at Durable, durable is %d", res.LastOffset, d)
		}
		if err := p.SetLevel(log.OS); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// At no level is more unsynced than MaxUnsyncedBytes.
func TestUnsyncedIsBounded(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{Log: log.Config{Level: log.OS}})
	value := make([]byte, 512<<10)
	const appends = 100 // 50 MiB
	worst := int64(0)
	for range appends {
		res, err := p.Append(context.Background(), []log.Record{{Value: value}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, (res.LastOffset+1-p.log.DurableOffset())*int64(len(value)))
	}
	if worst > log.MaxUnsyncedBytes {
		t.Errorf("%d bytes were unsynced at once, the bound is %d", worst, log.MaxUnsyncedBytes)
	}
	if p.log.DurableOffset() == 0 {
		t.Error("50 MiB were appended and nothing was synced behind the writer")
	}
}

// Before a replica's log is written at a weak level its checkpoint says so: after a power cut that took all since, it may look like one that
// was closed and not touched, and it may be opened at another level.
func TestWeakLevelIsNotedFirst(t *testing.T) {
	no := vfs.Rule{Op: vfs.OpRename, Glob: "checkpoint*", Count: 1, Effect: vfs.Fail(errors.New("no"))}
	for _, next := range []log.Level{log.Durable, log.OS} {
		for _, from := range []log.Level{log.Durable, log.OS} {
			t.Run(fmt.Sprintf("opened at %v, then at %v", from, next), func(t *testing.T) {
				open := func(fs vfs.FS, level log.Level) *Partition {
					p, err := Open("", &Options{FS: fs, Replicator: follower{}, Config: Config{Log: log.Config{Level: level}}})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { p.Close() })
					return p
				}
				doubts := func(p *Partition) bool { g, _ := p.Group(); return g.Doubtful }
				fs := vfs.NewMem()
				p := open(fs, from)
				if err := errors.Join(p.JoinGroup(), p.Store([]Entry{{Kind: log.KindNoop, Index: 1, Epoch: 1}}), p.Close()); err != nil {
					t.Fatal(err)
				}
				faults := vfs.NewFault(fs)
				p = open(faults, from)
				if err := p.SetLevel(log.OS); err != nil || doubts(p) {
					t.Fatalf("closed properly, it doubts: %t, %v", doubts(p), err)
				}
				faults.Add(no)
				entries := []Entry{{Kind: log.KindNoop, Index: 2, Epoch: 1}}
				if err := p.Store(entries); err == nil || p.Log().NextIndex() != 2 {
					t.Fatalf("stored without a note: %v", err)
				}
				if err := p.Store(entries); err != nil {
					t.Fatal(err)
				}
				if p = open(fs.AfterCrash(nil), next); !doubts(p) || p.Log().NextIndex() != 2 {
					t.Errorf("after a power cut that has left %d entries it doubts: %t", p.Log().NextIndex()-1, doubts(p))
				}
			})
		}
	}
}
