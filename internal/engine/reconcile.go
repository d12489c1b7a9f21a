package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// replicas keeps groups as the metadata wants them: one goroutine that looks at what
// this node has when something has changed, and begins what takes long, a few at a time.
// What fails is tried again after a pause that grows.
//
//	leads a log      -> its members are those of the assignment, and then the metadata's leader is told
//	not assigned     -> asks whoever leads; when the group has let go, the files go
//	not registered   -> tells the leader of the metadata
//	leads the metadata -> assigns replicas that are wanted elsewhere, or more of, where there is a place
//	no room          -> asks whoever leads what is deleted, and deletes that
//	no replica here  -> hears from peers who leads
//	leads for another -> gives that back, when the preferred leader is well
type replicas struct {
	e       *Engine
	caught  atomic.Bool // see Engine.caughtUp
	moved   atomic.Bool // leaders have changed
	version atomic.Uint64
	woken   chan struct{}
	running sync.WaitGroup
	room    chan struct{} // a token for each task under way

	mu        sync.Mutex
	heard     map[int32]time.Time // when a node was last heard of, by the engine's clock
	endpoints []Endpoint
	unmade    map[TopicID]struct{} // topics that could not be brought
	hints     map[LogID]leaderHint
	hinted    map[TopicID]struct{}        // topics whose hints have changed
	seen      map[int32]uint64            // version of each peer's list of leaders
	settled   map[LogID]settledAt         // logs led here whose members are as they should be
	tasks     map[string]*replicaTask     // under way, or to be tried again
	asked     time.Time                   // when peers were last asked who leads
	behind    map[int32]map[LogID][]int32 // of each node's logs that have replicas behind, those in sync
	gaveAt    time.Time                   // when preferred leaders were last looked after
	refetched map[LogID]refetched

	well map[LogID]time.Time // of round alone: since when preferred leaders are in sync that others lead for
}

// leaderHint is who leads a log that this node has no replica of.
type leaderHint struct{ node, epoch int32 }

// settledAt says for which assignment and in which leader epoch members were set.
type settledAt struct{ assigned, epoch int32 }

type replicaTask struct {
	busy  bool
	pause time.Duration
	after time.Time
}

const (
	replicaTick     = time.Second
	replicaMinPause = time.Second
	replicaMaxPause = 30 * time.Second
	replicaTasks    = 8 // at once
	// askLeaders is how often peers are asked who leads, and with that whether they are there.
	askLeaders = 3 * time.Second
	// peerTimeout bounds a question to a peer, membersTimeout a change of members: a new one
	// gets the whole log first, and the next try goes on.
	peerTimeout    = 5 * time.Second
	membersTimeout = time.Minute
)

func (r *replicas) start(e *Engine) {
	r.mu.Lock()
	r.e, r.woken, r.room = e, make(chan struct{}, 1), make(chan struct{}, replicaTasks)
	r.mu.Unlock()
	r.running.Go(func() {
		select {
		case <-e.services.opened: // readers of a half-open engine find nothing to do
		case <-e.life.Done():
			return
		}
		timer := time.NewTicker(replicaTick)
		defer timer.Stop()
		for {
			select {
			case <-r.woken:
			case <-timer.C:
			case <-e.life.Done():
				return
			}
			r.round()
		}
	})
}

// stop waits for the goroutine and what it began; the engine's life is over.
func (r *replicas) stop() { r.running.Wait() }

// look makes the goroutine look at everything now.
func (r *replicas) look() {
	r.mu.Lock()
	woken := r.woken
	r.mu.Unlock()
	if woken != nil {
		signal(woken)
	}
}

// leaderMoved is called when another node leads a log, or none.
func (r *replicas) leaderMoved(*Partition) {
	r.version.Add(1)
	r.moved.Store(true)
	r.look()
}

// again notes that a topic could not be brought.
func (r *replicas) again(id TopicID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unmade == nil {
		r.unmade = make(map[TopicID]struct{})
	}
	r.unmade[id] = struct{}{}
}

// hint is who was heard to lead a log.
func (r *replicas) hint(id LogID) (node, epoch int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, ok := r.hints[id]; ok {
		return h.node, h.epoch
	}
	return -1, -1
}

// heardLately says whether a node was heard of a short while ago.
func (r *replicas) heardLately(node int32, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.heard[node]
	return ok && now.Sub(at) < 3*askLeaders
}

