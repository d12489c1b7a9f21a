package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Calls between peers. An answer is one byte, then what was asked for or why not:
//
//	0 payload     1 error, as EncodeError writes it
//
// Requests and answers of coordinators and administration are structs (package wire);
// those of produce and fetch have a layout of their own (calls_append.go, calls_read.go),
// in which a batch lies as it lies in the log.

const (
	answerOK    = 0
	answerError = 1
)

// errAnswerLost says that a request was sent, and its answer did not come: it may
// have been served, or may be yet.
var errAnswerLost = errors.New("the answer did not come")

// errPeerCloses says that a peer closes, and has not done what was asked for.
var errPeerCloses = errors.New("the peer closes")

// callPeer has a node answer a request. Errors match ErrPeerUnreachable when nothing was
// sent, errAnswerLost when it is not known what became of it, errPeerCloses, or are the
// peer's.
func (e *Engine) callPeer(ctx context.Context, node int32, service string, request []byte) ([]byte, error) {
	answer, err := e.cluster.Call(ctx, node, service, request)
	if err != nil {
		if errors.Is(err, ErrPeerUnreachable) {
			return nil, err
		}
		return nil, fmt.Errorf("node %d: %w: %w", node, errAnswerLost, err)
	}
	if len(answer) == 0 || answer[0] > answerError {
		return nil, fmt.Errorf("node %d: %w: it is of a version that this one does not understand", node, errAnswerLost)
	}
	if answer[0] == answerOK {
		return answer[1:], nil
	}
	if err = DecodeError(answer[1:]); err == nil {
		return nil, fmt.Errorf("node %d: %w: it fails without an error", node, errAnswerLost)
	}
	return nil, asOurs(node, err)
}

// asOurs is a peer's error as one of ours: what the peer says of itself is not to be taken for
// something about this node.
func asOurs(node int32, err error) error {
	switch {
	case err == nil, errors.Is(err, partition.ErrUnknownOutcome):
	case errors.Is(err, log.ErrClosed) && !errors.Is(err, ErrUnknownTopic):
		// It is the peer that is closed, which must not be taken for our own.
		return fmt.Errorf("node %d: %w", node, errPeerCloses)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Of the context that the peer served it with: ours, or its own life.
		return fmt.Errorf("node %d: %w", node, errAnswerLost)
	}
	return err
}

// serve registers a service whose answers are payloads or errors.
func (e *Engine) serve(name string, f func(ctx context.Context, from int32, request []byte) ([]byte, error)) {
	e.handle(name, func(ctx context.Context, from int32, request []byte) ([]byte, error) {
		payload, err := f(ctx, from, request)
		if err != nil {
			return EncodeError([]byte{answerError}, err), nil
		}
		return payload, nil
	})
}

// serveStruct registers a service whose requests and answers are structs.
func serveStruct[Req, Res any](e *Engine, name string, f func(ctx context.Context, req *Req) (Res, error)) {
	e.serve(name, func(ctx context.Context, _ int32, request []byte) ([]byte, error) {
		req := new(Req)
		if err := peerCodec.Decode(request, req); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		res, err := f(ctx, req)
		if err != nil {
			return nil, err
		}
		return peerCodec.Append([]byte{answerOK}, &res)
	})
}

// callStruct asks for a service of serveStruct.
func callStruct[Req, Res any](ctx context.Context, e *Engine, node int32, name string, req *Req) (res Res, err error) {
	request, err := peerCodec.Append(nil, req)
	if err != nil {
		return res, fmt.Errorf("%s: %w", name, err)
	}
	payload, err := e.callPeer(ctx, node, name, request)
	if err != nil {
		return res, err
	}
	if err := peerCodec.Decode(payload, &res); err != nil {
		return res, fmt.Errorf("node %d: %w: %w", node, errAnswerLost, err)
	}
	return res, nil
}
