package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

func init() {
	id := string(testID('A').bytes())
	a := topicMeta{id: testID('A')}
	commandTable = append(commandTable, []struct {
		name string
		c    command
		want string
	}{
		{"register", command{kind: registerNodeCommand, node: nodeMeta{id: 300, directory: testID('A'), address: "h:1", endpoints: []Endpoint{{"PLAINTEXT", "h", 9092}}}},
			"\x01\x0d\xac\x02" + id + "\x03h:1\x01\x09PLAINTEXT\x01h\x84\x47\x00"},
		{"remove", command{kind: removeNodeCommand, node: nodeMeta{id: 3}}, "\x01\x0e\x03"},
		{"drain", command{kind: drainNodeCommand, node: nodeMeta{id: 3}, flags: 1}, "\x01\x0f\x03\x01"},
		{"create replicated", command{kind: createReplicatedCommand, topic: topicMeta{id: testID('A'), name: "o", partitions: 2, settings: map[string]string{}}, factor: 2,
			placed: []placed{{0, assignment{1, []int32{1, 2}}}, {1, assignment{1, []int32{2, 1}}}}},
			"\x01\x10" + id + "\x01o\x02\x00\x00\x02\x02\x01\x02\x02\x02\x01"},
		{"add replicated", command{kind: addReplicatedCommand, topic: a, total: 3, placed: []placed{{2, assignment{1, []int32{7}}}}}, "\x01\x11" + id + "\x03\x01\x01\x07"},
		{"assign", command{kind: assignCommand, topic: a, factor: 1, placed: []placed{{0, assignment{2, []int32{1}}}, {5, assignment{9, []int32{2}}}}},
			"\x01\x12" + id + "\x01\x02\x00\x02\x01\x01\x05\x09\x01\x02"},
		{"gone", command{kind: topicGoneCommand, topic: a, node: nodeMeta{id: 3}}, "\x01\x13" + id + "\x03"},
		{"snapshot of a cluster", command{kind: clusterSnapshotCommand, flags: snapshotLast, nodes: []*nodeMeta{{id: 1, draining: true}},
			placements: []placement{{testID('A'), 2, 4, []assignment{{3, []int32{1, 2}}}}}, waiting: []waiting{{testID('B'), []int32{1}}}},
			"\x01\x14\x02\x01\x01" + strings.Repeat("\x00", 16) + "\x00\x00\x01\x01" + id + "\x02\x04\x01\x03\x02\x01\x02\x01" + string(testID('B').bytes()) + "\x01\x01"},
		{"snapshot of a cluster, of which nodes were removed", command{kind: clusterSnapshotCommand, removed: []removed{{3, testID('A')}, {300, testID('B')}}},
			"\x01\x14\x04\x00\x00\x00\x02\x03" + id + "\xac\x02" + string(testID('B').bytes())},
		{"snapshot of a cluster, where replicas move", command{kind: clusterSnapshotCommand, moves: []move{{testID('A'), 0, []int32{3, 1}}, {testID('A'), 300, []int32{2}}}},
			"\x01\x14\x08\x00\x00\x00\x02" + id + "\x00\x02\x03\x01" + id + "\xac\x02\x01\x02"},
		{"snapshot of a cluster, with both", command{kind: clusterSnapshotCommand, flags: snapshotLast, removed: []removed{{3, testID('A')}}, moves: []move{{testID('A'), 0, []int32{3}}}},
			"\x01\x14\x0e\x00\x00\x00\x01\x03" + id + "\x01" + id + "\x00\x01\x03"},
		{"moved", command{kind: movedCommand, topic: a, placed: []placed{{0, assignment{epoch: 2}}, {300, assignment{epoch: 9}}}}, "\x01\x15" + id + "\x02\x00\x02\xac\x02\x09"},
	}...)
}

