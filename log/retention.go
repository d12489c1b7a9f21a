package log

import (
	"time"
)

// RetentionPolicy says which of the oldest segments may go. A segment goes when
// any of the rules says so and all before it go, too; the active one never does.
type RetentionPolicy struct {
	// Upto bounds everything: only segments that lie wholly below this offset may
	// go. Zero is none.
	Upto int64
	// KeepIndex is the log index of the first entry that has to stay, whatever its
	// offsets: what lies there may not be committed yet. Zero is none.
	KeepIndex uint64
	// Age deletes a segment whose largest timestamp is older. Zero or negative is
	// never. (retention.ms)
	//
	// A clock that jumps must delete nothing, so the segment must also have been
	// closed for that long by the log's running time: the time for which it was
	// open, all runs together, on the monotonic clock. A machine that is switched
	// off half of the time keeps records twice as long.
	Age time.Duration
	// Bytes deletes while at least that much is left without the segment. Zero or
	// negative is no bound. (retention.bytes)
	Bytes int64
	// Room deletes until an append of that many bytes fits below Config.CapBytes.
	// It is for the caller whose Write failed with ErrNoSpace and who would rather
	// lose the oldest records than the newest. The cap should be several segments.
	// Whatever else lets a segment go, it is then not kept to be written over.
	Room int64
	// Now is the wall clock; zero is Options.Now.
	Now time.Time
}

// Retain deletes the segments that the policy and the log start offset let go, and
// moves the log start offset to the first one that is left. It returns how many
// went. A crash on the way leaves the old start or the new one. Writer.
func (l *Log) Retain(p RetentionPolicy) (deleted int, err error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	l.bg.quiesce() // a job that runs may be about to trim what goes
	if p.Room > 0 {
		l.dropSpare()
	}
	l.tight = p.Room > 0
	defer func() { l.tight = false }()
	n, err := l.deletable(&p)
	if err != nil {
		return 0, err
	}
	segs := *l.segs.Load()
	if n > 0 {
		if err := l.dropSegments(n, max(l.start.Load(), segs[n].baseOffset)); err != nil {
			return 0, err
		}
	}
	return n, l.saveRan(p.Age, n)
}

// lacks says whether room is missing under the byte cap when freed bytes have gone.
func (l *Log) lacks(room, freed int64) bool {
	limit := l.cfg.Load().CapBytes
	return limit > 0 && room > 0 && l.AllocatedBytes()-freed+room > limit
}

// deletable counts the segments that go.
func (l *Log) deletable(p *RetentionPolicy) (n int, err error) {
	segs := *l.segs.Load()
	now := p.Now
	if now.IsZero() {
		now = l.now()
	}
	total := int64(0)
	for _, s := range segs {
		total += s.end.Load()
	}
	start, ran, freed := l.start.Load(), l.ran(), int64(0)
	for n+1 < len(segs) {
		s, next := segs[n], segs[n+1]
		if next.baseOffset > p.Upto || !next.begins(p.KeepIndex) {
			break
		}
		size := s.end.Load()
		goes := next.baseOffset <= start ||
			p.Bytes > 0 && total-size >= p.Bytes ||
			l.lacks(p.Room, freed)
		// The next segment was created when this one was closed.
		if !goes && p.Age > 0 && ran-next.born >= p.Age.Milliseconds() {
			newest, err := l.segmentMaxTimestamp(n, segs)
			if err != nil {
				return 0, err
			}
			goes = newest < now.UnixMilli()-p.Age.Milliseconds()
		}
		if !goes {
			break
		}
		total -= size
		freed += max(s.allocated.Load(), size) + s.index.bytes()
		n++
	}
	return n, nil
}

// RunningTime is for how long the log was open, all runs together, on the monotonic
// clock: what RetentionPolicy.Age goes by. It has whole milliseconds. A crash forgets
// what passed since the last checkpoint, see SaveRunningTime.
func (l *Log) RunningTime() time.Duration { return time.Duration(l.ran()) * time.Millisecond }

// SaveRunningTime writes a checkpoint when a crash would make the log forget more than
// most of its running time. Writer.
func (l *Log) SaveRunningTime(most time.Duration) error {
	if err := l.Err(); err != nil {
		return err
	}
	return l.saveRunning(most)
}

func (l *Log) saveRunning(most time.Duration) error {
	ran := l.ran()
	if ran-l.ranSaved < most.Milliseconds() {
		return nil
	}
	if err := l.settleState(); err != nil {
		return err
	}
	if err := l.writeCheckpoint(l.takeCheckpoint()); err != nil {
		return err
	}
	l.ranSaved = ran
	return nil
}

// ran is the log's running time in milliseconds. What passed since the last
// checkpoint is forgotten by a crash: segments then count as younger, and stay.
func (l *Log) ran() int64 {
	if l.opened.IsZero() {
		return l.ranBase.Load()
	}
	return l.ranBase.Load() + time.Since(l.opened).Milliseconds()
}

// ranBefore says that the log had at least this running time when it was opened.
func (l *Log) ranBefore(ms int64) {
	if ms > l.ranBase.Load() {
		l.ranBase.Store(ms)
		l.ranSaved = ms
	}
}

// saveRan writes a checkpoint when much running time would be lost by a crash: an
// idle log writes none otherwise. Writer.
func (l *Log) saveRan(age time.Duration, deleted int) error {
	if deleted > 0 {
		l.ranSaved = l.ran() // dropSegments wrote one
	}
	if age <= 0 || len(*l.segs.Load()) < 2 {
		return nil
	}
	return l.saveRunning(max(age/100, time.Minute))
}

// OldestSegment is the segment that retention would take next.
type OldestSegment struct {
	BaseOffset, EndOffset int64 // half-open
	// Bytes is what its frames take, AllocatedBytes what its files take on the disk.
	Bytes, AllocatedBytes int64
	// MaxTimestamp is its largest timestamp in milliseconds since 1970; -1 is none.
	MaxTimestamp int64
	// Active says that it is the one that is written to.
	Active bool
}

// Oldest describes the log's first segment.
func (l *Log) Oldest() (OldestSegment, error) {
	segs := *l.segs.Load()
	s := segs[0]
	info := OldestSegment{
		BaseOffset: s.baseOffset, EndOffset: l.next.Load(), Bytes: s.end.Load(),
		AllocatedBytes: s.allocatedBytes(), Active: len(segs) == 1,
	}
	if !info.Active {
		info.EndOffset = segs[1].baseOffset
	}
	newest, err := l.segmentMaxTimestamp(0, segs)
	info.MaxTimestamp = newest
	return info, err
}
