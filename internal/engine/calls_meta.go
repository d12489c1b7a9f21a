package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/partition"
)

// Changes of the metadata from any node: the command goes to the leader of group 0 as it
// is, and what was made of it is answered when this node has applied it, too. So whoever
// has created a topic finds it.

const serviceChange = "change-metadata"

type changeCall struct{ Command []byte }

// changed is the answer: what apply said, and up to where the metadata then went.
type changed struct {
	FirstID int64
	Applied int64
}

// changeAnywhere is change, by whoever leads. Ids that were allocated for nobody do no
// harm, so that is tried again; of another command whose answer did not come the outcome is
// not known.
func (g *metaGroup) changeAnywhere(ctx context.Context, c *command) (r metaResult, err error) {
	e := g.engine
	if e == nil {
		return g.change(ctx, c)
	}
	way := route{e: e, what: "change metadata", group: g.log, again: c.kind == allocateIDsCommand, firm: c.kind == allocateIDsCommand}
	err = way.run(ctx, func(ctx context.Context) (err error) {
		if err := g.damaged(); err != nil {
			return err
		}
		r, err = g.change(ctx, c)
		if said := (*partition.NotLeaderError)(nil); errors.As(err, &said) && said.Leader < 0 {
			if node, epoch := g.log.Leader(); node > 0 {
				return fmt.Errorf("metadata: %w", &partition.NotLeaderError{Leader: node, LeaderEpoch: epoch})
			}
		}
		return err
	}, func(ctx context.Context, node int32) error {
		a, err := callStruct[changeCall, changed](ctx, e, node, serviceChange, &changeCall{c.encode()})
		if err != nil {
			return err
		}
		r.firstID = a.FirstID
		if err := g.await(ctx, a.Applied); err != nil {
			// It holds; it is not seen here yet.
			return &partition.UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: fmt.Errorf("metadata: node %d has changed it, and this one has not applied it yet: %w", node, err)}
		}
		return nil
	})
	return r, err
}

// knowMeta returns when this node leads the metadata, as a majority confirms, or has applied all that was
// committed to it before the call: what it then looks up is no older than what whoever calls
// has heard of.
func (e *Engine) knowMeta(ctx context.Context) error {
	way := route{e: e, what: "metadata", group: e.meta.group.log, again: true, firm: true}
	return way.run(ctx, func(ctx context.Context) error {
		if err := e.meta.group.damaged(); err != nil {
			return err
		}
		if err := e.leadMeta(ctx); err != nil {
			return err
		}
		return e.meta.group.log.Confirm(ctx)
	}, func(ctx context.Context, _ int32) error {
		err := e.currentMeta(ctx) // it asks whoever leads by now
		if err != nil && !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, ErrPeerUnreachable) {
			err = fmt.Errorf("%w: %w", errAnswerLost, err)
		}
		return err
	})
}

func (e *Engine) serveChange(ctx context.Context, call *changeCall) (a changed, err error) {
	c, err := decodeCommand(call.Command)
	if err != nil {
		return a, err
	}
	if c.kind == snapshotCommand || c.continuesSnapshot() {
		return a, fmt.Errorf("a snapshot of the metadata is made by its leader")
	}
	r, err := e.meta.group.change(ctx, c)
	if err != nil {
		return a, err
	}
	return changed{FirstID: r.firstID, Applied: e.meta.group.applied()}, nil
}
