package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	codec "github.com/x/embedlog/internal/wire"
)

// Calls of who stands above the engine go through one service, whose request begins with
// the name that the handler was registered under.

const serviceAbove = "above"

// ErrNoHandler says that a peer has no handler of that name.
var ErrNoHandler = errors.New("embedlog: the peer has no handler of that name")

// PeerHandler answers a request of a peer. request is valid during the call only.
type PeerHandler func(ctx context.Context, from int32, request []byte) ([]byte, error)

// peerHandlers are the handlers by name.
type peerHandlers struct {
	mu     sync.RWMutex
	byName map[string]*PeerHandler
}

// HandlePeer has f answer what peers, this node among them, ask for under a name. It fails
// when there is one already. cancel takes it back, and does not wait for calls.
func (e *Engine) HandlePeer(name string, f PeerHandler) (cancel func(), err error) {
	h := &e.handlers
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byName[name] != nil {
		return nil, fmt.Errorf("there is a handler of the name %q already", name)
	}
	if h.byName == nil {
		h.byName = make(map[string]*PeerHandler)
	}
	h.byName[name] = &f
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.byName[name] == &f {
			delete(h.byName, name)
		}
	}, nil
}

func (e *Engine) answerPeer(ctx context.Context, from int32, name string, request []byte) ([]byte, error) {
	e.handlers.mu.RLock()
	f := e.handlers.byName[name]
	e.handlers.mu.RUnlock()
	if f == nil {
		return nil, fmt.Errorf("%q: %w", name, ErrNoHandler)
	}
	return (*f)(ctx, from, request)
}

func (e *Engine) serveAbove(ctx context.Context, from int32, request []byte) ([]byte, error) {
	name, rest, ok := codec.CutBytes(request)
	if !ok {
		return nil, errors.New("malformed call of a peer")
	}
	answer, err := e.answerPeer(ctx, from, string(name), rest)
	if err != nil {
		return nil, err
	}
	return append([]byte{answerOK}, answer...), nil
}

// CallPeer has the handler of a node answer, which may be this one. Its error arrives as
// DecodeError says. One that matches ErrPeerUnreachable says that the request was not
// sent, or refused by a peer that closes; one that matches partition.ErrUnknownOutcome,
// that its answer did not come: it may have been served.
func (e *Engine) CallPeer(ctx context.Context, node int32, name string, request []byte) ([]byte, error) {
	if err := e.closedError(); err != nil {
		return nil, err
	}
	if node == e.Self() {
		return e.answerPeer(ctx, node, name, request)
	}
	if e.cluster == nil {
		return nil, fmt.Errorf("node %d: %w", node, ErrPeerUnreachable)
	}
	payload, err := e.callPeer(ctx, node, serviceAbove, append(codec.AppendUvarintBytes(nil, []byte(name)), request...))
	switch {
	case errors.Is(err, errPeerCloses):
		return nil, fmt.Errorf("%w: %w", ErrPeerUnreachable, err)
	case errors.Is(err, errAnswerLost):
		return nil, unknown(err)
	}
	return payload, err
}

// Self is this node's number: 0 when the database is alone.
func (e *Engine) Self() int32 {
	if e.cluster == nil {
		return 0
	}
	return e.cluster.Self()
}

// PeerNodes are the nodes of the cluster, this one among them, ascending.
func (e *Engine) PeerNodes() []int32 {
	list := []int32{e.Self()}
	if e.cluster != nil {
		list = append(list, e.nodes()...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// nodes are the other nodes of the cluster.
func (e *Engine) nodes() (list []int32) {
	if peers := e.peers.Load(); peers != nil {
		for id := range *peers {
			if id != e.cluster.Self() {
				list = append(list, id)
			}
		}
	}
	slices.Sort(list)
	return list
}

// serveCalls registers all that peers ask for.
func (e *Engine) serveCalls() {
	e.serve(serviceAppend, e.serveAppend)
	e.serve(serviceRead, e.serveRead)
	e.serve(serviceAbove, e.serveAbove)
	serveStruct(e, serviceEndTxn, e.serveEndTxn)
	serveStruct(e, serviceLead, e.serveLead)
	serveStruct(e, serviceStatus, e.serveStatus)
	serveStruct(e, serviceDelete, e.serveDelete)
	serveStruct(e, serviceLookup, e.serveLookup)
	serveStruct(e, serviceChange, e.serveChange)
	e.serveGroups()
	e.serveTxns()
}
