package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/partition"
)

// AnyGroups is Groups from any node: each call goes to the group's coordinator, who
// leads the partition of __consumer_offsets that the group lies in. It waits 30 seconds at
// most for one. Alone it is Groups.
//
// A member of this process is Local only where its coordinator is this node; elsewhere it
// has a session timeout like any other, and HeartbeatResponse.Interval is to be kept.
type AnyGroups struct{ g *Groups }

// AnyGroups are the consumer groups, wherever their coordinators are.
func (e *Engine) AnyGroups() AnyGroups { return AnyGroups{e.groups} }

const (
	serviceGroupHeartbeat = "group-heartbeat"
	serviceGroupCommit    = "group-commit"
	serviceGroupCommitted = "group-committed"
	serviceGroupDescribe  = "group-describe"
	serviceGroupList      = "group-list"
	serviceGroupDelete    = "group-delete"
	serviceGroupForget    = "group-delete-offsets"
	serviceGroupReset     = "group-reset"
	serviceGroupNews      = "group-news"
)

// Requests that are more than the engine's own.
type (
	groupCommitCall struct {
		Commit CommitRequest
		// Of a commit in a transaction; ProducerID is -1 otherwise.
		ProducerID int64
		Epoch      int16
	}
	groupCommittedCall struct {
		Group  string
		Want   []TopicPartitions
		Stable bool
	}
	groupNewsCall  struct{ Group, MemberID string }
	groupNews      struct{ News bool }
	groupNameCall  struct{ Group string }
	groupPartsCall struct {
		Group      string
		Partitions []TopicPartitions
	}
	groupResetCall struct {
		Group string
		Reset ResetRequest
	}
	committedAnswer struct{ Offsets []CommittedOffset }
	resetAnswer     struct{ Results []ResetResult }
	// groupListAnswer is what one coordinator has, and which partitions of
	// __consumer_offsets it led meanwhile.
	groupListAnswer struct {
		Groups []GroupListing
		Led    []int32
	}
)

// serveGroups registers what peers ask a coordinator of groups.
func (e *Engine) serveGroups() {
	serveStruct(e, serviceGroupHeartbeat, func(ctx context.Context, r *HeartbeatRequest) (HeartbeatResponse, error) {
		return e.groups.Heartbeat(ctx, *r)
	})
	serveStruct(e, serviceGroupCommit, func(ctx context.Context, r *groupCommitCall) (nothing, error) {
		return nothing{}, e.groups.commitCall(ctx, r)
	})
	serveStruct(e, serviceGroupCommitted, func(ctx context.Context, r *groupCommittedCall) (a committedAnswer, err error) {
		a.Offsets, err = e.groups.Committed(ctx, r.Group, r.Want, r.Stable)
		return a, err
	})
	serveStruct(e, serviceGroupDescribe, func(ctx context.Context, r *groupNameCall) (GroupDescription, error) {
		return e.groups.Describe(ctx, r.Group)
	})
	serveStruct(e, serviceGroupList, func(ctx context.Context, _ *nothing) (groupListAnswer, error) { return e.groups.listLed(ctx) })
	serveStruct(e, serviceGroupDelete, func(ctx context.Context, r *groupNameCall) (nothing, error) {
		return nothing{}, e.groups.Delete(ctx, r.Group)
	})
	serveStruct(e, serviceGroupForget, func(ctx context.Context, r *groupPartsCall) (nothing, error) {
		return nothing{}, e.groups.DeleteOffsets(ctx, r.Group, r.Partitions)
	})
	serveStruct(e, serviceGroupNews, func(ctx context.Context, r *groupNewsCall) (groupNews, error) { return e.groups.news(ctx, r) })
	serveStruct(e, serviceShareSettings, func(ctx context.Context, _ *nothing) (shareSettingsList, error) { return e.shares.withSettingsLed(ctx) })
	serveStruct(e, serviceShareOffset, func(ctx context.Context, r *shareOffsetCall) (nothing, error) {
		return nothing{}, e.shares.setOffset(ctx, r.Group, topicPart{r.Topic, r.Partition}, r.Start)
	})
	serveStruct(e, serviceGroupReset, func(ctx context.Context, r *groupResetCall) (a resetAnswer, err error) {
		a.Results, err = e.groups.Reset(ctx, r.Group, r.Reset)
		return a, err
	})
}

