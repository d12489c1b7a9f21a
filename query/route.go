package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"github.com/x/embedlog"
)

// Reads of rows that another node has go to it: a request and an answer, in JSON, with keys and values in the bytes of their codecs.

// request is what a node asks the owner of a task. No op asks whether it runs the graph.
type request struct {
	Graph  string `json:"graph,omitempty"` // that it means, see identity
	Op     string `json:"op,omitempty"`
	Slot   int    `json:"slot,omitempty"`
	View   string `json:"view,omitempty"`
	Index  string `json:"index,omitempty"`
	Key    []byte `json:"key,omitempty"`
	Fresh  bool   `json:"fresh,omitempty"` // with what was acknowledged before
	Pin    uint64 `json:"pin,omitempty"`
	From   []byte `json:"from,omitempty"`
	To     []byte `json:"to,omitempty"`
	Topic  string `json:"topic,omitempty"`
	Part   int32  `json:"part,omitempty"`
	Offset int64  `json:"offset,omitempty"`
}

const (
	opGet       = "get"
	opCatchUp   = "catch up"
	opReach     = "reach"
	opSettle    = "settle" // commit what there is, with Fresh what was acknowledged
	opVersion   = "version"
	opCommitted = "committed" // of a repartition's partition
	opLen       = "len"
	opPin       = "pin"
	opUnpin     = "unpin"
	opPage      = "page"
	opIndex     = "index" // a page of one
)

type reply struct {
	Elsewhere   bool       `json:"elsewhere,omitempty"` // the node has not got the task
	Stopped     string     `json:"stopped,omitempty"`
	Interrupted bool       `json:"interrupted,omitempty"`
	Found       bool       `json:"found,omitempty"`
	Value       []byte     `json:"value,omitempty"`
	Commit      int64      `json:"commit,omitempty"`
	Life        uint64     `json:"life,omitempty"` // of the task
	Version     Version    `json:"version,omitempty"`
	N           int        `json:"n,omitempty"`
	Pin         uint64     `json:"pin,omitempty"`
	Rows        []replyRow `json:"rows,omitempty"`
	More        bool       `json:"more,omitempty"`
	Next        []byte     `json:"next,omitempty"`
	// Tasks are those at which the node has failed, by their number: what is said of them when nothing is asked for.
	Tasks map[int]standing `json:"tasks,omitempty"`
}

// next is where the rest of what was asked for from somewhere on begins; nil where nothing is left.
func (a *reply) next(from string) (*string, error) {
	if !a.More {
		return nil, nil
	}
	next := string(a.Next)
	if next <= from {
		return nil, fmt.Errorf("query: an answer that does not go on: %q behind %q", next, from)
	}
	return &next, nil
}

type replyRow struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// served is a view for other nodes. The task's lock is held.
type served struct {
	get   func(t *task, key []byte, pin uint64) (value []byte, found bool, err error)
	page  func(t *task, pin uint64, from, to string) (rows []replyRow, next *string, err error)
	count func(t *task) int
	// indexes are those of the view, by their titles.
	indexes map[string]servedIndex
}

// answerBytes bounds the rows of an answer, but for the last of them: there may be 256, and a call takes 64 MiB.
const answerBytes = 1 << 20

// serves notes a view, before the graph is started.
func (g *Graph) serves(name string, v served) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.started {
		g.views[name] = v
	}
}

func serve[K, V any](t *Table[K, V]) served {
	rows := func(k *task) rowReader[V] { return k.tables[t.n].(rowReader[V]) }
	return served{
		func(k *task, key []byte, pin uint64) ([]byte, bool, error) {
			v, found := rows(k).get(key)
			if pin != 0 {
				v, found = rows(k).getAt(key, pin)
			}
			if !found {
				return nil, false, nil
			}
			b, err := t.value.Append(nil, v)
			return b, true, err
		},
		func(k *task, pin uint64, from, to string) (list []replyRow, next *string, err error) {
			some, next := rows(k).page(nil, pin, from, to, page)
			bytes := 0
			for i, r := range some {
				if bytes >= answerBytes {
					return list, &some[i].key, nil
				}
				b, err := t.value.Append(nil, r.val)
				if err != nil {
					return nil, nil, err
				}
				list = append(list, replyRow{[]byte(r.key), b})
				bytes += len(r.key) + len(b)
			}
			return list, next, nil
		},
		func(k *task) int { return rows(k).count() },
		map[string]servedIndex{},
	}
}

