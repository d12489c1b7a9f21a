package engine

import (
	"context"
	"fmt"
)

// producerIDBlock is how many producer ids one command takes, so that most
// producers begin without a sync. What is left of a block at a restart is never
// given to anybody.
const producerIDBlock = 1000

type producerIDs struct {
	turn      chan struct{} // has room for who uses the others: a block may be another node's to give
	next, end int64
}

// AllocateProducerID returns a producer id that nobody ever got or gets.
func (e *Engine) AllocateProducerID(ctx context.Context) (int64, error) {
	ids := &e.producerIDs
	select {
	case ids.turn <- struct{}{}:
		defer func() { <-ids.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := e.closedError(); err != nil {
		return 0, err
	}
	if ids.next == ids.end {
		first, err := e.allocateIDs(ctx)
		if err != nil {
			return 0, fmt.Errorf("allocate producer ids: %w", err)
		}
		ids.next, ids.end = first, first+producerIDBlock
	}
	id := ids.next
	ids.next++
	return id, nil
}

func (e *Engine) allocateIDs(ctx context.Context) (first int64, err error) {
	if e.cluster == nil {
		return e.meta.do(ctx, &command{kind: allocateIDsCommand, count: producerIDBlock})
	}
	a, err := e.atMeta(ctx, metaAsk{IDs: producerIDBlock})
	return a.FirstID, err
}
