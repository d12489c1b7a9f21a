package engine

import (
	"errors"
	"fmt"
	"testing"
)

// What a directory may do follows the commands about nodes, over snapshots.
func TestStandingFollowsTheMetadata(t *testing.T) {
	a, b, fresh := testID('A'), testID('B'), testID('C')
	m := newMetadata()
	apply := func(c *command, want error) {
		t.Helper()
		if _, err := m.apply(c); !errors.Is(err, want) {
			t.Fatalf("command %d of node %d: %v, want %v", c.kind, c.node.id, err, want)
		}
		if len(m.nodes) > 0 {
			again := newMetadata()
			for _, part := range m.snapshot() {
				c, err := decodeCommand(part.encode())
				if err == nil {
					_, err = again.apply(c)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			m = again
		}
	}
	want := func(node int32, directory TopicID, want Standing) {
		t.Helper()
		e := &Engine{}
		e.standings.Store(m.standings())
		if got := (host{e}).Standing(node, directory); got != want {
			t.Errorf("node %d with directory %s stands as %d, want %d", node, directory, got, want)
		}
	}
	register := func(node int32, directory TopicID) *command {
		return &command{kind: registerNodeCommand, node: nodeMeta{id: node, directory: directory, address: fmt.Sprint(node)}}
	}
	want(1, a, StandsRegistered) // nothing is known yet
	apply(register(2, TopicID{}), nil)
	want(2, b, StandsRegistered)
	apply(register(1, a), nil)
	want(1, a, StandsRegistered)
	want(1, b, StandsOther)
	want(2, b, StandsExpected)
	want(3, fresh, StandsUnknown)
	apply(register(2, b), nil)
	want(2, b, StandsRegistered)
	want(2, fresh, StandsOther)
	apply(&command{kind: removeNodeCommand, node: nodeMeta{id: 2}}, nil)
	want(2, b, StandsRemoved)
	want(2, fresh, StandsUnknown)
	want(3, b, StandsRemoved) // whatever number it takes
	apply(register(2, b), ErrNodeRemoved)
	apply(register(2, TopicID{}), nil)
	want(2, b, StandsRemoved)
	want(2, fresh, StandsExpected)
	apply(register(2, b), ErrNodeRemoved)
	apply(register(2, fresh), nil)
	want(2, fresh, StandsRegistered)
	want(2, b, StandsRemoved)
	// A node that never came leaves nothing behind, and of very many the last ones are remembered.
	apply(register(3, TopicID{}), nil)
	apply(&command{kind: removeNodeCommand, node: nodeMeta{id: 3}}, nil)
	if len(m.removed) != 1 {
		t.Errorf("removed: %v", m.removed)
	}
	for i := range maxRemoved {
		id := TopicID{1, byte(i >> 8), byte(i)}
		for _, c := range []*command{register(7, TopicID{}), register(7, id), {kind: removeNodeCommand, node: nodeMeta{id: 7}}} {
			if _, err := m.apply(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply(register(8, TopicID{}), nil)
	want(2, b, StandsOther)
	want(7, TopicID{1}, StandsRemoved)
	if len(m.removed) != maxRemoved {
		t.Errorf("%d removed nodes are remembered, not %d", len(m.removed), maxRemoved)
	}
}
