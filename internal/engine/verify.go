package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Verify reads and checks the partition's log: see log.Verify. A replica hears of damage, as when a reader comes upon it.
func (p *Partition) Verify(ctx context.Context) (log.VerifyReport, error) {
	r, err := p.Log().Verify(ctx)
	tellDamage(p.repl, r.Problems)
	return r, err
}

// tellDamage tells a replica of the first damage that was found in its log.
func tellDamage(l ReplicatedLog, problems []*log.Problem) {
	w, ok := l.(partition.DamageWatcher)
	if !ok {
		return
	}
	for _, bad := range problems {
		if !bad.Cache && errors.Is(bad.Err, log.ErrCorrupt) {
			w.ReadFailed(bad.Err)
			return
		}
	}
}

// VerifyMetadata reads and checks the metadata's log: see Partition.Verify.
func (e *Engine) VerifyMetadata(ctx context.Context) (log.VerifyReport, error) {
	if err := e.closedError(); err != nil {
		return log.VerifyReport{}, fmt.Errorf("verify metadata: %w", err)
	}
	r, err := e.meta.part.Log().Verify(ctx)
	if e.meta.group != nil {
		tellDamage(e.meta.group.log, r.Problems)
	}
	if err != nil {
		return r, fmt.Errorf("verify metadata: %w", err)
	}
	return r, nil
}

// LostPositions lists the committed positions that the logs do not reach any more,
// such as after a power cut at a weak level: each a *PositionLostError, with the
// group's name.
func (e *Engine) LostPositions(ctx context.Context) (lost []error, err error) {
	groups, err := e.groups.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		offsets, err := e.groups.Committed(ctx, g.Group, nil, false)
		if err != nil && !errors.Is(err, ErrUnknownGroup) {
			return lost, err
		}
		for _, o := range offsets {
			if o.Lost != nil {
				lost = append(lost, fmt.Errorf("group %q: %w", g.Group, o.Lost))
			}
		}
	}
	return lost, nil
}
