package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/x/embedlog/internal/model"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// modelRun drives a log and the naive one with the same operations.
type modelRun struct {
	t      testing.TB
	seed   uint64
	rnd    *rand.Rand
	fs     *vfs.Mem
	cfg    Config
	l      *Log
	m      *model.Log
	epoch  uint64
	bases  []int64 // where batches begin, what was deleted included
	sent   int     // makes values unique
	synced int64   // what a power cut may not take
	ops    []string
	counts map[string]int
	// compacted says that records may be missing that later ones of their key replace.
	compacted bool
}

func (r *modelRun) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("seed %d: %s\nlast operations: %q", r.seed, fmt.Sprintf(format, args...), r.ops[max(0, len(r.ops)-12):])
}

func (r *modelRun) did(what, format string, args ...any) {
	r.counts[what]++
	r.ops = append(r.ops, what+" "+fmt.Sprintf(format, args...))
}

// Whatever is appended, cut at both ends, compacted, closed, killed and cut off the
// power, the log reads and looks up what the naive log does.
func TestLogAgainstModel(t *testing.T) {
	base := rand.Uint64() >> 1
	counts := map[string]int{}
	runs := testcount.N(100)
	for i := range runs {
		runLogModel(t, base+uint64(i), counts)
	}
	t.Logf("seeds %d to %d: %v", base, base+uint64(runs)-1, counts)
	for _, what := range []string{"append", "truncate end", "truncate start", "close", "kill", "power cut", "compact", "sync"} {
		if runs == 100 && counts[what] < 50 {
			t.Errorf("%q came up %d times only", what, counts[what])
		}
	}
}

func runLogModel(t testing.TB, seed uint64, counts map[string]int) {
	rnd := rand.New(rand.NewPCG(seed, 9))
	r := &modelRun{t: t, seed: seed, rnd: rnd, fs: vfs.NewMem(), m: model.New(0), epoch: 1, counts: counts}
	r.cfg = Config{Level: Level(rnd.IntN(3)), SegmentBytes: 1<<10 + rnd.Int64N(4<<10), IndexIntervalBytes: 1 + rnd.IntN(800), SegmentAge: -1}
	withCompaction := rnd.IntN(2) == 0
	r.open()
	defer func() { r.l.Close() }()
	for range 60 {
		switch n := rnd.IntN(24); {
		case n < 12:
			r.append()
		case n < 14:
			r.truncateEnd()
		case n == 14:
			r.truncateStart()
		case n < 17:
			r.sync()
		case n < 19:
			r.restart(n == 17)
		case n == 19:
			r.powerCut()
		case n < 22 && withCompaction:
			r.compact()
		}
		r.compare()
	}
}

func (r *modelRun) open() {
	l, err := Open("", &Options{FS: r.fs, Config: r.cfg})
	if err != nil {
		r.fatalf("open: %v", err)
	}
	if damage := l.Recovered().Corruption; damage != nil {
		r.fatalf("open: %v", damage)
	}
	r.l, r.epoch = l, max(r.epoch, l.LastEpoch())
	r.synced = l.EndOffset()
}

// append appends a group of batches.
func (r *modelRun) append() {
	r.l.Lock()
	defer r.l.Unlock()
	if r.rnd.IntN(6) == 0 {
		r.epoch += 1 + r.rnd.Uint64N(2)
	}
	batches := 1 + r.rnd.IntN(3)
	for range batches {
		var recs []Record
		mb := model.Batch{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LeaderEpoch: int32(r.epoch)}
		for range 1 + r.rnd.IntN(3) {
			r.sent++
			rec := Record{Key: fmt.Appendf(nil, "k%d", r.rnd.IntN(6)), Value: fmt.Appendf(nil, "%d %0*d", r.sent, r.rnd.IntN(200), 0), Timestamp: r.rnd.Int64N(5000)}
			recs = append(recs, rec)
			mb.Records = append(mb.Records, model.Record{Key: rec.Key, Value: rec.Value, Timestamp: rec.Timestamp})
		}
		h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		err := r.l.StageRecords(r.epoch, &h, recs)
		if errors.Is(err, ErrGroupFull) {
			if err = r.l.Write(); err == nil {
				err = r.l.StageRecords(r.epoch, &h, recs)
			}
		}
		if err != nil {
			r.fatalf("stage: %v", err)
		}
		base, _, _ := r.m.Append(mb)
		if h.BaseOffset != base {
			r.fatalf("staged at %d, want %d", h.BaseOffset, base)
		}
		r.bases = append(r.bases, base)
	}
	if err := r.l.Write(); err != nil {
		r.fatalf("write: %v", err)
	}
	r.did("append", "%d batches to %d, epoch %d", batches, r.m.End(), r.epoch)
}

