package kafka

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// shape is how a structure lies on the wire in one version. kmsg allocates what an
// array's length claims, as long as one byte is left for each element, and goes
// round as often as a count of tagged fields says, so a frame is walked along its
// shape first: what it claims must be there.
//
// Shapes are found by looking at what kmsg itself writes: a field that changes and
// leaves the bytes as they were is not in this version, one that changes them in
// place is a number, one that makes them longer by what was put in is text. So
// there is no second description of the protocol that could be wrong.
type shape struct {
	fields []shapeField
	tags   bool // tagged fields follow
	least  int  // bytes on the wire
	memory int  // of the Go value
}

type wireKind uint8

const (
	wireFixed  wireKind = iota // size bytes
	wireText                   // string, maybe null: 2 bytes of length, or a varint
	wireBytes                  // the same with 4 bytes of length
	wireArray                  // of elem
	wireOption                 // a byte, and elem unless that is negative
)

type shapeField struct {
	kind wireKind
	size int
	elem *shape
}

// maxElements bounds one array, as Kafka 4.4 does.
const maxElements = 1_000_000

// shapes are those of one API's requests, by version; each is made when it is first
// needed.
type shapes []struct {
	once sync.Once
	s    *shape
	key  int16
}

func newShapes(key, maxVersion int16) shapes {
	s := make(shapes, maxVersion+1)
	for i := range s {
		s[i].key = key
	}
	return s
}

func (s shapes) at(version int16) *shape {
	x := &s[version]
	x.once.Do(func() { x.s = shapeOfRequest(x.key, version) })
	return x.s
}

// shapeOfRequest finds the shape of a request.
func shapeOfRequest(key, version int16) *shape {
	q := kmsg.RequestForKey(key)
	q.SetVersion(version)
	p := prober{flexible: q.IsFlexible()}
	t := reflect.TypeOf(q).Elem()
	return p.structure(t, func(v reflect.Value) []byte {
		q := v.Addr().Interface().(kmsg.Request)
		q.SetVersion(version)
		return q.AppendTo(nil)
	})
}

type prober struct{ flexible bool }

// structure finds the shape of a struct. encode puts one into a message and returns
// the message's bytes.
func (p *prober) structure(t reflect.Type, encode func(reflect.Value) []byte) *shape {
	s := &shape{tags: p.flexible, memory: int(t.Size())}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Name == "Version" && i == 0 || f.Type == reflect.TypeFor[kmsg.Tags]() {
			continue
		}
		if found, ok := p.field(t, i, encode); ok {
			s.fields = append(s.fields, found)
			s.least += p.least(found)
		}
	}
	if s.tags {
		s.least++
	}
	return s
}

// field finds what the struct's field i is on the wire. ok is false when it is not
// there, or a tagged field.
func (p *prober) field(t reflect.Type, i int, encode func(reflect.Value) []byte) (f shapeField, ok bool) {
	with := func(change func(reflect.Value)) []byte {
		v := newDefault(t)
		change(v.Field(i))
		return encode(v)
	}
	nothing := func(reflect.Value) {}
	ft := t.Field(i).Type
	switch ft.Kind() {
	case reflect.Slice:
		if ft.Elem().Kind() == reflect.Uint8 {
			return p.grows(shapeField{kind: wireBytes}, with(nothing), with(func(v reflect.Value) { v.SetBytes([]byte("xx")) }))
		}
		some := func(n int) []byte {
			return with(func(v reflect.Value) {
				list := reflect.MakeSlice(ft, 0, n)
				for range n {
					list = reflect.Append(list, newDefault(ft.Elem()))
				}
				v.Set(list)
			})
		}
		none, one, two := len(some(0)), len(some(1)), len(some(2))
		if one == none || one-none != two-one {
			return f, false
		}
		return shapeField{kind: wireArray, elem: p.element(ft.Elem(), func(e reflect.Value) []byte {
			return with(func(v reflect.Value) { v.Set(reflect.Append(reflect.MakeSlice(ft, 0, 1), e)) })
		})}, true
	case reflect.String:
		return p.grows(shapeField{kind: wireText}, with(nothing), with(func(v reflect.Value) { v.SetString(v.String() + "xx") }))
	case reflect.Pointer:
		if ft.Elem().Kind() == reflect.String {
			text := "xx"
			return p.grows(shapeField{kind: wireText}, with(func(v reflect.Value) { v.SetZero() }), with(func(v reflect.Value) { v.Set(reflect.ValueOf(&text)) }))
		}
		elem := p.structure(ft.Elem(), func(e reflect.Value) []byte { return with(func(v reflect.Value) { v.Set(e.Addr()) }) })
		null, full := with(func(v reflect.Value) { v.SetZero() }), with(func(v reflect.Value) { v.Set(newDefault(ft.Elem()).Addr()) })
		if len(null) == len(full) {
			return f, false
		}
		return shapeField{kind: wireOption, elem: elem}, true
	case reflect.Struct:
		elem := p.structure(ft, func(e reflect.Value) []byte { return with(func(v reflect.Value) { v.Set(e) }) })
		if len(elem.fields) > 0 {
			panic(fmt.Sprintf("kafka: %s.%s: a structure that is not in an array", t, t.Field(i).Name))
		}
		return f, false // tagged
	}
	before, after := with(nothing), with(changeNumber)
	if len(before) != len(after) || string(before) == string(after) {
		return f, false
	}
	return shapeField{kind: wireFixed, size: int(ft.Size())}, true
}

