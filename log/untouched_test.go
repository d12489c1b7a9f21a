package log

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// A log that was only read is closed without a write; one of which anything has
// changed is not.
func TestCloseOfAnUntouchedLog(t *testing.T) {
	write := func(l *Log) error {
		l.Lock()
		defer l.Unlock()
		return errors.Join(l.StageRecords(0, &BatchHeader{ProducerID: -1}, []Record{{Value: []byte("v")}}), l.Write(), l.Sync())
	}
	for _, row := range []struct {
		name    string
		do      func(l *Log) error
		state   string // the owner's
		touches bool
	}{
		{"nothing", func(*Log) error { return nil }, "s", false},
		{"a read", func(l *Log) error { return l.Scan(0, l.EndOffset(), func(*Frame) error { return nil }) }, "s", false},
		{"a sync of nothing", (*Log).Flush, "s", false},
		{"a record", write, "s", true},
		{"another segment", func(l *Log) error { l.Lock(); defer l.Unlock(); return l.Roll() }, "s", true},
		{"another start", func(l *Log) error { l.Lock(); defer l.Unlock(); return l.TruncateTo(1) }, "s", true},
		{"a record less", func(l *Log) error { l.Lock(); defer l.Unlock(); return l.TruncateFrom(2) }, "s", true},
		{"another state", func(*Log) error { return nil }, "t", true},
		{"half a minute", func(*Log) error { time.Sleep(30 * time.Second); return nil }, "s", false},
		{"a minute", func(*Log) error { time.Sleep(time.Minute); return nil }, "s", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := vfs.NewMem()
				state := "s"
				o := &Options{FS: fs, NoLock: true, Snapshot: func(dst []byte) []byte { return append(dst, state...) }}
				l, err := Open("", o)
				if err == nil {
					err = errors.Join(write(l), write(l), l.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
				if l, err = Open("", o); err != nil {
					t.Fatal(err)
				}
				if err := row.do(l); err != nil {
					t.Fatal(err)
				}
				state = row.state
				start, end := l.StartOffset(), l.EndOffset()
				ops := fs.Ops()
				if row.touches {
					ops = -1 // what was done may have settled it
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if !row.touches && fs.Ops() != ops {
					t.Errorf("Close changes files %d times", fs.Ops()-ops)
				}
				if l, err = Open("", &Options{FS: fs.AfterCrash(vfs.KeepNone)}); err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				if r := l.Recovered(); !r.Clean || string(r.State) != row.state || l.StartOffset() != start || l.EndOffset() != end {
					t.Errorf("after a power cut: %d to %d of %d to %d, %+v", l.StartOffset(), l.EndOffset(), start, end, r)
				}
				if row.name == "a minute" && l.ran() < time.Minute.Milliseconds() {
					t.Errorf("it ran for %d ms", l.ran())
				}
			})
		})
	}
}

// An append that fails takes the end mark with it: Close makes it durable again.
func TestCloseAfterAFailedAppend(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(l *Log, f *vfs.Fault) error
	}{
		{"half a write", func(l *Log, f *vfs.Fault) error {
			f.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: vfs.Short(7)})
			if err := l.Write(); err == nil || l.Err() != nil {
				return fmt.Errorf("half a write: %v, %v", err, l.Err())
			}
			return nil
		}},
		{"no room", func(l *Log, f *vfs.Fault) error {
			f.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: vfs.Full(7)})
			if err := l.Write(); !errors.Is(err, ErrNoSpace) || l.Err() != nil {
				return fmt.Errorf("no room: %v, %v", err, l.Err())
			}
			return nil
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			mem := vfs.NewMem()
			l := openTest(t, mem, Config{})
			appendTest(t, l, 1, "v0")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			f := vfs.NewFault(mem)
			l = openTest(t, f, Config{})
			l.Lock()
			err := l.StageRecords(1, &BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, []Record{{Value: []byte("v1")}})
			err = errors.Join(err, row.do(l, f))
			l.Unlock()
			if err := errors.Join(err, l.Close()); err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(20) {
				l = openTest(t, mem.AfterCrash(vfs.Random(seed)), Config{})
				if r := l.Recovered(); !r.Clean || l.EndOffset() != 1 {
					t.Errorf("power cut %d: the log ends at %d, %+v", seed, l.EndOffset(), r)
				}
			}
		})
	}
}

// An index that was lost is written again, also when nothing else is: without it
// each open would read the whole segment.
func TestCloseWritesALostIndex(t *testing.T) {
	fs := vfs.NewMem()
	o := &Options{FS: fs, Config: Config{IndexIntervalBytes: 64}}
	l, err := Open("", o)
	if err != nil {
		t.Fatal(err)
	}
	l.Lock()
	for range 10 {
		err = errors.Join(err, l.StageRecords(0, &BatchHeader{ProducerID: -1}, []Record{{Value: []byte("v")}}), l.Write())
	}
	l.Unlock()
	if err := errors.Join(err, l.Close(), fs.Remove(segmentName(0, indexSuffix))); err != nil {
		t.Fatal(err)
	}
	if l, err = Open("", o); err != nil {
		t.Fatal(err)
	}
	scanned := l.Recovered().ScannedBytes
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Open("", o); err != nil {
		t.Fatal(err)
	}
	if again := l.Recovered().ScannedBytes; again >= scanned {
		t.Errorf("%d bytes were read without the index, %d after it was made again", scanned, again)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
