package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/x/embedlog/partition"
)

// leaderTries bounds how often a call goes on to who is said to lead now.
const leaderTries = 6

// service is a question that one peer asks of another: a name, and who answers.
type service[Q, A any] struct {
	name string
	f    func(ctx context.Context, q *Q) (A, error)
}

// reply is an answer as it is sent. Errors arrive as what they were.
type reply[A any] struct {
	Err    error
	Answer A
}

// nothing is the answer of who only does something.
type nothing struct{}

// handler answers for other peers.
func (s *service[Q, A]) handler() handler {
	return func(ctx context.Context, _ int32, request []byte) ([]byte, error) {
		var q Q
		if err := peerCodec.Decode(request, &q); err != nil {
			return nil, err
		}
		var r reply[A]
		r.Answer, r.Err = s.f(ctx, &q)
		return peerCodec.Append(nil, &r)
	}
}

// atNode has a node answer, which may be this one.
func (s *service[Q, A]) atNode(ctx context.Context, e *Engine, node int32, q *Q) (A, error) {
	var r reply[A]
	if node == e.cluster.Self() {
		return s.f(ctx, q)
	}
	request, err := peerCodec.Append(nil, q)
	if err != nil {
		return r.Answer, err
	}
	answer, err := e.cluster.Call(ctx, node, s.name, request)
	if err != nil {
		if !errors.Is(err, ErrPeerUnreachable) {
			err = fmt.Errorf("%w: %w", errAnswerLost, err)
		}
		return r.Answer, fmt.Errorf("ask node %d: %w", node, err)
	}
	if err := peerCodec.Decode(answer, &r); err != nil {
		return r.Answer, fmt.Errorf("ask node %d: %w: %w", node, errAnswerLost, err)
	}
	return r.Answer, asOurs(node, r.Err)
}

// atLeader has the node answer that leads the log of p. It follows the leader where that
// has moved, and does not wait for one: when nobody is known to lead, or who does cannot be
// reached, it fails with a *partition.NotLeaderError or an error that matches
// ErrPeerUnreachable. After any other error, such as errAnswerLost, the question may have been
// answered, or be answered later.
func (s *service[Q, A]) atLeader(ctx context.Context, p *Partition, q *Q) (answer A, err error) {
	e := p.engine
	node, _ := p.Leader()
	var asked []int32
	err = fmt.Errorf("%s: %w", p, p.whoLeads())
	for range leaderTries {
		if node < 0 || slices.Contains(asked, node) {
			break
		}
		asked = append(asked, node)
		answer, err = s.atNode(ctx, e, node, q)
		var other *partition.NotLeaderError
		if !errors.As(err, &other) {
			return answer, err
		}
		if node = other.Leader; node < 0 || slices.Contains(asked, node) {
			node, _ = p.Leader()
		}
	}
	return answer, err
}

// handleCoordinators registers what coordinators ask of each other.
func (e *Engine) handleCoordinators() {
	e.handle(e.askTxn().name, e.askTxn().handler())
	e.handle(e.askMarker().name, e.askMarker().handler())
	e.handle(e.askOffsets().name, e.askOffsets().handler())
	e.handle(e.askMeta().name, e.askMeta().handler())
	e.handleShares()
}

// askTxn asks the coordinator of an id. (AddPartitionsToTxn 4 and later, between brokers)
func (e *Engine) askTxn() *service[txnQuestion, nothing] {
	return &service[txnQuestion, nothing]{"txn", func(ctx context.Context, q *txnQuestion) (nothing, error) {
		return nothing{}, e.txns.answer(ctx, q)
	}}
}

// askMarker asks the leader of a partition. (WriteTxnMarkers)
func (e *Engine) askMarker() *service[markerQuestion, nothing] {
	return &service[markerQuestion, nothing]{"txn.marker", func(ctx context.Context, q *markerQuestion) (nothing, error) {
		return nothing{}, e.txns.answerMarker(ctx, q)
	}}
}
