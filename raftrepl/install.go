package raftrepl

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"
)

// Install
func (g *Group) Install(req *raft.InstallSnapshotRequest, r io.Reader) (*raft.InstallSnapshotResponse, error) {
	return nil, errors.New("install: not yet")
}
