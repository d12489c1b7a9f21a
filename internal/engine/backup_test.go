package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/backup"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// restored restores a backup into memory and opens it after a power cut.
func restored(t *testing.T, from vfs.FS) *Engine {
	t.Helper()
	dst := vfs.NewMem()
	if _, err := Restore(ctx, from, dst, "dst", nil); err != nil {
		t.Fatal(err)
	}
	return openEngine(t, dst.AfterCrash(nil))
}

// firstValues maps each first word of the values to how often it is there.
func firstWords(t *testing.T, e *Engine, topic string) map[string]int {
	t.Helper()
	top, err := e.Topic(topic)
	must(t, err)
	words := make(map[string]int)
	for _, p := range top.Partitions() {
		values, err := committed(p)
		must(t, err)
		for _, v := range values {
			words[strings.Fields(v)[0]]++
		}
	}
	return words
}

// busy is a database that everything is done to at once, until stop is called.
type busy struct {
	t       *testing.T
	e       *Engine
	stopped chan struct{}
	running sync.WaitGroup
	pause   sync.RWMutex // held while a copy is looked at
}

func (b *busy) loop(f func(i int) error) {
	b.running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-b.stopped:
				return
			default:
			}
			b.pause.RLock()
			err := f(i)
			b.pause.RUnlock()
			if err != nil {
				b.t.Error(err)
				return
			}
		}
	})
}

func newBusy(t *testing.T, fs vfs.FS) *busy {
	b := &busy{t: t, e: openEngine(t, fs), stopped: make(chan struct{})}
	e := b.e
	for name, settings := range map[string]map[string]string{
		"left":   {settingDurability: "os"},
		"right":  {settingDurability: "durable", "segment.bytes": "16384"},
		"read":   {settingDurability: "interval", "segment.bytes": "16384"},
		"table":  {"cleanup.policy": "compact", "segment.bytes": "16384", "min.cleanable.dirty.ratio": "0.01"},
		"recent": {"retention.bytes": "20000", "segment.bytes": "16384", "embedlog.recycle": "true"},
	} {
		_, err := e.CreateTopic(ctx, TopicSpec{Name: name, Partitions: 2, Settings: settings})
		must(t, err)
	}
	part := func(topic string, n int) *Partition {
		top, err := e.Topic(topic)
		must(t, err)
		return top.Partitions()[n]
	}
	// Each transaction writes its number to four partitions, or is aborted. One producer is a client's.
	for n, local := range []bool{true, false} {
		p := newTxnProducer(e, fmt.Sprintf("txn%d", n), local)
		must(t, p.init())
		b.loop(func(i int) error {
			for _, q := range []*Partition{part("left", 0), part("left", 1), part("right", 0), part("right", 1)} {
				if err := p.produce(q, fmt.Sprintf("%d-%d", n, i)); err != nil {
					return err
				}
			}
			return p.end(i%3 != 0)
		})
	}
	// A group's position is committed as soon as a record is there.
	b.loop(func(i int) error {
		q := part("read", i%2)
		res, err := q.Append(ctx, []log.Record{{Value: []byte("r")}}, nil)
		if err != nil {
			return err
		}
		return e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{Topic: "read", Partition: q.ID(), Offset: res.LastOffset + 1, LeaderEpoch: -1}}})
	})
	b.loop(func(i int) error {
		_, err := part("table", i%2).Append(ctx, []log.Record{{Key: fmt.Append(nil, i%50), Value: fmt.Appendf(nil, "t %0300d", i)}}, nil)
		if err == nil {
			_, err = part("recent", i%2).Append(ctx, []log.Record{{Value: fmt.Appendf(nil, "n %0300d", i)}}, nil)
		}
		return err
	})
	b.loop(func(i int) error {
		for _, n := range []int{0, 1} {
			if _, err := part("table", n).Compact(ctx, log.CompactPolicy{}); err != nil && !errors.Is(err, log.ErrHeld) {
				return err
			}
			if _, _, err := part("recent", n).Retain(ctx, log.RetentionPolicy{Bytes: 20000}); err != nil {
				return err
			}
		}
		return nil
	})
	b.loop(func(i int) error {
		name := fmt.Sprintf("temporary-%d", i)
		if _, err := e.CreateTopic(ctx, TopicSpec{Name: name, Partitions: 1}); err != nil {
			return err
		}
		return e.DeleteTopic(ctx, name)
	})
	return b
}