// home is where a group lies; nil when there is no __consumer_offsets yet.
func (g *Groups) home(group string) *Partition {
	t, err := g.engine.Topic(offsetsTopicName)
	if err != nil {
		return nil
	}
	parts := t.Partitions()
	return parts[offsetsPartitionOf(group, len(parts))]
}

// askCoordinator has here called, or another node asked for the service.
func askCoordinator[Req, Res any](ctx context.Context, g *Groups, group, what, service string, again bool, req *Req, here func(context.Context) (Res, error)) (res Res, err error) {
	e := g.engine
	if e.cluster == nil {
		return here(ctx)
	}
	r := route{e: e, what: fmt.Sprintf("%s of group %q", what, group), part: func() *Partition { return g.home(group) }, again: again, firm: again}
	err = r.run(ctx, func(ctx context.Context) (err error) {
		res, err = here(ctx)
		return err
	}, func(ctx context.Context, node int32) (err error) {
		res, err = callStruct[Req, Res](ctx, e, node, service, req)
		return err
	})
	return res, err
}

// Heartbeat is Groups.Heartbeat. It may be made twice.
func (a AnyGroups) Heartbeat(ctx context.Context, req HeartbeatRequest) (HeartbeatResponse, error) {
	remote := req
	remote.Local = false
	return askCoordinator(ctx, a.g, req.Group, "heartbeat", serviceGroupHeartbeat, true, &remote, func(ctx context.Context) (HeartbeatResponse, error) {
		return a.g.Heartbeat(ctx, req)
	})
}

// Changed is Groups.Changed, wherever the coordinator is, until ctx ends. In a cluster it
// is one channel for as long as the member lives, also when it joins again, and a goroutine
// asks; a token may be there for nothing. Alone it is asked for after each time of joining.
func (a AnyGroups) Changed(ctx context.Context, group, memberID string) <-chan struct{} {
	g := a.g
	e := g.engine
	if e.cluster == nil {
		return g.Changed(group, memberID)
	}
	news := make(chan struct{}, 1)
	if !e.calling.begin() {
		return news
	}
	go func() {
		defer e.calling.done()
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(e.life, stop)()
		c := groupNewsCall{group, memberID}
		for ctx.Err() == nil {
			res, err := askCoordinator(ctx, g, group, "news", serviceGroupNews, true, &c, func(ctx context.Context) (groupNews, error) {
				return g.news(ctx, &c)
			})
			if err == nil && !res.News {
				continue
			}
			select {
			case news <- struct{}{}:
			default:
			}
			// The member does something about it before it is asked for again.
			select {
			case <-time.After(newsPause):
			case <-ctx.Done():
			}
		}
	}()
	return news
}

// How long a coordinator holds a question for news, and how long after news it is
// asked again.
const (
	newsWait  = 5 * time.Second
	newsPause = 50 * time.Millisecond
)

// news returns when a heartbeat of the member would bring something, or a while is over.
func (g *Groups) news(ctx context.Context, c *groupNewsCall) (groupNews, error) {
	if p := g.home(c.Group); p != nil {
		if err := p.leads(); err != nil {
			return groupNews{}, err
		}
	}
	timer := time.NewTimer(newsWait)
	defer timer.Stop()
	select {
	case <-g.Changed(c.Group, c.MemberID):
		return groupNews{true}, nil
	case <-timer.C:
		return groupNews{false}, nil
	case <-ctx.Done():
		return groupNews{}, ctx.Err()
	}
}

// Commit is Groups.Commit. When the answer does not come, the error matches
// partition.ErrUnknownOutcome: the same offsets may be committed again.
func (a AnyGroups) Commit(ctx context.Context, req CommitRequest) error {
	return a.commit(ctx, groupCommitCall{Commit: req, ProducerID: -1})
}