func TestClusterCommandRefuses(t *testing.T) {
	id := string(testID('A').bytes())
	for _, row := range []struct{ name, b string }{
		{"a node that drains itself", "\x01\x0d\x01" + id + "\x00\x00\x01"},
		{"a node's flags", "\x01\x0d\x01" + id + "\x00\x00\x02"},
		{"too many endpoints", "\x01\x0d\x01" + id + "\x00\x11"},
		{"a port", "\x01\x0d\x01" + id + "\x00\x01\x00\x00\x80\x80\x04\x00"},
		{"a node above the limit", "\x01\x0e\x80\x80\x80\x80\x08"},
		{"drain flags", "\x01\x0f\x03\x02"},
		{"too many replicas", "\x01\x11" + id + "\x03\x01\x10"},
		{"more partitions added than there are", "\x01\x11" + id + "\x01\x02\x01\x07\x01\x07"},
		{"assigned out of order", "\x01\x12" + id + "\x01\x02\x05\x02\x01\x01\x00\x09\x01\x02"},
		{"assigned twice", "\x01\x12" + id + "\x01\x02\x05\x02\x01\x01\x05\x09\x01\x02"},
		{"more assigned than there are", "\x01\x12" + id + "\x01\xa0\x8d\x06"},
		{"a first part", "\x01\x14\x01\x00\x00\x00"},
		{"more nodes than there are", "\x01\x14\x00\x20"},
		{"removed nodes that are none", "\x01\x14\x04\x00\x00\x00\x00"},
		{"more removed nodes than there are", "\x01\x14\x04\x00\x00\x00\x02\x03" + id},
		{"moves that are none", "\x01\x14\x08\x00\x00\x00\x00"},
		{"more moves than there are", "\x01\x14\x08\x00\x00\x00\x02" + id + "\x00\x01\x03"},
		{"a move of too many replicas", "\x01\x14\x08\x00\x00\x00\x01" + id + "\x00\x10"},
		{"moved out of order", "\x01\x15" + id + "\x02\x05\x02\x05\x03"},
		{"more moved than there are", "\x01\x15" + id + "\x02\x05\x02"},
		{"too many removed nodes", "\x01\x14\x04\x00\x00\x00\xe9\x07"},
	} {
		if c, err := decodeCommand([]byte(row.b)); !errors.Is(err, errCommand) {
			t.Errorf("%s: got %+v, %v", row.name, c, err)
		}
	}
}

// naiveCluster is nodes and replicas as one would say it.
type naiveCluster struct {
	removed  map[TopicID]bool
	nodes    map[int32]nodeMeta
	topics   map[TopicID]*naiveReplicas
	deleting map[TopicID][]int32
}

type naiveReplicas struct {
	factor int
	epochs []int32
	nodes  [][]int32
	before map[int][]int32
}

func (n *naiveCluster) fits(list []placed) bool {
	for _, p := range list {
		seen := map[int32]bool{}
		for _, id := range p.nodes {
			if _, ok := n.nodes[id]; !ok || seen[id] {
				return false
			}
			seen[id] = true
		}
		if len(seen) == 0 {
			return false
		}
	}
	return true
}

func (n *naiveCluster) leave(id int32) {
	for topic, nodes := range n.deleting {
		if nodes = slices.DeleteFunc(slices.Clone(nodes), func(x int32) bool { return x == id }); len(nodes) == 0 {
			delete(n.deleting, topic)
		} else {
			n.deleting[topic] = nodes
		}
	}
}

