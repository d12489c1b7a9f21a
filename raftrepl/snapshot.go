package raftrepl

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// snapshots is the library's SnapshotStore. There are no snapshots: the one that it lists
// is the log as far as it is committed. A start begins with its metadata, and a follower
// that needs entries which are gone gets its content, which is an install.
type snapshots struct{ inst *instance }

var _ raft.SnapshotStore = (*snapshots)(nil)

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	st, ok := s.inst.store.p.Group()
	if !ok || st.Index == 0 {
		return nil, nil
	}
	m := &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", st.Epoch, st.Index), Index: st.Index, Term: st.Epoch, ConfigurationIndex: st.MembersIndex,
	}
	if len(st.Members) > 0 {
		var err error
		if m.Configuration, err = decodeMembers(st.Members); err != nil {
			return nil, err
		}
	}
	return []*raft.SnapshotMeta{m}, nil
}

// Open implements raft.SnapshotStore: what is committed by now, whichever was listed.
func (s *snapshots) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return nil, nil, errors.New("install: not yet")
}

// Create implements raft.SnapshotStore: the library makes none, and installs do not come
// through it.
func (s *snapshots) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	return nil, errors.New("the log is its own snapshot")
}
