package log

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// raftEntry is an entry as a replicator keeps it, without a log.
type raftEntry struct {
	kind   Kind
	epoch  uint64
	value  string
	offset int64 // first one
	next   int64
}

// A log does for a replicator what a slice of entries does: append at an index and
// epoch, take a tail back and put another in its place, forget the beginning, open
// again after a close or a kill.
func TestLogAsRaftLog(t *testing.T) {
	base := rand.Uint64() >> 1
	truncations := 0
	for i := range testcount.N(100) {
		truncations += runRaftLog(t, base+uint64(i))
	}
	if testcount.N(100) == 100 && truncations < 100 {
		t.Errorf("%d truncations in all: too few to prove anything", truncations)
	}
}

func runRaftLog(t *testing.T, seed uint64) (truncations int) {
	rnd := rand.New(rand.NewPCG(seed, 4))
	fs := vfs.NewMem()
	cfg := Config{Level: Level(rnd.IntN(3)), SegmentBytes: 1<<10 + rnd.Int64N(2<<10), IndexIntervalBytes: 1 + rnd.IntN(600), SegmentAge: -1}
	var entries []raftEntry // index i+1
	epoch, start := uint64(1), int64(0)
	var ops []string
	fatalf := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s\nlast operations: %q", seed, fmt.Sprintf(format, args...), ops[max(0, len(ops)-12):])
	}
	open := func() *Log {
		l, err := Open("", &Options{FS: fs, Config: cfg})
		if err != nil {
			fatalf("open: %v", err)
		}
		return l
	}
	l := open()
	defer func() { l.Close() }()
	end := func() int64 {
		if len(entries) == 0 {
			return 0
		}
		return entries[len(entries)-1].next
	}
	for range 60 {
		switch n := rnd.IntN(12); {
		case n < 6:
			if rnd.IntN(4) == 0 {
				epoch += 1 + rnd.Uint64N(3)
			}
			ops = append(ops, fmt.Sprintf("append at index %d epoch %d", len(entries)+1, epoch))
			l.Lock()
			if err := l.StageEntry(KindNoop, uint64(len(entries)+2), epoch, nil); err == nil {
				fatalf("an entry behind a gap was taken")
			}
			if len(entries) > 0 && entries[len(entries)-1].epoch > 1 {
				if err := l.StageEntry(KindNoop, 0, entries[len(entries)-1].epoch-1, nil); err == nil {
					fatalf("an entry of an older epoch was taken")
				}
			}
			for range 1 + rnd.IntN(4) {
				e := raftEntry{kind: KindData, epoch: epoch, value: fmt.Sprint(len(entries)+1, "/", epoch), offset: end()}
				var err error
				if rnd.IntN(4) == 0 {
					e.kind, e.next = []Kind{KindNoop, KindConfiguration, KindBarrier, KindCommand}[rnd.IntN(4)], e.offset
					err = l.StageEntry(e.kind, uint64(len(entries)+1), epoch, []byte(e.value))
				} else {
					h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
					recs := make([]Record, 1+rnd.IntN(3))
					recs[0].Value = []byte(e.value)
					e.next = e.offset + int64(len(recs))
					var b []byte
					if b, err = AppendBatch(nil, &h, recs); err == nil {
						err = l.StageBatch(uint64(len(entries)+1), epoch, b, -1)
					}
				}
				if err == ErrGroupFull {
					break // the segment is: what is staged goes in
				}
				if err != nil {
					fatalf("stage: %v", err)
				}
				entries = append(entries, e)
			}
			err := l.Write()
			if err == nil && (cfg.Level == Durable || rnd.IntN(3) == 0) {
				err = l.Sync()
			}
			l.Unlock()
			if err != nil {
				fatalf("write: %v", err)
			}
		case n < 9 && len(entries) > 0:
			// Committed is what lies below the log start; the tail is not.
			from := len(entries) - rnd.IntN(min(len(entries), 8))
			if entries[from-1].offset < start || uint64(from) <= l.Boundary().Index {
				break
			}
			ops = append(ops, fmt.Sprintf("truncate from %d", from))
			l.Lock()
			err := l.TruncateFrom(uint64(from))
			l.Unlock()
			if err != nil {
				fatalf("truncate from %d: %v", from, err)
			}
			entries = entries[:from-1]
			epoch++ // another leader's
			truncations++
		case n == 9:
			to := start + rnd.Int64N(end()-start+1)
			ops = append(ops, fmt.Sprintf("start moves to %d", to))
			l.Lock()
			err := l.TruncateTo(to)
			l.Unlock()
			if err != nil {
				fatalf("start to %d: %v", to, err)
			}
			start = to
		default:
			if rnd.IntN(2) == 0 {
				ops = append(ops, "close")
				if err := l.Close(); err != nil {
					fatalf("close: %v", err)
				}
				fs = fs.AfterKill()
			} else {
				ops = append(ops, "kill")
				old := l
				fs = fs.AfterKill()
				old.Close() // nothing it does arrives
			}
			l = open()
		}
		// The same answers from both.
		l.Lock()
		next, last := l.NextIndex(), l.LastEpoch()
		l.Unlock()
		if next != uint64(len(entries)+1) || l.EndOffset() != end() || l.StartOffset() != start {
			fatalf("next index %d, offsets %d to %d; want %d, %d to %d", next, l.StartOffset(), l.EndOffset(), len(entries)+1, start, end())
		}
		if n := len(entries); n > 0 && last != entries[n-1].epoch {
			fatalf("last epoch %d, want %d", last, entries[n-1].epoch)
		}
		b := l.Boundary()
		if b.Index > 0 && entries[b.Index-1].epoch != b.Epoch {
			fatalf("boundary %+v, the entry's epoch is %d", b, entries[b.Index-1].epoch)
		}
		for i := b.Index; i < uint64(len(entries)); i++ {
			want := entries[i]
			f, err := l.Entry(i + 1)
			if err != nil || f.Kind != want.kind || f.Index != i+1 || f.Epoch != want.epoch || f.Offset != want.offset || f.NextOffset != want.next || !bytes.Contains(f.Payload, []byte(want.value)) {
				fatalf("entry %d: %+v, %v; want %+v", i+1, f, err, want)
			}
		}
		if _, err := l.Entry(b.Index); err == nil {
			fatalf("the boundary %d can be read", b.Index)
		}
	}
	return truncations
}
