package engine

// OneAtATime makes one goroutine open, make and close partitions, and snapshots of the
// metadata come after so many bytes, until the test ends.
func OneAtATime(t interface{ Cleanup(func()) }, bytes int) {
	oldOpeners, oldAfter := openers, snapshotAfter
	openers, snapshotAfter = 1, bytes
	t.Cleanup(func() { openers, snapshotAfter = oldOpeners, oldAfter })
}

// HoldAdmin makes the caller the only one who changes topics, until release.
func (e *Engine) HoldAdmin() (release func()) {
	e.admin <- struct{}{}
	return e.endAdmin
}
