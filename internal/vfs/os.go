package vfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// OS is the directory dir of the operating system, which is made (mode 0700) when
// it does not exist. Names that leave it are refused, through symbolic links too
// (os.Root). Files get mode 0600, directories 0700.
func OS(dir string) (FS, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, osError(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, osError(err)
	}
	return &osFS{root: root}, nil
}

type osFS struct{ root *os.Root }

// osError gives errors of a full disk or quota the sentinel ErrNoSpace; the
// *fs.PathError stays reachable below it.
func osError(err error) error {
	if err != nil && isNoSpace(err) {
		return &noSpaceError{err}
	}
	return err
}

func (o *osFS) open(op, name string, flag int) (File, error) {
	if err := checkName(op, name); err != nil {
		return nil, err
	}
	f, err := o.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, osError(err)
	}
	return &osFile{f: f, name: name}, nil
}

func (o *osFS) Open(name string) (File, error) { return o.open("open", name, os.O_RDWR) }

func (o *osFS) Create(name string) (File, error) {
	return o.open("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (o *osFS) Mkdir(name string) error {
	if err := checkName("mkdir", name); err != nil {
		return err
	}
	return osError(o.root.MkdirAll(name, 0o700))
}

func (o *osFS) Rename(oldName, newName string) error {
	if err := errors.Join(checkName("rename", oldName), checkName("rename", newName)); err != nil {
		return err
	}
	return osError(o.root.Rename(oldName, newName))
}

func (o *osFS) Link(oldName, newName string) error {
	if err := errors.Join(checkName("link", oldName), checkName("link", newName)); err != nil {
		return err
	}
	return osError(o.root.Link(oldName, newName))
}

func (o *osFS) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	return osError(o.root.Remove(name))
}

func (o *osFS) List(dir string) ([]Info, error) {
	if err := checkName("list", dir); err != nil {
		return nil, err
	}
	d, err := o.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, infoOf(fi))
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

func (o *osFS) Stat(name string) (Info, error) {
	if err := checkName("stat", name); err != nil {
		return Info{}, err
	}
	fi, err := o.root.Stat(name)
	if err != nil {
		return Info{}, err
	}
	info := infoOf(fi)
	info.Name = path.Base(name)
	return info, nil
}

func (o *osFS) SyncDir(dir string) error {
	if err := checkName("syncdir", dir); err != nil {
		return err
	}
	d, err := o.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return osError(syncDir(d))
}

func (o *osFS) Close() error { return o.root.Close() }

func infoOf(fi fs.FileInfo) Info {
	return Info{Name: fi.Name(), Size: fi.Size(), Allocated: allocated(fi), Dir: fi.IsDir(), Modified: fi.ModTime()}
}

// lockHolder is what a lock file says.
type lockHolder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// lockFileBytes bounds what is read of a lock file that somebody else wrote.
const lockFileBytes = 4096

func (o *osFS) Lock(name string) (io.Closer, error) {
	if err := checkName("lock", name); err != nil {
		return nil, err
	}
	f, err := o.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, osError(err)
	}
	held, err := tryLock(f)
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	if !held {
		defer f.Close()
		return nil, readHolder(f, name)
	}
	// The text is for people and may be missing (a full disk); the lock is the
	// system's, and goes with the process.
	host, _ := os.Hostname()
	if err := writeHolder(f, lockHolder{PID: os.Getpid(), Host: host, Since: time.Now().UTC().Truncate(time.Second)}); err != nil && !isNoSpace(err) {
		f.Close()
		return nil, osError(err)
	}
	return &osLock{f: f}, nil
}

// writeHolder replaces the text of a lock file. The new text is written before
// the old one is cut, so that a reader sees at worst the two mixed.
func writeHolder(f *os.File, h lockHolder) error {
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("lock file: %w", err)
	}
	text = append(text, '\n')
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// readHolder builds the error of a lock that is taken; it names nobody when the
// text is not there yet, or not ours.
func readHolder(f *os.File, name string) error {
	e := &LockedError{Name: name}
	buf := make([]byte, lockFileBytes)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return e
	}
	var h lockHolder
	if json.Unmarshal(buf[:n], &h) == nil {
		e.PID, e.Host, e.Since = h.PID, h.Host, h.Since
	}
	return e
}

// osLock is a held lock. Close empties the file and leaves it in place: to unlink
// it would let two owners hold locks on two files of the same name.
type osLock struct {
	mu sync.Mutex
	f  *os.File
}

func (l *osLock) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return fs.ErrClosed
	}
	err := errors.Join(l.f.Truncate(0), unlock(l.f), l.f.Close())
	l.f = nil
	return err
}
