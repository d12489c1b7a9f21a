package history

import "math"

// edgeKind says why one operation comes before another.
type edgeKind uint8

const (
	ww edgeKind = 1 << iota // both wrote to a key, the second behind the first
	wr                      // the second polled what the first wrote
	rw                      // the first polled up to a record, and the second wrote the next one
)

func (k edgeKind) String() string {
	switch k {
	case ww:
		return "ww"
	case wr:
		return "wr"
	}
	return "rw"
}

// edge is a dependency between two operations, at a place of a version order.
type edge struct {
	from, to uint32
	key      int32
	rank     uint32 // of the record that is behind it: the later one of ww and rw
	kind     edgeKind
}

// graph is edges, sorted by where they begin.
type graph struct {
	edges []edge
	start []uint32 // for each node, its first edge; one more at the end
}

func newGraph(nodes int, edges []edge) *graph {
	g := &graph{edges: make([]edge, len(edges)), start: make([]uint32, nodes+1)}
	for _, e := range edges {
		g.start[e.from+1]++
	}
	for i := range nodes {
		g.start[i+1] += g.start[i]
	}
	next := append([]uint32(nil), g.start...)
	for _, e := range edges {
		g.edges[next[e.from]] = e
		next[e.from]++
	}
	return g
}

func (g *graph) nodes() int { return len(g.start) - 1 }

// components returns for each node the number of the strongly connected component
// that it shares with others, from 1, or 0 for a node on no cycle; and how many
// components there are. Only edges of the kinds count. (Tarjan's algorithm, with a
// stack of its own: a component can have millions of nodes.)
func (g *graph) components(kinds edgeKind) (of []uint32, count int) {
	const unvisited = 0
	n := g.nodes()
	of = make([]uint32, n)
	index := make([]uint32, n) // order of visit, from 1; done once the component is known
	low := make([]uint32, n)
	const done = math.MaxUint32
	type frame struct{ node, edge uint32 }
	var path []frame
	var stack []uint32 // nodes whose component is not known
	visited := uint32(0)
	for root := range uint32(n) {
		if index[root] != unvisited {
			continue
		}
		path = append(path, frame{root, g.start[root]})
		for len(path) > 0 {
			f := &path[len(path)-1]
			v := f.node
			if index[v] == unvisited {
				visited++
				index[v], low[v] = visited, visited
				stack = append(stack, v)
			}
			down := false
			for f.edge < g.start[v+1] {
				e := &g.edges[f.edge]
				f.edge++
				if e.kind&kinds == 0 || index[e.to] == done {
					continue
				}
				if index[e.to] == unvisited {
					path = append(path, frame{e.to, g.start[e.to]})
					down = true
					break
				}
				low[v] = min(low[v], index[e.to])
			}
			if down {
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				parent := path[len(path)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if low[v] != index[v] {
				continue
			}
			// v is the first of its component that was visited; the rest lies above it.
			size, last := 0, uint32(0)
			for i := len(stack) - 1; ; i-- {
				size++
				if stack[i] == v {
					last = uint32(i)
					break
				}
			}
			if size > 1 {
				count++
			}
			for _, w := range stack[last:] {
				index[w] = done
				if size > 1 {
					of[w] = uint32(count)
				}
			}
			stack = stack[:last]
		}
	}
	return of, count
}

// finder searches for paths in a graph. It remembers nothing between searches but
// its memory.
type finder struct {
	*graph
	via   []uint32 // for each node reached, the edge that led there, + 1
	queue []uint32
}

func newFinder(g *graph) *finder { return &finder{graph: g, via: make([]uint32, g.nodes())} }

// path returns the edges of a shortest path from one node to another over edges of
// the kinds, within a component: of[node] is the same for all its nodes. It gives up
// after it has reached most nodes.
func (f *finder) path(from, to uint32, kinds edgeKind, of []uint32, most int) []edge {
	defer func() {
		for _, v := range f.queue {
			f.via[v] = 0
		}
		f.queue = f.queue[:0]
	}()
	// The node that it begins at is not marked: a path may lead back to it.
	f.queue = append(f.queue, from)
	for i := 0; i < len(f.queue) && i < most; i++ {
		v := f.queue[i]
		for n := f.start[v]; n < f.start[v+1]; n++ {
			e := &f.edges[n]
			if e.kind&kinds == 0 || of[e.to] != of[from] || f.via[e.to] != 0 {
				continue
			}
			f.via[e.to] = n + 1
			if e.to == to {
				return f.back(from, to)
			}
			f.queue = append(f.queue, e.to)
		}
	}
	return nil
}

func (f *finder) back(from, to uint32) []edge {
	var path []edge
	for v := to; ; {
		e := f.edges[f.via[v]-1]
		path = append(path, e)
		if v = e.from; v == from {
			break
		}
	}
	f.via[to] = 0 // it is not in the queue
	for i, j := 0, len(path)-1; i < j; i, j = i+1, j-1 {
		path[i], path[j] = path[j], path[i]
	}
	return path
}
