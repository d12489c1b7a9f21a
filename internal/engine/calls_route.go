package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// How long is waited for a leader, how long for one answer before what is idempotent
// is sent again, and between two attempts.
const (
	leaderPatience = 30 * time.Second
	answerPatience = 10 * time.Second
	firstPause     = 5 * time.Millisecond
	longestPause   = 250 * time.Millisecond
	// freeHops is how many nodes are asked one after the other before there is a pause:
	// this one, whom it names, and whom that one names.
	freeHops = 3
)

// route is the way to the node that leads a log.
//
//	here ---not the leader: n---> n ---not the leader: m---> m ---> the answer
//	  ^                             |unreachable, nobody leads         | lost
//	  +------- after a pause -------+----------------------------------+ only if it may be sent twice
type route struct {
	e    *Engine
	what string
	// part is the log's partition; nil while it is not known. It is asked again each time.
	part func() *Partition
	// group is that of a log that is no partition of a topic.
	group ReplicatedLog
	// lost is why it is not known what became of an attempt that was made before; or nil.
	lost error
	// again says that the request may be served twice and does no harm.
	again bool
	// firm says that what the last attempt answers holds, whatever became of those before
	// it. Otherwise a refusal that follows an attempt without an answer leaves the outcome open.
	firm bool
}

// run calls here, or there with another node, until one of them leads. It returns what
// that one said. An error that matches partition.ErrUnknownOutcome says that the request may
// have been served; one that matches partition.ErrNotLeader, that nobody took it within
// leaderPatience; the context's, that it was not sent.
func (r *route) run(ctx context.Context, here func(context.Context) error, there func(ctx context.Context, node int32) error) error {
	e := r.e
	deadline := time.Now().Add(leaderPatience)
	pause, hops, turn := firstPause, 0, 0
	lost := r.lost // why it is not known what became of an earlier attempt
	node := r.first(turn)
	for {
		at := node
		err := r.attempt(ctx, at, here, there)
		node = -1
		var said *partition.NotLeaderError
		switch {
		case err == nil:
			return nil
		case errors.Is(err, partition.ErrUnknownOutcome), errors.Is(err, errAnswerLost):
			if !r.again || ctx.Err() != nil && !r.firm {
				return unknown(err)
			}
			lost = err
		case errors.As(err, &said):
			node = said.Leader
		case errors.Is(err, ErrPeerUnreachable), errors.Is(err, errPeerCloses), isLoading(err):
		default:
			if lost != nil && !r.firm {
				return unknown(fmt.Errorf("%w; then: %w", lost, err))
			}
			return err
		}
		if removed := e.Removed(); removed != nil {
			return r.ends(lost, fmt.Errorf("%s: %w", r.what, removed)) // nobody serves it any more
		}
		if e.closed.Load() {
			return r.ends(lost, fmt.Errorf("%s: %w", r.what, log.ErrClosed))
		}
		if cause := ctx.Err(); cause != nil {
			return r.ends(lost, fmt.Errorf("%s: %w (%v)", r.what, cause, err))
		}
		if node == e.cluster.Self() {
			node = -1
		}
		if hops++; node >= 0 && node != at && hops < freeHops || node < 0 && at >= 0 && said != nil && hops < freeHops {
			continue
		}
		if !time.Now().Before(deadline) {
			if said == nil {
				said = &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}
			}
			more := "" // what the last attempt said, if it said more
			if err != nil && !strings.HasSuffix(err.Error(), said.Error()) {
				more = fmt.Sprintf(" (%v)", err)
			}
			return r.ends(lost, fmt.Errorf("%s: no leader took it within %v: %w%s", r.what, leaderPatience, said, more))
		}
		r.pause(ctx, min(pause, time.Until(deadline)))
		pause, hops = min(2*pause, longestPause), 0
		if node < 0 {
			turn++
			node = r.first(turn)
		}
	}
}

// ends is the error when no more attempts are made.
func (r *route) ends(lost, err error) error {
	if lost == nil || r.firm {
		return err
	}
	return unknown(fmt.Errorf("%w; then: %w", lost, err))
}

// unknown makes an error match partition.ErrUnknownOutcome.
func unknown(err error) error {
	if errors.Is(err, partition.ErrUnknownOutcome) {
		return err
	}
	return &partition.UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: err}
}

