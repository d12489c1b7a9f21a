package engine

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// handler answers a peer's request. req is valid during the call only.
type handler func(ctx context.Context, from int32, req []byte) ([]byte, error)

// host is the engine as its Cluster sees it.
type host struct{ e *Engine }

// services are what peers may ask for. They are registered before the Cluster starts.
type services struct {
	byName  map[string]handler
	opened  chan struct{} // closed when the engine is open: before, requests wait
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// handle registers the handler of a service. It is called while the engine is opened,
// before peers can call.
func (e *Engine) handle(name string, f handler) {
	if e.services.byName == nil {
		e.services.byName = make(map[string]handler)
	}
	e.services.byName[name] = f
}

// begin counts a request in, so that Close waits for it.
func (s *services) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// close lets no more requests in, and waits for those that are being served. Their
// contexts have ended.
func (s *services) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}

func (h host) Dir() string {
	if h.e.ownFS {
		return h.e.dir
	}
	return ""
}

func (h host) FS() vfs.FS { return h.e.fs }

// stateName is the directory of what packages above keep of topics, and can make again from them.
const stateName = "views"

// StateDir makes that directory where it is not there. dir is empty where the file system is not the operating system's.
func (e *Engine) StateDir() (files vfs.FS, dir string, err error) {
	if e.closed.Load() {
		return nil, "", log.ErrClosed
	}
	if _, err := e.fs.Stat(stateName); err != nil {
		if err := e.fs.Mkdir(stateName); err != nil {
			return nil, "", err
		}
		if err := e.fs.SyncDir("."); err != nil {
			return nil, "", err
		}
	}
	if dir = (host{e}).Dir(); dir != "" {
		dir = filepath.Join(dir, stateName)
	}
	return vfs.Sub(e.fs, stateName), dir, nil
}

func (h host) Logger() *slog.Logger { return h.e.logger }

func (h host) Now() time.Time { return h.e.now() }

func (h host) Identity() (cluster, directory TopicID) {
	id := h.e.identityNow()
	return id.cluster, id.directory
}

func (h host) Peers() map[int32]string {
	if p := h.e.peers.Load(); p != nil {
		return maps.Clone(*p)
	}
	return map[int32]string{}
}

func (h host) Serve(ctx context.Context, from int32, service string, request []byte) ([]byte, error) {
	e := h.e
	if !e.services.begin() {
		return nil, log.ErrClosed
	}
	defer e.services.running.Done()
	f := e.services.byName[service]
	if f == nil {
		return nil, fmt.Errorf("there is no service %q", service)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	select {
	case <-e.services.opened:
	case <-ctx.Done():
		if err := e.closedError(); err != nil {
			return nil, err
		}
		return nil, ctx.Err()
	}
	e.heard(from)
	return f(ctx, from, request)
}

// Cluster is what replicates the database, and nil alone.
func (e *Engine) Cluster() Cluster { return e.cluster }

// NodeID is this node, Kafka's broker id; 0 alone.
func (e *Engine) NodeID() int32 { return e.identity.node }

var (
	_ Host     = host{}
	_ Adopter  = host{}
	_ Registry = host{}
)

// Directory is the one that is registered for a node.
func (h host) Directory(node int32) (id TopicID, ok bool) {
	if r := h.e.standings.Load(); r != nil {
		id = r.directories[node]
	}
	return id, !id.IsZero()
}

// Adopt makes a directory that is of no cluster yet one of this cluster. Of a
// directory that is of another one it fails with an *InvalidNodeError.
func (h host) Adopt(cluster TopicID) error {
	e := h.e
	e.adopting.Lock()
	defer e.adopting.Unlock()
	if e.identity.cluster == cluster {
		return nil
	}
	if !e.identity.cluster.IsZero() || cluster.IsZero() {
		return &InvalidNodeError{Node: e.identity.node, Reason: fmt.Sprintf("its directory is of cluster %s, this is cluster %s", e.identity.cluster, cluster)}
	}
	id := e.identity
	id.cluster = cluster
	if err := replaceFile(e.fs, ".", formatName, id.encode()); err != nil {
		return err
	}
	e.identity.cluster = cluster // others read what does not change
	return nil
}

// identityNow is what FORMAT says. A node that joins learns its cluster while it runs.
func (e *Engine) identityNow() identity {
	e.adopting.Lock()
	defer e.adopting.Unlock()
	return e.identity
}
