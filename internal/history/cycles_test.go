package history

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

// naive is for each node the nodes that it is on a cycle with, by trying all paths.
func naive(n int, edges []edge, kinds edgeKind) [][]bool {
	reach := make([][]bool, n)
	for i := range reach {
		reach[i] = make([]bool, n)
	}
	for _, e := range edges {
		if e.kind&kinds != 0 {
			reach[e.from][e.to] = true
		}
	}
	for k := range n {
		for i := range n {
			for j := range n {
				reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
			}
		}
	}
	return reach
}

// Components and paths of random graphs are those that a search of all paths finds.
func TestGraphs(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range testcount.N(2000) {
		n := 2 + r.IntN(9)
		var edges []edge
		for range r.IntN(2 * n) {
			from, to := uint32(r.IntN(n)), uint32(r.IntN(n))
			if from != to {
				edges = append(edges, edge{from: from, to: to, kind: edgeKind(1 << r.IntN(3))})
			}
		}
		g := newGraph(n, edges)
		f := newFinder(g)
		for _, kinds := range []edgeKind{ww, wr, ww | wr, ww | wr | rw} {
			reach := naive(n, edges, kinds)
			of, count := g.components(kinds)
			if got := int(slices.Max(of)); got != count {
				t.Fatalf("seed %d: %d components, the highest is %d", seed, count, got)
			}
			for i := range uint32(n) {
				if (of[i] != 0) != reach[i][i] {
					t.Fatalf("seed %d: node %d is in component %d, is on a cycle: %t; edges %v", seed, i, of[i], reach[i][i], edges)
				}
				for j := range uint32(n) {
					if i == j || of[i] == 0 {
						continue
					}
					both := reach[i][j] && reach[j][i]
					if (of[i] == of[j]) != both {
						t.Fatalf("seed %d: nodes %d and %d are in components %d and %d, are on a cycle: %t; edges %v", seed, i, j, of[i], of[j], both, edges)
					}
					path := f.path(i, j, kinds, of, n+1)
					if (path != nil) != (of[i] == of[j]) {
						t.Fatalf("seed %d: path %v from %d to %d; edges %v", seed, path, i, j, edges)
					}
					at := i
					for _, e := range path {
						if e.from != at || e.kind&kinds == 0 || !slices.Contains(edges, e) {
							t.Fatalf("seed %d: path %v from %d to %d; edges %v", seed, path, i, j, edges)
						}
						at = e.to
					}
					if path != nil && at != j {
						t.Fatalf("seed %d: path %v from %d ends at %d, not %d", seed, path, i, at, j)
					}
				}
			}
		}
	}
}

// A ring of a great many transactions: each writes to two keys, in one of which the
// last comes first. Now and then one polls what the one before has sent. It takes no
// deep stack, and no search of the whole for each of its edges.
func TestHugeComponent(t *testing.T) {
	n := int64(testcount.N(50_000))
	a, b := Key{"a", 0}, Key{"b", 0}
	var h History
	var left, right []Record
	right = append(right, Record{0, n + n - 1})
	for i := range n {
		op := Op{Process: int32(i), Kind: OpTxn, Outcome: OK, Start: i, End: i + 1, Sends: []Run{
			{a, []Record{{i, i}}}, {b, []Record{{(i + 1) % n, n + i}}},
		}}
		if i%8 == 7 {
			op.Polls = []Run{{a, []Record{{i - 1, i - 1}}}}
		}
		h = append(h, op)
		left = append(left, Record{i, i})
		if i < n-1 {
			right = append(right, Record{i + 1, n + i})
		}
	}
	h = append(h, Op{Process: -1, Kind: OpPoll, Outcome: OK, Final: true, Polls: []Run{{a, left}, {b, right}}})
	r := check(t, h, nil)
	if got := found(r); got != "G0 G1c-ww" {
		t.Errorf("found %q\n%v", got, r)
	}
}
