package log

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/model"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// keyed is a random workload of keys, tombstones and transactions, told to a log
// and to the naive one alike. It is also the owner that compaction asks.
type keyed struct {
	rng  *rand.Rand
	m    *model.Log
	seq  map[int64]int32
	open map[int64]bool
	last map[int64]int64 // producer to the base offset of its last batch
	now  int64
}

func newKeyed(seed uint64) *keyed {
	return &keyed{
		rng: rand.New(rand.NewPCG(seed, 7)), m: model.New(0),
		seq: map[int64]int32{}, open: map[int64]bool{}, last: map[int64]int64{}, now: 1000,
	}
}

// step appends one batch, marker or entry.
func (k *keyed) step(l *Log) error {
	l.Lock()
	defer l.Unlock()
	k.now++
	switch n := k.rng.IntN(20); {
	case n == 0:
		if err := l.StageEntry(KindNoop, 0, 1, []byte("noop")); err != nil {
			return err
		}
	case n < 8:
		p := int64(1 + k.rng.IntN(3))
		if k.open[p] && k.rng.IntN(2) == 0 {
			return k.mark(l, p)
		}
		k.open[p] = true
		return k.batch(l, p)
	default:
		return k.batch(l, -1)
	}
	return k.write(l)
}

func (k *keyed) batch(l *Log, producer int64) error {
	h := BatchHeader{ProducerID: producer, ProducerEpoch: -1, BaseSequence: -1}
	n := 1 + k.rng.IntN(4)
	if producer >= 0 {
		h.Attributes |= Transactional
		h.ProducerEpoch, h.BaseSequence = 0, k.seq[producer]
		k.seq[producer] += int32(n)
		k.last[producer] = l.EndOffset()
	}
	mb := model.Batch{ProducerID: producer, BaseSequence: -1, Transactional: producer >= 0}
	var recs []Record
	for range n {
		r := Record{Key: fmt.Append(nil, "key", k.rng.IntN(12)), Timestamp: k.now, Offset: l.EndOffset() + int64(len(recs))}
		if k.rng.IntN(4) > 0 {
			r.Value = fmt.Appendf(nil, "value %d %030d", r.Offset, k.rng.IntN(100))
		}
		mr := model.Record{Timestamp: r.Timestamp, Key: r.Key, Value: r.Value}
		if k.rng.IntN(3) == 0 {
			r.Headers = []Header{{"h", fmt.Append(nil, r.Offset)}}
			mr.Headers = []model.Header{{Key: "h", Value: r.Headers[0].Value}}
		}
		recs = append(recs, r)
		mb.Records = append(mb.Records, mr)
	}
	b, err := AppendBatch(nil, &h, recs)
	if err == nil && k.rng.IntN(3) == 0 {
		b, err = CompressBatch(nil, b, compress.Snappy, 0)
	}
	if err != nil {
		return err
	}
	if err := l.StageBatch(0, 1, b, -1); err != nil {
		return err
	}
	if err := k.write(l); err != nil {
		return err
	}
	k.m.Append(mb)
	return nil
}

func (k *keyed) mark(l *Log, producer int64) error {
	commit := k.rng.IntN(2) == 0
	h := BatchHeader{ProducerID: producer, BaseSequence: -1, Attributes: Transactional | Control}
	r := Record{Timestamp: k.now}
	r.Key, r.Value = EndTxnMarker(commit, 0)
	if err := l.StageRecords(1, &h, []Record{r}); err != nil {
		return err
	}
	if err := k.write(l); err != nil {
		return err
	}
	k.open[producer] = false
	k.m.EndTxn(model.Marker{Commit: commit, ProducerID: producer, Timestamp: k.now})
	return nil
}

func (k *keyed) write(l *Log) error {
	if err := l.Write(); err != nil {
		return err
	}
	return l.Sync()
}

// policy is what the owner of the log would say.
func (k *keyed) policy() CompactPolicy {
	aborted := k.m.Aborted(0, k.m.End())
	return CompactPolicy{
		Upto: k.m.LastStable(k.m.End()),
		Now:  time.UnixMilli(k.now),
		Batch: func(h *BatchHeader, _ []byte) (v BatchVerdict) {
			for _, t := range aborted {
				if h.ProducerID == t.ProducerID && h.BaseOffset >= t.First && h.BaseOffset < t.Marker && h.Attributes.Has(Transactional) {
					v.Aborted = true
				}
			}
			last, ok := k.last[h.ProducerID]
			v.Pinned = ok && h.BaseOffset <= last && h.LastOffset() >= last && !h.Attributes.Has(Control)
			return v
		},
	}
}

