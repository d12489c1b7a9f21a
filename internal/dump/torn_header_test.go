package dump_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/dump"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A segment whose header never reached the disk is a leftover of a crash, which the
// next open removes, unless something says that it held what was durable. The dump says
// what the open will do.
func TestTornHeaderOfTheLastSegment(t *testing.T) {
	const first, second = "00000000000000000000.log", "00000000000000000003.log"
	roll := func(t *testing.T, p *partition.Partition) {
		t.Helper()
		p.Log().Lock()
		defer p.Log().Unlock()
		if err := p.Log().Roll(); err != nil {
			t.Fatal(err)
		}
	}
	rollAndSync := func(t *testing.T, p *partition.Partition) {
		t.Helper()
		if err := p.Roll(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	add := func(t *testing.T, p *partition.Partition) {
		t.Helper()
		if _, err := p.Append(context.Background(), []log.Record{{Value: []byte("later")}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	zero := func(t *testing.T, fs vfs.FS, name string) { overwrite(t, fs, name, 0, make([]byte, 128)) }
	remove := func(t *testing.T, fs vfs.FS, names ...string) {
		t.Helper()
		for _, name := range names {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name    string
		level   log.Level
		do      func(*testing.T, *partition.Partition)
		close   bool
		then    func(*testing.T, vfs.FS)
		damaged bool
	}{
		{"empty", log.Durable, roll, false, func(t *testing.T, fs vfs.FS) { zero(t, fs, second) }, false},
		{"empty, half a header", log.Durable, roll, false, func(t *testing.T, fs vfs.FS) { overwrite(t, fs, second, 64, make([]byte, 64)) }, false},
		{"empty, and it was synced", log.Durable, rollAndSync, false, func(t *testing.T, fs vfs.FS) { zero(t, fs, second) }, false},
		{"no byte of it", log.Durable, roll, false, func(t *testing.T, fs vfs.FS) { truncate(t, fs, second, 0) }, false},
		{"records that were never synced", log.OS, func(t *testing.T, p *partition.Partition) { roll(t, p); add(t, p) }, false,
			func(t *testing.T, fs vfs.FS) { zero(t, fs, second) }, false},
		{"and the end of the one before is torn", log.OS, roll, false,
			func(t *testing.T, fs vfs.FS) { zero(t, fs, second); truncate(t, fs, first, 300) }, false},
		{"records that were synced", log.Durable, func(t *testing.T, p *partition.Partition) { roll(t, p); add(t, p); add(t, p) }, false,
			func(t *testing.T, fs vfs.FS) { zero(t, fs, second) }, true},
		{"the checkpoint says that it was there", log.Durable, roll, true, func(t *testing.T, fs vfs.FS) { zero(t, fs, second) }, true},
		{"all segments are gone", log.Durable, roll, true, func(t *testing.T, fs vfs.FS) { remove(t, fs, first, second) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			fs := vfs.NewMem()
			p, err := partition.Open("", &partition.Options{FS: fs, Config: partition.Config{Log: log.Config{Level: row.level}}})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if _, err := p.Append(context.Background(), []log.Record{{Value: fmt.Append(nil, "value ", i)}}, nil); err != nil {
					t.Fatal(err)
				}
			}
			row.do(t, p)
			if row.close {
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
			}
			killed := fs.AfterKill()
			p.Close() // of a log whose files are gone: it ends what runs, and fails
			row.then(t, killed)
			var out bytes.Buffer
			err = dump.Log(&out, killed, &everything)
			if errors.Is(err, log.ErrCorrupt) != row.damaged || err != nil && !row.damaged {
				t.Errorf("damaged: want %t, got %v\n%s", row.damaged, err, &out)
			}
			// The log itself is of the same opinion.
			again, err := partition.Open("", &partition.Options{FS: killed})
			if err == nil {
				err = again.Err()
				defer again.Close()
			}
			if errors.Is(err, log.ErrCorrupt) != row.damaged || err != nil && !row.damaged {
				t.Errorf("damaged: want %t, the log says %v", row.damaged, err)
			}
		})
	}
}

func overwrite(t *testing.T, fs vfs.FS, name string, at int64, b []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, fs vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fs.Open(name)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
