package kafka

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
)

// output is an answer on its way out: bytes that were encoded here, and between
// them large pieces that lie elsewhere and are not copied.
//
//	b:       header, fields ..... | fields ...... | fields
//	pieces:                       ^ record batch  ^ record batch
//
// It belongs to one connection, which uses its memory again.
type output struct {
	b       []byte
	pieces  []piece
	size    int // of the pieces
	from    int // where in b the answer begins; before it are others that go out with it
	dropped bool
	vec     net.Buffers
}

type piece struct {
	at int // in b: the piece comes before that byte
	p  []byte
}

const (
	// pieceBytes is from what size on bytes are worth an entry of writev instead of a copy.
	pieceBytes = 4 << 10
	// keptOutputBytes is how much memory an idle connection keeps.
	keptOutputBytes = 64 << 10
	keptPieces      = 1024
)

// begin starts an answer. (ResponseHeader v0 and v1)
func (o *output) begin(correlation int32, flexible bool) {
	o.reset()
	o.head(correlation, flexible)
}

// next starts another answer, which goes out with those before it. None of them has
// borrowed anything.
func (o *output) next(correlation int32, flexible bool) {
	o.putSize()
	o.from = len(o.b)
	o.head(correlation, flexible)
}

func (o *output) putSize() {
	binary.BigEndian.PutUint32(o.b[o.from:], uint32(o.len()-o.from-4))
}

func (o *output) head(correlation int32, flexible bool) {
	o.b = append(o.b, 0, 0, 0, 0)
	o.b = binary.BigEndian.AppendUint32(o.b, uint32(correlation))
	if flexible {
		o.b = append(o.b, 0)
	}
}

func (o *output) reset() {
	if cap(o.b) > keptOutputBytes {
		o.b = nil
	}
	clear(o.pieces)
	if cap(o.pieces) > keptPieces {
		o.pieces, o.vec = nil, nil
	}
	o.b, o.pieces, o.size, o.dropped = o.b[:0], o.pieces[:0], 0, false
	o.from = 0
}

// drop makes the request one without an answer.
func (o *output) drop() { o.dropped = true }

// borrow puts p in. A large one is not copied, and must not change until the answer
// is written.
func (o *output) borrow(p []byte) {
	if len(p) < pieceBytes {
		o.b = append(o.b, p...)
		return
	}
	o.pieces = append(o.pieces, piece{len(o.b), p})
	o.size += len(p)
}

// len is the size of what is there.
func (o *output) len() int { return len(o.b) + o.size }

// writeTo writes the answers, each with its size in front.
func (o *output) writeTo(c net.Conn) error {
	if n := o.len() - 4; n > math.MaxInt32 {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	o.putSize()
	if len(o.pieces) == 0 {
		_, err := c.Write(o.b)
		return err
	}
	o.vec = o.vec[:0]
	from := 0
	for _, p := range o.pieces {
		if p.at > from {
			o.vec = append(o.vec, o.b[from:p.at])
		}
		o.vec = append(o.vec, p.p)
		from = p.at
	}
	if from < len(o.b) {
		o.vec = append(o.vec, o.b[from:])
	}
	vec := o.vec // WriteTo consumes it
	_, err := vec.WriteTo(c)
	clear(o.vec)
	return err
}
