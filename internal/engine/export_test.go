package engine

import "context"

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

// PartitionAsked is what a peer's question for a partition finds.
func (e *Engine) PartitionAsked(ctx context.Context, topic TopicID, n int32) (*Partition, error) {
	return e.partitionAsked(ctx, topic, n)
}

// DrainOnly writes that a node is to be drained, and nothing of what follows from that.
func DrainOnly(ctx context.Context, e *Engine, id int32) error {
	_, err := e.meta.do(ctx, &command{kind: drainNodeCommand, node: nodeMeta{id: id}, flags: nodeDraining})
	return err
}
