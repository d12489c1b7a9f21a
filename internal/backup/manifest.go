package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

const (
	manifestName = "BACKUP"
	objectsName  = "objects"
	lockName     = "LOCK"
	tmpSuffix    = ".tmp"

	manifestVersion = 1
	// maxManifest bounds what is read of one: about a million segments.
	maxManifest = 1 << 30
	maxLine     = 64 << 10
)

// ErrIncomplete says that a directory holds no complete backup.
var ErrIncomplete = errors.New("embedlog: no complete backup")

// Manifest says what a backup consists of. It is a file of JSON lines: a head, one
// line for each log and each entry, and a last one with the checksum of the bytes
// before it.
type Manifest struct {
	Head
	Logs    []Cut
	Entries []Entry
}

// Head is the first line.
type Head struct {
	Format      int    `json:"format"`
	TakenMillis int64  `json:"taken"` // since 1970: the moment that it shows
	Cluster     string `json:"cluster"`
	Directory   string `json:"directory"` // the id of the directory that it was taken from
	Version     string `json:"version,omitempty"`
}

// Cut is where a log was cut.
type Cut struct {
	Path  string `json:"log"`  // directory within the database
	Name  string `json:"name"` // for people: orders/3
	Start int64  `json:"start"`
	End   int64  `json:"end"`
}

// Entry is one file of the database and the object that holds it.
type Entry struct {
	Path   string `json:"file"`
	Object string `json:"object"`
	Bytes  int64  `json:"bytes"`
	CRC    crc    `json:"crc32c"`
}

// crc is written as 8 hex digits.
type crc uint32

func (c crc) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(c)), nil }

func (c *crc) UnmarshalText(b []byte) error {
	var n uint32
	if _, err := fmt.Sscanf(string(b), "%08x", &n); err != nil || fmt.Sprintf("%08x", n) != string(b) {
		return fmt.Errorf("%q is no checksum", b)
	}
	*c = crc(n)
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type sumLine struct {
	Sum crc `json:"crc32c"`
}

func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(&m.Head)
	for i := range m.Logs {
		err = errors.Join(err, e.Encode(&m.Logs[i]))
	}
	for i := range m.Entries {
		err = errors.Join(err, e.Encode(&m.Entries[i]))
	}
	err = errors.Join(err, e.Encode(sumLine{crc(crc32.Checksum(b.Bytes(), castagnoli))}))
	return b.Bytes(), err
}

// damaged is damage to a file of the backup.
func damaged(file string, pos int64, format string, args ...any) error {
	return &log.CorruptionError{File: file, Position: pos, End: -1, FirstOffset: -1, EndOffset: -1, Cause: fmt.Errorf(format, args...)}
}

// ReadManifest reads the manifest of the backup in fsys. Without one it fails with
// ErrIncomplete; one that is damaged is a *log.CorruptionError.
func ReadManifest(fsys vfs.FS) (*Manifest, error) {
	f, err := fsys.Open(manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s: %w", manifestName, ErrIncomplete)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	if info.Size > maxManifest {
		return nil, damaged(manifestName, 0, "%d bytes are too many", info.Size)
	}
	return decodeManifest(io.NewSectionReader(f, 0, info.Size))
}

func decodeManifest(r io.Reader) (*Manifest, error) {
	m := new(Manifest)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	lines.Split(wholeLines)
	sum, pos, done := uint32(0), int64(0), false
	for lines.Scan() {
		b := lines.Bytes()
		if done {
			return nil, damaged(manifestName, pos, "bytes behind the end")
		}
		var err error
		if done, err = m.line(b, pos == 0, sum); err != nil {
			if errors.Is(err, log.ErrNewerFormat) {
				return nil, err
			}
			return nil, damaged(manifestName, pos, "%w", err)
		}
		sum = crc32.Update(sum, castagnoli, b)
		pos += int64(len(b))
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) || err == nil && !done {
		return nil, damaged(manifestName, pos, "it ends too early")
	} else if err != nil {
		return nil, err
	}
	return m, nil
}

// wholeLines splits into lines with their newline; a last one without is none.
func wholeLines(b []byte, eof bool) (int, []byte, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if eof && len(b) > 0 {
			return 0, nil, bufio.ErrTooLong // cut off: said as such above
		}
		return 0, nil, nil
	}
	return i + 1, b[:i+1], nil
}

// line takes in one line. done says that it was the last.
func (m *Manifest) line(b []byte, first bool, sum uint32) (done bool, err error) {
	if first {
		if err := json.Unmarshal(b, &m.Head); err != nil {
			return false, err
		}
		if m.Format > manifestVersion {
			return false, fmt.Errorf("backup format %d, this version knows %d: %w", m.Format, manifestVersion, log.ErrNewerFormat)
		}
		if m.Format < 1 {
			return false, fmt.Errorf("there is no backup format %d", m.Format)
		}
		return false, nil
	}
	var l struct {
		Log  string `json:"log"`
		File string `json:"file"`
		Sum  crc    `json:"crc32c"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return false, err
	}
	switch {
	case l.Log != "":
		var c Cut
		err = json.Unmarshal(b, &c)
		if err == nil && (!plain(c.Path) || c.Start < 0 || c.End < c.Start) {
			err = fmt.Errorf("a log that cannot be: %q from %d to %d", c.Path, c.Start, c.End)
		}
		m.Logs = append(m.Logs, c)
	case l.File != "":
		var e Entry
		err = json.Unmarshal(b, &e)
		if err == nil && (!plain(e.Path) || !plain(e.Object) || strings.Contains(e.Object, "/") || e.Bytes < 0) {
			err = fmt.Errorf("a file that cannot be: %q in %q, %d bytes", e.Path, e.Object, e.Bytes)
		}
		m.Entries = append(m.Entries, e)
	default:
		if done = uint32(l.Sum) == sum; !done {
			err = errors.New("the checksum does not fit")
		}
	}
	return done, err
}

// plain says that a name leads to a place below, and nowhere else.
func plain(name string) bool { return fs.ValidPath(name) && name != "." }

// Bytes is the size of all files together.
func (m *Manifest) Bytes() (n int64) {
	for i := range m.Entries {
		n += m.Entries[i].Bytes
	}
	return n
}
