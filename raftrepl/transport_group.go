package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

const (
	// raftProtocol is what all peers speak; it is not sent.
	raftProtocol = raft.ProtocolVersionMax
	// maxGroupRequests and maxGroupBytes are what peers may have waiting at a group.
	maxGroupRequests = 64
	maxGroupBytes    = 32 << 20
	// appendTimeout is how long entries may take to be answered, and a second for each quarter MiB.
	appendTimeout = 10 * time.Second
)

var (
	// errStoreHangs is P18: a leader that cannot write must not keep others from leading.
	errStoreHangs  = errors.New("the log's store hangs: nothing is sent that would keep this node the leader")
	errStoreFailed = errors.New("entries could not be stored")
	errGroupClosed = errors.New("the group has stopped here")
	errNoAnswer    = errors.New("no answer in time")
)

// groupHooks are what a transport asks of a group, from any goroutine.
type groupHooks struct {
	// storing is for how long the oldest write under way has lasted, 0 without one. It does not wait.
	storing func() time.Duration
	// install receives a log that a leader sends. It is called on a goroutine of its own, at most
	// maxInstalls at once from each peer; data ends with an error when the group or the connection does.
	// Without it they go to the consumer, as a request with a Reader.
	install func(from int32, r *raft.InstallSnapshotRequest, data io.Reader) (*raft.InstallSnapshotResponse, error)
	// server is this replica's id; messages to another one of this node, which is gone, are
	// refused. Nil or an empty answer is any.
	server func() raft.ServerID
	// storeFailures counts the writes that failed. Raft answers entries that it could not store as if
	// they did not fit, upon which a leader goes back in its log: what it answers when the count has
	// moved since the request came is sent as an error. Nil is none.
	storeFailures func() uint64
	// member says whether a node is a member of the group, as far as this replica's log says; leads is who leads it, as far
	// as is known here, and -1 without one. Nil member is that all are.
	member func(node int32) bool
	leads  func() int32
	// left is told when a node's process has ended, met when there is a connection with one. They do not wait.
	left, met func(node int32)
}

// groupTransport is the transport as one group's Raft sees it. A server's address is the node's
// number in decimal, its id the number, or that, a dot and which replica of the node it is. The heartbeat fast path does not exist: it appends concurrently with the
// main loop, and logs have diverged by it (TestHeartbeatsDoNotDiverge).
type groupTransport struct {
	t     *transport
	id    engine.LogID
	hooks groupHooks

	consume chan raft.RPC
	take    atomic.Pointer[func(raft.RPC) answering] // who is given requests instead
	bytes   atomic.Int64                             // of requests that wait
	ctx     context.Context
	cancel  context.CancelFunc
	once    sync.Once
}

var (
	_ raft.Transport   = (*groupTransport)(nil)
	_ raft.WithPreVote = (*groupTransport)(nil)
	_ raft.WithClose   = (*groupTransport)(nil)
)

// group begins to carry a group's messages. Peers are told that it is not here until then, and
// after its Close, which must come before the Shutdown of its Raft instance is waited for: requests
// under way fail then. A group may come back.
func (t *transport) group(id engine.LogID, hooks groupHooks) (*groupTransport, error) {
	g := &groupTransport{t: t, id: id, hooks: hooks, consume: make(chan raft.RPC, maxGroupRequests)}
	g.ctx, g.cancel = context.WithCancel(t.ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		g.cancel()
		return nil, errClosing
	}
	if t.groups[id] != nil {
		g.cancel()
		return nil, fmt.Errorf("group %v is here already", id)
	}
	t.groups[id] = g
	return g, nil
}

// noGroup is for a group of a transport that is closed.
func (t *transport) noGroup(id engine.LogID) *groupTransport {
	g := &groupTransport{t: t, id: id, consume: make(chan raft.RPC)}
	g.ctx, g.cancel = context.WithCancel(t.ctx)
	return g
}

// Close stops the group's messages. It does not wait.
func (g *groupTransport) Close() error {
	g.once.Do(func() {
		g.t.mu.Lock()
		if g.t.groups[g.id] == g {
			delete(g.t.groups, g.id)
		}
		g.t.mu.Unlock()
		g.cancel()
	})
	return nil
}

// peerName is a node's address, and the id of its first replica.
func peerName(node int32) raft.ServerID { return raft.ServerID(strconv.Itoa(int(node))) }

// maxServerBytes is the longest id of a server.
const maxServerBytes = 64

// peerNumber is the node of a server.
func peerNumber(id raft.ServerID) (int32, error) {
	number, _, _ := strings.Cut(string(id), ".")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 1 || len(id) > maxServerBytes {
		return 0, fmt.Errorf("server %q is not a node's number", id)
	}
	return int32(n), nil
}

func (g *groupTransport) Consumer() <-chan raft.RPC { return g.consume }

