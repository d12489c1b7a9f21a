package log

import (
	"errors"
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
