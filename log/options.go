package log

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// Level says when an append is acknowledged.
type Level uint8

const (
	// Durable acknowledges when the bytes were synced to the disk: the record
	// survives a power cut.
	Durable Level = iota
	// Interval acknowledges at once and syncs within Config.SyncInterval: a power
	// cut loses what was acknowledged since the last sync, a killed process nothing.
	Interval
	// OS acknowledges at once and leaves the syncing to the 32 MiB bound: a power
	// cut loses at most that, a killed process nothing.
	OS
)

func (l Level) String() string {
	switch l {
	case Durable:
		return "durable"
	case Interval:
		return "interval"
	case OS:
		return "os"
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// MaxUnsyncedBytes bounds, at every level, how much of a log is not yet synced,
// and so what a power cut can take and what opening must read again.
const MaxUnsyncedBytes = 32 << 20

// Options are what Open takes. They do not change while the log is open.
type Options struct {
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Files bounds the open files of all logs that share it; nil is a cache of 256 for this log alone.
	Files *FileCache
	// NoLock leaves out the directory's lock: the caller holds one above it.
	NoLock bool
	// MustExist refuses a directory that holds no log with a *CorruptionError,
	// instead of making one there: for an owner who knows that there was one.
	MustExist bool
	// Logger is told what recovery cut and what failed in the background; nil is silent.
	Logger *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// Snapshot appends what the caller wants back from Recovered.State after the
	// next open. It is called with the writer's lock held. Nil is nothing.
	Snapshot func(dst []byte) []byte
	// OnSync is called after each sync of records to the disk, in whatever goroutine
	// made it, with how long that took. It must be quick. Nil costs nothing.
	OnSync func(took time.Duration, err error)
	// Config is what may change later, too.
	Config Config
}

// Config are the settings of a log that may change while it is open.
type Config struct {
	// Level is when an append is acknowledged. The zero value is Durable.
	Level Level
	// SyncInterval is within what time Interval syncs. Zero means 100 ms.
	SyncInterval time.Duration
	// SegmentBytes is the size at which the active segment is closed and the next
	// begun. A single larger group of frames still fits. Zero means 1 GiB. (segment.bytes)
	SegmentBytes int64
	// SegmentAge is how long after its creation a segment that holds records is
	// closed. Zero means 7 days, negative never. (segment.ms)
	SegmentAge time.Duration
	// IndexIntervalBytes is how far the entries of an index lie apart. Zero means 4 KiB. (index.interval.bytes)
	IndexIntervalBytes int
	// CapBytes is the most that the log's files may take on the disk. An append
	// that would pass it fails with ErrNoSpace. Zero is no cap.
	CapBytes int64
	// ReserveBytes is kept on the disk for checkpoints and internal appends when
	// it is full. Zero is none.
	ReserveBytes int64
	// NoZeroing leaves out writing zeros ahead of the data: half the wear on
	// flash, slower syncs.
	NoZeroing bool
	// Recycle keeps one segment that retention frees, to be written over.
	Recycle bool
}

const (
	minSegmentBytes = 1 << 10
	maxSegmentBytes = 2 << 30 // positions in a segment are 32 bits wide, and one group may lie past the limit
)

// Validate reports every field that is out of bounds, joined.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults fills zero fields and reports every bad one.
func (c Config) withDefaults() (Config, error) {
	var bad []error
	report := func(name string, v any, why string) {
		bad = append(bad, fmt.Errorf("log config: %s is %v: %s", name, v, why))
	}
	if c.Level > OS {
		report("Level", c.Level, "unknown")
	}
	if c.SyncInterval == 0 {
		c.SyncInterval = 100 * time.Millisecond
	}
	if c.SyncInterval < 0 {
		report("SyncInterval", c.SyncInterval, "must not be negative")
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 1 << 30
	}
	if c.SegmentBytes < minSegmentBytes || c.SegmentBytes > maxSegmentBytes {
		report("SegmentBytes", c.SegmentBytes, fmt.Sprintf("must lie in %d to %d", int64(minSegmentBytes), int64(maxSegmentBytes)))
	}
	if c.SegmentAge == 0 {
		c.SegmentAge = 7 * 24 * time.Hour
	}
	if c.IndexIntervalBytes == 0 {
		c.IndexIntervalBytes = 4 << 10
	}
	if c.IndexIntervalBytes < 0 {
		report("IndexIntervalBytes", c.IndexIntervalBytes, "must not be negative")
	}
	if c.CapBytes < 0 {
		report("CapBytes", c.CapBytes, "must not be negative")
	}
	if c.ReserveBytes < 0 {
		report("ReserveBytes", c.ReserveBytes, "must not be negative")
	}
	return c, errors.Join(bad...)
}
