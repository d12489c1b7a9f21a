package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/partition"
)

// known waits until all nodes have a topic with all its partitions.
func (p *peers) known(name string) *Topic {
	p.t.Helper()
	var found *Topic
	p.until("topic "+name, func() bool {
		for _, e := range p.open {
			t, err := e.Topic(name)
			if err != nil {
				return false
			}
			for _, part := range t.Partitions() {
				if part.Replicated() == nil {
					return false
				}
			}
			found = t
		}
		return true
	})
	return found
}

// lead makes a node lead a partition, in a new epoch.
func (p *peers) lead(topic string, n, node int32) {
	p.t.Helper()
	t, err := p.open[node].Topic(topic)
	if err == nil {
		err = p.net.Elect(LogID{Topic: t.ID(), Partition: n}, node)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// elsewhere says that another node is to be asked, or the same one a little later.
func elsewhere(err error) bool {
	return errors.Is(err, partition.ErrNotLeader) || errors.Is(err, ErrCoordinatorLoading)
}

// somewhere calls f at one node after the other until one of them is the right one.
func (p *peers) somewhere(ctx context.Context, f func(e *Engine) error) (err error) {
	for ctx.Err() == nil {
		for id := range int32(3) {
			e := p.open[id+1]
			if e == nil {
				continue
			}
			if err = f(e); !elsewhere(err) {
				return err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// A committed offset is what every later coordinator says, wherever the lead was moved.
func TestCommittedOffsetsMove(t *testing.T) {
	p := newPeers(t, 3)
	id := p.create("orders", 2, 0).ID()
	commit := func(offset int64) error {
		return p.somewhere(ctx, func(e *Engine) error {
			return e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{TopicID: id, Offset: offset, LeaderEpoch: -1}}})
		})
	}
	if err := commit(1); err != nil {
		t.Fatal(err)
	}
	p.known("__consumer_offsets")
	for i := range int64(30) {
		p.lead("__consumer_offsets", 0, int32(i%3)+1)
		if err := commit(i + 2); err != nil {
			t.Fatal(err)
		}
		p.lead("__consumer_offsets", 0, int32((i*2+1)%3)+1)
		var got []CommittedOffset
		err := p.somewhere(ctx, func(e *Engine) (err error) {
			got, err = e.Groups().Committed(ctx, "g", nil, false)
			return err
		})
		if err != nil || len(got) != 1 || got[0].Offset != i+2 {
			t.Fatalf("round %d: %v, %+v", i, err, got)
		}
	}
}

// That a group has committed nothing says only who is sure to lead: another one may have taken its commits meanwhile.
func TestUnknownGroupIsConfirmed(t *testing.T) {
	p := newPeers(t, 3)
	id := p.create("orders", 1, 0).ID()
	if err := p.somewhere(ctx, func(e *Engine) error {
		return e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{TopicID: id, Offset: 1, LeaderEpoch: -1}}})
	}); err != nil {
		t.Fatal(err)
	}
	topic := p.known("__consumer_offsets")
	p.lead("__consumer_offsets", 0, 1)
	groups := p.open[1].Groups()
	ask := map[string]func(context.Context) (int, error){
		"Committed": func(ctx context.Context) (int, error) {
			got, err := groups.Committed(ctx, "other", nil, false)
			return len(got), err
		},
		"FetchOffsets": func(ctx context.Context) (int, error) {
			got, err := groups.FetchOffsets(ctx, FetchRequest{Group: "other", MemberEpoch: -1})
			return len(got), err
		},
	}
	for name, f := range ask {
		if n, err := f(ctx); n != 0 || err != nil {
			t.Errorf("%s: %d offsets, %v", name, n, err)
		}
	}
	release := p.net.Doubt(LogID{Topic: topic.ID()})
	defer release()
	for name, f := range ask {
		soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		if n, err := f(soon); err == nil {
			t.Errorf("%s: a coordinator that does not know whether it leads says that there are %d offsets", name, n)
		}
		cancel()
	}
}

// A coordinator that lost the lead and got it again has not what it knew before: a
// commit that another one took meanwhile is there.
func TestCoordinatorForgetsWhatItKnew(t *testing.T) {
	p := newPeers(t, 3)
	id := p.create("orders", 1, 0).ID()
	at := func(node int32, offset int64) error {
		return p.open[node].Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{TopicID: id, Offset: offset, LeaderEpoch: -1}}})
	}
	if err := p.somewhere(ctx, func(e *Engine) error {
		_, err := e.Groups().Committed(ctx, "g", nil, false)
		if err == nil {
			err = e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{TopicID: id, Offset: 1, LeaderEpoch: -1}}})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p.known("__consumer_offsets")
	p.lead("__consumer_offsets", 0, 1)
	if err := at(1, 2); err != nil {
		t.Fatal(err)
	}
	if err := at(2, 9); !errors.Is(err, partition.ErrNotLeader) {
		t.Errorf("a commit at another node: %v", err)
	}
	p.lead("__consumer_offsets", 0, 2)
	if err := at(2, 3); err != nil {
		t.Fatal(err)
	}
	p.lead("__consumer_offsets", 0, 1)
	got, err := p.open[1].Groups().Committed(ctx, "g", nil, false)
	if err != nil || len(got) != 1 || got[0].Offset != 3 {
		t.Errorf("%+v, %v, want 3", got, err)
	}
}

