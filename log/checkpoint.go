package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/internal/vfs"
)

// checkpoint is what a log needs to know that its segments do not say, and what
// its owner wants back after a restart. It is replaced whole.
type checkpoint struct {
	logID         uint64
	start         int64  // log start offset
	boundaryIndex uint64 // the index before the first one kept
	boundaryEpoch uint64
	firstComplete uint64 // below it compaction may have rewritten frames
	durableBase   int64  // the segment with this base offset, and all before it,
	durablePos    int64  // was durable up to here
	ran           int64  // how long the log has been open, all runs together, in milliseconds
	cutTag        uint64 // the segment with this tag ends at cutPos, whatever lies behind:
	cutPos        int64  // a truncation may be half done there; tag 0 is none
	state         []byte // the owner's
}

// maxCheckpoint bounds one copy of a checkpoint, and so what open reads of one.
const maxCheckpoint = 64 << 20

// len is the size of one copy.
func (c *checkpoint) len() int {
	size := checkpointHeader + len(c.state) + 4
	return (size + vfs.SectorBytes - 1) &^ (vfs.SectorBytes - 1)
}

// encode returns both copies.
func (c *checkpoint) encode() []byte {
	size := c.len()
	b := make([]byte, 2*size)
	copy(b, checkpointMagic)
	binary.BigEndian.PutUint16(b[8:], formatVersion)
	binary.BigEndian.PutUint32(b[12:], uint32(size))
	binary.BigEndian.PutUint64(b[16:], c.logID)
	binary.BigEndian.PutUint64(b[24:], uint64(c.start))
	binary.BigEndian.PutUint64(b[32:], c.boundaryIndex)
	binary.BigEndian.PutUint64(b[40:], c.boundaryEpoch)
	binary.BigEndian.PutUint64(b[48:], c.firstComplete)
	binary.BigEndian.PutUint64(b[56:], uint64(c.durableBase))
	binary.BigEndian.PutUint32(b[64:], uint32(c.durablePos))
	binary.BigEndian.PutUint32(b[68:], uint32(c.cutPos))
	binary.BigEndian.PutUint64(b[72:], c.cutTag)
	binary.BigEndian.PutUint32(b[80:], uint32(len(c.state)))
	binary.BigEndian.PutUint64(b[84:], uint64(c.ran))
	copy(b[checkpointHeader:], c.state)
	binary.BigEndian.PutUint32(b[size-4:], crc32.Checksum(b[:size-4], castagnoli))
	copy(b[size:], b[:size])
	return b
}

var errCheckpoint = errors.New("no copy of the checkpoint is whole")

// decodeCheckpoint finds a whole copy in b, wherever damage has left one: the
// second copy starts where the first one's length says, or in the middle of b.
func decodeCheckpoint(b []byte) (*checkpoint, error) {
	cause := errCheckpoint
	for _, at := range []int{0, len(b) / 2} {
		c, err := decodeCheckpointCopy(b[at:])
		if err == nil {
			return c, nil
		}
		if errors.Is(err, ErrNewerFormat) {
			cause = err
		}
	}
	return nil, cause
}

func decodeCheckpointCopy(b []byte) (*checkpoint, error) {
	if len(b) < vfs.SectorBytes || string(b[:8]) != checkpointMagic {
		return nil, errCheckpoint
	}
	size := int64(binary.BigEndian.Uint32(b[12:]))
	if size < vfs.SectorBytes || size > int64(len(b)) || size%vfs.SectorBytes != 0 ||
		crc32.Checksum(b[:size-4], castagnoli) != binary.BigEndian.Uint32(b[size-4:]) {
		return nil, errCheckpoint
	}
	if v := binary.BigEndian.Uint16(b[8:]); v > formatVersion {
		return nil, fmt.Errorf("checkpoint format %d, this version knows %d: %w", v, formatVersion, ErrNewerFormat)
	}
	n := int64(binary.BigEndian.Uint32(b[80:]))
	if n > size-4-checkpointHeader {
		return nil, errCheckpoint
	}
	c := &checkpoint{
		logID:         binary.BigEndian.Uint64(b[16:]),
		start:         int64(binary.BigEndian.Uint64(b[24:])),
		boundaryIndex: binary.BigEndian.Uint64(b[32:]),
		boundaryEpoch: binary.BigEndian.Uint64(b[40:]),
		firstComplete: binary.BigEndian.Uint64(b[48:]),
		durableBase:   int64(binary.BigEndian.Uint64(b[56:])),
		durablePos:    int64(binary.BigEndian.Uint32(b[64:])),
		ran:           int64(binary.BigEndian.Uint64(b[84:])),
		cutPos:        int64(binary.BigEndian.Uint32(b[68:])),
		cutTag:        binary.BigEndian.Uint64(b[72:]),
		state:         append([]byte(nil), b[checkpointHeader:checkpointHeader+n]...),
	}
	if c.start < 0 || c.durableBase < 0 || c.boundaryIndex > math.MaxInt64 || c.ran < 0 || c.ran > maxRan {
		return nil, errCheckpoint // no log comes that far: sums of these must not overflow
	}
	return c, nil
}

// maxRan is more than any log runs, in milliseconds: a thousand centuries.
const maxRan = 100_000 * 365 * 24 * 3600 * 1000

// readCheckpoint returns nil without an error when there is none.
func readCheckpoint(fsys vfs.FS) (*checkpoint, error) {
	f, err := fsys.Open(checkpointName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	if info.Size > 2*maxCheckpoint {
		return nil, &CorruptionError{File: checkpointName, End: -1, FirstOffset: -1, EndOffset: -1, Cause: errCheckpoint}
	}
	b := make([]byte, info.Size)
	if n, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", checkpointName, err)
	} else if n < len(b) {
		b = b[:n]
	}
	c, err := decodeCheckpoint(b)
	if errors.Is(err, errCheckpoint) {
		return nil, &CorruptionError{File: checkpointName, End: -1, FirstOffset: -1, EndOffset: -1, Cause: err}
	}
	return c, err
}

// writeCheckpoint replaces the checkpoint. When it returns nil the new one is
// durable; on an error the old or the new one will be read, whole.
func writeCheckpoint(fsys vfs.FS, c *checkpoint) error {
	return replaceFile(fsys, checkpointName, c.encode())
}

// notReplacedError says that a file could not be written beside its name: what has
// the name is what had it before, whatever happens next.
type notReplacedError struct{ error }

func (e notReplacedError) Unwrap() error { return e.error }

// replaceFile writes a file beside its name, makes it durable, and gives it the name.
func replaceFile(fsys vfs.FS, name string, b []byte) error {
	tmp := name + tmpSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return notReplacedError{err}
	}
	_, err = f.WriteAt(b, 0)
	if err == nil && !seed.Is(seed.CheckpointNoFsync) {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		fsys.Remove(tmp) // on a full disk the leftover would hold the room that the retry needs; open removes it otherwise
		return notReplacedError{fmt.Errorf("write %s: %w", name, err)}
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	if seed.Is(seed.CheckpointNoDirFsync) {
		return nil
	}
	return fsys.SyncDir(".")
}