// TxnCommit is Groups.TxnCommit. After an error the transaction can only be aborted.
func (a AnyGroups) TxnCommit(ctx context.Context, req CommitRequest, producerID int64, epoch int16) error {
	return a.commit(ctx, groupCommitCall{req, producerID, epoch})
}

func (a AnyGroups) commit(ctx context.Context, c groupCommitCall) error {
	if a.g.engine.cluster != nil {
		c.Commit.Local = false // the transaction outlives its node
	}
	_, err := askCoordinator(ctx, a.g, c.Commit.Group, "commit", serviceGroupCommit, false, &c, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.g.commitCall(ctx, &c)
	})
	return err
}

func (g *Groups) commitCall(ctx context.Context, c *groupCommitCall) error {
	if c.ProducerID < 0 {
		return g.Commit(ctx, c.Commit)
	}
	return g.TxnCommit(ctx, c.Commit, c.ProducerID, c.Epoch)
}

// OffsetsPartition is where a group's offsets are kept. It makes __consumer_offsets if
// there is none.
func (a AnyGroups) OffsetsPartition(ctx context.Context, group string) (*Partition, error) {
	if a.g.engine.cluster == nil {
		return a.g.OffsetsPartition(ctx, group)
	}
	if p := a.g.home(group); p != nil {
		return p, nil
	}
	if _, err := a.g.prepare(ctx, true); err != nil {
		return nil, fmt.Errorf("group %q: %w", group, err)
	}
	if p := a.g.home(group); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("group %q: %w", group, &UnknownTopicError{Name: offsetsTopicName})
}

// Committed is Groups.Committed.
func (a AnyGroups) Committed(ctx context.Context, group string, want []TopicPartitions, stable bool) ([]CommittedOffset, error) {
	c := groupCommittedCall{group, want, stable}
	res, err := askCoordinator(ctx, a.g, group, "committed offsets", serviceGroupCommitted, true, &c, func(ctx context.Context) (res committedAnswer, err error) {
		res.Offsets, err = a.g.Committed(ctx, group, want, stable)
		return res, err
	})
	return res.Offsets, err
}

// Describe is Groups.Describe.
func (a AnyGroups) Describe(ctx context.Context, group string) (GroupDescription, error) {
	return askCoordinator(ctx, a.g, group, "describe", serviceGroupDescribe, true, &groupNameCall{group}, func(ctx context.Context) (GroupDescription, error) {
		return a.g.Describe(ctx, group)
	})
}

// Delete is Groups.Delete.
func (a AnyGroups) Delete(ctx context.Context, group string) error {
	_, err := askCoordinator(ctx, a.g, group, "delete", serviceGroupDelete, false, &groupNameCall{group}, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.g.Delete(ctx, group)
	})
	return err
}

// DeleteOffsets is Groups.DeleteOffsets.
func (a AnyGroups) DeleteOffsets(ctx context.Context, group string, parts []TopicPartitions) error {
	_, err := askCoordinator(ctx, a.g, group, "delete offsets", serviceGroupForget, false, &groupPartsCall{group, parts}, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.g.DeleteOffsets(ctx, group, parts)
	})
	return err
}

// Reset is Groups.Reset.
func (a AnyGroups) Reset(ctx context.Context, group string, req ResetRequest) ([]ResetResult, error) {
	res, err := askCoordinator(ctx, a.g, group, "reset offsets", serviceGroupReset, false, &groupResetCall{group, req}, func(ctx context.Context) (res resetAnswer, err error) {
		res.Results, err = a.g.Reset(ctx, group, req)
		return res, err
	})
	return res.Results, err
}

