package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// byHand is an engine that cleans only when it is told to, by Tick.
func byHand(o *Options) { o.MaintenanceInterval = -1 }

// put appends one record a word, with the time that it is: "a1" is value a1 of key a,
// "a-" its tombstone, "|" closes the segment.
func put(t *testing.T, p *Partition, words string) {
	t.Helper()
	for w := range strings.FieldsSeq(words) {
		if w == "|" {
			if err := p.Roll(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		r := log.Record{Timestamp: p.engine.now().UnixMilli(), Key: []byte(w[:1]), Value: []byte(w)}
		if w[1] == '-' {
			r.Value = nil
		}
		if _, err := p.Append(ctx, []log.Record{r}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// stored are the values of a partition's records below the last stable offset.
func stored(t *testing.T, p *Partition) string {
	t.Helper()
	r, err := p.ReadFrom(p.LogStart(), &partition.ReaderOptions{Isolation: partition.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for b, err := r.TryNext(); err == nil; b, err = r.TryNext() {
		for rec, err := range b.Records(0) {
			if err != nil {
				t.Fatal(err)
			}
			if rec.Value == nil {
				values = append(values, string(rec.Key)+"-")
				continue
			}
			values = append(values, string(rec.Value))
		}
	}
	return strings.Join(values, " ")
}

func wantStored(t *testing.T, when string, p *Partition, want string) {
	t.Helper()
	if got := stored(t, p); got != want {
		t.Errorf("%s: %s holds %q, want %q", when, p, got, want)
	}
}

func TestRetentionByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openEngine(t, vfs.NewMem(), byHand)
		p := mustTopicWith(t, e, "short", 1, "retention.ms=3600000").Partitions()[0]
		ever := mustTopicWith(t, e, "ever", 1, "retention.ms=-1").Partitions()[0]
		compacted := mustTopicWith(t, e, "compacted", 1, "cleanup.policy=compact;retention.ms=1;min.cleanable.dirty.ratio=1").Partitions()[0]
		at := func(d time.Duration) {
			time.Sleep(d)
			e.Tick(ctx)
		}
		for _, p := range []*Partition{p, ever, compacted} {
			put(t, p, "a1 | b1 |")
		}
		at(30 * time.Minute)
		put(t, p, "c1 |")
		at(29 * time.Minute)
		wantStored(t, "after 59 minutes", p, "a1 b1 c1")
		at(2 * time.Minute)
		wantStored(t, "after 61 minutes", p, "c1")
		put(t, p, "d1") // in the active segment, and nothing more comes
		at(61 * time.Minute)
		wantStored(t, "when the active segment has expired", p, "d1")
		at(61 * time.Minute)
		wantStored(t, "when it has been closed for as long", p, "")
		wantStored(t, "in the end", ever, "a1 b1")
		wantStored(t, "in the end", compacted, "a1 b1")
		if s := e.MaintenanceStats(); s.RetainedSegments != 4 || s.RetainedBytes < 4*4096 || s.Failures != 0 || s.Rounds != 5 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A clock that jumps deletes nothing, and one that jumps back stops nothing.
func TestRetentionWhenTheClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		e := openEngine(t, vfs.NewMem(), func(o *Options) {
			o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
			o.MaintenanceInterval = time.Minute
		})
		p := mustTopicWith(t, e, "short", 1, "retention.ms=3600000").Partitions()[0]
		put(t, p, "a1 | b1 |")
		for _, jump := range []time.Duration{10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
			offset.Store(int64(jump))
			for range 10 {
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			wantStored(t, fmt.Sprint("after a jump of ", jump), p, "a1 b1")
		}
		offset.Store(0)
		rounds := e.MaintenanceStats().Rounds
		if rounds < 15 {
			t.Errorf("%d rounds in 20 minutes with an interval of one", rounds)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		wantStored(t, "after an hour", p, "")
	})
}

func TestRetentionBySize(t *testing.T) {
	e := openEngine(t, vfs.NewMem(), byHand)
	for _, row := range []struct{ settings, want string }{
		{"retention.bytes=0", "d1"},
		{"retention.bytes=1", "d1"},
		{"retention.bytes=-1", "a1 b1 c1 d1"},
		{"retention.bytes=1000000", "a1 b1 c1 d1"},
		{"retention.bytes=1;cleanup.policy=compact", "a1 b1 c1 d1"},
		{"retention.bytes=1;cleanup.policy=compact,delete", "d1"},
	} {
		p := mustTopicWith(t, e, fmt.Sprint("t", len(e.Topics())), 1, row.settings+";retention.ms=-1;segment.bytes=1024").Partitions()[0]
		put(t, p, "a1 | b1 | c1 | d1")
		e.Tick(ctx)
		wantStored(t, row.settings, p, row.want)
	}
}

func TestCompactionWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openEngine(t, vfs.NewMem(), byHand)
		for i, row := range []struct {
			name, settings, words, want string
			after                       time.Duration
		}{
			{"dirty", "", "a1 a2 | b1", "a2 b1", 0},
			{"the ratio is never passed", "min.cleanable.dirty.ratio=1", "a1 a2 | b1", "a1 a2 b1", 0},
			{"but the lag is", "min.cleanable.dirty.ratio=1;max.compaction.lag.ms=60000", "a1 a2 | b1", "a2 b1", time.Hour},
			{"too young", "min.compaction.lag.ms=3600000", "a1 a2 | b1", "a1 a2 b1", time.Minute},
			{"old enough", "min.compaction.lag.ms=3600000", "a1 a2 | b1", "a2 b1", 2 * time.Hour},
			{"a tombstone is seen", "", "a1 a- | b1", "a- b1", 0},
		} {
			p := mustTopicWith(t, e, fmt.Sprint("t", i), 1, "cleanup.policy=compact;"+row.settings).Partitions()[0]
			put(t, p, row.words)
			time.Sleep(row.after)
			e.Tick(ctx)
			wantStored(t, row.name, p, row.want)
		}
		p := mustTopicWith(t, e, "gone", 1, "cleanup.policy=compact;delete.retention.ms=60000").Partitions()[0]
		put(t, p, "a1 a- | b1 |")
		e.Tick(ctx)
		wantStored(t, "a new tombstone", p, "a- b1")
		time.Sleep(2 * time.Minute)
		e.Tick(ctx)
		wantStored(t, "when its time is over, with nothing dirty", p, "b1")
		compactions := e.MaintenanceStats().Compactions
		e.Tick(ctx)
		if s := e.MaintenanceStats(); s.Compactions != compactions || s.CompactedRecordsRead <= s.CompactedRecordsNow || s.CompactedBytesBefore <= s.CompactedBytesAfter {
			t.Errorf("with nothing to do %d compactions, before %d: %+v", s.Compactions, compactions, s)
		}
	})
}

// The dirtiest goes first, and one that cannot be compacted does not keep the others from it.
func TestCompactionOrderAndFailure(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	var order []string
	e := openEngine(t, fault, byHand)
	topic := mustTopicWith(t, e, "t", 3, "cleanup.policy=compact;min.cleanable.dirty.ratio=0.1")
	parts := topic.Partitions()
	for _, p := range parts {
		put(t, p, "a1 a2 | z1")
	}
	e.Tick(ctx) // all are clean now
	put(t, parts[0], "b1 |")
	put(t, parts[1], "b1 b2 b3 b4 b5 b6 b7 b8 |")
	put(t, parts[2], "b1 b2 b3 |")
	broken := partitionDir(topic.ID(), 2)
	fault.OnOp(func(op vfs.Op, name string) {
		if op == vfs.OpRename && strings.HasSuffix(name, ".log.tmp") {
			order = append(order, name[len(broken)-1:len(broken)])
		}
	})
	fault.Add(vfs.Rule{Op: vfs.OpCreate, Glob: broken + "/*.log.tmp", Count: -1, Effect: vfs.Fail(nil)})
	e.Tick(ctx)
	if !slices.Equal(order, []string{"1", "0"}) {
		t.Errorf("compacted in the order %v, want 1, 0; 2 fails", order)
	}
	if s := e.MaintenanceStats(); s.Failures != 1 {
		t.Errorf("%d failures, want 1", s.Failures)
	}
	wantStored(t, "failed", parts[2], "a2 z1 b1 b2 b3")
	fault.Clear()
	fault.OnOp(nil)
	e.Tick(ctx)
	wantStored(t, "tried again", parts[2], "a2 z1 b3")
}

func TestCompactTopic(t *testing.T) {
	e := openEngine(t, vfs.NewMem(), byHand)
	topic := mustTopicWith(t, e, "t", 2, "cleanup.policy=compact;min.cleanable.dirty.ratio=1")
	for _, p := range topic.Partitions() {
		put(t, p, "a1 a2 b1 a3")
	}
	open := &partition.AppendOptions{Producer: &partition.Producer{ID: 7, Transactional: true}}
	if _, err := topic.Partitions()[1].Append(ctx, keyValue("b", 3), open); err != nil {
		t.Fatal(err)
	}
	put(t, topic.Partitions()[1], "a4")
	report, err := e.CompactTopic(ctx, "t")
	if err != nil || report.RecordsRead != 4 || report.RecordsKept != 2 || report.Rounds != 1 {
		t.Errorf("compact: %+v, %v", report, err)
	}
	wantStored(t, "all of it", topic.Partitions()[0], "b1 a3")
	wantStored(t, "up to the open transaction", topic.Partitions()[1], "a1 a2 b1 a3")
	mustTopic(t, e, "deleted", 1)
	var invalid *InvalidTopicError
	if _, err := e.CompactTopic(ctx, "deleted"); !errors.As(err, &invalid) || invalid.Name != "deleted" {
		t.Errorf("a topic that is not compacted: %v", err)
	}
	if _, err := e.CompactTopic(ctx, "none"); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("no topic: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := e.CompactTopic(cancelled, "t"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.CompactTopic(ctx, "t"); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Settings that are changed on a live topic count from the next round on.
func TestCleaningFollowsSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openEngine(t, vfs.NewMem(), byHand)
		p := mustTopicWith(t, e, "t", 1, "cleanup.policy=compact").Partitions()[0]
		alter := func(settings string) {
			t.Helper()
			if err := e.AlterTopic(ctx, "t", fields(settings), nil); err != nil {
				t.Fatal(err)
			}
		}
		put(t, p, "a1 a2 | b1 |")
		e.Tick(ctx)
		wantStored(t, "compacted", p, "a2 b1")
		alter("cleanup.policy=delete;retention.ms=60000")
		put(t, p, "a3 a4 |")
		e.Tick(ctx)
		wantStored(t, "deleted, later", p, "a2 b1 a3 a4")
		if _, err := p.Append(ctx, []log.Record{{Value: []byte("keyless")}}, nil); err != nil {
			t.Errorf("a record without a key: %v", err)
		}
		put(t, p, "|")
		alter("cleanup.policy=compact")
		e.Tick(ctx)
		wantStored(t, "compacted again, without what has no key", p, "b1 a4")
		if _, err := p.Append(ctx, []log.Record{{Value: []byte("keyless")}}, nil); !errors.Is(err, partition.ErrInvalidRecord) {
			t.Errorf("a record without a key in a compacted topic: %v", err)
		}
		alter("cleanup.policy=delete")
		time.Sleep(2 * time.Minute)
		e.Tick(ctx)
		wantStored(t, "deleted", p, "")
	})
}

func TestCleaningExpiresProducers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openEngine(t, vfs.NewMem(), byHand)
		p := mustTopic(t, e, "t", 1).Partitions()[0]
		if _, err := p.Append(ctx, keyValue("a", 1), &partition.AppendOptions{Producer: &partition.Producer{ID: 7}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		e.Tick(ctx)
		if n := len(p.Producers()); n != 0 || e.MaintenanceStats().ExpiredProducers != 1 {
			t.Errorf("%d producers are known, stats %+v", n, e.MaintenanceStats())
		}
	})
}

// Close ends a compaction that is under way, and leaves what was there.
func TestCloseEndsACompaction(t *testing.T) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem)
	e := openEngine(t, fault, byHand)
	p := mustTopicWith(t, e, "t", 1, "cleanup.policy=compact").Partitions()[0]
	put(t, p, "a1 a2 b1 | c1")
	reached, closing := make(chan struct{}), make(chan struct{})
	fault.Add(vfs.Rule{Op: vfs.OpCreate, Glob: "*.log.tmp", Count: 1, Effect: vfs.Call(func() {
		close(reached)
		<-closing
	})})
	done := make(chan error)
	go func() {
		_, err := e.CompactTopic(ctx, "t")
		done <- err
	}()
	<-reached
	go func() {
		for !errors.Is(p.Err(), log.ErrClosed) { // Close has come to the partition, and waits for us
			runtime.Gosched()
		}
		close(closing)
	}()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, log.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("compaction that was closed: %v", err)
	}
	e = openEngine(t, mem, byHand)
	again, err := e.Topic("t")
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, "after reopening", again.Partitions()[0], "a1 a2 b1 c1")
}