func (b *busy) stop() {
	close(b.stopped)
	b.running.Wait()
}

// check is what must hold in a copy of a database that was busy.
func (b *busy) check(e *Engine, m *backup.Manifest) {
	t := b.t
	t.Helper()
	// A client outlives the database, so its transaction is open in the copy and holds readers
	// of committed records back, in each partition from another place on. Its next life ends it.
	must(t, newTxnProducer(e, "txn1", false).init())
	for _, topic := range []string{"left", "right"} {
		for txn, n := range firstWords(t, e, topic) {
			if n != 2 {
				t.Errorf("%s: %d of 2 records of transaction %s", topic, n, txn)
			}
		}
	}
	left, right := firstWords(t, e, "left"), firstWords(t, e, "right")
	if fmt.Sprint(left) != fmt.Sprint(right) {
		t.Errorf("transactions in one topic and not in the other: %d and %d", len(left), len(right))
	}
	for _, top := range e.Topics() {
		for _, p := range top.Partitions() {
			if err := p.Err(); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			for _, s := range p.Producers() {
				if s.TxnFirstOffset >= 0 && top.Name() != offsetsTopicName && s.CoordinatorEpoch < 0 && s.Epoch < 0 {
					t.Errorf("%s: producer %d has a transaction open", p, s.ProducerID)
				}
			}
			r, err := p.Log().Verify(ctx)
			if err != nil || len(r.Problems) > 0 {
				t.Errorf("%s: %v, %v", p, r.Problems, err)
			}
		}
	}
	for _, cut := range m.Logs {
		i := strings.LastIndex(cut.Name, "/")
		if i < 0 || strings.HasPrefix(cut.Name, internalPrefix) {
			continue
		}
		top, err := e.Topic(cut.Name[:i])
		must(t, err)
		for _, p := range top.Partitions() {
			if p.String() == cut.Name && (p.LogStart() != cut.Start || p.LogEnd() < cut.End || p.LogEnd() > cut.End+2) { // two transactions may be ended by the open
				t.Errorf("%s holds %d to %d, the cut has %d to %d", p, p.LogStart(), p.LogEnd(), cut.Start, cut.End)
			}
		}
	}
	offsets, err := e.Groups().Committed(ctx, "g", nil, false)
	must(t, err)
	if lost, err := e.LostPositions(ctx); err != nil || len(lost) > 0 {
		t.Errorf("positions past the data: %v, %v", lost, err)
	}
	for _, o := range offsets {
		top, err := e.Topic(o.Topic)
		must(t, err)
		if end := top.Partitions()[o.Partition].LogEnd(); o.Offset > end || o.Lost != nil {
			t.Errorf("%s/%d: committed %d, the log ends at %d", o.Topic, o.Partition, o.Offset, end)
		}
	}
	for _, top := range e.Topics() {
		for _, p := range top.Partitions() {
			for _, s := range p.Producers() {
				id, err := e.AllocateProducerID(ctx)
				must(t, err)
				if id <= s.ProducerID {
					t.Errorf("%s knows producer %d, and %d is given away", p, s.ProducerID, id)
				}
			}
		}
	}
}

