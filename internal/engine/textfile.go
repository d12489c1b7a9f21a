package engine

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"

	"github.com/x/embedlog/internal/vfs"
)

// FORMAT and topic are text for people, "name value" a line in a fixed order, and
// a checksum for us in the last line. They are replaced whole.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	maxTextFile = 4096
	tmpSuffix   = ".tmp"
)

// field is one line of such a file.
type field struct{ name, value string }

func encodeFields(fields ...field) []byte {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s %s\n", f.name, f.value)
	}
	sum := crc32.Checksum([]byte(b.String()), castagnoli)
	fmt.Fprintf(&b, "crc32c %08x\n", sum)
	return []byte(b.String())
}

// decodeFields returns the values of the fields that are named, which must be all
// there are, in that order. It accepts only what encodeFields writes.
func decodeFields(b []byte, names ...string) ([]string, error) {
	const sumLen = len("crc32c 00000000\n")
	if len(b) < sumLen || len(b) > maxTextFile {
		return nil, fmt.Errorf("%d bytes", len(b))
	}
	body, sum := b[:len(b)-sumLen], string(b[len(b)-sumLen:])
	if want := fmt.Sprintf("crc32c %08x\n", crc32.Checksum(body, castagnoli)); sum != want {
		return nil, errors.New("the checksum does not fit")
	}
	var values []string
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || !strings.HasSuffix(line, "\n") || len(values) == len(names) || name != names[len(values)] {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		values = append(values, value)
	}
	if len(values) != len(names) {
		return nil, fmt.Errorf("%s is missing", names[len(values)])
	}
	return values, nil
}

// readSmall reads a file of at most maxTextFile bytes, and one byte of a larger
// one more, so that it is refused.
func readSmall(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxTextFile+1)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return b[:n], nil
}

// replaceFile gives a file new content: when it returns nil that is durable, and at
// every moment the old or the new content is there, whole.
func replaceFile(fsys vfs.FS, dir, name string, b []byte) error {
	path := joinPath(dir, name)
	tmp := path + tmpSuffix
	if err := removeFile(fsys, tmp); err != nil {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, removeFile(fsys, tmp))
	}
	if err := fsys.Rename(tmp, path); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

func joinPath(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// removeFile removes a file or an empty directory; that it is not there is no error.
func removeFile(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