func (g *groupTransport) LocalAddr() raft.ServerAddress {
	return raft.ServerAddress(peerName(g.t.self))
}

// EncodePeer is the number, whatever the address says.
func (g *groupTransport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte {
	number, _, _ := strings.Cut(string(id), ".")
	return []byte(number)
}

func (g *groupTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler does nothing: heartbeats go to the consumer, like all else.
func (g *groupTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// hangs is P18. It holds for all AppendEntries: each of them keeps the followers quiet.
func (g *groupTransport) hangs() error {
	if g.hooks.storing != nil && g.hooks.storing() > g.t.election {
		return errStoreHangs
	}
	return nil
}

// wire is the main connection with a server.
func (g *groupTransport) wire(ctx context.Context, id raft.ServerID, f flavour) (*wire, error) {
	node, err := peerNumber(id)
	if err != nil {
		return nil, err
	}
	if g.ctx.Err() != nil {
		return nil, errGroupClosed
	}
	return g.t.peer(node).get(ctx, f)
}

// ask sends one request and waits for its answer.
func (g *groupTransport) ask(to raft.ServerID, ln lane, timeout time.Duration, build func(id uint64) ([][]byte, error), response any) error {
	ctx, cancel := context.WithTimeout(g.ctx, timeout)
	defer cancel()
	l, err := g.wire(ctx, to, flavourMain)
	if err != nil {
		return err
	}
	p, err := l.request(ctx, ln, build)
	if err != nil {
		return err
	}
	return g.wait(ctx, l, p, response)
}

// wait waits for the answer to a request, which it gives up with ctx.
func (g *groupTransport) wait(ctx context.Context, l *wire, p *pending, response any) error {
	select {
	case a := <-p.answer:
		if err := l.heardOf(a.errOf(l.peer.node)); err != nil {
			return err
		}
		return decodeAnswer(a.body, response)
	case <-ctx.Done():
		l.forget(p)
		if g.ctx.Err() != nil {
			return errGroupClosed
		}
		return fmt.Errorf("node %d: %w", l.peer.node, errNoAnswer)
	}
}

func one(msg []byte) ([][]byte, error) { return [][]byte{msg}, nil }

// urgentTimeout is how long what is urgent may take: after that the next one says more.
func (g *groupTransport) urgentTimeout() time.Duration {
	return max(g.t.election, 500*time.Millisecond)
}

// AppendEntries sends entries, as several requests when they are more than one may carry: each is one
// that Raft could have sent, and the first that is refused is the answer to all.
func (g *groupTransport) AppendEntries(to raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	*resp = raft.AppendEntriesResponse{}
	if onlyBeats(args) {
		if err := g.hangs(); err != nil {
			return err
		}
		return g.ask(to, laneUrgent, g.urgentTimeout(), func(id uint64) ([][]byte, error) { return encodeAppend(id, g.route(to, args.RPCHeader), args) }, resp)
	}
	for _, piece := range pieces(args) {
		if err := g.hangs(); err != nil {
			return err
		}
		err := g.ask(to, laneEntries, entriesTimeout(piece), func(id uint64) ([][]byte, error) { return encodeAppend(id, g.route(to, args.RPCHeader), piece) }, resp)
		if err != nil {
			*resp = raft.AppendEntriesResponse{}
			return err
		}
		if !resp.Success {
			return nil
		}
	}
	return nil
}

func entriesTimeout(r *raft.AppendEntriesRequest) time.Duration {
	n := 0
	for _, e := range r.Entries {
		n += len(e.Data)
	}
	return appendTimeout + time.Duration(n>>18)*time.Second
}

// pieces cuts a request so that each has wireAppendBytes at most, or one entry. Raft's own request is
// left as it is: when all pieces succeeded, so has all of it.
func pieces(r *raft.AppendEntriesRequest) []*raft.AppendEntriesRequest {
	var list []*raft.AppendEntriesRequest
	rest, index, term := r.Entries, r.PrevLogEntry, r.PrevLogTerm
	for {
		n, bytes := 0, 0
		for n < len(rest) && n < maxEntries && (n == 0 || bytes+len(rest[n].Data) <= wireAppendBytes) {
			bytes += len(rest[n].Data)
			n++
		}
		if n == len(rest) && list == nil {
			return []*raft.AppendEntriesRequest{r}
		}
		piece := *r
		piece.PrevLogEntry, piece.PrevLogTerm, piece.Entries = index, term, rest[:n]
		list = append(list, &piece)
		if n == len(rest) {
			return list
		}
		index, term = rest[n-1].Index, rest[n-1].Term
		rest = rest[n:]
	}
}

func (g *groupTransport) RequestVote(to raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return g.ask(to, laneUrgent, g.urgentTimeout(), func(id uint64) ([][]byte, error) { return one(encodeVote(id, g.route(to, args.RPCHeader), args)) }, resp)
}

func (g *groupTransport) RequestPreVote(to raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return g.ask(to, laneUrgent, g.urgentTimeout(), func(id uint64) ([][]byte, error) { return one(encodePreVote(id, g.route(to, args.RPCHeader), args)) }, resp)
}

func (g *groupTransport) TimeoutNow(to raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return g.ask(to, laneUrgent, g.urgentTimeout(), func(id uint64) ([][]byte, error) {
		return one(appendRoute(appendHead(nil, kindTimeoutNow, id), g.route(to, args.RPCHeader)))
	}, resp)
}

// raftRequest hands a peer's request to the group's Raft, in the order of arrival, and its answer to
// later, which may wait; what can be said now goes to reply, which may not.
func (l *wire) raftRequest(k kind, id uint64, d *decoder, size int, reply, later func([]byte)) error {
	route := d.route()
	header := l.header(route)
	var command any
	switch k {
	case kindAppend:
		r := d.appendEntries()
		r.RPCHeader = header
		command = r
	case kindVote:
		r := d.vote()
		r.RPCHeader = header
		command = r
	case kindPreVote:
		r := d.preVote()
		r.RPCHeader = header
		command = r
	default:
		command = &raft.TimeoutNowRequest{RPCHeader: header}
	}
	if err := d.end(); err != nil {
		return err
	}
	g, failure := l.receiver(id, route)
	if g == nil {
		reply(failure)
		return nil
	}
	if g.bytes.Add(int64(size)) > maxGroupBytes && g.bytes.Load() > int64(size) {
		g.bytes.Add(-int64(size))
		reply(encodeFailure(id, statusBusy, "too much waits for the group"))
		return nil
	}
	failures := g.storeFailures()
	wait := g.give(raft.RPC{Command: command})
	if wait == nil {
		g.bytes.Add(-int64(size))
		reply(encodeFailure(id, statusBusy, errBusy.Error()))
		return nil
	}
	l.t.run(func() {
		defer g.bytes.Add(-int64(size))
		response, err := wait()
		if err == nil && failures != g.storeFailures() {
			if r, ok := response.(*raft.AppendEntriesResponse); ok && !r.Success {
				err = errStoreFailed
			}
		}
		if err != nil && g.ctx.Err() != nil {
			later(encodeFailure(id, statusNoGroup, errGroupClosed.Error()))
			return
		}
		later(encodeAnswer(id, response, err))
	})
	return nil
}

// takenBy implements direct.
func (g *groupTransport) takenBy(take func(raft.RPC) answering) { g.take.Store(&take) }

// give hands a request on. Nil is that too many wait.
func (g *groupTransport) give(rpc raft.RPC) answering {
	if take := g.take.Load(); take != nil {
		return (*take)(rpc)
	}
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	select {
	case g.consume <- rpc:
	default:
		return nil
	}
	return func() (any, error) {
		select {
		case a := <-answers:
			return a.Response, a.Error
		case <-g.ctx.Done():
			return nil, errGroupClosed
		}
	}
}

func (g *groupTransport) storeFailures() uint64 {
	if g.hooks.storeFailures == nil {
		return 0
	}
	return g.hooks.storeFailures()
}

// route names the two replicas of a message. Raft puts its own into the header.
func (g *groupTransport) route(to raft.ServerID, h raft.RPCHeader) route {
	r := route{group: g.id, from: raft.ServerID(h.ID), to: to}
	if r.from == "" {
		r.from = peerName(g.t.self)
	}
	return r
}

// header is what Raft reads about the sender. The connection says which node it is.
func (l *wire) header(r route) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raftProtocol, ID: []byte(r.from), Addr: []byte(peerName(l.peer.node))}
}

// receiver is the group that a message is for; nil, and what is answered, when there is none, or it does not take
// messages of who sent it.
func (l *wire) receiver(id uint64, r route) (*groupTransport, []byte) {
	if node, err := peerNumber(r.from); err != nil || node != l.peer.node {
		return nil, encodeFailure(id, statusNoGroup, fmt.Sprintf("it says to be of server %q and comes from node %d", r.from, l.peer.node))
	}
	g := l.t.find(r.group)
	if g == nil {
		return nil, encodeFailure(id, statusNoGroup, "the group is not here")
	}
	if s := l.standing(); s != engine.StandsRegistered && !g.takesFrom(l.peer.node, s) {
		return nil, encodeRefusal(id, s, l.peer.node)
	}
	if g.hooks.server != nil {
		if here := g.hooks.server(); here != "" && here != r.to {
			return nil, encodeFailure(id, statusReplica, string(here))
		}
	}
	return g, nil
}

func (t *transport) find(id engine.LogID) *groupTransport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.groups[id]
}