func (n *naiveCluster) apply(c *command) (ok bool) {
	t := n.topics[c.topic.id]
	has, known := n.nodes[c.node.id]
	switch c.kind {
	case registerNodeCommand:
		begun := false
		for id, other := range n.nodes {
			begun = begun || !other.directory.IsZero()
			if id != c.node.id && other.directory == c.node.directory && !c.node.directory.IsZero() {
				return false
			}
		}
		if c.node.id < 1 || known && !has.directory.IsZero() && !c.node.directory.IsZero() && has.directory != c.node.directory {
			return false
		}
		if begun && !known && !c.node.directory.IsZero() || n.removed[c.node.directory] {
			return false // it has to be added first, and what was removed does not come back
		}
		now := c.node
		now.draining = has.draining
		if now.directory.IsZero() {
			now.directory = has.directory
		}
		n.nodes[c.node.id] = now
	case removeNodeCommand:
		if !known || len(n.nodes) == 1 {
			return false
		}
		for _, t := range n.topics {
			for _, nodes := range t.nodes {
				if slices.Contains(nodes, c.node.id) {
					return false
				}
			}
		}
		delete(n.nodes, c.node.id)
		if !has.directory.IsZero() {
			n.removed[has.directory] = true
		}
		n.leave(c.node.id)
	case drainNodeCommand:
		if !known {
			return false
		}
		has.draining = c.flags == 1
		n.nodes[c.node.id] = has
	case createReplicatedCommand:
		if t != nil || n.deleting[c.topic.id] != nil || c.factor < 1 || !n.fits(c.placed) || c.topic.partitions < 1 {
			return false
		}
		t = &naiveReplicas{factor: c.factor, before: map[int][]int32{}}
		for _, p := range c.placed {
			t.epochs, t.nodes = append(t.epochs, 1), append(t.nodes, p.nodes)
		}
		n.topics[c.topic.id] = t
	case addReplicatedCommand:
		if t == nil || len(c.placed) == 0 || c.total != len(t.nodes)+len(c.placed) || !n.fits(c.placed) {
			return false
		}
		for _, p := range c.placed {
			t.epochs, t.nodes = append(t.epochs, 1), append(t.nodes, p.nodes)
		}
	case assignCommand:
		if t == nil || !n.fits(c.placed) {
			return false
		}
		for _, p := range c.placed {
			if p.partition >= len(t.nodes) || t.epochs[p.partition]+1 != p.epoch {
				return false
			}
		}
		for _, p := range c.placed {
			began := t.before[p.partition]
			if began == nil {
				began = t.nodes[p.partition]
			}
			t.before[p.partition] = began
			if slices.Equal(slices.Sorted(slices.Values(began)), slices.Sorted(slices.Values(p.nodes))) {
				delete(t.before, p.partition)
			}
			t.epochs[p.partition], t.nodes[p.partition] = p.epoch, p.nodes
		}
		if c.factor > 0 {
			t.factor = c.factor
		}
	case movedCommand:
		if t == nil || slices.ContainsFunc(c.placed, func(p placed) bool { return p.partition >= len(t.nodes) }) {
			return false
		}
		for _, p := range c.placed {
			if t.epochs[p.partition] == p.epoch {
				delete(t.before, p.partition)
			}
		}
	case deleteTopicCommand:
		if t == nil {
			return false
		}
		delete(n.topics, c.topic.id)
		n.deleting[c.topic.id] = slices.Sorted(maps.Keys(n.nodes))
	case topicGoneCommand:
		list := n.deleting[c.topic.id]
		at := slices.Index(list, c.node.id)
		if at < 0 {
			return false
		}
		if list = slices.Delete(slices.Clone(list), at, at+1); len(list) == 0 {
			delete(n.deleting, c.topic.id)
		} else {
			n.deleting[c.topic.id] = list
		}
	}
	return true
}

// moving is how many partitions' replicas move.
func (n *naiveCluster) moving() (count int) {
	for _, t := range n.topics {
		count += len(t.before)
	}
	return count
}

func (n *naiveCluster) describe() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(n.nodes)) {
		fmt.Fprintf(&b, "node %+v\n", n.nodes[id])
	}
	var lines []string
	for id, t := range n.topics {
		lines = append(lines, fmt.Sprintf("topic %s factor %d epochs %v on %v before %v\n", id, t.factor, t.epochs, t.nodes, t.before))
	}
	for id, nodes := range n.deleting {
		lines = append(lines, fmt.Sprintf("deleted %s waits for %v\n", id, nodes))
	}
	slices.Sort(lines)
	return b.String() + strings.Join(lines, "")
}

// naiveOf is the state in the other one's words.
func naiveOf(m *metadata) *naiveCluster {
	n := &naiveCluster{map[TopicID]bool{}, map[int32]nodeMeta{}, map[TopicID]*naiveReplicas{}, map[TopicID][]int32{}}
	for id, node := range m.nodes {
		n.nodes[id] = *node
	}
	for id, t := range m.byID {
		r := &naiveReplicas{factor: t.factor, before: map[int][]int32{}}
		maps.Copy(r.before, t.before)
		for _, a := range t.replicas {
			r.epochs, r.nodes = append(r.epochs, a.epoch), append(r.nodes, a.nodes)
		}
		n.topics[id] = r
	}
	for id, t := range m.deleting {
		n.deleting[id] = t.waiting
	}
	return n
}

