package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// Bounds of an error on its way.
const (
	maxErrorText  = 2 << 10
	maxErrorNodes = 64
	maxErrorDepth = 12
)

// Errors are the errors that two peers both know, by name: variables that a caller
// compares with, and types that a caller looks at the fields of. It is filled before it
// is used, and not changed afterwards.
//
// An error is a tree: an error of a known type with its fields, causes among them; a known
// variable; or else a text and what it wraps. What is decoded has the same text, and
// errors.Is and errors.As find in it what they found before.
type Errors struct {
	names  map[error]string
	byName map[string]error
	order  []string // of byName
	types  map[reflect.Type]string
	protos map[string]reflect.Type
}

// NewErrors knows no errors.
func NewErrors() *Errors {
	return &Errors{
		names: map[error]string{}, byName: map[string]error{},
		types: map[reflect.Type]string{}, protos: map[string]reflect.Type{},
	}
}

// Sentinel makes a variable known. The name is sent: it stays what it is.
func (e *Errors) Sentinel(name string, err error) {
	e.names[err], e.byName[name] = name, err
	e.order = append(e.order, name)
	slices.Sort(e.order)
}

// Type makes the type of err known, a pointer to a struct, by the struct's name.
func (e *Errors) Type(list ...error) {
	for _, err := range list {
		t := reflect.TypeOf(err).Elem()
		e.types[t], e.protos[t.Name()] = t.Name(), t
	}
}

// Names are the names of the variables, sorted.
func (e *Errors) Names() []string { return slices.Clone(e.order) }

// Named is the variable of that name; nil when there is none.
func (e *Errors) Named(name string) error { return e.byName[name] }

// Types are the types, in no order.
func (e *Errors) Types() (list []reflect.Type) {
	for t := range e.types {
		list = append(list, t)
	}
	return list
}

// HasType says whether a type of that name is known.
func (e *Errors) HasType(name string) bool { return e.protos[name] != nil }

// errorNode is one error of a tree.
type errorNode struct {
	Text     string
	Sentinel string
	Type     string
	Fields   []byte
	Kids     []errorNode
	Is       []string // sentinels that the tree matches, and its parts would not
}

// AppendError appends the encoding of an error, nil among them. It never fails: what
// cannot be sent becomes text.
func (c *Codec) AppendError(dst []byte, err error) []byte {
	out, bad := c.Errors.appendError(dst, err, 0)
	if bad != nil {
		out, _ = (*Errors)(nil).appendError(dst[:len(dst):len(dst)], errors.New(err.Error()), 0)
	}
	return out
}

// DecodeError reads what AppendError wrote; bad says that the bytes are none of it.
func (c *Codec) DecodeError(b []byte) (err, bad error) {
	d := decoder{c: c, budget: Amplification*len(b) + spare}
	return c.Errors.decode(&d, b, 0)
}

func (e *Errors) appendError(dst []byte, err error, depth int) ([]byte, error) {
	if err == nil {
		return dst, nil
	}
	if e == nil {
		e = NewErrors()
	}
	left := maxErrorNodes
	node, bad := e.node(err, depth, 0, &left)
	if bad != nil {
		return dst, bad
	}
	// What a type of another kind, or a method Is, says.
	for _, name := range e.order {
		if s := e.byName[name]; errors.Is(err, s) && !e.says(&node, s) {
			node.Is = append(node.Is, name)
		}
	}
	codec := Codec{Errors: e}
	return codec.value(dst, reflect.ValueOf(node), depth+1)
}

// says whether the node, decoded, matches s.
func (e *Errors) says(n *errorNode, s error) bool {
	if n.Sentinel == e.names[s] && n.Sentinel != "" || slices.Contains(n.Is, e.names[s]) {
		return true
	}
	if n.Type != "" {
		return false // it does when it is known there; who does not know it is told
	}
	for i := range n.Kids {
		if e.says(&n.Kids[i], s) {
			return true
		}
	}
	return false
}

func (e *Errors) node(err error, depth, level int, left *int) (n errorNode, bad error) {
	*left--
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "..."
	}
	n.Text = text
	if reflect.TypeOf(err).Comparable() {
		if name := e.names[err]; name != "" {
			n.Sentinel = name
			return n, nil
		}
	}
	if t := reflect.TypeOf(err); t.Kind() == reflect.Pointer && e.types[t.Elem()] != "" && !reflect.ValueOf(err).IsNil() {
		n.Type = e.types[t.Elem()]
		codec := Codec{Errors: e}
		n.Fields, bad = codec.value(nil, reflect.ValueOf(err).Elem(), depth+level+1)
		return n, bad
	}
	for _, kid := range unwrap(err) {
		if *left <= 0 || level >= maxErrorDepth {
			break
		}
		k, bad := e.node(kid, depth, level+1, left)
		if bad != nil {
			return n, bad
		}
		n.Kids = append(n.Kids, k)
	}
	return n, nil
}

func unwrap(err error) []error {
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		if inner := x.Unwrap(); inner != nil {
			return []error{inner}
		}
	case interface{ Unwrap() []error }:
		return slices.DeleteFunc(slices.Clone(x.Unwrap()), func(err error) bool { return err == nil })
	}
	return nil
}

func (e *Errors) decode(d *decoder, b []byte, depth int) (err, bad error) {
	if len(b) == 0 {
		return nil, nil
	}
	if e == nil {
		e = NewErrors()
	}
	var n errorNode
	if err := d.value(b, reflect.ValueOf(&n).Elem(), depth+1); err != nil {
		return nil, err
	}
	return e.build(d, &n, depth)
}

func (e *Errors) build(d *decoder, n *errorNode, depth int) (err, bad error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: an error too deep", ErrMalformed)
	}
	if s := e.byName[n.Sentinel]; s != nil {
		return s, nil
	}
	var inner []error
	if t := e.protos[n.Type]; t != nil {
		if err := d.spend(int(t.Size())); err != nil {
			return nil, err
		}
		p := reflect.New(t)
		if err := d.value(n.Fields, p.Elem(), depth+1); err != nil {
			return nil, err
		}
		typed := p.Interface().(error)
		if len(n.Is) == 0 || e.matches(typed, n.Is) {
			return typed, nil
		}
		inner = append(inner, typed)
	}
	for i := range n.Kids {
		kid, bad := e.build(d, &n.Kids[i], depth+1)
		if bad != nil {
			return nil, bad
		}
		inner = append(inner, kid)
	}
	for _, name := range n.Is {
		if s := e.byName[name]; s != nil {
			inner = append(inner, s)
		}
	}
	return &Remote{text: n.Text, inner: inner}, nil
}

func (e *Errors) matches(err error, names []string) bool {
	for _, name := range names {
		if s := e.byName[name]; s != nil && !errors.Is(err, s) {
			return false
		}
	}
	return true
}

// Remote is an error of another node that is of no type known to both, or was wrapped.
type Remote struct {
	text  string
	inner []error
}

func (r *Remote) Error() string { return r.text }

// Unwrap returns what it wraps, and matches.
func (r *Remote) Unwrap() []error { return r.inner }

// AppendUvarintBytes appends bytes with their length before them, and CutBytes takes
// them off again: for layouts beside this package's.
func AppendUvarintBytes(dst, b []byte) []byte { return appendBytes(dst, b) }

// CutBytes is the other way of AppendUvarintBytes. What it returns aliases b.
func CutBytes(b []byte) (head, rest []byte, ok bool) { return cut(b) }

// CutUvarint takes a number off the front of b.
func CutUvarint(b []byte) (n uint64, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 {
		return 0, nil, false
	}
	return n, b[k:], true
}
