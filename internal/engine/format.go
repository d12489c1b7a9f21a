package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// The names in a database's directory.
const (
	lockName   = "LOCK"
	formatName = "FORMAT"
	metaName   = "meta"
	topicsName = "topics"
	socketName = "sock"
)

// formatVersion is the version of the directory's layout. A directory of a newer
// one is refused before a byte changes.
const formatVersion = 1

// identity is what FORMAT says. It is written last when a database is made, so a
// directory that has it is whole.
//
//	format 1
//	cluster <22 characters>
//	node 0
//	directory <22 characters>
//	crc32c <8 hex digits>
type identity struct {
	cluster   TopicID // the same for all nodes of a cluster
	node      int32
	directory TopicID // of this directory: a copy of it that went on for itself has another
}

func (id *identity) encode() []byte {
	return encodeFields(
		field{"format", strconv.Itoa(formatVersion)},
		field{"cluster", id.cluster.String()},
		field{"node", strconv.Itoa(int(id.node))},
		field{"directory", id.directory.String()},
	)
}

// decodeIdentity reads FORMAT. Of a newer one only the first line is understood,
// and it says so.
func decodeIdentity(b []byte) (id identity, err error) {
	line, _, _ := strings.Cut(string(b), "\n")
	if text, ok := strings.CutPrefix(line, "format "); ok {
		if v, err := strconv.ParseUint(text, 10, 31); err == nil && v > formatVersion {
			return id, fmt.Errorf("directory format %d, this version knows %d: %w", v, formatVersion, log.ErrNewerFormat)
		}
	}
	values, err := decodeFields(b, "format", "cluster", "node", "directory")
	if err != nil {
		return id, err
	}
	version, err0 := parseNumber(values[0], formatVersion)
	node, err1 := parseNumber(values[2], 1<<31-1)
	id.node = int32(node)
	var err2, err3 error
	id.cluster, err2 = ParseTopicID(values[1])
	id.directory, err3 = ParseTopicID(values[3])
	if err := errors.Join(err0, err1, err2, err3); err != nil {
		return identity{}, err
	}
	if version != formatVersion {
		return identity{}, fmt.Errorf("there is no directory format %d", version)
	}
	return id, nil
}

// parseNumber reads a number in its only spelling.
func parseNumber(text string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > limit || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%q is no number from 0 to %d", text, limit)
	}
	return n, nil
}

// readIdentity reads FORMAT; found is false when there is none.
func readIdentity(fsys vfs.FS) (id identity, found bool, err error) {
	b, err := readSmall(fsys, formatName)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, err
	}
	id, err = decodeIdentity(b)
	if err != nil && !errors.Is(err, log.ErrNewerFormat) {
		err = damaged(formatName, err)
	}
	return id, true, err
}

// damaged is damage to a file that is small enough to be damaged as a whole.
func damaged(file string, cause error) error {
	return &log.CorruptionError{File: file, End: -1, FirstOffset: -1, EndOffset: -1, Cause: cause}
}

// checkEmpty refuses a directory without FORMAT that holds anything but what a
// crash while a database was made can have left.
func checkEmpty(fsys vfs.FS, dir string) error {
	infos, err := fsys.List(".")
	if err != nil {
		return err
	}
	for _, info := range infos {
		switch name := info.Name; {
		case name == topicsName:
			topics, err := fsys.List(name)
			if err != nil {
				return err
			}
			if len(topics) > 0 {
				return damaged(formatName, errors.New("the file is missing, and there are topics"))
			}
		case name == lockName, name == metaName, name == formatName+tmpSuffix, name == socketName:
		case strings.HasPrefix(name, "."), name == "lost+found": // the system's
		default:
			return &WrongDirectoryError{Dir: dir, Found: name}
		}
	}
	return nil
}

// lockPoll is how often somebody else's lock is tried again.
const lockPoll = 20 * time.Millisecond

// lockDirectory takes LOCK, waiting for at most timeout while somebody else has it.
func lockDirectory(ctx context.Context, fsys vfs.FS, timeout time.Duration) (io.Closer, error) {
	deadline := time.Now().Add(timeout)
	for {
		lock, err := fsys.Lock(lockName)
		if err == nil || !errors.Is(err, vfs.ErrLocked) {
			return lock, err
		}
		wait := min(lockPoll, time.Until(deadline))
		if wait <= 0 {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}
