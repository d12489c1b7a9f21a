package raftrepl

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Heartbeats of all groups, and the answers to them, wait a moment and travel together: what a
// hundred idle groups cost is a few messages a second, and not thousands.
//
//	group A ─ heartbeat ─┐
//	group B ─ heartbeat ─┼─ batch, after beatDelay ═══ each as if it had come alone ═> Raft's main loops
//	answers to theirs   ─┘
//
// A heartbeat says nothing about the log, so it may arrive behind what was sent after it.

// beatDelay is how long a heartbeat waits for others, and its answer again: little beside the time
// between two of them.
func (t *transport) beatDelay() time.Duration { return t.election / 50 }

// maxBatchBytes is when a batch is sent that could take more.
const maxBatchBytes = maxUrgentBytes / 2

// Beat is AppendEntries for a heartbeat that may wait for beatDelay.
func (g *groupTransport) Beat(to raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	*resp = raft.AppendEntriesResponse{}
	if err := g.hangs(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.urgentTimeout()+2*g.t.beatDelay())
	defer cancel()
	l, err := g.wire(ctx, to, flavourMain)
	if err != nil {
		return err
	}
	p := &pending{id: l.lastID.Add(1), answer: make(chan answer, 1)}
	segments, err := encodeAppend(p.id, g.route(to, args.RPCHeader), args)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	l.pending[p.id] = p
	l.mu.Unlock()
	l.soon(segments...)
	return g.wait(ctx, l, p, resp)
}

// soon puts a message into the batch that is sent next.
func (l *wire) soon(segments ...[]byte) {
	n := 0
	for _, s := range segments {
		n += len(s)
	}
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	var full []byte
	if l.batch == nil {
		l.batch = appendHead(make([]byte, 0, 512), kindBatch, 0)
		if l.batchTimer == nil {
			l.batchTimer = time.AfterFunc(l.t.beatDelay(), l.sendBatch)
		} else {
			l.batchTimer.Reset(l.t.beatDelay())
		}
	} else if len(l.batch)+n > maxBatchBytes {
		full, l.batch = l.batch, appendHead(make([]byte, 0, 512), kindBatch, 0)
	}
	l.batch = appendUvarints(l.batch, uint64(n))
	for _, s := range segments {
		l.batch = append(l.batch, s...)
	}
	l.mu.Unlock()
	if full != nil {
		l.urgent(full)
	}
}

// sendBatch sends what has waited.
func (l *wire) sendBatch() {
	l.mu.Lock()
	b := l.batch
	l.batch = nil
	l.mu.Unlock()
	if b != nil {
		l.urgent(b)
	}
}

// handleBatch takes in messages that came together. Only heartbeats and answers do.
func (l *wire) handleBatch(d *decoder) error {
	for len(d.b) > 0 && d.err == nil {
		msg := d.bytes(maxUrgentBytes)
		if d.err != nil {
			break
		}
		in := decoder{b: msg}
		k, id := in.head()
		if in.err != nil {
			return in.err
		}
		var err error
		switch k {
		case kindAppend:
			err = l.raftRequest(k, id, &in, len(msg), l.soonOne, l.soonOne)
		case kindAnswer:
			err = l.answered(id, &in)
		default:
			err = &CodecError{fmt.Sprintf("a message of kind %d in a batch", k)}
		}
		if err != nil {
			return err
		}
	}
	return d.end()
}

func (l *wire) soonOne(msg []byte) { l.soon(msg) }
