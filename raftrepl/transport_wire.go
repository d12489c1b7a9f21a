package raftrepl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
)

var (
	errWireIdle     = errors.New("not needed any more")
	errWireReplaced = errors.New("another connection took its place")
	errQueueFull    = errors.New("too much waits to be sent")
	errClosing      = errors.New("the node leaves")
)

// wire is one connection that both ends agreed upon. One goroutine reads. One writes what waits; a short
// message that nothing waits before is written by who sends it, which saves waking that goroutine.
//
// Lock order: wire.mu is taken last.
type wire struct {
	t         *transport
	peer      *peer
	flavour   flavour
	conn      net.Conn
	dialled   bool // by this node
	instance  uint64
	nonce     uint64
	directory engine.TopicID
	address   string
	made      time.Time
	done      chan struct{} // closed when it has failed

	w *bufio.Writer // of who has claimed writing

	mu         sync.Mutex
	err        error
	writing    bool // somebody writes to the connection
	queues     [lanes][]*sending
	queued     [lanes]int
	turn       lane          // which of entries and calls is next
	room       chan struct{} // closed when something left a queue
	wake       chan struct{}
	pending    map[uint64]*pending
	out        map[uint64]*sendStream
	in         map[uint64]*receiveStream
	serving    map[uint64]context.CancelFunc // calls
	batch      []byte                        // what waits for others; nil is nothing
	batchTimer *time.Timer

	lastID       atomic.Uint64
	servingBytes atomic.Int64
	heardAfter   atomic.Int64 // nanoseconds from made to when the last bytes came
}

// pending is a request whose answer is waited for.
type pending struct {
	id     uint64
	out    *sending    // nil when it waits in a batch
	answer chan answer // of one
}

type answer struct {
	status status
	body   []byte
	err    error // there is none: the wire failed
}

// What stands around entries and is short goes into one record of TLS (16 KiB) with what follows, and is read with no more
// of that than must be: the bytes of entries are copied as seldom as can be.
const (
	wireWriteBuffer = 16 << 10
	wireReadBuffer  = 4 << 10
)

func newWire(t *transport, p *peer, f flavour, conn net.Conn) *wire {
	return &wire{t: t, peer: p, flavour: f, conn: conn, made: time.Now(), w: bufio.NewWriterSize(conn, wireWriteBuffer), done: make(chan struct{}), turn: laneEntries,
		room: make(chan struct{}), wake: make(chan struct{}, 1), pending: map[uint64]*pending{},
		out: map[uint64]*sendStream{}, in: map[uint64]*receiveStream{}, serving: map[uint64]context.CancelFunc{}}
}

// start begins to read and write. The transport waits for both when it closes.
func (l *wire) start() {
	if c, ok := l.conn.(tlsConn); ok {
		c.raw.gather()
	}
	if !l.t.run(func() { l.fail(l.read()) }) || !l.t.run(func() { l.fail(l.write()) }) {
		l.fail(errClosing)
	}
}

// fail ends the wire: once, with the first reason.
func (l *wire) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = fmt.Errorf("connection with node %d: %w", l.peer.node, err)
	close(l.done)
	if l.batch = nil; l.batchTimer != nil {
		l.batchTimer.Stop()
	}
	waiting, out, in, serving := l.pending, l.out, l.in, l.serving
	l.pending, l.out, l.in, l.serving = map[uint64]*pending{}, map[uint64]*sendStream{}, map[uint64]*receiveStream{}, map[uint64]context.CancelFunc{}
	l.queues, l.queued = [lanes][]*sending{}, [lanes]int{}
	err = l.err
	l.mu.Unlock()
	l.conn.Close()
	for _, p := range waiting {
		p.answer <- answer{err: err}
	}
	for _, s := range out {
		s.end()
	}
	for _, s := range in {
		s.fail(err)
	}
	for _, cancel := range serving {
		cancel()
	}
	l.peer.lost(l, err)
}