func randomClusterCommand(r *rand.Rand, n *naiveCluster) *command {
	node := func() int32 { return int32(1 + r.IntN(4)) }
	nodes := func() (list []int32) {
		if known := slices.Sorted(maps.Keys(n.nodes)); len(known) > 0 && r.IntN(8) > 0 { // else they are seldom right
			r.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
			return known[:1+r.IntN(len(known))]
		}
		for range r.IntN(4) {
			list = append(list, node())
		}
		return list
	}
	c := &command{kind: registerNodeCommand + commandKind(r.IntN(9)), topic: topicMeta{id: testID(byte('A' + r.IntN(5)))}, node: nodeMeta{id: node()}}
	if (c.kind == assignCommand || c.kind == movedCommand) && len(n.topics) > 0 && r.IntN(3) > 0 {
		ids := slices.SortedFunc(maps.Keys(n.topics), func(a, b TopicID) int { return strings.Compare(string(a[:]), string(b[:])) })
		c.topic.id = ids[r.IntN(len(ids))]
	}
	t := n.topics[c.topic.id]
	switch c.kind {
	case registerNodeCommand:
		if c.node.id = int32(r.IntN(5)); r.IntN(3) > 0 {
			c.node.directory = testID(byte('a' + int(c.node.id)*2 + r.IntN(8)/7))
		}
		c.node.address = fmt.Sprint(r.IntN(100))
	case drainNodeCommand:
		c.flags = byte(r.IntN(2))
	case createReplicatedCommand:
		c.topic.name, c.topic.partitions, c.factor = fmt.Sprint("t", c.topic.id), r.IntN(4), r.IntN(4)
		for i := range c.topic.partitions {
			c.placed = append(c.placed, placed{i, assignment{1, nodes()}})
		}
	case addReplicatedCommand:
		c.total = r.IntN(8)
		for i := range r.IntN(min(c.total, 3) + 1) {
			c.placed = append(c.placed, placed{i, assignment{1, nodes()}})
		}
	case assignCommand:
		c.factor = r.IntN(3)
		for i := range 3 {
			if r.IntN(2) == 0 {
				p := placed{i, assignment{int32(1 + r.IntN(3)), nodes()}}
				if t != nil && i < len(t.epochs) && r.IntN(3) > 0 {
					p.epoch = t.epochs[i] + 1
				}
				c.placed = append(c.placed, p)
			}
		}
	case movedCommand:
		for i := range 3 {
			if t != nil && i < len(t.nodes) || r.IntN(8) == 0 {
				p := placed{i, assignment{epoch: int32(1 + r.IntN(3))}}
				if t != nil && i < len(t.epochs) && r.IntN(2) > 0 {
					p.epoch = t.epochs[i]
				}
				c.placed = append(c.placed, p)
			}
		}
	case clusterSnapshotCommand:
		c.kind = deleteTopicCommand
	}
	return c
}

// Random commands about nodes and replicas do to the metadata what they do to maps, a
// refused one changes nothing, and at any time the snapshot is another way to the same state.
func TestClusterMetadataAgainstANaiveOne(t *testing.T) {
	held, moved := 0, 0
	for seed := range uint64(testcount.N(100)) {
		r := rand.New(rand.NewPCG(seed, 3))
		m := newMetadata()
		n := naiveOf(m)
		for i := range 120 {
			c, err := decodeCommand(randomClusterCommand(r, n).encode())
			if err != nil {
				t.Fatal(err)
			}
			before := n.describe()
			_, err = m.apply(c)
			ok := n.apply(c)
			if ok != (err == nil) {
				t.Fatalf("seed %d, command %d: %+v: got %v, holds: %t\n%s", seed, i, c, err, ok, before)
			}
			if ok {
				held++
				moved += n.moving()
			}
			if got := naiveOf(m).describe(); got != n.describe() {
				t.Fatalf("seed %d, command %d: %+v:\ngot\n%s\nwant\n%s", seed, i, c, got, n.describe())
			}
			if r.IntN(20) == 0 {
				m = throughSnapshot(t, m)
				if got := naiveOf(m).describe(); got != n.describe() {
					t.Fatalf("seed %d, command %d, from a snapshot:\ngot\n%s\nwant\n%s", seed, i, got, n.describe())
				}
			}
		}
	}
	if testcount.N(100) >= 100 && (held < testcount.N(100)*25 || moved < testcount.N(100)*2) {
		t.Errorf("only %d commands held, %d partitions moved", held, moved)
	}
}

