package log

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// maintenance is what deletion, compaction and checking keep of a log.
type maintenance struct {
	// maint is held by one compaction or check at a time. It is taken before the
	// writer's lock.
	maint sync.Mutex

	held atomic.Int32 // by those who copy the log: see Hold

	opened   time.Time    // on the monotonic clock
	ranBase  atomic.Int64 // running time before that, milliseconds
	ranSaved int64        // running time that is durable, at least. Writer.

	spareBytes atomic.Int64 // size of the spare file, 0 for none
	tight      bool         // room is needed: nothing is kept back. Writer.
}

// With Config.Recycle a file that retention frees is kept under the name "spare", one
// at most, and becomes the next segment: its blocks need neither be given back nor
// found again, and a sync of what is written into it changes no block map.
//
//	<old base>.log --rename--> spare --header, synced--> spare --rename--> <new base>.log
//
// What a power cut leaves of that:
//   - The first rename is lost: the old name is there, below the log start that the
//     checkpoint has; open removes it.
//   - The header is torn, or not there: it is still called spare, and what a spare
//     holds counts for nothing.
//   - The second rename is lost: nothing that was acknowledged lies in it, because
//     the directory is synced before.
//   - Frames of the new life are lost: the bytes in their place are of the old life
//     and carry another tag, so the log ends before them.
//
// Only Durable, the level that writes and does not store through a mapping, uses
// spares.

// keepSpare notes the spare that open found.
func (l *Log) keepSpare(info vfs.Info) {
	l.spareBytes.Store(info.Size)
	l.otherBytes.Add(info.Size)
}

func (l *Log) wantsSpare() bool {
	cfg := l.cfg.Load()
	return cfg.Recycle && cfg.Level == Durable && !l.tight
}

// freeSegment gives up the files of a segment that no list holds any more. Writer.
func (l *Log) freeSegment(s *segment) error {
	if l.recycle(s) {
		return nil
	}
	return removeSegment(l.fs, s)
}

// recycle makes the segment's file the spare. It answers false where that is not
// wanted or not possible, and the file still has its name. Writer.
func (l *Log) recycle(s *segment) bool {
	if !l.wantsSpare() || l.spareBytes.Load() != 0 || s.tag == 0 {
		return false
	}
	// A short file would be outgrown at once, a longer one is more than is needed.
	size := s.end.Load()
	if limit := l.cfg.Load().SegmentBytes; size < limit/2 || size > 2*limit {
		return false
	}
	// A reader that has the file mapped would see it change under its hands. Either
	// it sees leaving, or we see it. Those that use pread find frames with another tag.
	s.leaving.Store(true)
	if s.pins.Load() != 0 {
		return false
	}
	for _, suffix := range []string{indexSuffix, timeIndexSuffix} {
		if err := l.fs.Remove(segmentName(s.baseOffset, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	if err := l.fs.Rename(s.name, spareName); err != nil {
		return false
	}
	s.handle.forget()
	l.otherBytes.Add(size)
	l.spareBytes.Store(size)
	// The names must be settled before the file is written to: half of two renames
	// would be one file under two names.
	if err := l.fs.SyncDir("."); err != nil {
		l.dropSpare()
	}
	return true
}

// useSpare makes the spare the file of s, a segment that begins. ok is false when
// there is none: a spare that cannot be used costs nothing but itself. Writer.
func (l *Log) useSpare(s *segment) (ok bool, err error) {
	size := l.spareBytes.Load()
	if size == 0 {
		return false, nil
	}
	if !l.wantsSpare() {
		l.dropSpare()
		return false, nil
	}
	if err := s.index.reset(); err != nil { // of an earlier segment with this name
		return false, err
	}
	f, err := l.fs.Open(spareName)
	if err != nil {
		l.dropSpare()
		return false, nil
	}
	if _, err = f.WriteAt(s.segmentHeader.encode(), 0); err == nil {
		// Under its new name the file must not be seen with the old header: it would be a
		// damaged segment full of frames that say they were durable.
		err = f.Datasync()
	}
	if err == nil {
		err = l.fs.Rename(spareName, s.name)
	}
	if err != nil {
		f.Close()
		l.dropSpare()
		return false, nil
	}
	l.namesDirty.Store(true)
	l.spareBytes.Store(0)
	l.otherBytes.Add(-size)
	s.allocated.Store(size)
	s.recycled = size
	s.handle.adopt(f)
	s.handle.release()
	return true, nil
}

// dropSpare removes the spare. Writer.
func (l *Log) dropSpare() {
	size := l.spareBytes.Swap(0)
	if size == 0 {
		return
	}
	l.otherBytes.Add(-size)
	if err := l.fs.Remove(spareName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.logger.Warn("spare segment not removed", "error", err)
	}
}

// pin keeps the segment's file from being recycled while it is mapped. It answers
// false when that is about to happen.
func (s *segment) pin() bool {
	s.pins.Add(1)
	if s.leaving.Load() {
		s.pins.Add(-1)
		return false
	}
	return true
}

func (s *segment) unpin() { s.pins.Add(-1) }
