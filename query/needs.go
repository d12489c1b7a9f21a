package query

import (
	"errors"
	"fmt"

	"github.com/x/embedlog"
)

// What a program forgets to give is said by Start, all of it at once, and not by a record that comes later.

// needs notes that an operator was not given something.
func (n *node) needs(what string, given bool) *node {
	if !given {
		n.err = errors.Join(n.err, fmt.Errorf("%s: its %s is nil", n.title(), what))
	}
	return n
}

// named notes that something has no name.
func (n *node) named(name string) *node {
	if name == "" {
		n.err = errors.Join(n.err, fmt.Errorf("%s: its name is empty", n.kind))
	}
	return n
}

// without is a stream or a table whose values have no codec.
func without(in *node) *node {
	return (&node{kind: "with codec", inputs: []*node{in}, appends: in.appends}).needs("codec", false)
}

// of notes the topic that a node is made of.
func (n *node) of(t *embedlog.Topic, key, value bool) {
	if n.needs("topic", t != nil); t != nil {
		n.label = t.Name()
	}
	n.needs("codec of keys", key).needs("codec of values", value)
}
