package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// An install is a request, chunks of data behind it, an end, and an answer. The receiver gives credit
// for what was taken from it, so that a slow disk holds up its own install and nothing else.
const (
	installWindow = 1 << 20 // bytes that may be sent and not taken
	chunkBytes    = 128 << 10
	// maxInstalls is how many run at once from one peer to another.
	maxInstalls = 2
	// installStalls is how long an install may stand still, and its end be worked on.
	installStalls = 2 * time.Minute
)

var (
	errInstallAborted = errors.New("the sender gave up the install")
	errInstallStalls  = errors.New("the install does not go on")
)

// sendStream is an install that is sent.
type sendStream struct {
	mu     sync.Mutex
	credit int
	ended  bool
	more   chan struct{} // of one: credit came, or the end
}

func (s *sendStream) add(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit += n
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.credit <= installWindow
}

func (s *sendStream) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.add(0)
}

// take waits until n bytes may be sent.
func (s *sendStream) take(n int, stop <-chan struct{}, answered <-chan answer) (early *answer, err error) {
	stall := time.NewTimer(installStalls)
	defer stall.Stop()
	for {
		s.mu.Lock()
		if s.credit >= n || s.ended {
			s.credit -= n
			s.mu.Unlock()
			return nil, nil // a wire that ended says so when it is written to
		}
		s.mu.Unlock()
		select {
		case <-s.more:
		case a := <-answered:
			return &a, nil
		case <-stop:
			return nil, errGroupClosed
		case <-stall.C:
			return nil, errInstallStalls
		}
	}
}

// InstallSnapshot sends what data has, as long as it is. It takes as long as it takes, but ends when
// nothing moves.
func (g *groupTransport) InstallSnapshot(to raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	*resp = raft.InstallSnapshotResponse{}
	node, err := peerNumber(to)
	if err != nil {
		return err
	}
	peer := g.t.peer(node)
	select {
	case peer.installs <- struct{}{}:
	case <-g.ctx.Done():
		return errGroupClosed
	}
	defer func() { <-peer.installs }()
	ctx, cancel := context.WithTimeout(g.ctx, dialTimeout+handshakeTimeout)
	defer cancel()
	l, err := g.wire(ctx, to, flavourInstall)
	if err != nil {
		return err
	}
	s := &sendStream{credit: installWindow, more: make(chan struct{}, 1)}
	var number uint64
	defer func() {
		l.mu.Lock()
		delete(l.out, number)
		l.mu.Unlock()
	}()
	p, err := l.request(ctx, laneEntries, func(id uint64) ([][]byte, error) {
		msg, err := encodeInstall(id, g.route(to, args.RPCHeader), args)
		number = id
		l.mu.Lock()
		if l.err == nil {
			l.out[id] = s
		}
		l.mu.Unlock()
		return [][]byte{msg}, err
	})
	if err != nil {
		return err
	}
	defer l.forget(p)
	a, err := g.pour(l, p, s, data)
	if err != nil {
		l.urgentUnlessFailed(appendFlag(appendHead(nil, kindEnd, p.id), false))
		return err
	}
	if err := l.heardOf(a.errOf(node)); err != nil {
		return err
	}
	return decodeAnswer(a.body, resp)
}

// pour sends the data, and waits for the answer, which may come before all is sent.
func (g *groupTransport) pour(l *wire, p *pending, s *sendStream, data io.Reader) (*answer, error) {
	buf := make([]byte, chunkBytes)
	for {
		n, err := io.ReadFull(data, buf)
		if n > 0 {
			early, err := s.take(n, g.ctx.Done(), p.answer)
			if early != nil || err != nil {
				return early, err
			}
			msg := append(appendHead(make([]byte, 0, 16+n), kindChunk, p.id), buf[:n]...)
			ctx, cancel := context.WithTimeout(g.ctx, installStalls)
			err = l.send(ctx, newSending(laneEntries, msg))
			cancel()
			if err != nil {
				return nil, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading what is to be installed: %w", err)
		}
	}
	// Behind the chunks, in their lane.
	if err := l.send(g.ctx, newSending(laneEntries, appendFlag(appendHead(nil, kindEnd, p.id), true))); err != nil {
		return nil, err
	}
	select {
	case a := <-p.answer:
		return &a, nil
	case <-g.ctx.Done():
		return nil, errGroupClosed
	case <-time.After(installStalls):
		return nil, errInstallStalls
	}
}

func (l *wire) urgentUnlessFailed(msg []byte) {
	select {
	case <-l.done:
	default:
		l.urgent(msg)
	}
}

// receiveStream is the data of an install that is received: an io.Reader for the callback.
type receiveStream struct {
	l  *wire
	id uint64

	mu     sync.Mutex
	chunks [][]byte
	bytes  int   // received and not taken
	err    error // io.EOF when it is whole
	more   chan struct{}
	taken  int // not given credit for yet
}

func (s *receiveStream) tell() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// fail has reads end when what came before is read.
func (s *receiveStream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		if err != io.EOF {
			s.chunks = nil
		}
	}
	s.tell()
}

