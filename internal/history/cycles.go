package history

import (
	"fmt"
	"strings"
)

// dependencies notes who an operation depends on. Nodes of the graph are
// transactions that happened, and polls; a record that was sent outside transactions
// is a node that would stand in no cycle without them, so it is passed by.
func (f *follower) dependencies() {
	op := f.op
	if op.Uncommitted || !f.ops[f.self].happened() || len(op.Polls) == 0 {
		return
	}
	for i, run := range op.Polls {
		if len(run.Records) == 0 {
			continue
		}
		key := f.keyID(run.Key)
		k := &f.keys[key]
		records := run.Records
		if len(op.Sends) == 0 {
			records = records[len(records)-1:] // nobody depends on who sends nothing: who is read last says it all
		}
		rank, before := 0, none
		for _, r := range records {
			rank = k.order.rank(r.Offset, rank)
			if rank == len(k.order.offsets) || k.order.offsets[rank] != r.Offset {
				continue
			}
			w := k.values.op[k.order.rows[rank]]
			if f.ops[w].kind == OpTxn && w != before && w != f.self {
				f.edges = append(f.edges, edge{w, f.self, key, uint32(rank), wr})
			}
			before = w
			rank++
		}
		later := false
		for _, r := range op.Polls[i+1:] {
			later = later || r.Key == run.Key && len(r.Records) > 0
		}
		if later {
			continue // it read on
		}
		next := k.order.rank(run.Records[len(run.Records)-1].Offset+1, rank)
		if w := f.writes(k, next); w != none && w != f.self {
			f.edges = append(f.edges, edge{f.self, w, key, uint32(next), rw})
		} else if at, ok := k.order.txnAfter(next); ok && w == none {
			if w := f.writes(k, at); w != f.self {
				f.edges = append(f.edges, edge{f.self, w, key, uint32(at), rw})
			}
		}
	}
}

// writes is the transaction that wrote the record at a rank, or none.
func (c *checker) writes(k *keyState, rank int) uint32 {
	if rank >= len(k.order.rows) {
		return none
	}
	op := k.values.op[k.order.rows[rank]]
	if c.ops[op].kind != OpTxn {
		return none
	}
	return op
}

// judgeCycles finds cycles of dependencies. What is counted are components: groups
// of operations each of which is on a cycle with each other one. The number of
// cycles in one is beyond counting.
func (c *checker) judgeCycles() {
	writes := ww
	if c.noWW {
		writes = 0
	} else {
		for i := range c.keys {
			k := &c.keys[i]
			for j := 1; j < len(k.order.txns); j++ {
				from, to := c.writes(k, int(k.order.txns[j-1])), c.writes(k, int(k.order.txns[j]))
				c.edges = append(c.edges, edge{from, to, int32(i), k.order.txns[j], ww})
			}
		}
	}
	if len(c.edges) == 0 {
		return
	}
	f := newFinder(newGraph(len(c.ops), c.edges))
	c.edges = nil
	if writes != 0 {
		c.pureCycles(f, G0, ww)
	}
	c.pureCycles(f, G1c, wr)
	flow, _ := f.components(writes | wr)
	if writes != 0 {
		c.mixedCycles(f, flow)
	}
	c.antiCycles(f, writes|wr, flow)
}

// pureCycles reports components over edges of one kind.
func (c *checker) pureCycles(f *finder, kind Kind, edges edgeKind) {
	of, count := f.components(edges)
	seen := make([]bool, count+1)
	for _, e := range f.edges {
		comp := of[e.from]
		if e.kind != edges || comp == 0 || comp != of[e.to] || seen[comp] {
			continue
		}
		seen[comp] = true
		if in := c.add(kind); in != nil {
			c.explain(in, e, f.path(e.to, e.from, edges, of, len(of)))
		}
	}
}

// Searches for one cycle with a property, in a component: how many edges are tried,
// and how far a search goes that may find nothing.
const (
	cycleTries = 64
	cycleReach = 1 << 16
)

// mixedCycles reports components over who wrote before and who read from whom, in
// which a shortest way back from a reader to the one it read from needs the order of
// writes. of are the components.
func (c *checker) mixedCycles(f *finder, of []uint32) {
	tries := map[uint32]int{}
	for _, e := range f.edges {
		comp := of[e.from]
		if e.kind != wr || comp == 0 || comp != of[e.to] || tries[comp] == cycleTries {
			continue
		}
		tries[comp]++
		path := f.path(e.to, e.from, ww|wr, of, len(of))
		for _, p := range path {
			if p.kind == ww {
				if in := c.add(G1cWW); in != nil {
					c.explain(in, e, path)
				}
				tries[comp] = cycleTries
				break
			}
		}
	}
}

// antiCycles reports components that hold together by anti-dependencies: as GSingle
// when a cycle with only one was found. flow are the other kinds of edges, flowOf
// their components.
func (c *checker) antiCycles(f *finder, flow edgeKind, flowOf []uint32) {
	of, count := f.components(flow | rw)
	tries := make([]int, count+1)
	first := make([]edge, count+1)
	single := make([]bool, count+1)
	for _, e := range f.edges {
		comp := of[e.from]
		if e.kind != rw || comp == 0 || comp != of[e.to] || single[comp] || tries[comp] == cycleTries {
			continue
		}
		if tries[comp]++; tries[comp] == 1 {
			first[comp] = e
		}
		var path []edge
		if flowOf[e.from] != 0 && flowOf[e.from] == flowOf[e.to] {
			path = f.path(e.to, e.from, flow, flowOf, len(of))
		} else {
			path = f.path(e.to, e.from, flow, of, cycleReach)
		}
		if path == nil {
			continue
		}
		single[comp] = true
		if in := c.add(GSingle); in != nil {
			c.explain(in, e, path)
		}
	}
	for comp := 1; comp <= count; comp++ {
		if e := first[comp]; tries[comp] > 0 && !single[comp] {
			if in := c.add(G2); in != nil {
				c.explain(in, e, f.path(e.to, e.from, flow|rw, of, len(of)))
			}
		}
	}
}

// explain describes a cycle: an edge, and the way back.
func (c *checker) explain(in *Instance, e edge, back []edge) {
	var steps []string
	for i, e := range append([]edge{e}, back...) {
		if i == 2*c.instances {
			steps = append(steps, fmt.Sprintf("and %d more", len(back)+1-i))
			break
		}
		k := &c.keys[e.key]
		row := k.order.rows[e.rank]
		in.Ops = append(in.Ops, c.ref(e.from))
		steps = append(steps, fmt.Sprintf("#%d %v #%d by value %d at %v offset %d", e.from, e.kind, e.to, k.values.value[row], k.values.key, k.order.offsets[e.rank]))
	}
	in.Detail = fmt.Sprintf("a cycle of %d operations: %s", len(back)+1, strings.Join(steps, ", "))
}
