package raftrepl

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// takenBy implements direct: requests come as they do on a real connection.
func (w *simWire) takenBy(take func(raft.RPC) answering) { w.Transport.(direct).takenBy(take) }

// simPipeline is a pipeline of messages that get lost, come late and come twice, and whose answers do.
type simPipeline struct {
	raft.AppendPipeline
	w       *simWire
	to      raft.ServerID
	unheard *sync.Map // requests whose answers get lost
}

// pipeline implements piper.
func (w *simWire) pipeline(to raft.ServerID, after afterAppend) (raft.AppendPipeline, error) {
	if w.r.dead.Load() {
		return nil, errSimLost
	}
	p := &simPipeline{w: w, to: to, unheard: new(sync.Map)}
	inner, err := w.Transport.(piper).pipeline(to, func(m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, sent time.Time, err error) error {
		if _, lost := p.unheard.LoadAndDelete(m); lost && err == nil {
			err = errSimLost
		}
		return after(m, resp, sent, err)
	})
	if err != nil {
		return nil, err
	}
	p.AppendPipeline = inner
	return p, nil
}

func (p *simPipeline) AppendEntries(m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	w := p.w
	if w.r.dead.Load() {
		return nil, errSimLost
	}
	w.s.leads(w.r, m.Term)
	w.s.count("pipelined", 1)
	f := w.fate()
	if f.late > 0 {
		time.Sleep(f.late)
	}
	if f.twice {
		own := *m
		node := w.s.nodes[memberNode(p.to)-1]
		first := node.run.Load()
		w.s.echoes.Go(func() {
			time.Sleep(f.again)
			if first != nil && node.run.Load() == first && !w.r.dead.Load() {
				w.Transport.AppendEntries(p.to, "", &own, new(raft.AppendEntriesResponse))
			}
		})
	}
	if f.lost {
		return nil, nil // the library sends the next one, which does not fit
	}
	if f.unheard {
		p.unheard.Store(m, true)
	}
	return p.AppendPipeline.AppendEntries(m, resp)
}
