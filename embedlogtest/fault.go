package embedlogtest

import (
	"errors"
	"fmt"
	"path"

	"github.com/x/embedlog/internal/vfs"
)

// Fault is something that goes wrong with the disk.
type Fault struct {
	kind faultKind
	skip int
	n    int
}

type faultKind int

const (
	noSpace faultKind = iota
	syncFails
	writeFails
	readFails
)

// ErrInjected is matched by the errors that faults make, but for a full disk's.
var ErrInjected = errors.New("embedlogtest: injected fault")

// NoSpace is a full disk: writes that need room fail.
func NoSpace() Fault { return Fault{kind: noSpace} }

// SyncFails is an fsync that fails, and whose bytes are not on the disk, though
// reading shows them until the next crash.
func SyncFails() Fault { return Fault{kind: syncFails} }

// WriteFails is a write that fails and wrote nothing.
func WriteFails() Fault { return Fault{kind: writeFails} }

// ReadFails is a read that fails.
func ReadFails() Fault { return Fault{kind: readFails} }

// After makes the fault begin after n operations of its kind went well.
func (f Fault) After(n int) Fault { f.skip = n; return f }

// Times makes it happen n times in a row; the default is until Heal.
func (f Fault) Times(n int) Fault { f.n = n; return f }

// Inject makes a fault happen to the files whose name, below the database's
// directory, matches the pattern (path.Match, against the whole name or its last
// element); "" is every file. Logs end in .log.
func (d *DB) Inject(pattern string, f Fault) {
	d.tb.Helper()
	count := f.n
	if count <= 0 {
		count = -1
	}
	fail := func(op vfs.Op) vfs.Effect {
		return vfs.Fail(fmt.Errorf("%s: %w", op, ErrInjected))
	}
	var rules []vfs.Rule
	switch f.kind {
	case noSpace:
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpAppend, vfs.OpZero, vfs.OpAllocate, vfs.OpCreate, vfs.OpMkdir} {
			rules = append(rules, vfs.Rule{Op: op, Effect: vfs.Fail(vfs.ErrNoSpace)})
		}
	case syncFails:
		for _, op := range []vfs.Op{vfs.OpSync, vfs.OpDatasync} {
			rules = append(rules, vfs.Rule{Op: op, Effect: vfs.FailSync()})
		}
	case writeFails:
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpAppend} {
			rules = append(rules, vfs.Rule{Op: op, Effect: fail(op)})
		}
	case readFails:
		rules = append(rules, vfs.Rule{Op: vfs.OpRead, Effect: fail(vfs.OpRead)})
	}
	for _, r := range rules {
		r.Glob, r.Skip, r.Count = pattern, f.skip, count
		d.faults.Add(r)
	}
}

// Heal takes all faults away. A partition that a failed sync stopped stays stopped
// until the database is opened again.
func (d *DB) Heal() { d.faults.Clear() }

// Faults is how many operations were hit so far, since the database was last opened.
func (d *DB) Faults() int { return d.faults.Hits() }

// Damage flips one bit at byte pos of each file that matches the pattern, as a disk
// does that goes bad, and returns how many it flipped. Files shorter than that stay.
func (d *DB) Damage(pattern string, pos int64) int {
	d.tb.Helper()
	n := 0
	err := walk(d.mem, ".", func(name string) error {
		whole, err := path.Match(pattern, name)
		if err != nil {
			return err
		}
		last, _ := path.Match(pattern, path.Base(name))
		if !whole && !last {
			return nil
		}
		f, err := d.mem.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		var b [1]byte
		if k, _ := f.ReadAt(b[:], pos); k == 0 {
			return nil
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b[:], pos); err != nil {
			return err
		}
		n++
		return f.Sync()
	})
	if err != nil {
		d.tb.Fatalf("embedlogtest: damage %s: %v", pattern, err)
	}
	return n
}

// walk calls f with the name of each file below dir.
func walk(fs vfs.FS, dir string, f func(name string) error) error {
	list, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, info := range list {
		name := path.Join(dir, info.Name)
		if info.Dir {
			err = walk(fs, name, f)
		} else {
			err = f(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
