package log

import (
	"errors"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// Whoever watches syncs is told of each, of the failed one too.
func TestOnSync(t *testing.T) {
	fs := vfs.NewFault(vfs.NewMem())
	var calls int
	var last error
	l, err := Open("", &Options{FS: fs, OnSync: func(took time.Duration, err error) {
		calls++
		last = err
		if took < 0 {
			t.Errorf("a sync took %v", took)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write := func() error {
		l.Lock()
		defer l.Unlock()
		return errors.Join(l.StageRecords(0, &BatchHeader{ProducerID: -1}, []Record{{Value: []byte("v")}}), l.Write(), l.Sync())
	}
	for i := range 3 {
		before := calls // the first write makes its file ready, which is a sync, too
		if err := write(); err != nil || calls == before || last != nil {
			t.Fatalf("group %d: %d syncs were told of, the last: %v; written: %v", i, calls-before, last, err)
		}
	}
	before := calls
	fs.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Effect: vfs.FailSync()})
	if err := write(); !errors.Is(err, ErrStorageFailed) || calls == before || last == nil {
		t.Fatalf("a sync that fails: %v, %d syncs were told of, the last: %v", err, calls, last)
	}
}
