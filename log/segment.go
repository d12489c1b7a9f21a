package log

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/internal/vfs"
)

// segment is one data file and its indexes. What it was created with never
// changes; where it ends does, while it is the active one.
type segment struct {
	segmentHeader
	fs    vfs.FS
	name  string
	index sparseIndex

	// before, with the active segment's end added, is how many bytes were written
	// since open. It is set before others see the segment.
	before int64
	// end is the position behind the last frame that readers may see. It moves
	// forward after the bytes below it are stored, so loading it is what makes
	// those bytes safe to read. In a sealed segment it may lie past the frames,
	// in the zeros of a file that a crash left untrimmed: the next segment's base
	// index tells where the frames stop.
	end atomic.Int64
	// tail is the writer's window, for readers that are close behind; nil for none.
	tail atomic.Pointer[window]
	// maxTimestamp is the largest of the batches' maximum timestamps; noTimestamp
	// before the first, unknownTimestamp in a sealed segment nobody asked yet.
	maxTimestamp atomic.Int64
	// durable is the position below which the file was synced; earlierDurable says
	// that all segments before it were, wholly.
	durable        atomic.Int64
	earlierDurable atomic.Bool
	// settled says that a sealed segment's index is written and its zeros cut.
	settled atomic.Bool
	// allocated is what the file takes on the disk, as last seen.
	allocated atomic.Int64

	// pins counts the readers that have the file mapped, leaving says that it is
	// about to be written over: see recycle.
	pins    atomic.Int32
	leaving atomic.Bool
	// recycled is how much of a recycled file lies ready for a writer.
	recycled int64

	handle handle
}

const (
	noTimestamp      = -1
	unknownTimestamp = -1 << 63
)

// random64 is where tags come from. A test that compares bytes replaces it.
var random64 = rand.Uint64

// newTag returns a random number that is not zero.
func newTag() uint64 {
	for {
		if t := random64(); t != 0 {
			return t
		}
	}
}

func newSegment(fs vfs.FS, files *FileCache, h segmentHeader) *segment {
	s := &segment{segmentHeader: h, fs: fs, name: segmentName(h.baseOffset, logSuffix)}
	s.index.init(fs, h.baseOffset, h.baseIndex, h.tag)
	s.end.Store(segmentHeaderLen)
	s.maxTimestamp.Store(noTimestamp)
	s.handle.cache = files
	s.handle.opens = s.openFile
	return s
}

// begins says whether the segment's first log index is keep or lower, so that none
// of the segments before it holds keep. Zero is below every log.
func (s *segment) begins(keep uint64) bool { return keep == 0 || s.baseIndex <= keep }

// openFile opens the data file and makes sure that it is this segment's and not
// that of a later one of the same name: compaction and truncation replace files.
func (s *segment) openFile() (vfs.File, error) {
	f, err := s.fs.Open(s.name)
	if err != nil {
		return nil, err
	}
	h, err := readSegmentHeader(f)
	if err == nil && h.tag != s.tag {
		err = errReplaced
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errReplaced says that a file has another segment's bytes by now: look it up again.
var errReplaced = errors.New("segment was replaced")

// reached says whether the log has come to the segment at that place. Of one whose
// header is damaged only the name is known.
func (s *segment) reached(at place) bool {
	if s.tag == 0 {
		return at.offset >= s.baseOffset
	}
	return at.index >= s.baseIndex
}

// readSegmentHeader reads and checks the first bytes of a segment's file.
func readSegmentHeader(f vfs.File) (segmentHeader, error) {
	var h segmentHeader
	b := make([]byte, segmentHeaderLen)
	if n, err := f.ReadAt(b, 0); err != nil && !(err == io.EOF && n < len(b)) {
		return h, fmt.Errorf("%s: %w", f.Name(), err)
	} else if n < len(b) {
		return h, errSegmentHeader
	}
	return h, h.decode(b)
}

// readAt is a pread of the data file, through the cache of open files.
func (s *segment) readAt(p []byte, off int64) (int, error) {
	f, err := s.handle.acquire()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()
	return f.ReadAt(p, off)
}

// datasync makes the data file's bytes durable.
func (s *segment) datasync() error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	if seed.Is(seed.NoFsync) {
		return nil
	}
	return f.Datasync()
}