func (r *modelRun) sync() {
	if err := r.l.Flush(); err != nil {
		r.fatalf("sync: %v", err)
	}
	r.synced = r.l.EndOffset()
	r.did("sync", "to %d", r.synced)
}

func (r *modelRun) truncateEnd() {
	if len(r.bases) == 0 {
		return
	}
	base := r.bases[len(r.bases)-1-r.rnd.IntN(min(4, len(r.bases)))]
	if base < r.m.Start() {
		return
	}
	rd, err := r.l.ReadFrom(base)
	if err != nil {
		r.fatalf("read from %d: %v", base, err)
	}
	f, err := rd.Next()
	if err != nil {
		r.fatalf("read at %d: %v", base, err)
	}
	if f.Offset != base || f.FirstIndex < r.l.FirstCompleteIndex() {
		return // compaction was here: such entries are committed, and not taken back
	}
	r.l.Lock()
	err = r.l.TruncateFrom(f.FirstIndex)
	r.l.Unlock()
	if err != nil {
		r.fatalf("truncate at %d: %v", base, err)
	}
	r.m.Truncate(base)
	r.forget()
	r.synced = min(r.synced, base)
	r.epoch++
	r.did("truncate end", "at %d", base)
}

// forget drops the bases behind the end.
func (r *modelRun) forget() {
	r.bases = slices.DeleteFunc(r.bases, func(b int64) bool { return b >= r.m.End() })
}

func (r *modelRun) truncateStart() {
	to := r.m.Start() + r.rnd.Int64N(r.m.End()-r.m.Start()+1)
	r.l.Lock()
	err := r.l.TruncateTo(to)
	r.l.Unlock()
	if err != nil {
		r.fatalf("truncate to %d: %v", to, err)
	}
	r.m.DeleteTo(to)
	r.synced = max(r.synced, to)
	r.did("truncate start", "at %d", to)
}

// restart closes and opens the log, or opens what a kill left.
func (r *modelRun) restart(kill bool) {
	old := r.l
	if kill {
		r.fs = r.fs.AfterKill()
		old.Close() // nothing it does arrives
		r.did("kill", "")
	} else {
		if err := old.Close(); err != nil {
			r.fatalf("close: %v", err)
		}
		r.fs = r.fs.AfterKill()
		r.did("close", "")
	}
	r.open()
}

// powerCut opens what a power cut left: all that was synced, and a prefix of the rest.
func (r *modelRun) powerCut() {
	old, seed := r.l, r.rnd.Uint64()
	r.fs = r.fs.AfterCrash(vfs.Random(seed))
	old.Close()
	synced := r.synced
	r.open()
	end := r.l.EndOffset()
	if end < synced || end > r.m.End() || end < r.m.End() && !slices.Contains(r.bases, end) {
		r.fatalf("after a power cut the log ends at %d; synced was up to %d, sent to %d", end, synced, r.m.End())
	}
	r.did("power cut", "%#x: %d of %d", seed, end, r.m.End())
	r.m.Truncate(end)
	r.forget()
}

func (r *modelRun) compact() {
	r.sync()
	report, err := r.l.Compact(context.Background(), CompactPolicy{Upto: r.l.EndOffset()})
	if err != nil {
		r.fatalf("compact: %v", err)
	}
	if report.Rounds > 0 {
		r.compacted = true
	}
	r.did("compact", "%d rounds, to %d", report.Rounds, report.CleanedOffset)
}

// records are those of a frame from an offset on.
func (r *modelRun) records(f *Frame, from int64) (list []model.Record) {
	for rec, err := range Batch(f.Payload).Records(0) {
		if err != nil {
			r.fatalf("records at %d: %v", f.Offset, err)
		}
		if rec.Offset >= from {
			list = append(list, model.Record{Offset: rec.Offset, Timestamp: rec.Timestamp, Key: rec.Key, Value: rec.Value})
		}
	}
	return list
}

