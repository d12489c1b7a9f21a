package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
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
	m, err := metaOf(st)
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{m}, nil
}

func metaOf(st partition.GroupState) (*raft.SnapshotMeta, error) {
	m := &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", st.Epoch, st.Index), Index: st.Index, Term: st.Epoch, ConfigurationIndex: st.MembersIndex,
	}
	if len(st.Members) > 0 {
		var err error
		if m.Configuration, err = decodeMembers(st.Members); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// holdAfter is for how long after an install nothing is compacted: the follower is to
// find the entries behind it, which are committed by now. After one that was not sent to its end it is not held: a follower that
// fails again and again, for want of room perhaps, must not keep the leader's log from shrinking.
const holdAfter = 30 * time.Second

// Open implements raft.SnapshotStore: what is committed by now, whichever was listed. The
// content is made while it is read.
func (s *snapshots) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if s.inst.cutOff.Load() {
		return nil, nil, errCutOff
	}
	p := s.inst.store.p
	release := p.Log().Hold()
	c, st, err := p.CaptureCommitted()
	var meta *raft.SnapshotMeta
	if err == nil {
		meta, err = metaOf(st)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	meta.Size = installBytes(c)
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	out := &outgoing{PipeReader: r}
	out.cancel = func() {
		cancel()
		if !out.sent.Load() {
			release()
			return
		}
		time.AfterFunc(holdAfter, release)
	}
	if !s.inst.goCall(func() {
		err := sendInstall(ctx, w, c, st)
		out.sent.Store(err == nil)
		if errors.Is(err, log.ErrCorrupt) {
			s.inst.fail(fmt.Errorf("send the log: %w", err))
		}
		w.CloseWithError(err)
	}) {
		out.Close()
		return nil, nil, errCutOff
	}
	return meta, out, nil
}

// outgoing is an install that is read.
type outgoing struct {
	*io.PipeReader
	once   sync.Once
	sent   atomic.Bool // to its end
	cancel func()
}

// Close ends the making of what was not read.
func (o *outgoing) Close() error {
	o.once.Do(o.cancel)
	return o.PipeReader.Close()
}

// Create implements raft.SnapshotStore: the library makes none, and installs do not come
// through it.
func (s *snapshots) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	return nil, errors.New("the log is its own snapshot")
}