// task begins f unless it runs, or has failed and its pause is not over.
func (r *replicas) task(name string, f func(ctx context.Context) error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tasks[name]
	if t == nil {
		t = &replicaTask{}
		if r.tasks == nil {
			r.tasks = make(map[string]*replicaTask)
		}
		r.tasks[name] = t
	}
	if t.busy || now.Before(t.after) {
		return
	}
	select {
	case r.room <- struct{}{}:
	default:
		return // the next tick looks again
	}
	t.busy = true
	r.running.Go(func() {
		err := f(r.e.life)
		<-r.room
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			delete(r.tasks, name)
			return
		}
		t.busy = false
		t.pause = min(max(2*t.pause, replicaMinPause), replicaMaxPause)
		t.after = time.Now().Add(t.pause)
		if r.e.life.Err() == nil && !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, ErrPeerUnreachable) && !errors.Is(err, log.ErrClosed) {
			r.e.logger.Warn("not done; tried again", "what", name, "after", t.pause, "error", err)
		}
	})
}

// round looks at everything once.
func (r *replicas) round() {
	e := r.e
	if r.moved.Swap(false) {
		e.watchers.call()
		r.pushLeaders()
	}
	if e.meta.group.damaged() != nil || e.Removed() != nil {
		r.giveAllAway()
	}
	r.register()
	if e.meta.group.log != nil {
		var nodes []int32
		begun := false // before, it is not known who begins the cluster
		e.meta.view(func(m *metadata) { nodes, begun = m.nodeIDs(), m.begun() })
		if begun {
			r.members("metadata", LogID{}, e.meta.group.log, nodes, nodesVersion(nodes))
		}
	}
	if !r.caught.Load() {
		return
	}
	for _, t := range e.view.Load().byID {
		for n, p := range t.partitions {
			a := t.meta.replicasOf(n)
			if a.has(e.identity.node) && len(a.nodes) > 1 {
				if damage := p.damage(); damage != nil {
					r.task("fetch "+p.String()+" again", func(ctx context.Context) error { return r.refetch(ctx, p, a, damage) })
					continue
				}
			}
			if p.repl == nil || a.epoch == 0 {
				continue
			}
			r.makesRoom(p)
			if p.Leads() {
				r.members(p.String(), LogID{t.meta.id, int32(n)}, p.repl, a.nodes, a.epoch)
			}
			if !a.has(e.identity.node) {
				r.task("leave "+p.String(), func(ctx context.Context) error { return r.leave(ctx, p, a) })
			}
		}
	}
	if len(e.goneTopics()) > 0 {
		r.task("files of deleted topics", e.removeGone)
	}
	r.mu.Lock()
	unmade, hinted := maps.Clone(r.unmade), r.hinted
	r.hinted = nil
	r.mu.Unlock()
	for id := range unmade {
		r.task("topic "+id.String(), func(context.Context) error { return r.bringAgain(id) })
	}
	for id := range hinted {
		e.rehint(id)
	}
	r.askPeers()
	r.tellMoved()
	r.places()
	r.givesBack()
}

// nodesVersion is the same for the same nodes: what stands for the assignment of group 0.
func nodesVersion(nodes []int32) int32 {
	h := uint32(2166136261)
	for _, n := range nodes {
		h = (h ^ uint32(n)) * 16777619
	}
	return int32(h >> 1)
}

// register tells the leader of the metadata of this node, when the metadata has it
// otherwise.
func (r *replicas) register() {
	e := r.e
	want := e.self()
	var has *nodeMeta
	begun := false
	e.meta.view(func(m *metadata) { has, begun = m.nodes[want.id], m.begun() })
	if has == nil && begun {
		return // it was removed, or is to be added
	}
	if has != nil && has.directory == want.directory && has.address == want.address && slices.Equal(has.endpoints, want.endpoints) {
		return
	}
	if leader, _ := e.meta.group.log.Leader(); leader < 0 {
		return
	}
	r.task("register this node", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		if leader, _ := e.meta.group.log.Leader(); leader == want.id {
			if err := e.leadMeta(ctx); err != nil {
				return err
			}
		}
		return e.tellLeader(ctx, &command{kind: registerNodeCommand, node: want})
	})
}

// members has a group that this node leads have the members that it should.
func (r *replicas) members(name string, id LogID, l ReplicatedLog, want []int32, assigned int32) {
	node, epoch := l.Leader()
	if node != r.e.identity.node || len(want) == 0 {
		return
	}
	r.mu.Lock()
	done := r.settled[id] == settledAt{assigned, epoch}
	r.mu.Unlock()
	if done {
		return
	}
	r.task("members of "+name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, membersTimeout)
		defer cancel()
		epoch, err := l.Lead(ctx)
		if err == nil {
			// Whoever leads a group with yesterday's metadata must not take back what was
			// assigned since.
			err = r.e.currentMeta(ctx)
		}
		if err == nil && !r.wants(id, assigned) {
			r.look()
			return nil
		}
		if err == nil {
			err = l.SetMembers(ctx, want)
		}
		if err != nil {
			return err
		}
		r.mu.Lock()
		if r.settled == nil {
			r.settled = make(map[LogID]settledAt)
		}
		r.settled[id] = settledAt{assigned, epoch}
		r.mu.Unlock()
		r.look()
		return nil
	})
}

