package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// loneLog is a group of one node, which leads as long as leads says so.
type loneLog struct {
	part  *partition.Partition
	leads bool
	epoch int32
}

func (l *loneLog) LeaderEpoch() (int32, error) {
	if !l.leads {
		return 0, &partition.NotLeaderError{Leader: -1, LeaderEpoch: l.epoch}
	}
	return l.epoch, nil
}

func (l *loneLog) Propose(_ context.Context, epoch int32, _ int64, batches [][]byte) (partition.Proposal, error) {
	var entries []partition.Entry
	l.part.Log().Lock()
	next := l.part.Log().NextIndex()
	l.part.Log().Unlock()
	for i, b := range batches {
		entries = append(entries, partition.Entry{Kind: log.KindData, Index: next + uint64(i), Epoch: uint64(epoch), Data: append([]byte(nil), b...)})
	}
	if err := l.part.Store(entries); err != nil {
		return nil, err
	}
	return l, l.part.Commit(next + uint64(len(batches)) - 1)
}

func (l *loneLog) Wait(context.Context) error { return nil }

func (l *loneLog) Run(p *partition.Partition) error { l.part = p; return nil }
func (l *loneLog) Stop()                            {}
func (l *loneLog) Leader() (int32, int32)           { return 1, l.epoch }
func (l *loneLog) Watch(func()) (cancel func())     { return func() {} }

func (l *loneLog) Lead(context.Context) (int32, error) { return l.LeaderEpoch() }

func (l *loneLog) Confirm(context.Context) error {
	_, err := l.LeaderEpoch()
	return err
}
func (l *loneLog) SetMembers(context.Context, []int32) error { return nil }
func (l *loneLog) Transfer(context.Context, int32) error     { return nil }
func (l *loneLog) Status() LogStatus                         { return LogStatus{} }

// startGroup has m follow its log; kinds are the commands that were made so.
func startGroup(t *testing.T, m *metaLog, l *loneLog, next int64) (g *metaGroup, kinds *[]commandKind) {
	life, end := context.WithCancel(context.Background())
	g, kinds = newMetaGroup(m, l, life), new([]commandKind)
	g.act = func(c *command, _ SecurityChange) { *kinds = append(*kinds, c.kind) }
	g.caught = func() {}
	m.group = g
	if err := g.startAt(min(next, m.part.HighWatermark())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		g.stop()
	})
	return g, kinds
}

// A node that lags behind the log start offset goes on with the snapshot there, whoever
// led when it was written; a leader who was deposed meanwhile adds nothing to it.
func TestMetadataGoesOnWithASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		l := &loneLog{leads: true, epoch: 1}
		m, err := openMetaLog(vfs.NewMem(), false, log.NewFileCache(4), discard, time.Now, l)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.part.Close() })
		g, _ := startGroup(t, m, l, 0)
		create := func(i int) {
			t.Helper()
			c := &command{kind: createTopicCommand, topic: topicMeta{id: testID(byte(i)), name: fmt.Sprint("t", i), partitions: 1}}
			if _, err := m.do(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			create(i)
		}
		if err := g.snapshot(ctx); err != nil {
			t.Fatal(err)
		}
		create(5)
		if start := m.part.LogStart(); start != 5 {
			t.Fatalf("the log starts at %d", start)
		}
		other := &metaLog{part: m.part, logger: discard, state: newMetadata()}
		late, kinds := startGroup(t, other, l, 0)
		if err := late.await(ctx, m.part.HighWatermark()); err != nil {
			t.Fatal(err)
		}
		if other.state.describe() != m.state.describe() || len(other.state.byID) != 6 {
			t.Errorf("got\n%s\nwant\n%s", other.state.describe(), m.state.describe())
		}
		if fmt.Sprint(*kinds) != fmt.Sprint([]commandKind{snapshotCommand, createTopicCommand}) {
			t.Errorf("commands %v", *kinds)
		}
		// A part that is not where it should be is refused: something came between.
		parts := m.state.snapshot()
		if _, _, err := g.propose(ctx, parts[0], g.applied()-1); !errors.Is(err, partition.ErrUnexpectedOffset) {
			t.Errorf("a part elsewhere: %v", err)
		}
		l.leads = false
		if _, err := m.do(ctx, &command{kind: allocateIDsCommand, count: 1}); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("a change by who does not lead: %v", err)
		}
	})
}

// Bytes that are no command stop a node, and it says so; a command of a newer version does, too.
func TestMetadataThatCannotBeApplied(t *testing.T) {
	for _, row := range []struct {
		name, b string
		want    error
	}{{"damage", "\x01\x04", log.ErrCorrupt}, {"newer", "\x01\xff", log.ErrNewerFormat}} {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			l := &loneLog{leads: true, epoch: 1}
			m, err := openMetaLog(vfs.NewMem(), false, log.NewFileCache(4), discard, time.Now, l)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.part.Close() })
			startGroup(t, m, l, 0)
			if _, err := m.append(ctx, []byte(row.b), anywhere); err != nil {
				t.Fatal(err)
			}
			if _, err := m.do(ctx, &command{kind: allocateIDsCommand, count: 1}); !errors.Is(err, row.want) {
				t.Errorf("%s: %v", row.name, err)
			}
		})
	}
}

var discard = slog.New(slog.DiscardHandler)
