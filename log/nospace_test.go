package log

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A full disk that only the work behind the writer meets, indexes or checkpoint, stops
// appends within the bound of what open may have to read, and no longer than it is full.
func TestJobsHealWhenThereIsRoom(t *testing.T) {
	for _, name := range []string{"*.index", "*.timeindex", "checkpoint.tmp", reserveName} {
		t.Run(strings.Trim(name, "*."), func(t *testing.T) {
			fault := vfs.NewFault(vfs.NewMem())
			cfg := Config{Level: OS, SegmentBytes: 8 << 20}
			l := openTest(t, fault, cfg)
			if name == reserveName {
				cfg.ReserveBytes = 1 << 20
				if err := l.SetConfig(cfg); err != nil {
					t.Fatal(err)
				}
			}
			op := vfs.OpWrite
			if name == reserveName {
				op = vfs.OpAllocate
			}
			fault.Add(vfs.Rule{Op: op, Glob: name, Count: -1, Effect: vfs.Full(0)})
			value := strings.Repeat("x", 1<<20)
			write := func() error {
				l.Lock()
				defer l.Unlock()
				h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
				return errors.Join(l.StageRecords(1, &h, []Record{{Value: []byte(value)}}), l.Write())
			}
			written, failed := 0, 0
			for range 3 * MaxUnsyncedBytes >> 20 {
				switch err := write(); {
				case err == nil:
					written++
				case errors.Is(err, ErrNoSpace) && l.Err() == nil:
					failed++
				default:
					t.Fatal(err)
				}
			}
			if failed == 0 || written > MaxUnsyncedBytes>>20 {
				t.Fatalf("%d MiB were written while the disk was full, %d appends failed", written, failed)
			}
			fault.Clear()
			for i := range 2 * MaxUnsyncedBytes >> 20 {
				if err := write(); err != nil {
					t.Fatalf("append %d when there was room: %v", i, err)
				}
			}
			if n := int64(written + 2*MaxUnsyncedBytes>>20); l.EndOffset() != n {
				t.Fatalf("log ends at %d, want %d", l.EndOffset(), n)
			}
		})
	}
}

// A truncation that finds no room even for its checkpoint leaves the log as it was,
// and succeeds when there is room.
func TestTruncationOnAFullDisk(t *testing.T) {
	fs := vfs.NewMem()
	l := openTest(t, fs, Config{SegmentBytes: 2048})
	for i := range 40 {
		appendTest(t, l, 1, fmt.Sprint("v", i))
	}
	fs.SetCapacity(1)
	l.Lock()
	err := l.TruncateFrom(11)
	l.Unlock()
	if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrStorageFailed) || l.Err() != nil {
		t.Fatalf("truncate on a full disk: %v, then %v", err, l.Err())
	}
	wantContents(t, l, 0, 40)
	fs.SetCapacity(1 << 20)
	appendTest(t, l, 1, "v40")
	wantContents(t, l, 0, 41)
	l.Lock()
	err = l.TruncateFrom(11)
	l.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	wantContents(t, l, 0, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantContents(t, openTest(t, fs.AfterKill(), Config{SegmentBytes: 2048}), 0, 10)
}

// Not one block is left but what is kept back for checkpoints: a truncation to each place, also to one that frees no block, has
// the reserve for the file that it begins.
func TestTruncationWithoutABlock(t *testing.T) {
	const records = 40
	for index := uint64(2); index <= records; index++ {
		mem := vfs.NewMem()
		quota, err := vfs.NewQuota(mem, 0, 0, Essential)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{SegmentBytes: 2048, NoZeroing: true, ReserveBytes: 16 << 10}
		l := openTest(t, quota.View(vfs.QuotaOrdinary), cfg)
		for i := range records {
			appendTest(t, l, 1, fmt.Sprint("v", i))
		}
		quota.SetLimit(quota.Used()+16<<10, 16<<10)
		if quota.Room(vfs.QuotaOrdinary) != 0 {
			t.Fatalf("%d bytes are left", quota.Room(vfs.QuotaOrdinary))
		}
		l.Lock()
		err = l.TruncateFrom(index)
		l.Unlock()
		if err != nil {
			t.Fatalf("truncate at %d: %v", index, err)
		}
		wantContents(t, l, 0, int(index)-1)
		quota.SetLimit(0, 0)
		appendTest(t, l, 1, fmt.Sprint("v", index-1))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantContents(t, openTest(t, mem.AfterKill(), cfg), 0, int(index))
	}
}

// What was laid ahead of need is given back, and the log goes on as if nothing had
// been, also after a crash.
func TestGiveBack(t *testing.T) {
	for _, level := range []Level{Durable, OS} {
		t.Run(level.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			l := openTest(t, mem, Config{Level: level, SegmentBytes: 8 << 20})
			for i := range 100 {
				appendTest(t, l, 1, fmt.Sprint("v", i))
			}
			if l.AheadBytes() < 16<<10 {
				t.Fatalf("only %d bytes lie ahead", l.AheadBytes())
			}
			took := l.AllocatedBytes()
			l.Lock()
			err := l.GiveBack()
			l.Unlock()
			if err != nil || l.AheadBytes() > 4096 || l.AllocatedBytes() > took-16<<10 {
				t.Fatalf("%v; %d bytes lie ahead, the log takes %d, was %d", err, l.AheadBytes(), l.AllocatedBytes(), took)
			}
			for i := range 100 {
				appendTest(t, l, 1, fmt.Sprint("v", 100+i))
			}
			wantContents(t, l, 0, 200)
			wantContents(t, openTest(t, mem.AfterKill(), Config{}), 0, 200)
		})
	}
}

// A goroutine that was to lay zeros when room was given back, and gets to it only
// then, does not take it again.
func TestGiveBackForGood(t *testing.T) {
	l := openTest(t, vfs.NewMem(), Config{Level: OS, SegmentBytes: 8 << 20})
	appendTest(t, l, 1, "v0")
	l.Lock()
	defer l.Unlock()
	l.bg.running.Wait()
	r := l.w.runway
	r.mu.Lock()
	r.working, r.target = true, 1<<20 // as more does it
	r.running.Add(1)
	r.mu.Unlock()
	if err := l.GiveBack(); err != nil {
		t.Fatal(err)
	}
	r.work()
	if l.AheadBytes() > 4096 {
		t.Errorf("%d bytes lie ahead", l.AheadBytes())
	}
}

// A group that would fit is not refused because the zeros ahead of it would not.
func TestAppendWithoutRoomForZeros(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	l := openTest(t, fault, Config{Level: OS})
	fault.Add(vfs.Rule{Op: vfs.OpZero, Count: -1, Effect: vfs.Full(0)})
	for i := range 100 {
		appendTest(t, l, 1, fmt.Sprint("v", i))
	}
	fault.Clear()
	for i := range 100 {
		appendTest(t, l, 1, fmt.Sprint("v", 100+i))
	}
	wantContents(t, l, 0, 200)
}

func TestEssential(t *testing.T) {
	for name, want := range map[string]bool{
		"checkpoint.tmp": true, "topics/x/0/checkpoint.tmp": true, "a/reserve": true,
		"checkpoint": false, "00000000000000000000.log": false, "reserve/x": false,
	} {
		if got := Essential(name); got != want {
			t.Errorf("Essential(%q) = %t", name, got)
		}
	}
}
