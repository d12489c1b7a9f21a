package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"time"
)

// Who leads a log that this node has no replica of is heard from those who lead: they
// say so when it changes, and are asked now and then, which also shows that they are
// there. It is a hint: a call that goes to the wrong node is answered with a better one.
//
//	request   uvarint version of the list that is known; or 0, and a list follows that is told
//	list      uvarint version, uvarint count, of each 16 topic id, uvarint partition, uvarint epoch

// wire appends the values that decoder reads.
type wire struct{ b []byte }

func (w *wire) id(id TopicID)   { w.b = append(w.b, id[:]...) }
func (w *wire) number(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

// handleReplicas registers the services about replicas.
func (e *Engine) handleReplicas() {
	e.handle(leadersService, e.serveLeaders)
	e.handle(leaveService, e.serveLeave)
	e.handle(refetchService, e.serveRefetch)
	e.handle(recoverService, e.serveRecover)
}

// leadsList is what this node leads.
func (e *Engine) leadsList() []byte {
	version := e.replicas.version.Load() // before: what changes meanwhile is asked for again
	var w wire
	w.number(version + 1)
	n := 0
	var list wire
	for _, t := range e.view.Load().byID {
		for i, p := range t.partitions {
			if p.repl == nil {
				continue
			}
			node, epoch := p.repl.Leader()
			if node != e.identity.node {
				continue
			}
			n++
			list.id(t.meta.id)
			list.number(uint64(i))
			list.number(uint64(epoch))
		}
	}
	w.number(uint64(n))
	return append(w.b, list.b...)
}

func (e *Engine) serveLeaders(ctx context.Context, from int32, req []byte) ([]byte, error) {
	d := decoder{b: req}
	known := d.number(1 << 62)
	if d.failed {
		return nil, errors.New("malformed request")
	}
	if known == 0 && len(d.b) > 0 {
		return nil, e.hearLeaders(from, d.b)
	}
	if known == e.replicas.version.Load()+1 {
		var w wire
		w.number(known)
		w.number(0)
		return w.b, nil
	}
	return e.leadsList(), nil
}

// hearLeaders takes in what a node says that it leads.
func (e *Engine) hearLeaders(from int32, b []byte) error {
	d := decoder{b: b}
	version := d.number(1 << 62)
	heard := make(map[LogID]int32)
	for range d.number(1 << 31) {
		id := LogID{Topic: d.id(), Partition: int32(d.number(maxPartitions))}
		epoch := int32(d.number(maxNodeID))
		if d.failed {
			return errors.New("malformed list of leaders")
		}
		heard[id] = epoch
	}
	if d.failed || len(d.b) > 0 {
		return errors.New("malformed list of leaders")
	}
	r := &e.replicas
	r.mu.Lock()
	if r.seen == nil {
		r.seen, r.hints = make(map[int32]uint64), make(map[LogID]leaderHint)
	}
	r.seen[from] = version
	changed := false
	for id, epoch := range heard {
		if has, ok := r.hints[id]; ok && has.epoch >= epoch {
			continue
		}
		r.hints[id] = leaderHint{from, epoch}
		if r.hinted == nil {
			r.hinted = make(map[TopicID]struct{})
		}
		r.hinted[id.Topic] = struct{}{}
		changed = true
	}
	r.mu.Unlock()
	if changed {
		r.look()
	}
	return nil
}

// rehint publishes a topic again whose partitions elsewhere have other leaders.
func (e *Engine) rehint(id TopicID) {
	select {
	case e.admin <- struct{}{}:
	case <-e.life.Done():
		return
	}
	defer e.endAdmin()
	t := e.view.Load().byID[id]
	if t == nil || e.closed.Load() {
		return
	}
	now, changed := *t, false
	now.partitions = slices.Clone(t.partitions)
	for n, p := range t.partitions {
		node, epoch := e.replicas.hint(LogID{id, int32(n)})
		if p.elsewhere && (p.hintLeader != node || p.hintEpoch != epoch) {
			now.partitions[n], changed = e.elsewhere(&now, n), true
		}
	}
	if changed {
		e.publish(t, &now)
	}
}

// forget drops what was heard of a topic that was deleted.
func (r *replicas) forget(t *Topic) {
	r.mu.Lock()
	for n := range t.partitions {
		id := LogID{t.meta.id, int32(n)}
		delete(r.hints, id)
		delete(r.settled, id)
	}
	delete(r.unmade, t.meta.id)
	r.mu.Unlock()
	r.look()
}

// peerIDs are the other nodes, ascending.
func (e *Engine) peerIDs() (ids []int32) {
	if peers := e.peers.Load(); peers != nil {
		for id := range *peers {
			if id != e.identity.node {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// pushLeaders tells the other nodes what this one leads.
func (r *replicas) pushLeaders() {
	e := r.e
	for _, node := range e.peerIDs() {
		r.task("tell node "+strconv.Itoa(int(node))+" who leads", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, peerTimeout)
			defer cancel()
			if _, err := e.cluster.Call(ctx, node, leadersService, append([]byte{0}, e.leadsList()...)); err != nil {
				return nil // it asks, when it can
			}
			e.heard(node)
			return nil
		})
	}
}

// askPeers asks the other nodes what they lead, when it is time.
func (r *replicas) askPeers() {
	e, now := r.e, time.Now()
	r.mu.Lock()
	due := now.Sub(r.asked) >= askLeaders
	if due {
		r.asked = now
	}
	r.mu.Unlock()
	if !due {
		return
	}
	for _, node := range e.peerIDs() {
		r.task("ask node "+strconv.Itoa(int(node))+" who leads", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, peerTimeout)
			defer cancel()
			r.mu.Lock()
			known := r.seen[node]
			r.mu.Unlock()
			var w wire
			w.number(known)
			answer, err := e.cluster.Call(ctx, node, leadersService, w.b)
			if err != nil {
				if errors.Is(err, ErrPeerUnreachable) {
					e.missed(node)
				}
				return nil // it is asked again
			}
			e.heard(node)
			r.askBehind(ctx, node)
			return e.hearLeaders(node, answer)
		})
	}
}
