package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
)

// VerifyMetadata reads and checks the metadata's log: see log.Verify.
func (e *Engine) VerifyMetadata(ctx context.Context) (log.VerifyReport, error) {
	if err := e.closedError(); err != nil {
		return log.VerifyReport{}, fmt.Errorf("verify metadata: %w", err)
	}
	r, err := e.meta.part.Log().Verify(ctx)
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