// The first node that is registered has all that there was.
func TestFirstNodeHasItAll(t *testing.T) {
	m := newMetadata()
	for _, c := range []*command{
		{kind: createTopicCommand, topic: topicMeta{id: testID('A'), name: "a", partitions: 2}},
		{kind: createTopicCommand, topic: topicMeta{id: testID('B'), name: "b", partitions: 1}},
		{kind: deleteTopicCommand, topic: topicMeta{id: testID('B')}},
		{kind: registerNodeCommand, node: nodeMeta{id: 7, directory: testID('D')}},
		{kind: registerNodeCommand, node: nodeMeta{id: 2}},
	} {
		if _, err := m.apply(c); err != nil {
			t.Fatal(err)
		}
	}
	want := "topic " + testID('A').String() + " factor 1 epochs [1 1] on [[7] [7]] before map[]\n"
	if got := naiveOf(m).describe(); !strings.Contains(got, want) || !strings.Contains(got, "deleted "+testID('B').String()+" waits for [7]\n") {
		t.Error(got)
	}
	if _, err := m.apply(&command{kind: topicDeletedCommand, topic: topicMeta{id: testID('B')}}); err == nil {
		t.Error("a topic is forgotten of which a node may have files")
	}
	throughSnapshot(t, m)
}

// A topic with more replicas than a part of a snapshot takes is in several of them.
func TestLargeClusterSnapshot(t *testing.T) {
	m := newMetadata()
	for id := range int32(3) {
		m.register(nodeMeta{id: id + 1, directory: testID(byte(id))})
	}
	list, err := m.place(3, 50_000)
	if err != nil {
		t.Fatal(err)
	}
	c := &command{kind: createReplicatedCommand, topic: topicMeta{id: testID('A'), name: "a", partitions: len(list)}, factor: 3, placed: list}
	if _, err := m.apply(c); err != nil || len(c.encode()) > maxCommandBytes {
		t.Fatal(err, len(c.encode()))
	}
	parts := m.snapshot()
	if len(parts) < 4 {
		t.Errorf("%d parts", len(parts))
	}
	for _, c := range parts {
		if b := c.encode(); len(b) > maxCommandBytes {
			t.Errorf("a part of %d bytes", len(b))
		}
	}
	if got := naiveOf(throughSnapshot(t, m)).describe(); got != naiveOf(m).describe() {
		t.Error("another state")
	}
}

func TestPlace(t *testing.T) {
	for _, row := range []struct {
		nodes            []int32
		factor, n, start int
		want             string
	}{
		{[]int32{1, 2, 3}, 2, 6, 0, "[1 2] [2 3] [3 1] [1 3] [2 1] [3 2]"},
		{[]int32{1, 2, 3}, 2, 3, 2, "[3 1] [1 3] [2 1]"},
		{[]int32{1, 2, 3}, 3, 3, 1, "[2 3 1] [3 1 2] [1 3 2]"},
		{[]int32{5}, 1, 2, 3, "[5] [5]"},
		{[]int32{1, 9}, 1, 3, 1, "[9] [1] [9]"},
	} {
		var got []string
		for _, p := range place(row.nodes, row.factor, row.n, row.start) {
			got = append(got, fmt.Sprint(p.nodes))
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("%v, %d replicas, from %d: %s, want %s", row.nodes, row.factor, row.start, text, row.want)
		}
	}
	// However many there are, nobody has more than one replica more than another.
	for nodes := 1; nodes <= 7; nodes++ {
		var ids []int32
		for i := range nodes {
			ids = append(ids, int32(i+1))
		}
		for factor := 1; factor <= nodes; factor++ {
			first, all := map[int32]int{}, map[int32]int{}
			n := nodes * max(nodes-1, 1) * 2
			for _, p := range place(ids, factor, n, 0) {
				first[p.nodes[0]]++
				seen := map[int32]bool{}
				for _, id := range p.nodes {
					all[id]++
					seen[id] = true
				}
				if len(seen) != factor {
					t.Fatalf("%d nodes: %v", nodes, p.nodes)
				}
			}
			for _, id := range ids {
				if first[id] != n/nodes || all[id] != n*factor/nodes {
					t.Errorf("%d nodes, %d replicas: node %d is first of %d, has %d", nodes, factor, id, first[id], all[id])
				}
			}
		}
	}
}