// listLed lists what this node has of groups in the partitions of a coordinators' topic that it leads, and which these are. all
// is what it has, group whose something is.
func listLed[T any](ctx context.Context, t *Topic, all func(context.Context) ([]T, error), group func(*T) string) (list []T, led []int32, err error) {
	was := map[int32]int32{}
	for _, p := range t.Partitions() {
		if p.repl == nil {
			continue
		}
		if epoch, err := p.repl.LeaderEpoch(); err == nil {
			was[p.id] = epoch
		}
	}
	if len(was) == 0 {
		return nil, nil, nil
	}
	if list, err = all(ctx); err != nil {
		return nil, nil, err
	}
	for _, p := range t.Partitions() {
		if before, ok := was[p.id]; ok {
			if epoch, err := p.repl.LeaderEpoch(); err == nil && epoch == before {
				led = append(led, p.id)
			}
		}
	}
	list = slices.DeleteFunc(list, func(x T) bool {
		return !slices.Contains(led, offsetsPartitionOf(group(&x), len(t.Partitions())))
	})
	return list, led, nil
}

// listAll has all nodes asked, until each partition of a coordinators' topic was answered for by who leads it.
func listAll[T any](ctx context.Context, e *Engine, what string, t *Topic, group func(*T) string, ask func(ctx context.Context, node int32) ([]T, []int32, error)) (list []T, err error) {
	seen := map[int32]bool{}
	err = e.askAll(ctx, what, func(ctx context.Context, node int32) (done bool, err error) {
		some, led, err := ask(ctx, node)
		if err != nil {
			return false, err
		}
		fresh := map[int32]bool{}
		for _, n := range led {
			fresh[n] = !seen[n]
			seen[n] = true
		}
		for i := range some {
			if fresh[offsetsPartitionOf(group(&some[i]), len(t.Partitions()))] {
				list = append(list, some[i])
			}
		}
		return len(seen) == len(t.Partitions()), nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(group(&a), group(&b)) })
	return list, nil
}

func groupListed(l *GroupListing) string { return l.Group }

// listLed lists the groups in the partitions that this node leads.
func (g *Groups) listLed(ctx context.Context) (a groupListAnswer, err error) {
	t, err := g.engine.Topic(offsetsTopicName)
	if err != nil {
		return a, nil // nobody has committed anything
	}
	a.Groups, a.Led, err = listLed(ctx, t, g.List, groupListed)
	return a, err
}

// List is Groups.List: all nodes are asked, until each partition of
// __consumer_offsets was answered for by who leads it.
func (a AnyGroups) List(ctx context.Context) ([]GroupListing, error) {
	e := a.g.engine
	if e.cluster == nil {
		return a.g.List(ctx)
	}
	t, err := e.internalTopic(ctx, offsetsTopicName)
	if t == nil {
		return nil, err
	}
	return listAll(ctx, e, "list groups", t, groupListed, func(ctx context.Context, node int32) ([]GroupListing, []int32, error) {
		if node == e.cluster.Self() {
			answer, err := a.g.listLed(ctx)
			return answer.Groups, answer.Led, err
		}
		answer, err := callStruct[nothing, groupListAnswer](ctx, e, node, serviceGroupList, &nothing{})
		return answer.Groups, answer.Led, err
	})
}

// askAll calls f for this node and the others, again and again, until it is done. It
// gives up like a route.
func (e *Engine) askAll(ctx context.Context, what string, f func(ctx context.Context, node int32) (done bool, err error)) error {
	deadline := time.Now().Add(leaderPatience)
	pause := firstPause
	nodes := []int32{e.cluster.Self()}
	for _, n := range e.nodes() {
		if n != nodes[0] {
			nodes = append(nodes, n)
		}
	}
	for {
		var last error
		for _, n := range nodes {
			asked, cancel := context.WithTimeout(ctx, answerPatience)
			done, err := f(asked, n)
			cancel()
			switch {
			case err == nil && done:
				return nil
			case err == nil:
			case tryElsewhere(err), isLoading(err), errors.Is(err, partition.ErrUnknownOutcome), errors.Is(err, context.DeadlineExceeded):
				last = err
			default:
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w (%v)", what, err, last)
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%s: not all coordinators answered within %v: %w (%v)", what, leaderPatience, &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}, last)
		}
		r := route{e: e}
		r.pause(ctx, pause)
		pause = min(2*pause, longestPause)
	}
}