// grows says that f is there if two letters made the message two bytes longer. A
// tagged field has its number and size besides.
func (p *prober) grows(f shapeField, before, after []byte) (shapeField, bool) {
	return f, len(after) == len(before)+2
}

// element is the shape of an array's element.
func (p *prober) element(t reflect.Type, encode func(reflect.Value) []byte) *shape {
	if t.Kind() == reflect.Struct {
		return p.structure(t, encode)
	}
	s := &shape{memory: int(t.Size())}
	switch t.Kind() {
	case reflect.String:
		s.fields = []shapeField{{kind: wireText}}
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			panic(fmt.Sprintf("kafka: an array of %s", t))
		}
		s.fields = []shapeField{{kind: wireBytes}}
	default:
		s.fields = []shapeField{{kind: wireFixed, size: int(t.Size())}}
	}
	s.least = p.least(s.fields[0])
	return s
}

// least is how many bytes the field takes at least.
func (p *prober) least(f shapeField) int {
	switch f.kind {
	case wireFixed:
		return f.size
	case wireOption:
		return 1
	case wireText:
		if !p.flexible {
			return 2
		}
	default:
		if !p.flexible {
			return 4
		}
	}
	return 1
}

func newDefault(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if d, ok := v.Interface().(interface{ Default() }); ok {
		d.Default()
	}
	return v.Elem()
}

// changeNumber gives a field of fixed size another value.
func changeNumber(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() ^ 1)
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(v.Uint() ^ 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Array:
		e := v.Index(0)
		e.SetUint(e.Uint() ^ 1)
	default:
		panic(fmt.Sprintf("kafka: a field of type %s", v.Type()))
	}
}

// check walks a message and returns how much memory its decoded form takes, about.
// It allocates nothing but an error.
func (s *shape) check(b []byte) (need int64, err error) {
	w := walker{b: b, flexible: s.tags}
	if !w.walk(s) {
		if w.err == nil {
			w.err = errShortFrame
		}
		return 0, w.err
	}
	return w.need, nil
}

type walker struct {
	b        []byte
	flexible bool
	need     int64
	err      error // nil stands for errShortFrame when walk returned false
}

// tagMemory is about what kmsg keeps for a tagged field that it does not know.
const tagMemory = 96

func (w *walker) walk(s *shape) bool {
	for i := range s.fields {
		f := &s.fields[i]
		switch f.kind {
		case wireFixed:
			if !w.skip(f.size) {
				return false
			}
		case wireText, wireBytes:
			n, ok := w.length(f.kind == wireText)
			if !ok || !w.skip(n) {
				return false
			}
			w.need += int64(n) + 16
		case wireOption:
			if len(w.b) == 0 {
				return false
			}
			null := int8(w.b[0]) < 0
			w.b = w.b[1:]
			if null {
				continue
			}
			w.need += int64(f.elem.memory)
			if !w.walk(f.elem) {
				return false
			}
		case wireArray:
			if !w.array(f.elem) {
				return false
			}
		}
	}
	return !s.tags || w.skipTags()
}

func (w *walker) array(elem *shape) bool {
	n, ok := w.length(false)
	if !ok {
		return false
	}
	if n > maxElements || n > len(w.b)/elem.least {
		w.err = fmt.Errorf("an array of %d elements in %d bytes", n, len(w.b))
		return false
	}
	w.need += int64(n) * int64(elem.memory)
	if len(elem.fields) == 1 && elem.fields[0].kind == wireFixed && !elem.tags {
		return w.skip(n * elem.fields[0].size)
	}
	for range n {
		if !w.walk(elem) {
			return false
		}
	}
	return true
}

func (w *walker) skip(n int) bool {
	if n > len(w.b) {
		return false
	}
	w.b = w.b[n:]
	return true
}

// length reads a length; null is 0.
func (w *walker) length(text bool) (int, bool) {
	if w.flexible {
		n, rest, err := uvarint(w.b)
		if err != nil || n > math.MaxInt32 {
			return 0, false
		}
		w.b = rest
		return max(int(n)-1, 0), true
	}
	if text {
		if len(w.b) < 2 {
			return 0, false
		}
		n := int16(binary.BigEndian.Uint16(w.b))
		w.b = w.b[2:]
		return max(int(n), 0), true
	}
	if len(w.b) < 4 {
		return 0, false
	}
	n := int32(binary.BigEndian.Uint32(w.b))
	w.b = w.b[4:]
	return max(int(n), 0), true
}

func (w *walker) skipTags() bool {
	if len(w.b) > 0 && w.b[0] == 0 { // nearly always
		w.b = w.b[1:]
		return true
	}
	before := w.b
	rest, err := skipTags(w.b)
	if err != nil {
		w.err = err
		return false
	}
	n, _, _ := uvarint(before)
	w.need += int64(n)*tagMemory + int64(len(before)-len(rest))
	w.b = rest
	return true
}
