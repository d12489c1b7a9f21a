package wire

import (
	"cmp"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
)

// Amplification bounds what decoding allocates for each byte that it reads. Structs
// are larger in memory than their bytes: fields that are zero are left out.
const Amplification = 64

// maxDepth bounds how deeply values lie in each other.
const maxDepth = 32

// spare is what decoding may allocate besides.
const spare = 16 << 10

// ErrMalformed says that bytes are no value of the type that was asked for.
var ErrMalformed = errors.New("malformed value of a peer")

// Codec encodes and decodes. Its zero value is ready, and sends errors as their text.
type Codec struct {
	// Errors are the errors that arrive as what they were.
	Errors *Errors
}

var (
	errorType     = reflect.TypeFor[error]()
	marshalerType = reflect.TypeFor[encoding.BinaryMarshaler]()
)

// Append appends the encoding of v, a struct or a pointer to one. It fails where there
// is something that cannot be sent: a function, a channel, a cycle.
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	return c.value(dst, reflect.ValueOf(v), 0)
}

// Decode reads what Append wrote into what v points to, whose fields are zero. What it
// reads does not alias b.
func (c *Codec) Decode(b []byte, v any) error {
	d := decoder{c: c, budget: Amplification*len(b) + spare}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("wire: decode into %T", v)
	}
	return d.value(b, p.Elem(), 0)
}

func sized(dst []byte, f func([]byte) ([]byte, error)) ([]byte, error) {
	at := len(dst)
	dst, err := f(dst)
	if err != nil {
		return dst, err
	}
	n := len(dst) - at
	var head [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(head[:], uint64(n))
	dst = append(dst, head[:k]...)
	copy(dst[at+k:], dst[at:at+n])
	copy(dst[at:], head[:k])
	return dst, nil
}

func (c *Codec) value(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, errors.New("wire: values lie too deep in each other")
	}
	t := v.Type()
	if t == errorType {
		err, _ := v.Interface().(error)
		return c.Errors.appendError(dst, err, depth)
	}
	if t.Kind() != reflect.Pointer && t.Implements(marshalerType) {
		b, err := v.Interface().(encoding.BinaryMarshaler).MarshalBinary()
		return append(dst, b...), err
	}
	switch t.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(dst, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(dst, v.Uint()), nil
	case reflect.Float64:
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v.Float())), nil
	case reflect.String:
		return append(dst, v.String()...), nil
	case reflect.Pointer:
		if v.IsNil() {
			return dst, errors.New("wire: a nil pointer in a list")
		}
		return c.value(dst, v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		return c.list(dst, v, depth)
	case reflect.Map:
		return c.entries(dst, v, depth)
	case reflect.Struct:
		return c.fields(dst, v, depth)
	}
	return dst, fmt.Errorf("wire: a %s cannot be sent", t)
}