// member is a consumer that goes where its coordinator is.
type member struct {
	p        *peers
	group    string
	id       string
	epoch    int32
	assigned []TopicPartitions
	joins    int
}

// beat is one heartbeat. It reports whether the member had to join again.
func (m *member) beat(ctx context.Context) (joined bool, err error) {
	req := HeartbeatRequest{Group: m.group, MemberID: m.id, MemberEpoch: m.epoch, RebalanceTimeout: time.Minute, SessionTimeout: time.Minute}
	if m.epoch == JoinEpoch {
		req.Topics = []string{"orders"}
	} else {
		req.Owned = m.assigned
		if req.Owned == nil {
			req.Owned = []TopicPartitions{}
		}
	}
	var resp HeartbeatResponse
	err = m.p.somewhere(ctx, func(e *Engine) (err error) {
		resp, err = e.Groups().Heartbeat(ctx, req)
		return err
	})
	if errors.Is(err, ErrUnknownMember) || errors.Is(err, ErrRebalance) || errors.Is(err, partition.ErrUnknownOutcome) {
		m.epoch, m.assigned = JoinEpoch, nil
		return true, nil
	}
	if err != nil {
		return false, err
	}
	m.id, m.epoch = resp.MemberID, resp.MemberEpoch
	if resp.Assignment != nil {
		m.assigned = resp.Assignment
	}
	return false, nil
}

// Members of a group join again where its coordinator has gone; epochs never go back,
// and in the end all partitions have one owner each. What a member commits is never less
// than what was committed before, and who owns nothing any more commits nothing.
func TestGroupFollowsItsCoordinator(t *testing.T) {
	seed := rand.Uint64() >> 1
	for i := range testcount.N(4) {
		groupFollows(t, seed+uint64(i))
	}
}

func groupFollows(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	fatal := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s", seed, fmt.Sprintf(format, args...))
	}
	p := newPeers(t, 3)
	const parts = 6
	id := p.create("orders", parts, 0).ID()
	var members []*member
	for i := range 3 {
		members = append(members, &member{p: p, group: "g", id: fmt.Sprint("m", i)})
		if _, err := members[i].beat(ctx); err != nil {
			fatal("join: %v", err)
		}
	}
	p.known("__consumer_offsets")
	highest := int32(0)
	var committed [parts]int64
	for step := range 60 {
		switch rnd.IntN(5) {
		case 0:
			p.lead("__consumer_offsets", 0, rnd.Int32N(3)+1)
		case 1:
			m := members[rnd.IntN(len(members))]
			if m.epoch <= 0 {
				break
			}
			if len(m.assigned) == 0 {
				break
			}
			n := m.assigned[0].Partitions[rnd.IntN(len(m.assigned[0].Partitions))]
			offset := committed[n] + 1
			err := p.somewhere(ctx, func(e *Engine) error {
				return e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberID: m.id, MemberEpoch: m.epoch, Offsets: []OffsetCommit{{TopicID: id, Partition: n, Offset: offset, LeaderEpoch: -1}}})
			})
			switch {
			case err == nil:
				committed[n] = offset
			case errors.Is(err, ErrUnknownMember), errors.Is(err, ErrRebalance):
				m.epoch, m.assigned = JoinEpoch, nil
			default:
				fatal("step %d: commit: %v", step, err)
			}
		default:
			m := members[rnd.IntN(len(members))]
			before := m.epoch
			joined, err := m.beat(ctx)
			if err != nil {
				fatal("step %d: heartbeat: %v", step, err)
			}
			// Who joins anew is told an epoch above all that were told before.
			if !joined && before == JoinEpoch && m.epoch <= highest && step > 0 && m.joins > 0 {
				fatal("step %d: member %s joins in epoch %d, there was %d", step, m.id, m.epoch, highest)
			}
			if joined {
				m.joins++
			}
			highest = max(highest, m.epoch)
		}
	}
	owners := map[int32]string{}
	for range 30 {
		for _, m := range members {
			if _, err := m.beat(ctx); err != nil {
				fatal("at last: %v", err)
			}
		}
		clear(owners)
		for _, m := range members {
			for _, t := range m.assigned {
				for _, n := range t.Partitions {
					if other, has := owners[n]; has {
						fatal("partition %d has the owners %s and %s", n, other, m.id)
					}
					owners[n] = m.id
				}
			}
		}
		if len(owners) == parts {
			break
		}
	}
	if len(owners) != parts {
		fatal("assignment does not converge: %v", owners)
	}
	var got []CommittedOffset
	if err := p.somewhere(ctx, func(e *Engine) (err error) {
		got, err = e.Groups().Committed(ctx, "g", nil, true)
		return err
	}); err != nil {
		fatal("committed: %v", err)
	}
	for n, want := range committed {
		i := slices.IndexFunc(got, func(o CommittedOffset) bool { return o.Partition == int32(n) })
		if want > 0 && (i < 0 || got[i].Offset != want) {
			fatal("partition %d: committed %d, there is %+v", n, want, got)
		}
	}
}
