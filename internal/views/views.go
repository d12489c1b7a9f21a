// Package views is how package query offers graphs of views to the command socket and to metrics, without package embedlog knowing
// package query: a database has a Registry, a graph that is started is in it until it is closed.
package views

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/x/embedlog/internal/sock"
)

// Graph is a graph that was started.
type Graph interface {
	Name() string
	// Info is how the graph is. It may ask leaders for where partitions end; lag that cannot be found out is -1.
	Info(ctx context.Context) sock.ViewGraph
	// Rebuild begins to compute anew what the graph keeps, as a generation that has the number. Info says how far it is.
	Rebuild(ctx context.Context) (generation int, err error)
	// View is a view of the graph; nil where there is none of the name.
	View(name string) View
}

// View is a view, by bytes and JSON. Its methods may be called from several goroutines. Errors that are a *sock.Error have a code.
type View interface {
	Get(ctx context.Context, q *sock.ViewGet) (row sock.ViewRow, found bool, err error)
	// Scan and Watch end with an error as the last pair's.
	Scan(ctx context.Context, q *sock.ViewOpen) iter.Seq2[sock.ViewRow, error]
	Watch(ctx context.Context) iter.Seq2[sock.ViewRow, error]
}

// Of is the registry of a database, a *embedlog.DB, which sets it.
var Of func(db any) *Registry

// Registry is the graphs of a database. Its zero value is ready.
type Registry struct {
	mu     sync.Mutex
	graphs map[string]Graph
	begun  bool
}

// First says, once, that nobody has asked before: what is left of graphs that were deleted is looked for when the first one is started.
func (r *Registry) First() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.begun
	r.begun = true
	return first
}

// Offer registers a graph, until withdraw is called. One of the same name is replaced.
func (r *Registry) Offer(g Graph) (withdraw func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.graphs == nil {
		r.graphs = map[string]Graph{}
	}
	r.graphs[g.Name()] = g
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.graphs[g.Name()] == g {
			delete(r.graphs, g.Name())
		}
	}
}

// Graphs are the graphs, by name.
func (r *Registry) Graphs() []Graph {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Graph, 0, len(r.graphs))
	for _, g := range r.graphs {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b Graph) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

// Graph is a graph by its name.
func (r *Registry) Graph(name string) (Graph, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.graphs[name]; g != nil {
		return g, nil
	}
	return nil, &sock.Error{Code: sock.CodeUnknownView, Message: fmt.Sprintf("no view graph %s runs in the program that holds the database", name)}
}

// View is a view by its names.
func (r *Registry) View(n sock.ViewName) (View, error) {
	g, err := r.Graph(n.Graph)
	if err != nil {
		return nil, err
	}
	if v := g.View(n.View); v != nil {
		return v, nil
	}
	return nil, &sock.Error{Code: sock.CodeUnknownView, Message: fmt.Sprintf("view graph %s has no view %s", n.Graph, n.View)}
}
