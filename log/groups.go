package log

// What an owner that replicates the log asks for, besides what every owner does.

// Checkpoint makes the checkpoint one of the log as it is now, and durable: what
// Options.Snapshot gives is read by the next open, whatever happens. Writer.
func (l *Log) Checkpoint() error {
	if err := l.Err(); err != nil {
		return err
	}
	l.bg.quiesce() // a job that runs would replace it with an older one
	if err := l.settleState(); err != nil {
		return err
	}
	return l.writeCheckpoint(l.takeCheckpoint())
}

// RetentionPoint is the log start offset that Retain would leave with this policy.
// Nothing is changed. Writer.
func (l *Log) RetentionPoint(p RetentionPolicy) (start int64, err error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	n, err := l.deletable(&p)
	if err != nil {
		return 0, err
	}
	return max(l.start.Load(), (*l.segs.Load())[n].baseOffset), nil
}

// Uncap has appends go beyond the byte cap: a replica stores what its leader, who asks
// HasRoom, has let in, or it could not store what deletes either. Before the first append.
func (l *Log) Uncap() { l.uncapped = true }

// HasRoom says whether so many bytes may be appended, as far as is known: not beyond the
// byte cap, and not while the reserve is not whole. The error matches ErrNoSpace.
func (l *Log) HasRoom(bytes int64) error {
	if err := l.keepReserve(); err != nil {
		return err
	}
	return l.underCap(bytes)
}

// Segments is how many segments there are.
func (l *Log) Segments() int { return len(*l.segs.Load()) }
