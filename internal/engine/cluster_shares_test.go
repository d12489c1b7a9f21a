package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// What was acknowledged in a share group is not delivered again, whoever coordinates it
// by then, and all that was not is.
func TestShareGroupFollowsItsCoordinator(t *testing.T) {
	seed := rand.Uint64() >> 1
	for i := range testcount.N(4) {
		sharesFollow(t, seed+uint64(i))
	}
}

func sharesFollow(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	fatal := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s", seed, fmt.Sprintf(format, args...))
	}
	p := newPeers(t, 3)
	id := p.create("jobs", 1, 0).ID()
	p.known("jobs")
	const records = 60
	for i := range records {
		if err := p.somewhere(ctx, func(e *Engine) error {
			top, err := e.Topic("jobs")
			if err == nil {
				_, err = top.Partitions()[0].Append(ctx, []log.Record{{Value: []byte(fmt.Sprint(i))}}, nil)
			}
			return err
		}); err != nil {
			fatal("append: %v", err)
		}
	}
	epoch := JoinEpoch
	beat := func() {
		err := p.somewhere(ctx, func(e *Engine) error {
			resp, err := e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: "q", MemberID: "m", MemberEpoch: epoch, Topics: []string{"jobs"}})
			if err == nil {
				if resp.MemberEpoch < epoch {
					fatal("the member's epoch went from %d to %d", epoch, resp.MemberEpoch)
				}
				epoch = resp.MemberEpoch
			}
			return err
		})
		switch {
		case errors.Is(err, ErrUnknownMember), errors.Is(err, ErrRebalance):
			epoch = JoinEpoch
		case err != nil:
			fatal("heartbeat: %v", err)
		}
	}
	// Where the group begins is set by hand, so that it reads all there is.
	set := func(e *Engine) error {
		return e.Shares().AlterSettings(ctx, "q", false, func(s map[string]string) (map[string]string, error) {
			return map[string]string{"share.auto.offset.reset": "earliest"}, nil
		})
	}
	if err := p.somewhere(ctx, set); err != nil {
		fatal("settings: %v", err)
	}
	p.known("__share_group_state")
	beat()
	p.known("__consumer_offsets")
	accepted := map[int64]bool{}
	for step := 0; len(accepted) < records; step++ {
		if step > 4000 {
			fatal("%d of %d records are done after %d steps", len(accepted), records, step)
		}
		switch rnd.IntN(12) {
		case 0:
			p.lead("__consumer_offsets", 0, rnd.Int32N(3)+1)
		case 1:
			p.lead("__share_group_state", 0, rnd.Int32N(3)+1)
		case 2:
			p.lead("jobs", 0, rnd.Int32N(3)+1)
		case 3:
			beat()
		}
		at := p.open[rnd.Int32N(3)+1] // any node asks the coordinator
		var res ShareResult
		err := p.somewhere(ctx, func(*Engine) (err error) {
			res, err = at.Shares().Acquire(ctx, ShareRequest{Group: "q", MemberID: "m", Topic: id, MaxRecords: 4})
			return err
		})
		if errors.Is(err, ErrUnknownGroup) {
			beat()
			continue
		}
		if err != nil {
			fatal("acquire: %v", err)
		}
		for _, a := range res.Acquired {
			for o := a.First; o <= a.Last; o++ {
				if accepted[o] {
					fatal("record %d was accepted, and is delivered again", o)
				}
			}
			if rnd.IntN(6) == 0 {
				p.lead("__share_group_state", 0, rnd.Int32N(3)+1)
			}
			err := p.somewhere(ctx, func(*Engine) error {
				return at.Shares().Acknowledge(ctx, AckRequest{Group: "q", MemberID: "m", Topic: id, Acks: []Ack{{First: a.First, Last: a.Last, Types: []AckType{AckAccept}}}})
			})
			switch {
			case err == nil:
				for o := a.First; o <= a.Last; o++ {
					accepted[o] = true
				}
			case errors.Is(err, ErrNotAcquired): // another coordinator has it: it is delivered again
			case errors.Is(err, partition.ErrUnknownOutcome), errors.Is(err, ErrUnknownGroup):
			default:
				fatal("acknowledge %d to %d: %v", a.First, a.Last, err)
			}
		}
	}
}

// Which share groups have settings, any node says, also when others coordinate them.
func TestSettingsOfShareGroupsAreListedAnywhere(t *testing.T) {
	p := newPeers(t, 3)
	p.create("jobs", 1, 0)
	if got, err := p.open[2].Shares().WithSettings(ctx); err != nil || len(got) != 0 {
		t.Errorf("before any: %q, %v", got, err)
	}
	var want []string
	for i := range 12 {
		want = append(want, fmt.Sprintf("q%02d", i))
		if err := p.open[int32(i%3)+1].Shares().AlterSettings(ctx, want[i], false, func(map[string]string) (map[string]string, error) {
			return map[string]string{"share.auto.offset.reset": "earliest"}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	topic := p.known("__share_group_state")
	for round := range 3 {
		for _, part := range topic.Partitions() {
			p.lead("__share_group_state", part.ID(), int32((int(part.ID())+round)%3)+1)
		}
		for id := range int32(3) {
			if got, err := p.open[id+1].Shares().WithSettings(ctx); err != nil || !slices.Equal(got, want) {
				t.Errorf("round %d: node %d says %q, %v, want %q", round, id+1, got, err, want)
			}
		}
	}
}