// holder is who has a task: this node, which gives the task, or another one.
func (g *Graph) holder(ctx context.Context, slot int) (*task, int32, error) {
	s := &g.slots[slot]
	_, index := g.of(slot)
	for {
		s.mu.Lock()
		t, err, changed := s.task, s.err, s.changed
		s.mu.Unlock()
		if t != nil || err != nil {
			return t, 0, err
		}
		var other <-chan struct{}
		if g.clustered() {
			var node int32
			if node, other = g.owners.of(index); node >= 0 && node != g.db.Cluster().Node() {
				return nil, node, nil
			}
			if err := g.owners.stopped(g.name, index); err != nil {
				return nil, 0, err
			}
		}
		select {
		case <-changed:
		case <-other:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// local is a task that this node has.
func (g *Graph) local(ctx context.Context, slot int) (*task, error) {
	if err := g.awaitRebuilt(ctx); err != nil {
		return nil, err
	}
	t, node, err := g.holder(ctx, slot)
	if err == nil && t == nil {
		err = fmt.Errorf("%w: node %d", ErrOtherNode, node)
	}
	return t, err
}

// at has a task do something, or the node that has it. It is asked again when the task moves or begins again meanwhile.
func (g *Graph) at(ctx context.Context, slot int, local func(t *task) error, q request, there func(node int32, a *reply) error) error {
	q.Slot = slot
	if err := g.awaitRebuilt(ctx); err != nil {
		return err
	}
	_, index := g.of(slot)
	for {
		t, node, err := g.holder(ctx, slot)
		if err != nil {
			return err
		}
		if t != nil {
			err = local(t)
		} else {
			var a *reply
			if a, err = g.askOwner(ctx, index, node, &q); err == nil {
				return there(node, a)
			}
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !again(err, t != nil, &q) {
			return err
		}
		var changed <-chan struct{}
		if g.clustered() {
			_, changed = g.owners.of(index)
		}
		select {
		case <-time.After(againPause):
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// again says whether a task is asked another time after an error, here or of another node.
func again(err error, here bool, q *request) bool {
	if errors.Is(err, ErrInterrupted) {
		return q.Op != opPin // who takes a snapshot begins again with all of it
	}
	return !here && elsewhere(err)
}

// elsewhere says of an error of a node that was asked that the task is, or will be, at another one: it has not got it, does not answer, or is being
// closed, which ends the calls that it serves.
func elsewhere(err error) bool {
	for _, target := range []error{
		errElsewhere, embedlog.ErrPeerUnreachable, embedlog.ErrUnknownOutcome, embedlog.ErrNoHandler,
		context.Canceled, context.DeadlineExceeded, embedlog.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// againPause is between two calls when it is not known yet who has a task.
const againPause = 20 * time.Millisecond

// askOwner asks the node that has a task. It does not wait for the answer of one that has it no longer: who is cut off does not say so.
func (g *Graph) askOwner(ctx context.Context, index int, node int32, q *request) (*reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			now, changed := g.owners.of(index)
			if now != node && now != unowned {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return g.ask(ctx, node, q)
}

var errElsewhere = errors.New("query: the task is at another node")

// ask asks a node.
func (g *Graph) ask(ctx context.Context, node int32, q *request) (*reply, error) {
	q.Graph = g.identity()
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if b, err = g.db.Peers().Call(ctx, node, g.service(), b); err != nil {
		return nil, err
	}
	a := new(reply)
	if err := json.Unmarshal(b, a); err != nil {
		return nil, fmt.Errorf("answer of node %d: %w", node, err)
	}
	switch {
	case a.Elsewhere:
		return nil, errElsewhere
	case a.Interrupted:
		return nil, ErrInterrupted
	case a.Stopped != "":
		if own := g.owners.anyStopped(g.name); own != nil { // it says more
			return nil, own
		}
		return nil, &StoppedError{g.name, fmt.Errorf("node %d: %s", node, a.Stopped)}
	}
	return a, nil
}

// answerFirst answers those that ask for the first generation.
func (g *Graph) answerFirst(ctx context.Context, node int32, b []byte) ([]byte, error) {
	if g.answers.Load() && (g.number > 1 || g.closing.Load()) {
		return json.Marshal(&reply{Elsewhere: true})
	}
	return g.answer(ctx, node, b)
}

// answer is what other nodes get.
func (g *Graph) answer(ctx context.Context, _ int32, b []byte) ([]byte, error) {
	var q request
	if err := json.Unmarshal(b, &q); err != nil {
		return nil, fmt.Errorf("query: invalid request: %w", err)
	}
	a, err := g.answered(whileBuilding(ctx), &q) // who asks has waited
	if err != nil && (g.closing.Load() || errors.Is(err, ErrClosed) || ctx.Err() != nil) {
		err = ErrOtherNode // the graph is being closed here, or the database: another node takes over
	}
	if g.gaveAway(&q) {
		err = ErrOtherNode // who has the task, or that nobody has, the node that asks hears from the one that leads
	}
	if stopped := (*StoppedError)(nil); errors.As(err, &stopped) {
		a, err = &reply{Stopped: stopped.Err.Error()}, nil
	} else if errors.Is(err, ErrInterrupted) {
		a, err = &reply{Interrupted: true}, nil
	} else if errors.Is(err, ErrOtherNode) {
		a, err = &reply{Elsewhere: true}, nil
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// identity tells graphs of one name apart: another definition has other rows, in other bytes, and other tasks.
func (g *Graph) identity() string {
	h := fnv.New64a()
	io.WriteString(h, g.definition)
	return fmt.Sprintf("%s %d %016x", g.kept, g.total(), h.Sum64())
}

func (g *Graph) answered(ctx context.Context, q *request) (a *reply, err error) {
	if !g.answers.Load() || q.Graph != g.identity() {
		return nil, ErrOtherNode
	}
	defer func() { // codecs are the program's
		if p := recover(); p != nil {
			err = panicked(g.name, p)
		}
	}()
	a = &reply{}
	if q.Op == "" {
		a.Tasks = g.owners.standings()
		return a, nil
	}
	if q.Slot < 0 || q.Slot >= len(g.slots) {
		return nil, fmt.Errorf("query: there is no task %d", q.Slot)
	}
	if q.Op == opUnpin {
		g.unpin(q.Pin)
		return a, nil
	}
	var v served
	var index servedIndex
	switch q.Op {
	case opGet, opPage, opLen, opIndex:
		var ok bool
		if v, ok = g.views[q.View]; !ok {
			return nil, fmt.Errorf("query: there is no view %q", q.View)
		}
		if s, _ := g.of(q.Slot); s != g.stageOf(q.View) {
			return nil, fmt.Errorf("query: task %d has no view %q", q.Slot, q.View)
		}
		if index = v.indexes[q.Index]; index == nil && q.Op == opIndex {
			return nil, fmt.Errorf("query: view %q has no index %q", q.View, q.Index)
		}
	}
	t, err := g.local(ctx, q.Slot)
	if err != nil {
		return nil, err
	}
	a.Life = t.life
	pin := uint64(0)
	if q.Pin != 0 {
		if pin, err = g.pinned(q.Pin, t); err != nil {
			return nil, err
		}
	}
	if q.Fresh {
		if err := t.catchUp(ctx); err != nil {
			return nil, err
		}
	}
	switch q.Op {
	case opCatchUp:
		return a, t.catchUp(ctx)
	case opReach:
		return a, t.reach(ctx, place{q.Topic, q.Part}, q.Offset)
	case opSettle:
		a.Commit, err = t.settleCommit(ctx)
		return a, err
	case opCommitted:
		a.Commit, a.Found = g.committedOf(t.stage, place{q.Topic, q.Part})
		return a, nil
	case opPin:
		pin, a.Version = t.pin()
		a.Pin, err = g.lease(ctx, t, pin)
		return a, err
	}
	t.clock.RLock()
	defer t.clock.RUnlock()
	switch q.Op {
	case opGet:
		a.Value, a.Found, err = v.get(t, q.Key, pin)
	case opPage, opIndex:
		if pin == 0 {
			return nil, ErrInterrupted
		}
		some := v.page
		if q.Op == opIndex {
			some = index
		}
		var next *string
		if a.Rows, next, err = some(t, pin, string(q.From), string(q.To)); next != nil {
			a.More, a.Next = true, []byte(*next)
		}
	case opLen:
		a.N = v.count(t)
	case opVersion:
		a.Version = t.versionLocked(nil)
	default:
		err = fmt.Errorf("query: this version does not know the request %q", q.Op)
	}
	if err == nil {
		err = t.readErr()
	}
	return a, err
}

// lease is a snapshot's pin for another node: it ends when nobody has used it for some time.
type lease struct {
	t   *task
	pin uint64
	end *time.Timer
}

const leaseTime = time.Minute

// lease gives a pin a number. Nobody gets one who does not wait for it any more.
func (g *Graph) lease(ctx context.Context, t *task, pin uint64) (uint64, error) {
	g.pinMu.Lock()
	defer g.pinMu.Unlock()
	err := ctx.Err()
	if g.closing.Load() {
		err = ErrOtherNode
	}
	if err != nil {
		t.clock.release(pin)
		return 0, err
	}
	g.lastPin++
	id := g.lastPin
	g.pins[id] = &lease{t, pin, time.AfterFunc(leaseTime, func() { g.unpin(id) })}
	return id, nil
}

// pinned is the version of a lease.
func (g *Graph) pinned(id uint64, t *task) (pin uint64, err error) {
	g.pinMu.Lock()
	defer g.pinMu.Unlock()
	l := g.pins[id]
	if l == nil || l.t != t {
		return 0, ErrInterrupted
	}
	l.end.Reset(leaseTime)
	return l.pin, nil
}

func (g *Graph) unpin(id uint64) {
	g.pinMu.Lock()
	l := g.pins[id]
	delete(g.pins, id)
	g.pinMu.Unlock()
	if l != nil {
		l.end.Stop()
		l.t.clock.release(l.pin)
	}
}

// unpinTask ends what other nodes have of a task that has ended: nobody reads it any more.
func (g *Graph) unpinTask(t *task) {
	g.pinMu.Lock()
	defer g.pinMu.Unlock()
	for id, l := range g.pins {
		if l.t == t {
			l.end.Stop()
			delete(g.pins, id)
		}
	}
}

// unpinAll ends what other nodes have.
func (g *Graph) unpinAll() {
	g.pinMu.Lock()
	list := g.pins
	g.pins = map[uint64]*lease{}
	g.pinMu.Unlock()
	for _, l := range list {
		l.end.Stop()
	}
}

// far is a part of a snapshot that another node has.
type far struct {
	node int32
	pin  uint64
}

// read asks for something of the snapshot's rows at another node. When the task is another one's the snapshot has lost them.
func (s *Snapshot) read(ctx context.Context, i int, q request) (*reply, error) {
	q.Slot, q.Pin = i, s.far[i].pin
	_, index := s.g.of(i)
	a, err := s.g.askOwner(ctx, index, s.far[i].node, &q)
	if err != nil && (errors.Is(err, errElsewhere) || errors.Is(err, embedlog.ErrNoHandler) || s.g.left(index, s.far[i].node)) {
		err = ErrInterrupted
	}
	return a, err
}

// left says that the tasks of a number are not at a node any more.
func (g *Graph) left(index int, node int32) bool {
	now, _ := g.owners.of(index)
	return now >= 0 && now != node
}

// farPatience bounds a call of a snapshot's, which has no context.
const farPatience = 10 * time.Second
