package raftrepl

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// pipelineWindow is how many requests of a group are on their way to a peer. More would make commits
// late under load (https://github.com/hashicorp/raft/pull/541): what comes while they are is in the next
// one. Those that a follower has written when it begins a sync share it.
const pipelineWindow = 4

// pipeline sends AppendEntries without waiting for the answers, on one connection: with the end of
// that it fails, and Raft goes back to one at a time.
type pipeline struct {
	g       *groupTransport
	l       *wire
	to      raft.ServerID
	ctx     context.Context
	cancel  context.CancelFunc
	window  chan struct{}
	ordered chan *appendFuture
	done    chan raft.AppendFuture
	after   afterAppend
}

// afterAppend is called with each answer before anybody sees it, in the order of the requests, and
// says what is the matter with it.
type afterAppend func(m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, sent time.Time, err error) error

// piper is a transport that can look at the answers of a pipeline.
type piper interface {
	pipeline(id raft.ServerID, after afterAppend) (raft.AppendPipeline, error)
}

var _ raft.AppendPipeline = (*pipeline)(nil)

// appendFuture is one request of Raft, which was sent in one or more pieces.
type appendFuture struct {
	start  time.Time
	args   *raft.AppendEntriesRequest
	resp   *raft.AppendEntriesResponse
	pieces []*pending
	err    error
	ended  chan struct{}
}

func (f *appendFuture) Error() error {
	<-f.ended
	return f.err
}
func (f *appendFuture) Start() time.Time                      { return f.start }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

// AppendEntriesPipeline begins a pipeline.
func (g *groupTransport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	return g.pipeline(id, func(_ *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse, _ time.Time, err error) error {
		return err
	})
}

// pipeline implements piper.
func (g *groupTransport) pipeline(id raft.ServerID, after afterAppend) (raft.AppendPipeline, error) {
	ctx, cancel := context.WithTimeout(g.ctx, g.urgentTimeout())
	l, err := g.wire(ctx, id, flavourMain)
	cancel()
	if err != nil {
		return nil, err
	}
	p := &pipeline{g: g, l: l, to: id, after: after, window: make(chan struct{}, pipelineWindow),
		ordered: make(chan *appendFuture, pipelineWindow), done: make(chan raft.AppendFuture, pipelineWindow)}
	p.ctx, p.cancel = context.WithCancel(g.ctx)
	if !g.t.run(p.answers) {
		p.cancel()
		return nil, errClosing
	}
	return p, nil
}

// AppendEntries sends a request when there is room for it. Later pieces of it do not wait for the
// earlier ones: where one of them is refused, those behind it do not fit either.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.g.hangs(); err != nil {
		return nil, err
	}
	select {
	case p.window <- struct{}{}:
	case <-p.l.done:
		return nil, raft.ErrPipelineShutdown
	case <-p.ctx.Done():
		return nil, raft.ErrPipelineShutdown
	}
	f := &appendFuture{start: time.Now(), args: args, resp: resp, ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(p.ctx, entriesTimeout(args))
	defer cancel()
	for _, piece := range pieces(args) {
		q, err := p.l.request(ctx, laneEntries, func(id uint64) ([][]byte, error) { return encodeAppend(id, p.g.route(p.to, args.RPCHeader), piece) })
		if err != nil {
			for _, q := range f.pieces {
				p.l.forget(q)
			}
			<-p.window
			return nil, err
		}
		f.pieces = append(f.pieces, q)
	}
	p.ordered <- f // has room for all in the window
	return f, nil
}

// answers waits for the answers in the order of the requests.
func (p *pipeline) answers() {
	for {
		select {
		case f := <-p.ordered:
			ctx, cancel := context.WithTimeout(p.ctx, entriesTimeout(f.args))
			f.err = p.after(f.args, f.resp, f.start, p.await(ctx, f))
			cancel()
			if f.err != nil {
				*f.resp = raft.AppendEntriesResponse{} // the library does not ask for the error
			}
			failed := !f.resp.Success
			close(f.ended)
			select {
			case p.done <- f:
			case <-p.ctx.Done():
				return
			}
			if failed {
				// The library takes no answer behind it, and finds out when it is given no room for its next request, which
				// would wait for ever.
				p.cancel()
				return
			}
			<-p.window
		case <-p.ctx.Done():
			return
		}
	}
}

// await takes the answers to all pieces. The first refusal is the answer.
func (p *pipeline) await(ctx context.Context, f *appendFuture) error {
	*f.resp = raft.AppendEntriesResponse{}
	var last raft.AppendEntriesResponse
	for i, q := range f.pieces {
		var resp raft.AppendEntriesResponse
		err := p.g.wait(ctx, p.l, q, &resp)
		if err == nil && resp.Success {
			last = resp
			continue
		}
		for _, later := range f.pieces[i+1:] {
			p.l.forget(later)
		}
		if err == nil {
			*f.resp = resp
		}
		return err
	}
	*f.resp = last
	return nil
}

// Consumer has the answered requests.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close gives up what is not answered. It does not wait.
func (p *pipeline) Close() error {
	p.cancel()
	return nil
}