// compare asks both everything that readers can ask.
func (r *modelRun) compare() {
	start, end := r.m.Start(), r.m.End()
	if r.l.StartOffset() != start || r.l.EndOffset() != end {
		r.fatalf("the log is %d to %d, want %d to %d", r.l.StartOffset(), r.l.EndOffset(), start, end)
	}
	from := start + r.rnd.Int64N(end-start+1)
	all := r.forward(start)
	if r.compacted {
		if err := r.m.CheckCompacted(all); err != nil {
			r.fatalf("compacted: %v", err)
		}
	} else if want := r.m.Read(start, end); !slices.EqualFunc(all, want, model.Record.Same) {
		r.fatalf("read: got %v\nwant %v", all, want)
	}
	// From here on what was read in one piece is what the other ways are held against.
	tail := all[countBelow(all, from):]
	if got := r.forward(from); !slices.EqualFunc(got, tail, model.Record.Same) {
		r.fatalf("read from %d: got %v\nwant %v", from, got, tail)
	}
	r.backward(all, from)
	r.times(all)
	r.indexes(all)
	for _, bad := range []int64{start - 1, end + 1} {
		if _, err := r.l.ReadFrom(bad); !errors.Is(err, ErrOffsetGone) && !errors.Is(err, ErrOffsetAhead) {
			r.fatalf("read from %d of %d to %d: %v", bad, start, end, err)
		}
	}
}

func countBelow(all []model.Record, offset int64) int {
	n := 0
	for n < len(all) && all[n].Offset < offset {
		n++
	}
	return n
}

func (r *modelRun) forward(from int64) (list []model.Record) {
	rd, err := r.l.ReadFrom(from)
	if err != nil {
		r.fatalf("read from %d: %v", from, err)
	}
	for {
		f, err := rd.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			r.fatalf("read from %d: %v", from, err)
		}
		list = append(list, r.records(f, from)...)
	}
}

// backward walks from the start of a batch at or below an offset to the beginning.
func (r *modelRun) backward(all []model.Record, from int64) {
	i := len(r.bases) - 1
	for i >= 0 && r.bases[i] > from {
		i--
	}
	before := r.l.EndOffset()
	if i >= 0 && r.bases[i] >= r.m.Start() && !r.compacted { // batches that were joined begin elsewhere
		before = r.bases[i]
	}
	b, err := r.l.ReadBefore(before)
	if err != nil {
		r.fatalf("read before %d: %v", before, err)
	}
	var got []model.Record
	for {
		f, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			r.fatalf("read before %d: %v", before, err)
		}
		got = append(r.records(f, r.m.Start()), got...)
	}
	if want := all[:countBelow(all, before)]; !slices.EqualFunc(got, want, model.Record.Same) {
		r.fatalf("read before %d: got %v\nwant %v", before, got, want)
	}
}

// times looks up by time, and for the newest.
func (r *modelRun) times(all []model.Record) {
	ms := r.rnd.Int64N(5100)
	i := slices.IndexFunc(all, func(x model.Record) bool { return x.Timestamp >= ms })
	found, ok, err := r.l.OffsetForTime(ms)
	if err != nil || ok != (i >= 0) || ok && (found.Offset != all[i].Offset || found.Timestamp != all[i].Timestamp || found.Epoch != uint64(r.m.EpochAt(found.Offset))) {
		r.fatalf("offset for time %d: %+v %t %v; want record %d of %v", ms, found, ok, err, i, all)
	}
	newest := -1
	for i, x := range all {
		if newest < 0 || x.Timestamp > all[newest].Timestamp {
			newest = i
		}
	}
	found, ok, err = r.l.MaxTimestamp()
	if err != nil || ok != (newest >= 0) || ok && (found.Offset != all[newest].Offset || found.Timestamp != all[newest].Timestamp) {
		r.fatalf("newest: %+v %t %v; want record %d of %v", found, ok, err, newest, all)
	}
}

// indexes looks up a few entries by log index: the frame, or the one that replaces it.
func (r *modelRun) indexes(all []model.Record) {
	r.l.Lock()
	next := r.l.NextIndex()
	r.l.Unlock()
	first := r.l.Boundary().Index + 1
	if next == first {
		return
	}
	for range 3 {
		index := first + r.rnd.Uint64N(next-first)
		f, err := r.l.Entry(index)
		if err != nil || index < f.FirstIndex || index > f.Index {
			r.fatalf("entry %d of %d to %d: %+v, %v", index, first, next, f, err)
		}
		for _, x := range r.records(f, r.m.Start()) {
			if i := countBelow(all, x.Offset); i == len(all) || !x.Same(all[i]) {
				r.fatalf("entry %d holds %v, which is not what is read there", index, x)
			}
		}
	}
}