// readModel reads the whole log as the model has it, and checks every batch.
func readModel(l *Log) (got []model.Record, err error) {
	r, err := l.ReadFrom(l.StartOffset())
	if err != nil {
		return nil, err
	}
	index := l.Boundary().Index + 1
	for {
		f, err := r.Next()
		if err == io.EOF {
			if index != l.NextIndex() {
				return nil, fmt.Errorf("read up to log index %d, the next one is %d", index, l.NextIndex())
			}
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if f.FirstIndex != index {
			return nil, fmt.Errorf("frame stands for log indexes from %d on, want %d", f.FirstIndex, index)
		}
		index = f.Index + 1
		if f.Kind != KindData {
			continue
		}
		h, err := CheckBatch(f.Payload, Limits{Stored: true, AllowControl: true, MaxBatchBytes: -1})
		if err != nil {
			return nil, err
		}
		for rec, err := range Batch(f.Payload).Records(0) {
			if err != nil {
				return nil, err
			}
			m := model.Record{Offset: rec.Offset, Timestamp: rec.Timestamp, Key: rec.Key, Value: rec.Value}
			if h.Attributes.Has(Control) {
				t, _, err := ParseControl(&rec)
				if err != nil {
					return nil, err
				}
				m.Key, m.Value, m.Kind = nil, nil, model.Abort
				if t == ControlCommit {
					m.Kind = model.Commit
				}
			}
			for _, h := range rec.Headers {
				m.Headers = append(m.Headers, model.Header{Key: h.Key, Value: h.Value})
			}
			got = append(got, m)
		}
	}
}

// checkClean says whether the log is what the model allows and nothing below
// cleaned is superseded by a committed record below it.
func (k *keyed) checkClean(l *Log, cleaned int64) error {
	got, err := readModel(l)
	if err != nil {
		return err
	}
	if err := k.m.CheckCompacted(got); err != nil {
		return err
	}
	last := map[string]int64{}
	for _, r := range k.m.Committed(0, k.m.End()) {
		if r.Offset < cleaned {
			last[string(r.Key)] = r.Offset
		}
	}
	for _, r := range got {
		if r.Kind == model.Data && r.Offset < cleaned && last[string(r.Key)] != r.Offset {
			return fmt.Errorf("%v is left, offset %d has the last value of its key", r, last[string(r.Key)])
		}
	}
	return nil
}

func TestCompactRandom(t *testing.T) {
	for seed := range uint64(testcount.N(25)) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			compactRandom(t, seed)
		})
	}
}

