package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A node that has not heard of a topic does not say that there is none: it catches up first, as long as the caller
// has patience, and says after that what is so.
func TestUnknownIsSaidWhenItIsSure(t *testing.T) {
	p := newPeers(t, 3)
	soon := func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 50*time.Millisecond) }
	e := p.open[3]
	elect := func(node int32) {
		t.Helper()
		if err := p.net.Elect(meta, node); err != nil {
			t.Fatal(err)
		}
	}
	elect(1)
	hear := p.net.Deafen(meta, 3)
	top, err := p.open[1].CreateTopic(ctx, TopicSpec{Name: "orders", Partitions: 2, Replicas: [][]int32{{1}, {2}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Partitions()[0].Append(ctx, []log.Record{{Value: []byte("x")}}, nil); err != nil {
		t.Fatal(err)
	}
	commit := CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{Topic: "orders", Partition: 0, Offset: 1, LeaderEpoch: -1}}}
	if err := p.open[1].AnyGroups().Commit(ctx, commit); err != nil {
		t.Fatal(err)
	}
	want := []TopicPartitions{{Topic: top.ID(), Partitions: []int32{0}}}
	asks := map[string]func(context.Context) error{
		"topic":      func(ctx context.Context) error { _, err := e.FindTopic(ctx, "orders"); return err },
		"partition":  func(ctx context.Context) error { _, _, err := e.FindPartition(ctx, "orders", 1); return err },
		"for a peer": func(ctx context.Context) error { _, err := e.PartitionAsked(ctx, top.ID(), 1); return err },
		"settings": func(ctx context.Context) error {
			return e.AlterTopic(ctx, "orders", map[string]string{"retention.ms": "7"}, nil)
		},
		"offsets": func(ctx context.Context) error {
			list, err := e.AnyGroups().Committed(ctx, "g", want, false)
			if err == nil && (len(list) != 1 || list[0].Offset != 1) {
				t.Errorf("committed offsets: %+v", list)
			}
			return err
		},
	}
	unsure := func(when string) {
		t.Helper()
		for what, ask := range asks {
			ctx, cancel := soon()
			err := ask(ctx)
			cancel()
			if err == nil || errors.Is(err, ErrUnknownTopic) || errors.Is(err, ErrUnknownPartition) {
				t.Errorf("%s, %s: got %v", when, what, err)
			}
			retriable := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCoordinatorLoading) || errors.Is(err, partition.ErrNotLeader)
			if !retriable {
				t.Errorf("%s, %s: %v is not to be tried again", when, what, err)
			}
		}
	}
	unsure("deaf")
	p.net.Depose(meta)
	unsure("without a leader")
	elect(2)
	unsure("with another leader")
	hear()
	for what, ask := range asks {
		if err := ask(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What there is not is said then, too.
	if _, err := e.FindTopic(ctx, "none"); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("got %v", err)
	}
	if _, _, err := e.FindPartition(ctx, "orders", 7); !errors.Is(err, ErrUnknownPartition) {
		t.Errorf("got %v", err)
	}
	if _, err := e.PartitionAsked(ctx, TopicID{1}, 0); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("got %v", err)
	}
	// Partitions that were added a moment ago.
	hear = p.net.Deafen(meta, 3)
	if err := p.open[2].AddPartitions(ctx, "orders", 4); err != nil {
		t.Fatal(err)
	}
	few, cancel := soon()
	defer cancel()
	if _, _, err := e.FindPartition(few, "orders", 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	hear()
	if _, part, err := e.FindPartition(ctx, "orders", 3); err != nil || part.ID() != 3 {
		t.Errorf("got %v", err)
	}
}
