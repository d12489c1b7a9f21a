package log

import (
	"errors"
	"fmt"
)

// The reserve is a file of allocated blocks that hold nothing, for a full disk: a
// checkpoint, without which nothing could be deleted, takes all of it; small
// internal appends take half at most, so that deletion always has its room. While
// it is not whole, nothing else grows: see allow.

// takeReserve gives the reserve back to the disk, once, for a write that must not
// fail when it is full. The next growth of the log lays it again, or fails.
func (l *Log) takeReserve() bool {
	l.reserve.Lock()
	defer l.reserve.Unlock()
	if !l.reserved.CompareAndSwap(true, false) {
		return false
	}
	l.otherBytes.Add(-l.reserveBytes.Swap(0))
	return l.fs.Remove(reserveName) == nil
}

// withReserve calls f once more, with the room of the reserve, when there was none for it. What f could not
// write it has taken back.
func (l *Log) withReserve(f func() error) error {
	err := f()
	if errors.Is(err, ErrNoSpace) && l.takeReserve() {
		err = f()
	}
	return err
}

// SpendReserve lets what is written until SaveReserve go into half of the reserve:
// for the small appends that have to go on when the disk is full, offset commits
// and the ends of transactions. It is false when there is no reserve. Writer.
func (l *Log) SpendReserve() bool {
	l.reserve.Lock()
	defer l.reserve.Unlock()
	had, half := l.reserveBytes.Load(), l.cfg.Load().ReserveBytes/2
	if !l.reserved.Load() || half == 0 {
		return false
	}
	if had > half {
		f, err := l.fs.Open(reserveName)
		if err != nil {
			return false
		}
		if err := errors.Join(f.Truncate(half), f.Close()); err != nil {
			return false
		}
		l.reserveBytes.Store(half)
		l.otherBytes.Add(half - had)
	}
	l.spending.Store(true)
	return true
}

// SaveReserve ends what SpendReserve began. Writer.
func (l *Log) SaveReserve() { l.spending.Store(false) }

// keepReserve lays the reserve if it is wanted and not there, or not all of it.
func (l *Log) keepReserve() error {
	size := l.cfg.Load().ReserveBytes
	whole := func() bool { return l.reserved.Load() && l.reserveBytes.Load() >= size }
	if size == 0 || whole() {
		return nil
	}
	l.reserve.Lock()
	defer l.reserve.Unlock()
	if whole() {
		return nil
	}
	had := l.reserveBytes.Load()
	f, err := openOrCreate(l.fs, reserveName)
	if err != nil {
		return fmt.Errorf("reserve of %d bytes: %w", size, err)
	}
	err = f.Allocate(had, size-had)
	if errors.Is(err, errors.ErrUnsupported) {
		err = f.Zero(had, size-had)
	}
	if err != nil {
		// Part of it may be there; what was there before stays.
		undo := f.Truncate(had)
		f.Close()
		if had == 0 {
			undo = l.fs.Remove(reserveName)
		}
		return fmt.Errorf("reserve of %d bytes: %w", size, errors.Join(err, undo))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("reserve of %d bytes: %w", size, err)
	}
	l.reserveBytes.Store(size)
	l.otherBytes.Add(size - had)
	l.reserved.Store(true)
	return nil
}
