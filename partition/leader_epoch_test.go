package partition

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// oneNode is a group of one, whose epoch the test moves.
type oneNode struct {
	p     *Partition
	epoch int32 // 0: it does not lead
	index uint64
}

func (n *oneNode) LeaderEpoch() (int32, error) {
	if n.epoch == 0 {
		return 0, &NotLeaderError{Leader: -1}
	}
	return n.epoch, nil
}

func (n *oneNode) Propose(_ context.Context, epoch int32, _ int64, batches [][]byte) (Proposal, error) {
	if epoch != n.epoch {
		return nil, &NotLeaderError{Leader: -1}
	}
	var entries []Entry
	for _, b := range batches {
		n.index++
		entries = append(entries, Entry{Kind: log.KindData, Index: n.index, Epoch: uint64(epoch), Data: bytes.Clone(b)})
	}
	if err := n.p.Store(entries); err != nil {
		return nil, err
	}
	return n, n.p.Commit(n.index)
}

func (n *oneNode) Wait(context.Context) error { return nil }

func openOneNode(t *testing.T) *oneNode {
	n := &oneNode{epoch: 3}
	p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	n.p, n.index = p, p.Log().NextIndex()-1
	return n
}

// What was decided in one leader epoch is not appended in another.
func TestAppendInLeaderEpoch(t *testing.T) {
	for _, c := range []struct {
		name         string
		asked, leads int32
		ok           bool
	}{
		{"any", 0, 3, true},
		{"this one", 3, 3, true},
		{"an earlier one", 2, 3, false},
		{"a later one", 4, 3, false},
		{"nobody leads", 3, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := openOneNode(t)
			n.epoch = c.leads
			_, err := n.p.Append(context.Background(), []log.Record{{Value: []byte("x")}}, &AppendOptions{LeaderEpoch: c.asked})
			if c.ok != (err == nil) || !c.ok && (!errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnknownOutcome)) {
				t.Errorf("epoch %d asked for, %d leads: %v", c.asked, c.leads, err)
			}
			if end := n.p.LogEnd(); (end > 0) != c.ok {
				t.Errorf("log ends at %d", end)
			}
		})
	}
}

// A transaction that was verified in one leader epoch is not begun in another: its
// marker may have come here from another leader meanwhile.
func TestVerificationOfAnotherEpoch(t *testing.T) {
	n := openOneNode(t)
	v := n.p.BeginVerification(7)
	defer v.Release()
	n.epoch = 5
	again := n.p.BeginVerification(7)
	defer again.Release()
	add := func(v *Verification) error {
		_, err := n.p.Append(context.Background(), []log.Record{{Value: []byte("x")}},
			&AppendOptions{Producer: &Producer{ID: 7, Transactional: true, Verified: v}})
		return err
	}
	if err := add(v); !errors.Is(err, ErrNotLeader) {
		t.Errorf("verified in another epoch: %v", err)
	}
	if err := add(again); err != nil {
		t.Errorf("verified in this epoch: %v", err)
	}
}
