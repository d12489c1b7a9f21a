package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/crashtest"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// crashLog is a log under the explorer of crash states.
type crashLog struct {
	*Log
	tr    *crashtest.Trace
	fs    *vfs.Mem // nil when the file system is not a plain Mem
	epoch uint64
	snaps int
	// encoded has batches staged that somebody else encoded; lent are those of the group.
	encoded bool
	lent    [][]byte
}

var errDamage = errors.New("open reports damage, and there was only a crash")

func openCrash(fsys vfs.FS, cfg Config, tr *crashtest.Trace) (*crashLog, error) {
	c := &crashLog{tr: tr, epoch: 1}
	c.fs, _ = fsys.(*vfs.Mem)
	l, err := Open("", &Options{FS: fsys, Config: cfg, Snapshot: func(dst []byte) []byte {
		c.snaps++
		return fmt.Appendf(dst, "state of %d", c.Log.w.at.offset)
	}})
	if err != nil {
		return nil, err
	}
	c.Log, c.epoch = l, max(l.LastEpoch(), 1)
	if rec := l.Recovered(); rec.Corruption != nil {
		l.Close()
		return nil, fmt.Errorf("%w: %v", errDamage, rec.Corruption)
	} else if rec.LogEnd != l.EndOffset() {
		l.Close()
		return nil, fmt.Errorf("recovered says that the log ends at %d, it ends at %d", rec.LogEnd, l.EndOffset())
	}
	if got, want := l.DurableOffset(), l.EndOffset(); got != want {
		l.Close()
		return nil, fmt.Errorf("after open the log is durable up to %d and ends at %d", got, want)
	}
	return c, nil
}

func (c *crashLog) Contents() (*crashtest.Contents, error) {
	got := &crashtest.Contents{Start: c.StartOffset(), End: c.EndOffset()}
	newest := TimePosition{Offset: -1, Timestamp: -1}
	r, err := c.ReadFrom(got.Start)
	if err != nil {
		return nil, err
	}
	for index := uint64(0); ; {
		f, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if index != 0 && f.FirstIndex != index {
			return nil, fmt.Errorf("log index %d follows %d", f.FirstIndex, index-1)
		}
		index = f.Index + 1
		if f.Kind != KindData {
			continue
		}
		for rec, err := range Batch(f.Payload).Records(1 << 20) {
			if err != nil {
				return nil, err
			}
			if rec.Offset >= got.Start { // the first batch may begin below the log start offset
				got.Recs = append(got.Recs, crashtest.At{Offset: rec.Offset, Key: rec.Key, Value: rec.Value})
				if rec.Timestamp > newest.Timestamp {
					newest = TimePosition{Offset: rec.Offset, Timestamp: rec.Timestamp, Epoch: f.Epoch}
				}
			}
		}
	}
	// The time index is a cache that every crash may leave half written.
	if found, ok, err := c.MaxTimestamp(); err != nil {
		return nil, err
	} else if ok != (newest.Offset >= 0) || ok && found != newest {
		return nil, fmt.Errorf("%w: the newest record is %+v, found is %+v, %t", crashtest.ErrBroken, newest, found, ok)
	}
	return got, nil
}

// Append is what a reopened log is asked to do: a few groups, one at a time.
func (c *crashLog) Append(tr *crashtest.Trace) error {
	c.tr = tr
	for i := range 3 {
		err := c.group(1+i, 2, 30+i*40)
		if errors.Is(err, ErrNoSpace) {
			// A full disk heals when there is room. A power cut can even leave more on a Mem
			// than it has room for: what was removed and what took its place.
			if c.fs != nil {
				c.fs.SetCapacity(-1)
			}
			if err := c.truncateTo(c.EndOffset()); err != nil {
				return fmt.Errorf("make room: %w", err)
			}
			err = c.group(1+i, 2, 30+i*40)
		}
		if err != nil {
			return err
		}
		if err := c.sync(); err != nil {
			return err
		}
	}
	return nil
}

func (c *crashLog) Abandon() { c.Log.Close() }

// group appends a group of batches of records with values of about size bytes.
func (c *crashLog) group(batches, records, size int) error {
	c.Lock()
	defer c.Unlock()
	return c.groupLocked(batches, records, size)
}

func (c *crashLog) groupLocked(batches, records, size int) error {
	for range batches {
		if err := c.stage(records, size); err != nil {
			return err
		}
	}
	return c.write()
}

