package log

import "path"

// AheadBytes is how much GiveBack would give back.
func (l *Log) AheadBytes() int64 {
	segs := *l.segs.Load()
	s := segs[len(segs)-1]
	return l.spareBytes.Load() + max(s.allocated.Load()-s.end.Load(), 0)
}

// GiveBack gives the disk back what was laid ahead of need: the spare segment and
// the zeros behind the last frame. The next append lays them again, so it is for
// who is short of room. A crash in between leaves zeros, or none. Writer.
func (l *Log) GiveBack() error {
	if err := l.Err(); err != nil {
		return err
	}
	l.dropSpare()
	w := &l.w
	f, err := w.seg.handle.acquire()
	if err != nil {
		return err
	}
	defer w.seg.handle.release()
	end := w.pos
	if w.marked == w.pos {
		end += markLen
	}
	w.runway.forgo() // or who lays zeros goes on behind us
	if ready := w.runway.enter(); ready <= end {
		w.runway.leave(ready)
		return nil
	}
	err = f.Truncate(end)
	w.runway.leave(end) // also when it failed: to lay zeros again does no harm
	return err
}

// Essential tells the files, by their last name, that have to be written before
// anything can be deleted on a full disk: the next checkpoint and the reserve. Who
// rations room lets them through; both are small.
func Essential(name string) bool {
	base := path.Base(name)
	return base == checkpointName+tmpSuffix || base == reserveName
}
