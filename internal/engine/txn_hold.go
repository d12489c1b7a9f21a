package engine

// holdEnds calls f while no transaction is being ended: of each, every partition has
// its marker, or none has and none gets one, but for partitions that could not be
// written. It waits for ends that are under way; those that come meanwhile wait for
// f, which must not end one, nor wait for who does.
func (t *Txns) holdEnds(f func()) {
	t.ends.Lock()
	defer t.ends.Unlock()
	f()
}