func compactRandom(t *testing.T, seed uint64) {
	k := newKeyed(seed)
	fs := vfs.NewMem()
	cfg := Config{SegmentBytes: 1024 << k.rng.IntN(3), IndexIntervalBytes: 200}
	l := openTest(t, fs, cfg)
	dropped := false
	for range 6 {
		for range 120 {
			if err := k.step(l); err != nil {
				t.Fatal(err)
			}
		}
		p := k.policy()
		p.DeleteRetention = time.Duration(k.rng.IntN(200)) * time.Millisecond
		p.MergeBytes = []int{0, -1, 300}[k.rng.IntN(3)]
		p.MapBytes = []int{0, 1, 600}[k.rng.IntN(3)]
		p.SegmentBytes = cfg.SegmentBytes << k.rng.IntN(3)
		p.Recompress, p.Codec = k.rng.IntN(2) == 0, compress.LZ4
		before := len(*l.segs.Load())
		report, err := l.Compact(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		if report.CleanedOffset > p.Upto || report.Rounds == 0 || report.RecordsKept >= report.RecordsRead || report.BadBatches > 0 {
			t.Fatalf("upto %d: %+v", p.Upto, report)
		}
		if n := len(*l.segs.Load()); n > before || report.SegmentsNow > report.SegmentsBefore {
			t.Fatalf("%d segments became %d: %+v", before, n, report)
		}
		if err := k.checkClean(l, report.CleanedOffset); err != nil {
			t.Fatalf("%v\n%+v", err, report)
		}
		if st, err := l.CompactionState(p.Upto); err != nil || st.DirtyBytes != 0 || st.CleanedOffset != report.CleanedOffset {
			t.Fatalf("state %+v %v after %+v", st, err, report)
		}
		if first := l.FirstCompleteIndex(); first < (*l.segs.Load())[0].endIndex {
			t.Fatalf("first complete index is %d", first)
		}
		if horizon := report.NextHorizon; horizon != 0 {
			k.now = horizon
			p.Now, p.Again = time.UnixMilli(k.now), true
			again, err := l.Compact(context.Background(), p)
			if err != nil || again.Rounds == 0 {
				t.Fatalf("again: %+v %v", again, err)
			}
			dropped = dropped || again.RecordsKept < again.RecordsRead
			if err := k.checkClean(l, again.CleanedOffset); err != nil {
				t.Fatal(err)
			}
		}
		for offset := int64(0); offset < l.EndOffset(); offset += 7 {
			wantSeek(t, l, offset)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openTest(t, fs, cfg)
		if err := k.checkClean(l, report.CleanedOffset); err != nil {
			t.Fatalf("reopened: %v", err)
		}
		wantVerified(t, l)
	}
	if !dropped {
		t.Error("no tombstone was ever dropped")
	}
	if got := leftovers(t, fs); len(got) > 0 {
		t.Errorf("left over: %v", got)
	}
}

// wantSeek checks that a reader starts at the frame that holds offset or comes next.
func wantSeek(t *testing.T, l *Log, offset int64) {
	t.Helper()
	r, err := l.ReadFrom(offset)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Next()
	if err != nil {
		t.Fatalf("read from %d: %v", offset, err)
	}
	if f.Kind == KindData && f.NextOffset <= offset {
		t.Fatalf("read from %d starts at %d", offset, f.Offset)
	}
	if b, err := l.ReadBefore(f.Offset); err == nil && f.Offset > 0 {
		if prev, err := b.Next(); err == nil && prev.NextOffset > offset {
			t.Fatalf("read from %d starts at %d, the frame before ends at %d", offset, f.Offset, prev.NextOffset)
		}
	}
}

func leftovers(t *testing.T, fs vfs.FS) (names []string) {
	t.Helper()
	infos, err := fs.List(".")
	if err != nil {
		t.Fatal(err)
	}
	data := map[string]bool{}
	for _, i := range infos {
		if _, ok := parseSegmentName(i.Name); ok {
			data[i.Name[:20]] = true
		}
	}
	for _, i := range infos {
		if i.Name != checkpointName && i.Name != lockName && i.Name != spareName && (len(i.Name) < 20 || !data[i.Name[:20]] || i.Name[len(i.Name)-4:] == tmpSuffix) {
			names = append(names, i.Name)
		}
	}
	return names
}

// TestCompactCrash stops a compaction at each operation on the files, and looks at
// what power cuts and a kill make of that.
func TestCompactCrash(t *testing.T) {
	base := vfs.NewMem()
	k := newKeyed(3)
	cfg := Config{SegmentBytes: 2048, IndexIntervalBytes: 200}
	l := openTest(t, base, cfg)
	for range 90 {
		if err := k.step(l); err != nil {
			t.Fatal(err)
		}
	}
	p := k.policy()
	p.SegmentBytes, p.MapBytes = 4096, 300
	if _, err := l.Compact(context.Background(), p); err != nil { // the second round starts from compacted segments
		t.Fatal(err)
	}
	for range 60 {
		if err := k.step(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p = k.policy()
	p.SegmentBytes, p.DeleteRetention = 4096, -1
	for n := 0; ; n++ {
		m := base.AfterCrash(vfs.KeepAll, vfs.CrashAt(n))
		if l, err := Open("", &Options{FS: m, Config: cfg}); err == nil {
			_, err = l.Compact(context.Background(), p)
			if err == nil && l.Close() == nil && !m.Crashed() {
				if n < 40 {
					t.Fatalf("the whole run took %d operations", n)
				}
				return
			}
		}
		for seed := range uint64(4) {
			after := m.AfterCrash(vfs.Random(seed + uint64(n)*10))
			if seed == 3 {
				after = m.AfterKill()
			}
			l, err := Open("", &Options{FS: after, Config: cfg})
			if err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			if err := l.Err(); err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			if err := k.checkClean(l, 0); err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			report, err := l.Compact(context.Background(), p)
			if err != nil {
				t.Fatalf("crash at %d, seed %d: compact again: %v", n, seed, err)
			}
			if err := k.checkClean(l, report.CleanedOffset); err != nil {
				t.Fatalf("crash at %d, seed %d: compacted again: %v", n, seed, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if got := leftovers(t, after); len(got) > 0 {
				t.Fatalf("crash at %d, seed %d: left over: %v", n, seed, got)
			}
		}
	}
}
