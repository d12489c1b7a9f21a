package log

import (
	"errors"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// An owner who knows that there was a log gets no new, empty one in its place.
func TestMustExist(t *testing.T) {
	for _, row := range []struct {
		name    string
		remove  string // names that hold one of these go; "" is none
		corrupt bool
	}{
		{"as it was", "", false},
		{"all files gone", ".log checkpoint", true},
		{"segments gone", ".log", true},
		{"checkpoint gone", "checkpoint", false}, // the segments say it all
	} {
		fs := vfs.NewMem()
		l, err := Open("", &Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		l.Lock()
		err = errors.Join(l.StageRecords(0, &BatchHeader{ProducerID: -1}, []Record{{Value: []byte("v")}}), l.Write(), l.Sync())
		l.Unlock()
		if err = errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		infos, err := fs.List(".")
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			for part := range strings.FieldsSeq(row.remove) {
				if strings.HasSuffix(info.Name, part) {
					if err := fs.Remove(info.Name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		l, err = Open("", &Options{FS: fs, MustExist: true})
		if got := errors.Is(err, ErrCorrupt); got != row.corrupt || err != nil && !row.corrupt {
			t.Errorf("%s: got %v, want damage: %t", row.name, err, row.corrupt)
		}
		if err == nil {
			if l.EndOffset() != 1 {
				t.Errorf("%s: the log ends at %d", row.name, l.EndOffset())
			}
			l.Close()
		}
	}
	if _, err := Open("", &Options{FS: vfs.NewMem(), MustExist: true}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an empty directory: %v", err)
	}
}
