package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// ErrNotEmpty says that a directory holds something that is not ours to write over
// or beside. Nothing was changed.
var ErrNotEmpty = errors.New("embedlog: directory is not empty")

// objectName is how objects are called: a segment by its log, base offset, tag and
// size, a small file by its checksums, size and name. What is not called so was not
// written by a backup, and is never removed by one.
var objectName = regexp.MustCompile(`^([0-9a-f]{16}-[0-9]{20}-[0-9a-f]{16}-[0-9]+|[0-9a-f]{24}-[0-9]+-[^/]+)(\.tmp)?$`)

// checkDestination refuses a directory that holds something else than a backup or
// what a backup that was stopped has left, before a byte is written. Beside a whole
// backup anything may lie.
func checkDestination(fsys vfs.FS) error {
	_, err := ReadManifest(fsys)
	if err == nil {
		return nil
	}
	damaged := errors.Is(err, log.ErrCorrupt)
	if !damaged && !errors.Is(err, ErrIncomplete) {
		return err
	}
	infos, err := fsys.List(".")
	if err != nil {
		return err
	}
	objects := false
	for _, info := range infos {
		switch name := info.Name; {
		case name == objectsName && info.Dir:
			if objects, err = ownObjects(fsys); err != nil {
				return err
			}
		case name == manifestName, name == manifestName+tmpSuffix, name == lockName:
		case strings.HasPrefix(name, "."), name == "lost+found": // the system's
		default:
			return notBackup(name)
		}
	}
	if damaged && !objects {
		return notBackup(manifestName) // a file of somebody else's that happens to be called so
	}
	return nil
}

// ownObjects is whether there are objects; what is none fails.
func ownObjects(fsys vfs.FS) (found bool, err error) {
	infos, err := fsys.List(objectsName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, info := range infos {
		if info.Dir || !objectName.MatchString(info.Name) {
			return false, notBackup(objectsName + "/" + info.Name)
		}
	}
	return len(infos) > 0, nil
}

func notBackup(name string) error {
	return fmt.Errorf("it holds %q and no backup; one is written into an empty directory, or over an earlier one: %w", name, ErrNotEmpty)
}
