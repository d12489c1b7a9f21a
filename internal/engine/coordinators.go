package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/x/embedlog/partition"
)

// coordinators has those of groups, share groups and transactions keep step with who
// leads the logs of their topics. There is one goroutine for it where the engine has a
// Cluster, and nothing otherwise.
type coordinators struct {
	e       *Engine
	moved   chan struct{} // a token: somebody else may lead something
	running sync.WaitGroup

	mu      sync.Mutex
	cancels []func() // of watches
	loading map[*Partition]struct{}
	closed  bool
}

func (c *coordinators) init(e *Engine) {
	c.e = e
	if e.options.Cluster != nil {
		c.moved, c.loading = make(chan struct{}, 1), make(map[*Partition]struct{})
	}
}

// start is called when all coordinators are there.
func (c *coordinators) start() {
	if c.moved == nil {
		return
	}
	e := c.e
	cancel := e.OnMetadata(c.look) // a topic may have been made by another node
	c.mu.Lock()
	c.cancels = append(c.cancels, cancel)
	c.mu.Unlock()
	c.running.Go(func() {
		for {
			e.groups.follow(e.life)
			e.shares.follow(e.life)
			e.txns.follow(e.life)
			select {
			case <-c.moved:
			case <-e.life.Done():
				return
			}
		}
	})
}

// look has the goroutine look who leads.
func (c *coordinators) look() {
	if c.moved != nil {
		signal(c.moved)
	}
}

// follow has it look when the leader of p changes.
func (c *coordinators) follow(p *Partition) {
	if p.repl == nil || c.moved == nil {
		return
	}
	cancel := p.repl.Watch(c.look)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancels = append(c.cancels, cancel); c.closed {
		go cancel()
	}
	c.look()
}

// background does something about a partition's log, one thing at a time. What fails is
// tried again when a leader changes, and with the next tick.
func (c *coordinators) background(what string, p *Partition, f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, busy := c.loading[p]; busy || c.closed {
		return
	}
	c.loading[p] = struct{}{}
	c.running.Go(func() {
		err := f()
		c.mu.Lock()
		delete(c.loading, p)
		c.mu.Unlock()
		if err != nil && c.e.life.Err() == nil && !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, ErrCoordinatorLoading) {
			c.e.Logger().Warn("a coordinator did not "+what, slog.String("partition", p.String()), slog.Any("error", err))
		}
	})
}

// stop waits until nothing of it runs. The engine's life is over.
func (c *coordinators) stop() {
	c.mu.Lock()
	c.closed = true
	cancels := c.cancels
	c.cancels = nil
	c.mu.Unlock()
	for _, cancel := range cancels {
		cancel()
	}
	c.running.Wait()
}

// leads says whether this node leads the tenure's log, as far as it knows. Alone it is
// false: nothing has to be read before somebody asks.
func (t *tenure) leads() bool {
	if t == nil {
		return false
	}
	if t.part.repl == nil {
		return false
	}
	_, err := t.part.repl.LeaderEpoch()
	return err == nil
}

// patience is ctx, which ends after leadPatience where somebody else may have to
// commit before the call can go on.
func (t *tenure) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if t == nil || t.epoch.Load() != 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, leadPatience, ErrCoordinatorLoading)
}

// loading makes of the error of a call whose patience is over that of a coordinator
// which is loading. ctx is the caller's.
func (t *tenure) loading(ctx context.Context, err error) error {
	if t != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		t.part.engine.coordinators.look()
		return ErrCoordinatorLoading
	}
	return err
}

// stale says that a coordinator's memory is not to be used any more: its tenure is over,
// or the partition has come to this node, or left it, and is another one. now is the
// partition as it is.
func (t *tenure) stale(topic string) (now *Partition, stale bool) {
	if t == nil {
		return nil, false
	}
	now = t.part
	if found, err := t.part.engine.Topic(topic); err == nil {
		if p, err := found.Partition(t.part.id); err == nil {
			now = p
		}
	}
	if now != t.part {
		t.end(t.part.lostLead(t.epoch.Load()))
	}
	return now, t.ended() != nil
}

// Coordinator is the node that coordinates a group, as far as this node knows; -1 when
// nobody is known to. It makes __consumer_offsets if there is none. Alone it is this node.
func (g *Groups) Coordinator(ctx context.Context, group string) (node int32, err error) {
	if err := checkGroupName(group); err != nil {
		return -1, err
	}
	if g.engine.cluster == nil {
		return g.engine.identity.node, nil
	}
	shards, err := g.prepare(ctx, true)
	if err != nil {
		return -1, err
	}
	node, _ = shards[offsetsPartitionOf(group, len(shards))].part.Leader()
	return node, nil
}

// Coordinator is the node that coordinates a transactional id: see Groups.Coordinator.
func (t *Txns) Coordinator(ctx context.Context, id string) (node int32, err error) {
	if t.e.cluster == nil {
		return t.e.identity.node, nil
	}
	shards, err := t.prepare(ctx, true)
	if err != nil {
		return -1, err
	}
	node, _ = shards[offsetsPartitionOf(id, len(shards))].part.Leader()
	return node, nil
}