// Read is for one goroutine.
func (s *receiveStream) Read(b []byte) (int, error) {
	for {
		s.mu.Lock()
		if len(s.chunks) > 0 {
			n := copy(b, s.chunks[0])
			if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
				s.chunks = s.chunks[1:]
			}
			s.bytes -= n
			s.taken += n
			credit := 0
			if s.taken >= chunkBytes || s.bytes == 0 {
				credit, s.taken = s.taken, 0
			}
			s.mu.Unlock()
			if credit > 0 {
				s.l.urgentUnlessFailed(appendUvarints(appendHead(nil, kindCredit, s.id), uint64(credit)))
			}
			return n, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return 0, err
		}
		<-s.more
	}
}

// beginInstall calls the group's callback with a stream.
func (l *wire) beginInstall(id uint64, d *decoder) error {
	route := d.route()
	r := d.install()
	if err := d.end(); err != nil {
		return err
	}
	from := l.peer.node
	r.RPCHeader = l.header(route)
	r.Leader = r.RPCHeader.Addr
	g, failure := l.receiver(id, route)
	if g == nil {
		l.urgent(failure)
		return nil
	}
	s := &receiveStream{l: l, id: id, more: make(chan struct{}, 1)}
	l.mu.Lock()
	if l.err != nil || len(l.in) >= maxInstalls || l.in[id] != nil {
		l.mu.Unlock()
		l.urgent(encodeFailure(id, statusBusy, "too many installs at once"))
		return nil
	}
	l.in[id] = s
	l.mu.Unlock()
	stop := context.AfterFunc(g.ctx, func() { s.fail(errGroupClosed) })
	served := l.t.run(func() {
		defer stop()
		resp, err := g.install(from, r, s)
		l.mu.Lock()
		delete(l.in, id)
		l.mu.Unlock()
		l.urgentUnlessFailed(encodeAnswer(id, resp, err))
	})
	if !served {
		stop()
	}
	return nil
}

// install has the group take an install, and waits until it has.
func (g *groupTransport) install(from int32, r *raft.InstallSnapshotRequest, data io.Reader) (any, error) {
	if g.hooks.install != nil {
		return g.hooks.install(from, r, data)
	}
	answers := make(chan raft.RPCResponse, 1)
	select {
	case g.consume <- raft.RPC{Command: r, Reader: data, RespChan: answers}:
	case <-g.ctx.Done():
		return nil, errGroupClosed
	}
	select {
	case a := <-answers:
		return a.Response, a.Error
	case <-g.ctx.Done():
		return nil, errGroupClosed
	}
}

func (l *wire) stream(id uint64) *receiveStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.in[id]
}

// chunk takes in data. That of an install that was answered already is dropped.
func (l *wire) chunk(id uint64, data []byte) error {
	s := l.stream(id)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	if s.bytes += len(data); s.bytes > installWindow {
		return &CodecError{"more of an install than there is credit for"}
	}
	if len(data) > 0 {
		s.chunks = append(s.chunks, data)
	}
	s.tell()
	return nil
}

func (l *wire) endInstall(id uint64, d *decoder) error {
	whole := d.flag()
	if err := d.end(); err != nil {
		return err
	}
	if s := l.stream(id); s != nil && whole {
		s.fail(io.EOF)
	} else if s != nil {
		s.fail(errInstallAborted)
	}
	return nil
}

func (l *wire) credit(id uint64, d *decoder) error {
	n := d.uvarint()
	if err := d.end(); err != nil {
		return err
	}
	l.mu.Lock()
	s := l.out[id]
	l.mu.Unlock()
	if n > math.MaxInt32 || s != nil && !s.add(int(n)) {
		return &CodecError{fmt.Sprintf("credit of %d bytes for an install", n)}
	}
	return nil
}
