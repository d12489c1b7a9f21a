package raftrepl

import (
	"context"
	"errors"

	"github.com/x/embedlog/internal/engine"
)

// SetMembers
func (g *Group) SetMembers(ctx context.Context, nodes []int32) error { return errors.New("not yet") }

// Transfer
func (g *Group) Transfer(ctx context.Context, to int32) error { return errors.New("not yet") }

// Status
func (g *Group) Status() engine.LogStatus { return engine.LogStatus{} }
