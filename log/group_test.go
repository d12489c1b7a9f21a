package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/x/embedlog/internal/crashtest"
	"github.com/x/embedlog/internal/vfs"
)

// lendFrom sets lendBytes for a test.
func lendFrom(t *testing.T, n int) {
	old := lendBytes
	lendBytes = n
	t.Cleanup(func() { lendBytes = old })
}

// encoded is a batch of one record with a value of so many bytes.
func encoded(t *testing.T, rnd *rand.Rand, bytes int) []byte {
	t.Helper()
	value := make([]byte, bytes)
	for i := range value {
		value[i] = byte(rnd.Uint32())
	}
	h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
	b, err := AppendBatch(nil, &h, []Record{{Value: value, Timestamp: 5}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Groups of batches, records and entries in any order come out as they were staged,
// whichever batches are lent, over segments, discarded groups and at every level. Batches
// are not changed, are free when the group is written, and the log keeps none of them.
func TestGroupsLend(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		lendFrom(t, []int{1, 300, 5000, 1 << 30}[rnd.IntN(4)])
		cfg := Config{Level: Level(rnd.IntN(3)), SegmentBytes: 64 << 10, IndexIntervalBytes: 1 << 10}
		mem := vfs.NewMem()
		l := openTest(t, mem, cfg)
		type entry struct {
			kind    Kind
			payload []byte
		}
		var want, staged []entry
		var batches, copies [][]byte
		reuse := func() {
			for i, b := range batches {
				if !bytes.Equal(b, copies[i]) {
					t.Fatalf("seed %d: a batch was changed", seed)
				}
				clear(b)
			}
			batches, copies = batches[:0], copies[:0]
		}
		settle := func() {
			if rnd.IntN(8) == 0 {
				l.Discard()
			} else {
				if err := l.Write(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				want = append(want, staged...)
			}
			staged = nil
			reuse()
			if l.Lends() || l.StagedBytes() != 0 {
				t.Fatalf("seed %d: %d bytes are staged after all was written", seed, l.StagedBytes())
			}
			for _, p := range l.w.group.list[:cap(l.w.group.list)] {
				if p != nil {
					t.Fatalf("seed %d: the log holds a piece of a group that was written", seed)
				}
			}
			for _, p := range l.w.group.lent[:cap(l.w.group.lent)] {
				if p.bytes != nil {
					t.Fatalf("seed %d: the log holds a batch that was written", seed)
				}
			}
		}
		l.Lock()
		for range 60 {
			before, lent := l.StagedBytes(), len(l.w.group.lent)
			var is entry
			stage := func() error {
				is = entry{kind: KindNoop, payload: []byte("entry")}
				if rnd.IntN(4) == 0 {
					return l.StageEntry(KindNoop, 0, 1, is.payload)
				}
				is = entry{KindData, encoded(t, rnd, rnd.IntN(12_000))}
				SetBatchOffset(is.payload, l.StagedOffset(), 1)
				b, appendTime := bytes.Clone(is.payload), int64(-1)
				SetBatchOffset(b, 77, 7) // whatever the caller's say
				if rnd.IntN(3) == 0 {
					appendTime = rnd.Int64N(1 << 40)
					SetAppendTime(is.payload, appendTime)
				}
				batches, copies = append(batches, b), append(copies, bytes.Clone(b))
				return l.StageBatch(0, 1, b, appendTime)
			}
			err := stage()
			if errors.Is(err, ErrGroupFull) {
				if l.StagedBytes() != before || len(l.w.group.lent) != lent {
					t.Fatalf("seed %d: a full group went from %d bytes to %d, from %d lent batches to %d",
						seed, before, l.StagedBytes(), lent, len(l.w.group.lent))
				}
				settle()
				before, lent = 0, 0
				err = stage()
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			staged = append(staged, is)
			length := len(is.payload)
			if is.kind != KindData {
				length += otherHeadLen
			}
			if got := l.StagedBytes() - before; got != frameHeaderLen+length {
				t.Fatalf("seed %d: a frame with %d bytes made the group %d larger", seed, length, got)
			}
			if lends := is.kind == KindData && length-BatchHeaderLen >= lendBytes; (len(l.w.group.lent) > lent) != lends {
				t.Fatalf("seed %d: of %d bytes on a batch is lent; one of %d: %t", seed, lendBytes, length, !lends)
			}
			if rnd.IntN(4) == 0 {
				settle()
			}
		}
		settle()
		l.Unlock()
		check := func(l *Log) {
			t.Helper()
			r, err := l.ReadFromIndex(1)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for i := 0; ; i++ {
				f, err := r.Next()
				if err == io.EOF && i == len(want) {
					break
				}
				if err != nil || i == len(want) {
					t.Fatalf("seed %d: entry %d of %d: %v", seed, i, len(want), err)
				}
				if f.Kind != want[i].kind || !bytes.Equal(f.Payload, want[i].payload) {
					t.Fatalf("seed %d: entry %d is %v of %d bytes, staged was %v of %d", seed, i, f.Kind, len(f.Payload), want[i].kind, len(want[i].payload))
				}
			}
		}
		check(l)
		l.Close()
		check(openTest(t, mem.AfterKill(), cfg))
	}
}

// A vectored write that fails, wherever it stops, leaves nothing of its group, and the
// log goes on.
func TestLentWriteFails(t *testing.T) {
	lendFrom(t, 100)
	rnd := rand.New(rand.NewPCG(1, 1))
	big, small := encoded(t, rnd, 40_000), encoded(t, rnd, 10)
	stage := func(l *Log) {
		t.Helper()
		for _, b := range [][]byte{big, small, big} {
			if err := l.StageBatch(0, 1, b, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	head := frameHeaderLen + BatchHeaderLen
	whole := 2*(frameHeaderLen+len(big)) + frameHeaderLen + len(small)
	for _, level := range []Level{Durable, OS} {
		for _, n := range []int{-1, 0, 1, frameHeaderLen, head - 1, head, head + 1, 20_000, frameHeaderLen + len(big), frameHeaderLen + len(big) + 60, whole - 1} {
			for name, effect := range map[string]vfs.Effect{"full": vfs.Full(max(n, 0)), "short": vfs.Short(max(n, 0)), "EIO": vfs.Fail(nil)} {
				if n >= 0 && name == "EIO" {
					continue
				}
				t.Run(fmt.Sprintf("level=%v/%s after %d", level, name, n), func(t *testing.T) {
					mem := vfs.NewMem()
					fault := vfs.NewFault(mem)
					l := openTest(t, fault, Config{Level: level})
					appendTest(t, l, 1, "before")
					l.Lock()
					defer l.Unlock()
					fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: effect})
					stage(l)
					if err := l.Write(); err == nil || errors.Is(err, ErrStorageFailed) || errors.Is(err, ErrNoSpace) != (name == "full") {
						t.Fatalf("got %v", err)
					}
					if fault.Hits() != 1 || l.EndOffset() != 1 || l.StagedBytes() != 0 {
						t.Fatalf("%d hits, the log ends at %d, %d bytes are staged", fault.Hits(), l.EndOffset(), l.StagedBytes())
					}
					if n%2 == 0 { // what arrived is gone from the file too
						for _, m := range []*vfs.Mem{mem.AfterKill(), mem.AfterCrash(vfs.KeepAll)} {
							if end := openTest(t, m, Config{Level: level}).EndOffset(); end != 1 {
								t.Errorf("after a crash the log ends at %d", end)
							}
						}
						return
					}
					stage(l)
					if err := l.Write(); err != nil || l.EndOffset() != 4 {
						t.Fatalf("the next group: %v, the log ends at %d", err, l.EndOffset())
					}
				})
			}
		}
	}
}

// Every operation of the workload that lends is cut by a crash once, and fails once in
// every way: see TestCrashStates and TestEveryOperationFailsOnce, which do so in steps.
func TestLendingAtEveryOperation(t *testing.T) {
	smallLog(t, 2048)
	x := &crashtest.Explorer{Workloads: []crashtest.Workload{lending.workload(Durable), lending.workload(OS)}, PerRun: 1}
	for i := range x.Workloads {
		points := 0
		for done := false; !done; points++ {
			var err error
			if done, _, err = x.Point(i, points, 0); err != nil {
				t.Fatalf("%s: crash at operation %d: %v", x.Workloads[i].Name, points, err)
			}
		}
		for _, fault := range faults {
			for _, tolerant := range []bool{false, true} {
				for k, done := 0, false; !done; k++ {
					var err error
					if done, _, err = x.FaultPoint(i, k, fault.effect, tolerant); err != nil {
						t.Fatalf("%s: %s at operation %d, tolerant=%t: %v", x.Workloads[i].Name, fault.name, k, tolerant, err)
					}
				}
			}
		}
		if points < 20 {
			t.Errorf("%s has %d operations", x.Workloads[i].Name, points)
		}
	}
}
