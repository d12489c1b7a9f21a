package embedlog

import (
	"context"
	"fmt"

	"github.com/x/embedlog/internal/engine"
)

// Peers are the nodes of the cluster that the database is in, this one among them, for
// who keeps something of his own beside the log on each of them: he registers a handler
// under a name on every node, and calls those of the others. A database that is alone has
// one node, the number 0, and calls to it are function calls.
type Peers struct{ e *engine.Engine }

// Peers are the nodes of the database's cluster.
func (db *DB) Peers() Peers { return Peers{db.engine} }

// ErrNoHandler says that a peer has no handler of the name.
var ErrNoHandler = engine.ErrNoHandler

// PeerHandler answers a request of the node from, which may be this one. It may be
// called by several goroutines at once. request is valid during the call only; the answer
// is the caller's. The caller gets an error with its text, and finds what errors.Is and
// errors.As find in it, as far as they are errors of this module or of a context.
type PeerHandler = engine.PeerHandler

// Self is this node's number.
func (p Peers) Self() int32 { return p.e.Self() }

// Nodes are the numbers of all nodes, ascending.
func (p Peers) Nodes() []int32 { return p.e.PeerNodes() }

// Handle has f answer what is called under the name at this node, until cancel is
// called. A name has one handler; choose one that nobody else chooses, such as a package's
// path. Calls that are under way when the database closes are cancelled, and waited for.
func (p Peers) Handle(name string, f PeerHandler) (cancel func(), err error) {
	if cancel, err = p.e.HandlePeer(name, f); err != nil {
		return nil, fmt.Errorf("handle calls of peers: %w", err)
	}
	return cancel, nil
}

// Call has the handler of a node answer. It is not made again: an error that matches
// ErrPeerUnreachable says that the handler was not called, one that matches
// ErrUnknownOutcome, that the answer did not come. Others are the handler's. The answer
// belongs to the caller, request again when Call returns.
func (p Peers) Call(ctx context.Context, node int32, name string, request []byte) ([]byte, error) {
	answer, err := p.e.CallPeer(ctx, node, name, request)
	if err != nil {
		return nil, fmt.Errorf("call %q at node %d: %w", name, node, err)
	}
	return answer, nil
}