// Backups of a database while everything is done to it, each on top of the one before.
func TestBackupWhileEverythingRuns(t *testing.T) {
	b := newBusy(t, vfs.NewMem())
	dst := vfs.NewMem()
	ends := 0
	for range 4 {
		report, err := b.e.Backup(ctx, dst, nil)
		if err != nil {
			b.stop()
			t.Fatal(err)
		}
		b.pause.Lock()
		e := restored(t, dst)
		b.check(e, report.Manifest)
		n := len(firstWords(t, e, "left"))
		if n < ends {
			t.Errorf("%d transactions, %d were in the backup before", n, ends)
		}
		ends = n
		if e.Info().ClusterID != b.e.Info().ClusterID || e.Info().DirectoryID == b.e.Info().DirectoryID {
			t.Error("a copy is of the same cluster, and a directory of its own")
		}
		must(t, e.Close())
		b.pause.Unlock()
	}
	b.stop()
	if ends == 0 {
		t.Error("no transaction was committed")
	}
}

// small is a database with something of everything, and nothing going on.
func small(t *testing.T, fs vfs.FS) *Engine {
	e := openEngine(t, fs)
	top, err := e.CreateTopic(ctx, TopicSpec{Name: "a", Partitions: 2, Settings: map[string]string{"retention.ms": "1234567"}})
	must(t, err)
	for i := range 5 {
		mustAppend(t, top.Partitions()[i%2], fmt.Sprint(i))
	}
	p := newTxnProducer(e, "x", true)
	must(t, p.init())
	must(t, p.produce(top.Partitions()[0], "committed"))
	must(t, p.end(true))
	must(t, p.produce(top.Partitions()[1], "open"))
	must(t, e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{Topic: "a", Partition: 1, Offset: 2, LeaderEpoch: -1}}}))
	mustTopic(t, e, "empty", 1)
	return e
}

func wantSmall(t *testing.T, e *Engine, offset int64) {
	t.Helper()
	top, err := e.Topic("a")
	must(t, err)
	if v, ok := top.Settings().Get("retention.ms"); v != "1234567" || !ok {
		t.Errorf("retention.ms is %s", v)
	}
	wantCommitted(t, top.Partitions()[0], "0", "2", "4", "committed")
	wantCommitted(t, top.Partitions()[1], "1", "3")
	if p := top.Partitions()[1]; p.LastStable() != p.HighWatermark() {
		t.Errorf("a transaction is open: last stable %d of %d", p.LastStable(), p.HighWatermark())
	}
	if top, err := e.Topic("empty"); err != nil || len(top.Partitions()) != 1 {
		t.Error(err)
	}
	offsets, err := e.Groups().Committed(ctx, "g", nil, false)
	if err != nil || len(offsets) != 1 || offsets[0].Offset != offset {
		t.Errorf("committed: %+v, %v", offsets, err)
	}
}