// wants says whether an assignment of a log is still the newest.
func (r *replicas) wants(id LogID, assigned int32) (is bool) {
	r.e.meta.view(func(m *metadata) {
		if id.IsMeta() {
			is = nodesVersion(m.nodeIDs()) == assigned
		} else if t := m.byID[id.Topic]; t != nil {
			is = t.replicasOf(int(id.Partition)).epoch == assigned
		}
	})
	return is
}

// leave removes a replica that is not assigned any more, once its group has let it go.
func (r *replicas) leave(ctx context.Context, p *Partition, a assignment) error {
	e := r.e
	w := wire{}
	w.id(p.topicID)
	w.number(uint64(p.id))
	w.number(uint64(a.epoch))
	var errs []error
	for _, node := range a.nodes {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		answer, err := e.cluster.Call(ctx, node, leaveService, w.b)
		cancel()
		if err == nil && len(answer) == 1 && answer[0] == 1 {
			return e.dropReplica(p)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrPeerUnreachable, err) // said once there is somebody to say no
	}
	return &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}
}

// serveLeave answers 1 when the group has let go of the node that asks: members were set
// by this leader, and a majority has said since that it leads.
func (e *Engine) serveLeave(ctx context.Context, from int32, req []byte) ([]byte, error) {
	d := decoder{b: req}
	id := LogID{Topic: d.id(), Partition: int32(d.number(maxPartitions))}
	assigned := int32(d.number(maxNodeID))
	if d.failed {
		return nil, errors.New("malformed request")
	}
	no := []byte{0}
	t := e.view.Load().byID[id.Topic]
	if t == nil || int(id.Partition) >= len(t.partitions) {
		return no, nil
	}
	p, a := t.partitions[id.Partition], t.meta.replicasOf(int(id.Partition))
	if p.repl == nil || a.epoch < assigned || a.has(from) {
		return no, nil
	}
	node, epoch := p.repl.Leader()
	r := &e.replicas
	r.mu.Lock()
	settled := r.settled[id] == settledAt{a.epoch, epoch}
	r.mu.Unlock()
	if node != e.identity.node || !settled || p.repl.Confirm(ctx) != nil {
		return no, nil
	}
	return []byte{1}, nil
}

// dropReplica closes a replica that its group has let go, and removes its files.
func (e *Engine) dropReplica(p *Partition) error {
	e.admin <- struct{}{}
	defer e.endAdmin()
	if err := e.closedError(); err != nil {
		return err
	}
	t := e.view.Load().byID[p.topicID]
	if t == nil || t.partitions[p.id] != p {
		return nil // it was deleted meanwhile
	}
	if a := t.meta.replicasOf(int(p.id)); a.has(e.identity.node) {
		return nil // it is assigned again
	}
	leader, epoch := p.repl.Leader()
	p.stop()
	if err := p.Partition.CloseFor(&partition.NotLeaderError{Leader: leader, LeaderEpoch: epoch}); err != nil {
		e.logger.Warn("a replica that goes did not close", "partition", p.String(), "error", err)
	}
	if err := e.forget(LogID{p.topicID, p.id}, false); err != nil {
		return err
	}
	now := *t
	now.partitions = slices.Clone(t.partitions)
	now.partitions[p.id] = e.elsewhere(&now, int(p.id))
	e.publish(t, &now)
	return e.removeReplica(p.topicID, int(p.id))
}

// removeReplica removes the files of a replica that is none any more.
func (e *Engine) removeReplica(topic TopicID, n int) error {
	dir := partitionDir(topic, n)
	if err := removePartitionDir(e.life, e.fs, dir+goneSuffix); err != nil { // of an earlier time
		return err
	}
	// In one step it is no partition any more: half of one would be damage.
	if err := e.fs.Rename(dir, dir+goneSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := e.fs.SyncDir(topicDir(topic)); err != nil {
		return err
	}
	return removePartitionDir(e.life, e.fs, dir+goneSuffix) // what is left is removed at the next open
}

// forget tells the Cluster of a log that goes.
func (e *Engine) forget(id LogID, gone bool) error {
	if f, ok := e.cluster.(Forgetter); ok {
		return f.Forget(id, gone)
	}
	return nil
}

// goneSuffix marks the directory of a replica that its group has let go.
const goneSuffix = ".gone"

func (r *replicas) bringAgain(id TopicID) error {
	e := r.e
	e.admin <- struct{}{}
	defer e.endAdmin()
	if err := e.closedError(); err != nil {
		return err
	}
	if err := e.bringTopic(id); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.unmade, id)
	r.mu.Unlock()
	return nil
}
