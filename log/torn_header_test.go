package log

import (
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A damaged header of the last segment takes nothing with it that was durable: where a
// frame or an end mark says so, it is damage, also when the checkpoint is of long ago,
// as after a kill. Repair brings the records back.
func TestDamagedHeaderOfTheLastSegment(t *testing.T) {
	for records := range 4 {
		t.Run(fmt.Sprintf("records=%d", records), func(t *testing.T) {
			fs := vfs.NewMem()
			l, err := Open("", &Options{FS: fs, NoLock: true, Config: Config{Level: Durable}})
			if err != nil {
				t.Fatal(err)
			}
			write := func() {
				t.Helper()
				err := errors.Join(l.StageRecords(0, &BatchHeader{ProducerID: -1}, []Record{{Value: []byte("v")}}), l.Write(), l.Sync())
				if err != nil {
					t.Fatal(err)
				}
			}
			l.Lock()
			write()
			if err := errors.Join(l.Roll(), l.Sync()); err != nil {
				t.Fatal(err)
			}
			for range records {
				write()
			}
			l.Unlock()
			killed := fs.AfterKill()
			_ = l.Close()
			f, err := killed.Open(segmentName(1, logSuffix))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(make([]byte, 8), 40); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			o := &Options{FS: killed, NoLock: true}
			again, err := Open("", o)
			if err != nil {
				t.Fatal(err)
			}
			if damaged := errors.Is(again.Err(), ErrCorrupt); damaged != (records > 0) {
				t.Errorf("damaged: %v, log ends at %d", again.Err(), again.EndOffset())
			}
			_ = again.Close()
			if _, err := Repair("", o); err != nil {
				t.Fatal(err)
			}
			if again, err = Open("", o); err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if err := again.Err(); err != nil || again.EndOffset() != int64(1+records) {
				t.Errorf("after the repair: %v, it ends at %d, want %d", err, again.EndOffset(), 1+records)
			}
		})
	}
}