func (c *Codec) list(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		if v.Kind() == reflect.Slice {
			return append(dst, v.Bytes()...), nil
		}
		for i := range v.Len() {
			dst = append(dst, byte(v.Index(i).Uint()))
		}
		return dst, nil
	}
	dst = binary.AppendUvarint(dst, uint64(v.Len()))
	var err error
	for i := range v.Len() {
		dst, err = sized(dst, func(dst []byte) ([]byte, error) { return c.value(dst, v.Index(i), depth+1) })
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (c *Codec) entries(dst []byte, v reflect.Value, depth int) (_ []byte, err error) {
	type entry struct {
		key   []byte
		value reflect.Value
	}
	var list []entry
	for it := v.MapRange(); it.Next(); {
		key, err := c.value(nil, it.Key(), depth+1)
		if err != nil {
			return dst, err
		}
		list = append(list, entry{key, it.Value()})
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(string(a.key), string(b.key)) })
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, e := range list {
		dst = appendBytes(dst, e.key)
		dst, err = sized(dst, func(dst []byte) ([]byte, error) { return c.value(dst, e.value, depth+1) })
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (c *Codec) fields(dst []byte, v reflect.Value, depth int) (_ []byte, err error) {
	t := v.Type()
	n := 0
	for i := range t.NumField() {
		if sent(t.Field(i)) && !v.Field(i).IsZero() {
			n++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for i := range t.NumField() {
		f := t.Field(i)
		if !sent(f) || v.Field(i).IsZero() {
			continue
		}
		dst = appendBytes(dst, []byte(f.Name))
		dst, err = sized(dst, func(dst []byte) ([]byte, error) { return c.value(dst, v.Field(i), depth+1) })
		if err != nil {
			return dst, fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
	}
	return dst, nil
}

// sent says whether a field is sent. Those tagged `wire:"-"` are this node's alone.
func sent(f reflect.StructField) bool { return f.IsExported() && f.Tag.Get("wire") != "-" }

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

type decoder struct {
	c      *Codec
	budget int // bytes that may still be allocated
}

func (d *decoder) spend(n int) error {
	if n > d.budget || n < 0 {
		return fmt.Errorf("%w: it is larger than it may be", ErrMalformed)
	}
	d.budget -= n
	return nil
}

func malformed(t reflect.Type) error { return fmt.Errorf("%w: no %s", ErrMalformed, t) }

func (d *decoder) value(b []byte, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: too deep", ErrMalformed)
	}
	t := v.Type()
	if t == errorType {
		err, bad := d.c.Errors.decode(d, b, depth)
		if bad != nil {
			return bad
		}
		if err != nil {
			v.Set(reflect.ValueOf(err))
		}
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.BinaryUnmarshaler); ok {
		if err := u.UnmarshalBinary(b); err != nil {
			return fmt.Errorf("%w: %w", malformed(t), err)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Bool:
		if len(b) != 1 || b[0] > 1 {
			return malformed(t)
		}
		v.SetBool(b[0] == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, k := binary.Varint(b)
		if k <= 0 || k != len(b) || v.OverflowInt(n) {
			return malformed(t)
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, k := binary.Uvarint(b)
		if k <= 0 || k != len(b) || v.OverflowUint(n) {
			return malformed(t)
		}
		v.SetUint(n)
	case reflect.Float64:
		if len(b) != 8 {
			return malformed(t)
		}
		v.SetFloat(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case reflect.String:
		if err := d.spend(len(b)); err != nil {
			return err
		}
		v.SetString(string(b))
	case reflect.Pointer:
		if err := d.spend(int(t.Elem().Size())); err != nil {
			return err
		}
		p := reflect.New(t.Elem())
		v.Set(p)
		return d.value(b, p.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		return d.list(b, v, depth)
	case reflect.Map:
		return d.entries(b, v, depth)
	case reflect.Struct:
		return d.fields(b, v, depth)
	default:
		return malformed(t)
	}
	return nil
}

// cut takes a length and so many bytes off the front of b.
func cut(b []byte) (head, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	b = b[k:]
	return b[:n:n], b[n:], true
}

func (d *decoder) list(b []byte, v reflect.Value, depth int) error {
	t := v.Type()
	if t.Elem().Kind() == reflect.Uint8 {
		if t.Kind() == reflect.Array {
			if len(b) != t.Len() {
				return malformed(t)
			}
			for i := range b {
				v.Index(i).SetUint(uint64(b[i]))
			}
			return nil
		}
		if err := d.spend(len(b)); err != nil {
			return err
		}
		v.SetBytes(append([]byte{}, b...))
		return nil
	}
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) { // each element has its length, at least
		return malformed(t)
	}
	b = b[k:]
	if t.Kind() == reflect.Array {
		if n != uint64(t.Len()) {
			return malformed(t)
		}
	} else {
		if err := d.spend(int(n) * int(t.Elem().Size())); err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(t, int(n), int(n)))
	}
	for i := range int(n) {
		head, rest, ok := cut(b)
		if !ok {
			return malformed(t)
		}
		if err := d.value(head, v.Index(i), depth+1); err != nil {
			return err
		}
		b = rest
	}
	if len(b) > 0 {
		return malformed(t)
	}
	return nil
}

// mapEntry is about what an entry of a map takes besides key and value.
const mapEntry = 48

func (d *decoder) entries(b []byte, v reflect.Value, depth int) error {
	t := v.Type()
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k)/2 {
		return malformed(t)
	}
	b = b[k:]
	v.Set(reflect.MakeMap(t))
	for range n {
		key, rest, ok := cut(b)
		if !ok {
			return malformed(t)
		}
		value, rest, ok := cut(rest)
		if !ok {
			return malformed(t)
		}
		if err := d.spend(int(t.Key().Size()+t.Elem().Size()) + mapEntry); err != nil {
			return err
		}
		kv, ev := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.value(key, kv, depth+1); err != nil {
			return err
		}
		if err := d.value(value, ev, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(kv, ev)
		b = rest
	}
	if len(b) > 0 {
		return malformed(t)
	}
	return nil
}

func (d *decoder) fields(b []byte, v reflect.Value, depth int) error {
	t := v.Type()
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k)/2 {
		return malformed(t)
	}
	b = b[k:]
	for range n {
		name, rest, ok := cut(b)
		if !ok {
			return malformed(t)
		}
		value, rest, ok := cut(rest)
		if !ok {
			return malformed(t)
		}
		b = rest
		f, ok := t.FieldByName(string(name))
		if !ok || len(f.Index) != 1 || !sent(f) {
			continue // of another version
		}
		if err := d.value(value, v.FieldByIndex(f.Index), depth+1); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if len(b) > 0 {
		return malformed(t)
	}
	return nil
}
