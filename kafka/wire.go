package kafka

import (
	"encoding/binary"
	"strings"
)

// The primitive types of the protocol, for the messages that are coded by hand.
// From an API's first flexible version on lengths are varints that are one higher,
// and every structure ends with tagged fields. (KIP-482)

// cursor reads a message. After what is not there everything it reads is zero, and
// ok is false. What it returns are parts of the message.
type cursor struct {
	b        []byte
	flexible bool
	bad      bool
}

func (c *cursor) ok() bool { return !c.bad }

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) int8() int8 {
	if p := c.take(1); p != nil {
		return int8(p[0])
	}
	return 0
}

func (c *cursor) int16() int16 {
	if p := c.take(2); p != nil {
		return int16(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if p := c.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (c *cursor) int64() int64 {
	if p := c.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

func (c *cursor) uuid() (id [16]byte) {
	copy(id[:], c.take(16))
	return id
}

func (c *cursor) uvarint() int {
	n, rest, err := uvarint(c.b)
	if err != nil || n > 1<<31-1 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = rest
	return int(n)
}

// text is a string; ok is false when it is null.
func (c *cursor) text() (s []byte, ok bool) {
	n := 0
	if c.flexible {
		n = c.uvarint() - 1
	} else {
		n = int(c.int16())
	}
	if n < 0 {
		return nil, false
	}
	s = c.take(n)
	return s, !c.bad
}

// name is a string that is not null.
func (c *cursor) name() []byte {
	s, ok := c.text()
	if !ok {
		c.bad, c.b = true, nil
	}
	return s
}

// bytes are bytes; nil when they are null.
func (c *cursor) bytes() []byte {
	n := 0
	if c.flexible {
		n = c.uvarint() - 1
	} else {
		n = int(c.int32())
	}
	if n < 0 {
		return nil
	}
	return c.take(n)
}

// array is the length of an array whose elements take at least least bytes; null
// is 0. More than fit, or than anybody needs, is not there.
func (c *cursor) array(least int) int {
	n := 0
	if c.flexible {
		n = c.uvarint() - 1
	} else {
		n = int(c.int32())
	}
	if n > maxElements || n > len(c.b)/least {
		c.bad, c.b = true, nil
		return 0
	}
	return max(n, 0)
}

// tags passes over tagged fields.
func (c *cursor) tags() {
	if !c.flexible || c.bad {
		return
	}
	if len(c.b) > 0 && c.b[0] == 0 { // nearly always
		c.b = c.b[1:]
		return
	}
	rest, err := skipTags(c.b)
	if err != nil {
		c.bad, rest = true, nil
	}
	c.b = rest
}

// encoder writes a message into an output.
type encoder struct {
	*output
	flexible bool
}

func (e encoder) int16(n int16)    { e.b = binary.BigEndian.AppendUint16(e.b, uint16(n)) }
func (e encoder) int32(n int32)    { e.b = binary.BigEndian.AppendUint32(e.b, uint32(n)) }
func (e encoder) int64(n int64)    { e.b = binary.BigEndian.AppendUint64(e.b, uint64(n)) }
func (e encoder) uuid(id [16]byte) { e.b = append(e.b, id[:]...) }
func (e encoder) uvarint(n int)    { e.b = binary.AppendUvarint(e.b, uint64(n)) }

// array is the length of an array, or of bytes that follow.
func (e encoder) array(n int) {
	if e.flexible {
		e.uvarint(n + 1)
		return
	}
	e.int32(int32(n))
}

func (e encoder) text(s string) {
	if e.flexible {
		e.uvarint(len(s) + 1)
	} else {
		e.int16(int16(len(s)))
	}
	e.b = append(e.b, s...)
}

// nullText is text that is null when it is empty.
func (e encoder) nullText(s string) {
	switch {
	case s != "":
		e.text(s)
	case e.flexible:
		e.uvarint(0)
	default:
		e.int16(-1)
	}
}

// tags ends a structure that has no tagged fields.
func (e encoder) tags() {
	if e.flexible {
		e.b = append(e.b, 0)
	}
}

// bounded is text for people that is not longer than it has to be.
func bounded(s string) string {
	const most = 2048
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
