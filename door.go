package embedlog

// What package kafka needs of a DB besides DB.Engine.

// AutoCreatesTopics says whether Options.AutoCreateTopics is set: Topic then makes a
// topic that is not there.
func (db *DB) AutoCreatesTopics() bool { return db.autoCreate }

// DefaultPartitions is how many partitions a topic gets that says nothing else.
func (db *DB) DefaultPartitions() int { return max(db.partitions, 1) }

// BeforeClose has f called by Close before anything of the database is closed: all calls
// still work in f. f returns when what it ends has ended. Functions are called at the same
// time. cancel takes it back. After Close it fails with ErrClosed.
func (db *DB) BeforeClose(f func()) (cancel func(), err error) {
	c := &ending{f}
	if err := db.opened(c); err != nil {
		return nil, err
	}
	return func() { db.closing(c) }, nil
}

// ending is a function that a DB closes.
type ending struct{ f func() }

func (e *ending) closeWithDB() { e.f() }
