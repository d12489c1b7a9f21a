package raftrepl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/x/embedlog/internal/engine"
)

const (
	// maxCallsInFlight is how many calls run at once from one peer to another; among them are fetches
	// that wait for records.
	maxCallsInFlight = 1024
	// maxServedBytes is how much of requests is being served for one peer.
	maxServedBytes = 64<<20 + MaxCallBytes
	// longestCall is how long a call without a deadline is served.
	longestCall = time.Hour
)

// encodeCall begins a call's request.
func encodeCall(id uint64, left time.Duration, service string) []byte {
	b := appendUvarints(appendHead(make([]byte, 0, 32+len(service)), kindCall, id), uint64(max(left.Milliseconds(), 1)))
	return append(binary.AppendUvarint(b, uint64(len(service))), service...)
}

// ErrCallLost is a call whose answer did not come: whether it was served is not known.
var ErrCallLost = errors.New("embedlog: a peer's answer did not come")

// call has a peer serve a request, and returns its answer, which is the caller's. An error that
// matches engine.ErrPeerUnreachable says that the request was not served and will not be; of any other
// that is not known.
func (t *transport) call(ctx context.Context, node int32, service string, request []byte) ([]byte, error) {
	if len(service) > maxServiceBytes || len(request) > MaxCallBytes {
		return nil, fmt.Errorf("call %.64s: %w: a request of %d bytes, at most %d can be sent", service, engine.ErrPeerUnreachable, len(request), MaxCallBytes)
	}
	if node == t.self {
		return t.serve(ctx, t.self, service, request)
	}
	p := t.peer(node)
	unsent := func(err error) error {
		return fmt.Errorf("call %s of node %d: %w: %w", service, node, engine.ErrPeerUnreachable, err)
	}
	select {
	case p.calls <- struct{}{}:
	case <-ctx.Done():
		return nil, unsent(ctx.Err())
	case <-t.ctx.Done():
		return nil, unsent(errClosing)
	}
	defer func() { <-p.calls }()
	l, err := p.get(ctx, flavourMain)
	if err != nil {
		return nil, err
	}
	left := longestCall
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	// The request is the caller's again when this returns, and may still be in a queue then.
	mine := bytes.Clone(request)
	q, err := l.request(ctx, laneCalls, func(id uint64) ([][]byte, error) {
		return [][]byte{encodeCall(id, left, service), mine}, nil
	})
	if err != nil {
		return nil, unsent(err)
	}
	select {
	case a := <-q.answer:
		switch {
		case a.err != nil && !l.wasSent(q):
			return nil, unsent(a.err)
		case a.err != nil:
			return nil, fmt.Errorf("call %s of node %d: %w: %w", service, node, ErrCallLost, a.err)
		}
		if err := l.heardOf(a.errOf(node)); err != nil {
			return nil, fmt.Errorf("call %s: %w", service, err)
		}
		return a.body, nil
	case <-ctx.Done():
		if !l.forget(q) {
			return nil, unsent(ctx.Err())
		}
		// Behind the request, in its lane.
		t.run(func() { l.send(t.ctx, newSending(laneCalls, appendHead(nil, kindCancel, q.id))) })
		return nil, fmt.Errorf("call %s of node %d: %w: %w", service, node, ErrCallLost, ctx.Err())
	}
}

// serveCall has the node serve a peer's request on a goroutine of its own.
func (l *wire) serveCall(id uint64, d *decoder, size int) error {
	left := d.uvarint()
	service := string(d.bytes(maxServiceBytes))
	request := d.b
	if d.err != nil {
		return d.err
	}
	if s := l.standing(); !s.MayCall(service) {
		l.urgent(encodeRefusal(id, s, l.peer.node))
		return nil
	}
	if left > math.MaxInt32 {
		left = math.MaxInt32
	}
	ctx, cancel := context.WithTimeout(l.t.ctx, time.Duration(left)*time.Millisecond)
	l.mu.Lock()
	busy := len(l.serving) >= maxCallsInFlight || l.serving[id] != nil || l.err != nil
	if !busy {
		l.serving[id] = cancel
	}
	l.mu.Unlock()
	if !busy && l.servingBytes.Add(int64(size)) > maxServedBytes {
		l.servingBytes.Add(-int64(size))
		l.mu.Lock()
		delete(l.serving, id)
		l.mu.Unlock()
		busy = true
	}
	if busy {
		cancel()
		l.urgent(encodeFailure(id, statusBusy, "too many calls at once"))
		return nil
	}
	if !l.t.run(func() {
		body, err := l.t.serve(ctx, l.peer.node, service, request)
		cancel()
		l.servingBytes.Add(-int64(size))
		l.mu.Lock()
		delete(l.serving, id)
		l.mu.Unlock()
		l.answerCall(id, body, err)
	}) {
		cancel()
	}
	return nil
}

// answerCall sends an answer, which waits for room in its lane. The body is the service's no more.
func (l *wire) answerCall(id uint64, body []byte, err error) {
	if err == nil && len(body) > MaxCallBytes {
		err = fmt.Errorf("an answer of %d bytes, at most %d can be sent", len(body), MaxCallBytes)
	}
	o := newSending(laneCalls, append(appendHead(nil, kindAnswer, id), byte(statusOK)), body)
	if err != nil {
		o = newSending(laneCalls, encodeFailure(id, statusFailed, err.Error()))
	}
	l.send(l.t.ctx, o)
}