// stage stages one batch. A group that is full is written, and the batch begins the next.
func (c *crashLog) stage(records, size int) error {
	n := c.tr.Batches()
	recs, sent := make([]Record, records), make([]crashtest.Rec, records)
	for i := range recs {
		sent[i] = crashtest.Rec{Key: fmt.Sprint("k", (n+i)%7), Value: fmt.Sprintf("v%d.%d ", n, i)}
		sent[i].Value += strings.Repeat(string(rune('a'+n%26)), size*(n%3+1)/2)
		recs[i] = Record{Key: []byte(sent[i].Key), Value: []byte(sent[i].Value), Timestamp: int64(1000 + n*37%11 + n)}
	}
	for {
		base := c.StagedOffset()
		err := c.stageAs(recs)
		if errors.Is(err, ErrGroupFull) {
			if err := c.write(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			c.Discard()
			c.reuse()
			return c.failed(err) // what was staged before goes with it
		}
		return c.tr.Sending(base, sent...)
	}
}

func (c *crashLog) stageAs(recs []Record) error {
	h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
	if !c.encoded {
		return c.StageRecords(c.epoch, &h, recs)
	}
	b, err := AppendBatch(nil, &h, recs)
	if err != nil {
		return err
	}
	c.lent = append(c.lent, b)
	return c.StageBatch(0, c.epoch, b, -1)
}

// reuse is what callers do with their batches when the group is written or discarded.
func (c *crashLog) reuse() {
	for _, b := range c.lent {
		clear(b)
	}
	c.lent = c.lent[:0]
}

func (c *crashLog) write() error {
	err := c.Write()
	c.reuse()
	if err != nil {
		return c.failed(err)
	}
	return c.wrote()
}

// wrote notes that Write returned nil. Of a machine that is gone nobody was told.
func (c *crashLog) wrote() error {
	if !c.crashed() {
		c.tr.Written()
	}
	return c.tr.Durable(c.DurableOffset()) // a background sync may have been faster
}

func (c *crashLog) crashed() bool { return c.fs != nil && c.fs.Crashed() }

// failed notes what an append's error says: that the group is not there, unless it
// is ErrStorageFailed, or the machine is gone. Those say nothing, and the run ends
// with the machine: background work may have met the crash while the writer did not
// notice, between a Write whose bytes are there and a refusal for want of room.
func (c *crashLog) failed(err error) error {
	if c.crashed() {
		return fmt.Errorf("%w (%v)", vfs.ErrCrashed, err)
	}
	if !errors.Is(err, ErrStorageFailed) && !errors.Is(err, vfs.ErrCrashed) {
		c.tr.Failed()
	}
	return err
}

// survive decides whether a tolerant run goes on after err. A log that stopped must
// acknowledge nothing more, and is opened again.
func (c *crashLog) survive(err error) error {
	if err == nil || !c.tr.Tolerant || errors.Is(err, crashtest.ErrBroken) || errors.Is(err, errDamage) || errors.Is(err, vfs.ErrCrashed) {
		return err
	}
	if c.Err() == nil {
		return nil
	}
	for range 2 {
		if err := c.group(1, 1, 10); !errors.Is(err, ErrStorageFailed) {
			return fmt.Errorf("%w: append after a failed sync: %v", crashtest.ErrBroken, err)
		}
		if err := c.Sync(); !errors.Is(err, ErrStorageFailed) {
			return fmt.Errorf("%w: sync after a failed sync: %v", crashtest.ErrBroken, err)
		}
		if err := c.Flush(); !errors.Is(err, ErrStorageFailed) {
			return fmt.Errorf("%w: flush after a failed sync: %v", crashtest.ErrBroken, err)
		}
	}
	c.Close()
	return c.reopen(crashtest.Kill)
}

// reopen opens the log again within the run. One failure to do so is lived with.
func (c *crashLog) reopen(e crashtest.Event) error {
	again, err := openCrash(c.Log.fs, c.Config(), c.tr)
	if err != nil && c.tr.Tolerant && !errors.Is(err, errDamage) {
		again, err = openCrash(c.Log.fs, c.Config(), c.tr)
	}
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	c.Log, c.epoch = again.Log, max(c.epoch, again.epoch)
	got, err := c.Contents()
	if err != nil && c.tr.Tolerant {
		got, err = c.Contents()
	}
	if err != nil {
		return err
	}
	if err := c.tr.Check(got, e); err != nil {
		return err
	}
	c.tr.Adopt(got)
	return nil
}

// sync acknowledges everything written so far as durable.
func (c *crashLog) sync() error {
	c.Lock()
	defer c.Unlock()
	end := c.EndOffset()
	if err := c.Sync(); err != nil {
		return err
	}
	if got := c.DurableOffset(); got < end {
		return fmt.Errorf("%w: sync returned, and the log is durable up to %d of %d", crashtest.ErrBroken, got, end)
	}
	return c.tr.Durable(end)
}

// truncate cuts the log's end at offset, which must begin a batch of one record.
func (c *crashLog) truncate(offset int64) error {
	c.Lock()
	defer c.Unlock()
	r, err := c.ReadFrom(offset)
	if err != nil {
		return err
	}
	f, err := r.Next()
	if err != nil {
		return err
	}
	c.tr.Truncating(f.Offset)
	if err := c.TruncateFrom(f.FirstIndex); err != nil {
		return err
	}
	c.tr.Truncated()
	c.epoch++
	return nil
}

func (c *crashLog) truncateTo(offset int64) error {
	c.Lock()
	defer c.Unlock()
	c.tr.Starting(offset)
	if err := c.TruncateTo(offset); err != nil {
		return err
	}
	return c.tr.Started(c.StartOffset())
}

// close closes the log and notes that all of it is durable.
func (c *crashLog) close() error {
	end := c.EndOffset()
	if err := c.Close(); err != nil {
		return err
	}
	return c.tr.Durable(end)
}

// smallLog makes the background work begin after a few KiB.
func smallLog(t testing.TB, job int64) {
	old := jobBytes
	jobBytes = job
	t.Cleanup(func() { jobBytes = old })
}

// crashScript is a workload as a function of an open log.
type crashScript struct {
	name string
	cfg  Config
	fs   []vfs.Option
	run  func(c *crashLog) error
}

// workload makes the script one of the explorer's, at a level.
func (s crashScript) workload(level Level) crashtest.Workload {
	cfg := s.cfg
	cfg.Level = level
	return crashtest.Workload{
		Name:    s.name + "/" + level.String(),
		FS:      s.fs,
		Cramped: s.fs != nil || cfg.CapBytes > 0,
		Run: func(fs vfs.FS, tr *crashtest.Trace) error {
			c, err := openCrash(fs, cfg, tr)
			if err != nil && tr.Tolerant {
				c, err = openCrash(fs, cfg, tr)
			}
			if err != nil {
				return err
			}
			defer func() { c.Abandon() }()
			if err := s.run(c); err != nil {
				tr.Stopping()
				return err
			}
			if err := c.close(); err != nil && !tr.Tolerant && !errors.Is(err, ErrNoSpace) {
				return err
			}
			return nil
		},
		Open: func(fs vfs.FS) (crashtest.Store, bool, error) {
			c, err := openCrash(fs, cfg, nil)
			if err != nil {
				return nil, false, err
			}
			return c, c.Recovered().Clean, nil
		},
	}
}

var smallSegments = Config{SegmentBytes: 2048, IndexIntervalBytes: 256}

// repeat runs step n times, syncing after each group at Durable, else each so often.
func (c *crashLog) repeat(n, syncEvery int, step func(i int) error) error {
	for i := range n {
		if err := c.survive(step(i)); err != nil {
			return err
		}
		if c.Config().Level == Durable || i%syncEvery == syncEvery-1 {
			if err := c.survive(c.sync()); err != nil {
				return err
			}
		}
	}
	return nil
}

var crashScripts = []crashScript{
	{name: "append single", cfg: Config{SegmentBytes: 64 << 10, IndexIntervalBytes: 512}, run: func(c *crashLog) error {
		return c.repeat(12, 4, func(i int) error { return c.group(1, 1, 10+i*30) })
	}},
	{name: "append batch", cfg: Config{SegmentBytes: 64 << 10, IndexIntervalBytes: 512}, run: func(c *crashLog) error {
		return c.repeat(6, 3, func(i int) error { return c.group(1+i, 1+i%4, 200) })
	}},
	lending,
	{name: "roll", cfg: smallSegments, run: func(c *crashLog) error {
		return c.repeat(14, 5, func(i int) error { return c.group(1+i%3, 1, 150) })
	}},
	{name: "truncate", cfg: smallSegments, run: func(c *crashLog) error {
		for _, at := range []int64{9, 3, 12, 14} {
			if err := c.repeat(8, 3, func(i int) error { return c.group(2, 1, 100) }); err != nil {
				return err
			}
			if err := c.survive(c.truncate(at)); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "truncate both", cfg: smallSegments, run: func(c *crashLog) error {
		for round := range int64(3) {
			if err := c.repeat(6, 3, func(i int) error { return c.group(3, 1, 100) }); err != nil {
				return err
			}
			if err := c.survive(c.truncateTo(c.StartOffset() + 3 + round*4)); err != nil {
				return err
			}
			if err := c.survive(c.truncate(c.EndOffset() - 1 - round*4)); err != nil {
				return err
			}
		}
		if err := c.survive(c.truncate(c.StartOffset())); err != nil {
			return err
		}
		return c.survive(c.group(1, 1, 10))
	}},
	{name: "reopen", cfg: smallSegments, run: func(c *crashLog) error {
		for range 3 {
			if err := c.repeat(3, 2, func(i int) error { return c.group(2, 1, 150) }); err != nil {
				return err
			}
			e := crashtest.Nothing
			if err := c.close(); err != nil {
				if !c.tr.Tolerant {
					return err
				}
				e = crashtest.Kill
			}
			if err := c.reopen(e); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "retention", cfg: smallSegments, run: retention},
	{name: "recycle", cfg: Config{SegmentBytes: 2048, IndexIntervalBytes: 256, Recycle: true}, run: retention},
	{name: "byte cap", cfg: Config{SegmentBytes: 4096, IndexIntervalBytes: 256, CapBytes: 40 << 10, ReserveBytes: 4096}, run: func(c *crashLog) error {
		return fillUp(c, func() error {
			c.Lock()
			defer c.Unlock()
			c.tr.Starting(c.EndOffset())
			_, err := c.Retain(RetentionPolicy{Upto: c.EndOffset(), Room: 8 << 10})
			return errors.Join(err, c.tr.Started(c.StartOffset()))
		})
	}},
	{name: "full disk", cfg: Config{SegmentBytes: 4096, IndexIntervalBytes: 256, ReserveBytes: 8192}, fs: []vfs.Option{vfs.Capacity(48 << 10)}, run: func(c *crashLog) error {
		return fillUp(c, func() error { return c.truncateTo((c.StartOffset() + c.EndOffset()) / 2) })
	}},
	{name: "checkpoint", cfg: smallSegments, run: func(c *crashLog) error {
		return c.repeat(16, 100, func(i int) error {
			if err := c.group(2, 1, 150); err != nil {
				return err
			}
			if i%6 == 5 { // what the timer does after a second of quiet
				c.Lock()
				defer c.Unlock()
				c.settleIdle()
				return c.tr.Durable(c.DurableOffset())
			}
			return nil
		})
	}},
	{name: "compaction", cfg: smallSegments, run: func(c *crashLog) error {
		return c.repeat(16, 4, func(i int) error {
			if err := c.group(3, 2, 60); err != nil || i%5 != 4 {
				return err
			}
			c.tr.Compacting(c.EndOffset())
			_, err := c.Compact(context.Background(), CompactPolicy{Upto: c.EndOffset()})
			return err
		})
	}},
	{name: "append concurrent", cfg: smallSegments, run: appendConcurrent},
}

// lending writes batches from where they lie, alone and between small ones, through the
// mapping at OS where they fit it.
var lending = crashScript{name: "lending", cfg: Config{SegmentBytes: 80 << 10}, run: func(c *crashLog) error {
	c.encoded = true
	return c.repeat(8, 3, func(i int) error { return c.group(1+i%4, 1, 9000) })
}}

// retention deletes from the start, a segment or two at a time.
func retention(c *crashLog) error {
	return c.repeat(16, 4, func(i int) error {
		if err := c.group(3, 1, 150); err != nil || i%3 != 2 {
			return err
		}
		c.Lock()
		defer c.Unlock()
		c.tr.Starting(c.EndOffset())
		if _, err := c.Retain(RetentionPolicy{Upto: c.EndOffset(), Bytes: 3000}); err != nil {
			return err
		}
		return c.tr.Started(c.StartOffset())
	})
}

// fillUp appends until there is no room, makes some, and goes on.
func fillUp(c *crashLog, makeRoom func() error) error {
	full := 0
	err := c.repeat(40, 5, func(i int) error {
		err := c.group(1+i%4, 1, 400)
		if !errors.Is(err, ErrNoSpace) {
			return err
		}
		if err := c.Err(); err != nil {
			return fmt.Errorf("a full disk stopped the log: %w", err)
		}
		if full++; full%3 != 0 {
			return nil // the next one fails as well, or fits because it is smaller
		}
		return makeRoom()
	})
	if err == nil && full == 0 {
		err = errors.New("the disk was never full")
	}
	return err
}

// appendConcurrent appends from three goroutines while one flushes.
func appendConcurrent(c *crashLog) error {
	const writers = 3
	errs := make(chan error)
	stop := make(chan struct{})
	for w := range writers {
		go func() {
			var err error
			for i := 0; i < 5 && err == nil; i++ {
				err = c.group(1+(w+i)%3, 1, 60)
				if err == nil && c.Config().Level == Durable {
					err = c.sync()
				}
			}
			errs <- err
		}()
	}
	go func() {
		for {
			select {
			case <-stop:
				errs <- nil
				return
			default:
			}
			end := c.EndOffset()
			err := c.Flush()
			if err == nil {
				err = c.tr.Durable(end)
			}
			if err != nil {
				<-stop
				errs <- err
				return
			}
		}
	}()
	var first error
	for range writers {
		if err := <-errs; first == nil {
			first = err
		}
	}
	close(stop)
	if err := <-errs; first == nil {
		first = err
	}
	return c.survive(first)
}

func crashWorkloads() []crashtest.Workload {
	var all []crashtest.Workload
	for _, s := range crashScripts {
		for _, level := range []Level{Durable, OS} {
			all = append(all, s.workload(level))
		}
	}
	return all
}

// envInt reads a number from the environment.
func envInt(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, text, err)
	}
	return n
}

// TestCrashUnnoticed is the workload's own: an append is refused for want of room on
// a machine that crashed since the append before it. That one may be found, though
// nobody was told that it is there.
func TestCrashUnnoticed(t *testing.T) {
	for _, name := range []string{"crash after the write", "no crash"} {
		t.Run(name, func(t *testing.T) {
			crash := name != "no crash"
			m := vfs.NewMem(vfs.CrashAt(1 << 30))
			tr := crashtest.NewTrace()
			c, err := openCrash(m, Config{SegmentBytes: 64 << 10}, tr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Abandon()
			c.Lock()
			defer c.Unlock()
			if err := errors.Join(c.stage(1, 10), c.Write()); err != nil {
				t.Fatal(err)
			}
			if crash {
				m.AfterKill() // the log in the background met the crash
			}
			if err := errors.Join(c.wrote(), c.stage(1, 10)); err != nil {
				t.Fatal(err)
			}
			c.Discard()
			err = c.failed(&CapError{Limit: 1, Used: 1, Wanted: 1})
			if got := errors.Is(err, vfs.ErrCrashed); got != crash {
				t.Errorf("the refusal is taken as %v", err)
			}
			if got, want := tr.End(), map[bool]int64{true: 2, false: 1}[crash]; got != want {
				t.Errorf("sent is up to %d, want %d", got, want)
			}
		})
	}
}

// TestCrashStates tries every operation of the workloads, and many of the states
// that each crash can leave. EMBEDLOG_CRASH_STATES says how many states,
// EMBEDLOG_CRASH_FROM with which pass to begin: a long run goes on where the last
// one ended.
func TestCrashStates(t *testing.T) {
	smallLog(t, 2048)
	x := &crashtest.Explorer{Workloads: crashWorkloads(), PerRun: 4, Step: 20000 / testcount.N(20000)}
	states := envInt(t, "EMBEDLOG_CRASH_STATES", testcount.N(20000))
	from := envInt(t, "EMBEDLOG_CRASH_FROM", 0)
	x.Progress = func(pass int, totals crashtest.Totals) {
		t.Logf("pass %d: %v", pass, totals)
	}
	totals, err := x.Explore(from, states)
	t.Logf("from pass %d: %v", from, totals)
	if err != nil {
		t.Fatal(err)
	}
}