// isLoading says that a coordinator is not done reading its log.
func isLoading(err error) bool { return errors.Is(err, ErrCoordinatorLoading) }

func (r *route) attempt(ctx context.Context, node int32, here func(context.Context) error, there func(ctx context.Context, node int32) error) error {
	if node < 0 {
		return here(ctx)
	}
	if r.again {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerPatience)
		defer cancel()
		defer r.replaced(node, cancel)()
	}
	err := there(ctx, node)
	if r.part != nil {
		if p := r.part(); p != nil && err == nil {
			p.lastLeader.Store(node)
		} else if p != nil && tryElsewhere(err) {
			p.lastLeader.CompareAndSwap(node, 0)
		}
	}
	return err
}

// tryElsewhere says that another node may lead by now.
func tryElsewhere(err error) bool {
	return errors.Is(err, partition.ErrNotLeader) || errors.Is(err, errAnswerLost) || errors.Is(err, ErrPeerUnreachable) || errors.Is(err, errPeerCloses)
}

// first is who is asked first: -1 is this node, which knows who leads what it has, but where it has no room for it. Of
// others it is who led last, or each that has a replica in its turn.
func (r *route) first(turn int) int32 {
	if r.part == nil {
		return -1
	}
	p := r.part()
	if p == nil {
		return -1
	}
	if p.repl != nil {
		// A replica without room does not hear who leads.
		if leader, _ := p.repl.Leader(); leader >= 0 || turn == 0 || !p.full() {
			return -1
		}
	}
	if last := p.lastLeader.Load(); last > 0 {
		return last
	}
	if p.hintLeader > 0 && turn == 0 {
		return p.hintLeader
	}
	nodes := p.others()
	if len(nodes) == 0 {
		return -1
	}
	return nodes[turn%len(nodes)]
}

// others are the other nodes that the partition is assigned to.
func (p *Partition) others() []int32 {
	t, err := p.engine.TopicByID(p.topicID)
	if err != nil {
		return nil
	}
	self := p.engine.cluster.Self()
	return slices.DeleteFunc(slices.Clone(t.Replicas(p.id)), func(n int32) bool { return n == self })
}

// Current is the partition as it is now: it is another one when this node has got a
// replica, or has lost it.
func (p *Partition) Current() *Partition {
	if p.engine.cluster == nil {
		return p
	}
	if now, err := p.engine.partition(p.topicID, p.id); err == nil {
		return now
	}
	return p
}

// replica is this node's member of the log's group; nil where it has none.
func (r *route) replica() ReplicatedLog {
	if r.part != nil {
		if p := r.part(); p != nil {
			return p.repl
		}
	}
	return r.group
}

// replaced has cancel called when this node hears that another one has come to lead than the one that
// is asked, until stop is called: that one may be stopped or cut off, and say nothing for long.
func (r *route) replaced(node int32, cancel func()) (stop func()) {
	group := r.replica()
	if group == nil {
		return func() {}
	}
	// What is known now may be older than what sent us to that node.
	was, wasIn := group.Leader()
	return group.Watch(func() {
		if leader, epoch := group.Leader(); leader >= 0 && leader != node && (leader != was || epoch != wasIn) {
			cancel()
		}
	})
}

// pause waits a little, or until somebody else leads.
func (r *route) pause(ctx context.Context, d time.Duration) {
	moved := make(chan struct{}, 1)
	if group := r.replica(); group != nil {
		cancel := group.Watch(func() {
			select {
			case moved <- struct{}{}:
			default:
			}
		})
		defer cancel()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-moved:
	case <-timer.C:
	case <-ctx.Done():
	case <-r.e.life.Done():
	}
}

// route is the way to the leader of the partition.
func (p *Partition) route(what string) route {
	return route{e: p.engine, what: fmt.Sprintf("%s %s", what, p), part: p.Current}
}

// ledElsewhere says of an error of this node's log that the leader has to be asked.
func (p *Partition) ledElsewhere(err error) bool {
	if p.engine.cluster == nil || errors.Is(err, partition.ErrUnknownOutcome) {
		return false
	}
	return errors.Is(err, partition.ErrNotLeader) || !p.Here()
}
