package engine

// OneAtATime makes one goroutine open, make and close partitions, and snapshots of the
// metadata come after so many bytes, until the test ends.
func OneAtATime(t interface{ Cleanup(func()) }, bytes int) {
	oldOpeners, oldAfter := openers, snapshotAfter
	openers, snapshotAfter = 1, bytes
	t.Cleanup(func() { openers, snapshotAfter = oldOpeners, oldAfter })
}