// send queues a message. It waits for room until ctx ends, except for urgent ones: who does not
// take those is not there.
func (l *wire) send(ctx context.Context, o *sending) error {
	for {
		l.mu.Lock()
		if l.err != nil {
			err := l.err
			l.mu.Unlock()
			return err
		}
		if o.atOnce && !l.writing && o.total <= sendFrameBytes && l.emptyLocked() {
			l.writing = true
			o.sent = o.total
			l.mu.Unlock()
			return l.writeAtOnce(o)
		}
		if q := l.queued[o.lane]; q == 0 || q+o.total <= laneQueue[o.lane] {
			l.queues[o.lane] = append(l.queues[o.lane], o)
			l.queued[o.lane] += o.total
			l.mu.Unlock()
			select {
			case l.wake <- struct{}{}:
			default:
			}
			return nil
		}
		room := l.room
		l.mu.Unlock()
		if o.lane == laneUrgent {
			return errQueueFull
		}
		select {
		case <-room:
		case <-l.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *wire) emptyLocked() bool {
	for ln := range l.queues {
		if len(l.queues[ln]) > 0 {
			return false
		}
	}
	return true
}

// writeAtOnce writes a whole message. The caller has claimed writing.
func (l *wire) writeAtOnce(o *sending) error {
	l.conn.SetWriteDeadline(time.Now().Add(l.t.deadAfter()))
	err := o.writeFrame(l.w, o.total, true)
	if err == nil {
		err = l.flush()
	}
	if err != nil {
		l.fail(err)
		return err
	}
	if l.rest() {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// rest ends a claim to write, and says whether something waits by now.
func (l *wire) rest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = false
	return !l.emptyLocked()
}

// flush has all go that was written.
func (l *wire) flush() error {
	if err := l.w.Flush(); err != nil {
		return err
	}
	if g, ok := l.conn.(gathering); ok {
		return g.Flush()
	}
	return nil
}

// gathering is a connection that gathers what is written until Flush.
type gathering interface{ Flush() error }

// urgent sends what is small and awaited. It never waits.
func (l *wire) urgent(msg []byte) {
	if err := l.send(context.Background(), newSending(laneUrgent, msg)); errors.Is(err, errQueueFull) {
		l.fail(err)
	}
}

// soonest is urgent for who may wait for a moment, which the connection's reader may not: it
// writes the message itself when it can.
func (l *wire) soonest(msg []byte) {
	o := newSending(laneUrgent, msg)
	o.atOnce = true
	if err := l.send(context.Background(), o); errors.Is(err, errQueueFull) {
		l.fail(err)
	}
}

// request sends what is answered. build is told the number. Whoever asked receives from
// p.answer once, or calls forget. It is not for the connection's reader.
func (l *wire) request(ctx context.Context, ln lane, build func(id uint64) ([][]byte, error)) (*pending, error) {
	p := &pending{id: l.lastID.Add(1), answer: make(chan answer, 1)}
	segments, err := build(p.id)
	if err != nil {
		return nil, err
	}
	p.out = newSending(ln, segments...)
	p.out.atOnce = true
	if p.out.total > laneMax[ln] {
		return nil, fmt.Errorf("a message of %d bytes, at most %d can be sent", p.out.total, laneMax[ln])
	}
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return nil, l.err
	}
	l.pending[p.id] = p
	l.mu.Unlock()
	if err := l.send(ctx, p.out); err != nil {
		l.forget(p)
		return nil, err
	}
	return p, nil
}

// forget gives up an answer, and says whether the request goes to the peer nevertheless: a message
// of which nothing is on its way is not sent any more.
func (l *wire) forget(p *pending) (sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, p.id)
	if p.out == nil || p.out.sent > 0 {
		return true
	}
	q := l.queues[p.out.lane]
	for i, o := range q {
		if o == p.out {
			l.queues[o.lane] = append(q[:i:i], q[i+1:]...)
			l.left(o)
			break
		}
	}
	return false
}

// wasSent says whether all of a request was on its way: of a wire that failed. A peer serves whole
// requests only.
func (l *wire) wasSent(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return p.out.sent == p.out.total
}

// left makes room where a message was.
func (l *wire) left(o *sending) {
	l.queued[o.lane] -= o.total
	close(l.room)
	l.room = make(chan struct{})
}

// next picks the frame to write: urgent ones first, the other lanes in turn. With it the caller has
// claimed writing; claimed says that it had before.
func (l *wire) next(claimed bool) (o *sending, n int, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing && !claimed {
		return nil, 0, false // who writes wakes us
	}
	pick := laneUrgent
	if len(l.queues[pick]) == 0 {
		pick = l.turn
		l.turn = laneEntries + laneCalls - l.turn
		if len(l.queues[pick]) == 0 {
			pick = l.turn
		}
		if len(l.queues[pick]) == 0 {
			return nil, 0, false
		}
	}
	l.writing = true
	o = l.queues[pick][0]
	first = o.sent == 0
	n = min(o.total-o.sent, sendFrameBytes)
	if o.sent += n; o.sent == o.total {
		l.queues[pick][0] = nil
		l.queues[pick] = l.queues[pick][1:]
		l.left(o)
	}
	return o, n, first
}

func (l *wire) write() error {
	ping := time.NewTicker(l.t.pingEvery())
	defer ping.Stop()
	idle, claimed, pinging := 0, false, false
	for {
		o, n, first := l.next(claimed)
		if o != nil {
			claimed = true
			if !pinging {
				idle = 0
			}
			pinging = false
			l.conn.SetWriteDeadline(time.Now().Add(l.t.deadAfter()))
			if err := o.writeFrame(l.w, n, first); err != nil {
				return err
			}
			continue
		}
		if claimed {
			if err := l.flush(); err != nil {
				return err
			}
			claimed = false
			if l.rest() {
				continue
			}
		}
		select {
		case <-l.wake:
		case <-l.done:
			return nil
		case <-ping.C:
			if idle++; idle > installIdlePings && l.flavour == flavourInstall && l.unused() {
				return errWireIdle
			}
			pinging = l.ping()
		}
	}
}

// ping has it said that this node is there, unless something else is said.
func (l *wire) ping() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.writing || !l.emptyLocked() {
		return false
	}
	o := newSending(laneUrgent, appendHead(nil, kindPing, 0))
	l.queues[laneUrgent] = append(l.queues[laneUrgent], o)
	l.queued[laneUrgent] += o.total
	return true
}