// A backup and a restore that are killed at each operation.
func TestCrashOfBackupAndRestore(t *testing.T) {
	alone(t)
	e := small(t, vfs.NewMem())
	whole := vfs.NewMem()
	if _, err := e.Backup(ctx, whole, nil); err != nil {
		t.Fatal(err)
	}
	wantSmall(t, restored(t, whole), 2)
	for k := 0; ; k++ {
		dst := vfs.NewMem(vfs.CrashAt(k))
		_, err := e.Backup(ctx, dst, nil)
		if !dst.Crashed() {
			must(t, err)
			break
		}
		after := dst.AfterCrash(vfs.Random(uint64(k)))
		if _, err := backup.Verify(ctx, after, nil); err != nil {
			if !errors.Is(err, backup.ErrIncomplete) {
				t.Fatalf("k=%d: %v", k, err)
			}
			if k%3 != 0 {
				continue
			}
			if _, err := e.Backup(ctx, after, nil); err != nil {
				t.Fatalf("k=%d: again: %v", k, err)
			}
		}
		if k%5 == 0 {
			wantSmall(t, restored(t, after), 2)
		}
	}
	for k := 0; ; k++ {
		dst := vfs.NewMem(vfs.CrashAt(k))
		_, err := Restore(ctx, whole, dst, "dst", nil)
		if !dst.Crashed() {
			must(t, err)
			if k < 30 {
				t.Errorf("only %d operations", k)
			}
			return
		}
		for what, after := range map[string]*vfs.Mem{"power cut": dst.AfterCrash(vfs.Random(uint64(k))), "kill": dst.AfterKill()} {
			// It is a whole database, nothing at all, or refused: never an empty one that looks whole.
			infos, err := after.List(".")
			must(t, err)
			copied, err := Open("dst", &Options{FS: after})
			if err != nil {
				if _, err := Restore(ctx, whole, after, "dst", nil); !errors.Is(err, ErrNotEmpty) {
					t.Fatalf("k=%d %s: restored on top of half of one: %v", k, what, err)
				}
				continue
			}
			if len(copied.Topics()) > 0 {
				wantSmall(t, copied, 2)
			} else if len(infos) > 0 && !(len(infos) == 1 && infos[0].Name == restoringName+tmpSuffix) {
				t.Fatalf("k=%d %s: an empty database out of %v", k, what, infos)
			}
			must(t, copied.Close())
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	e := small(t, vfs.NewMem())
	whole := vfs.NewMem()
	if _, err := e.Backup(ctx, whole, nil); err != nil {
		t.Fatal(err)
	}
	full := vfs.NewMem()
	must(t, full.Mkdir("x"))
	if _, err := Restore(ctx, whole, full, "dst", nil); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("into a directory with something in it: %v", err)
	}
	if _, err := Restore(ctx, vfs.NewMem(), vfs.NewMem(), "dst", nil); !errors.Is(err, backup.ErrIncomplete) {
		t.Errorf("of nothing: %v", err)
	}
	stop, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := e.Backup(stop, vfs.NewMem(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	must(t, e.Close())
	if _, err := e.Backup(ctx, vfs.NewMem(), nil); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestLostPositionsAndMetadata(t *testing.T) {
	fsys := vfs.NewMem()
	e := small(t, fsys)
	if lost, err := e.LostPositions(ctx); err != nil || len(lost) > 0 {
		t.Errorf("%v, %v", lost, err)
	}
	must(t, e.Groups().Commit(ctx, CommitRequest{Group: "ahead", MemberEpoch: -1, Offsets: []OffsetCommit{{Topic: "a", Partition: 0, Offset: 1000, LeaderEpoch: -1}}}))
	if lost, err := e.LostPositions(ctx); err != nil || len(lost) != 1 || !errors.Is(lost[0], ErrPositionLost) || !strings.Contains(lost[0].Error(), "ahead") {
		t.Errorf("%v, %v", lost, err)
	}
	if r, err := e.VerifyMetadata(ctx); err != nil || r.Records == 0 || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	flipByte(t, fsys, metaName+firstSegment, 128+48+70)
	if r, err := e.VerifyMetadata(ctx); err != nil || len(r.Problems) == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Nothing that is made anew for each backup is large: the second of an idle database
// writes checkpoints at most.
func TestSecondBackupReuses(t *testing.T) {
	e := small(t, vfs.NewMem())
	dst := vfs.NewMem()
	first, err := e.Backup(ctx, dst, nil)
	must(t, err)
	second, err := e.Backup(ctx, dst, nil)
	must(t, err)
	var segments []string
	for _, entry := range second.Manifest.Entries {
		if strings.HasSuffix(entry.Path, ".log") {
			segments = append(segments, entry.Object)
		}
	}
	for _, entry := range first.Manifest.Entries {
		if i := slices.Index(segments, entry.Object); i >= 0 {
			segments = slices.Delete(segments, i, i+1)
		}
	}
	if len(segments) > 0 || second.ReusedBytes == 0 {
		t.Errorf("written again: %v; %d bytes reused", segments, second.ReusedBytes)
	}
}