// installIdlePings is for how long a connection for installs stays without one.
const installIdlePings = 10

func (l *wire) unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending) == 0 && len(l.in) == 0
}

// heard is the connection with a deadline at each read: a peer that is there says something.
type heard struct{ l *wire }

func (h heard) Read(b []byte) (int, error) {
	h.l.conn.SetReadDeadline(time.Now().Add(h.l.t.deadAfter()))
	n, err := h.l.conn.Read(b)
	if n > 0 {
		h.l.heardAfter.Store(int64(time.Since(h.l.made)))
	}
	return n, err
}

// silence is how long ago the peer has said something.
func (l *wire) silence() time.Duration {
	return time.Since(l.made) - time.Duration(l.heardAfter.Load())
}

func (l *wire) read() error {
	r := bufio.NewReaderSize(heard{l}, wireReadBuffer)
	var a assembler
	for {
		ln, msg, err := a.next(r)
		if err != nil {
			return err
		}
		if err := l.handle(ln, msg); err != nil {
			return err
		}
	}
}

// handle takes in one message, which it owns. An error ends the wire.
func (l *wire) handle(ln lane, msg []byte) error {
	d := decoder{b: msg}
	k, id := d.head()
	if d.err != nil {
		return d.err
	}
	switch k {
	case kindAppend, kindVote, kindPreVote, kindTimeoutNow:
		return l.raftRequest(k, id, &d, len(msg), l.urgent, l.soonest)
	case kindInstall:
		return l.beginInstall(id, &d)
	case kindChunk:
		return l.chunk(id, d.b)
	case kindEnd:
		return l.endInstall(id, &d)
	case kindCredit:
		return l.credit(id, &d)
	case kindCall:
		return l.serveCall(id, &d, len(msg))
	case kindCancel:
		l.mu.Lock()
		cancel := l.serving[id]
		l.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return d.end()
	case kindPing:
		return d.end()
	case kindAnswer:
		return l.answered(id, &d)
	case kindBatch:
		return l.handleBatch(&d)
	default:
		// A later version may ask what this one does not know.
		l.urgent(encodeFailure(id, statusUnknown, fmt.Sprintf("a message of kind %d", k)))
		return nil
	}
}

// answered gives an answer to whoever waits for it.
func (l *wire) answered(id uint64, d *decoder) error {
	s := status(d.byte())
	if d.err != nil {
		return d.err
	}
	l.mu.Lock()
	p := l.pending[id]
	delete(l.pending, id)
	l.mu.Unlock()
	if p != nil {
		p.answer <- answer{status: s, body: d.b}
	}
	return nil
}

// errOf is what an answer that is not OK says.
func (a *answer) errOf(node int32) error {
	switch {
	case a.err != nil:
		return a.err
	case a.status == statusOK:
		return nil
	case a.status == statusRefused && len(a.body) > 0:
		return &PeerRefusedError{Node: node, Reason: RefusalReason(a.body[0]), Detail: string(a.body[1:min(len(a.body), maxTextBytes)]), ByPeer: true}
	case a.status == statusReplica:
		here := raft.ServerID(a.body[:min(len(a.body), maxServerBytes)])
		if number, _, ok := parseReplica(here); ok && number == node {
			return otherReplica(node, "", here)
		}
	}
	return &RemoteError{Node: node, Served: a.status == statusFailed, Text: string(a.body[:min(len(a.body), maxTextBytes)])}
}

// RemoteError is what a peer says of a request that failed there.
type RemoteError struct {
	Node   int32
	Served bool // it was begun; else nothing was done, and it matches engine.ErrPeerUnreachable
	// Replica is set when the message was for another replica than the one that is there.
	Replica string
	Text    string
}

func (e *RemoteError) Error() string { return fmt.Sprintf("node %d: %s", e.Node, e.Text) }

// Is matches engine.ErrPeerUnreachable when the request was not served.
func (e *RemoteError) Is(target error) bool { return !e.Served && target == engine.ErrPeerUnreachable }
