package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/x/embedlog/internal/engine"
)

// request is one request and all that its handler needs.
type request struct {
	// ctx ends when the connection or the server does: for what only the client wants,
	// such as waiting for records.
	ctx context.Context
	// life ends when the server is stopped without grace: for what has effects, such as
	// an append, which is not given up because its client has gone.
	life context.Context

	srv    *Server
	conn   *conn
	engine *engine.Engine

	key, version int16
	correlation  int32
	clientID     string
	principal    Principal
	host         string // the peer's address, without its port

	out   *output
	began time.Time

	reserved      int64 // bytes, besides the frame's
	producedBytes int64
	fetchedBytes  int64
	mutated       int           // partitions made and deleted
	mutationWait  time.Duration // that controller_mutation_rate asks for
	idle          time.Duration // that it waited for others: see waited
	throttle      int32         // milliseconds, told in the answer: see Throttler
	asked         bool          // the throttler was
	knew          bool          // the metadata's leader was asked: see know
	unsure        error         // what came of it
}

// failed says of an error which request it was.
func (r *request) failed(err error) error {
	return fmt.Errorf("%s version %d: %w", kmsg.NameForKey(r.key), r.version, err)
}

// maxTags bounds the tagged fields of one structure, as Kafka 4.4 does.
const maxTags = 10_000

var errShortFrame = errors.New("the request ends in the middle of a field")

// parseHeader reads a request's header into r, and returns what it does not take.
// (RequestHeader v1 and v2)
func (r *request) parseHeader(frame []byte) (rest []byte, err error) {
	if len(frame) < 8 {
		return nil, errShortFrame
	}
	r.key = int16(binary.BigEndian.Uint16(frame))
	r.version = int16(binary.BigEndian.Uint16(frame[2:]))
	r.correlation = int32(binary.BigEndian.Uint32(frame[4:]))
	return frame[8:], nil
}

// parseClient reads the header's second part, which depends on the API.
func (r *request) parseClient(b []byte, flexible bool) (rest []byte, err error) {
	if len(b) < 2 {
		return nil, errShortFrame
	}
	n := int(int16(binary.BigEndian.Uint16(b)))
	b = b[2:]
	if n > len(b) {
		return nil, errShortFrame
	}
	if n > 0 {
		// Most requests of a connection have the same.
		if id := b[:n]; string(id) == r.conn.clientID {
			r.clientID = r.conn.clientID
		} else {
			r.clientID = string(id)
			r.conn.clientID = r.clientID
		}
		b = b[n:]
	}
	if flexible {
		return skipTags(b)
	}
	return b, nil
}

// skipTags returns what follows a structure's tagged fields.
func skipTags(b []byte) ([]byte, error) {
	n, b, err := uvarint(b)
	if err != nil {
		return nil, err
	}
	if n > maxTags {
		return nil, fmt.Errorf("%d tagged fields", n)
	}
	for range n {
		if _, b, err = uvarint(b); err != nil {
			return nil, err
		}
		var size uint64
		if size, b, err = uvarint(b); err != nil {
			return nil, err
		}
		if size > uint64(len(b)) {
			return nil, errShortFrame
		}
		b = b[size:]
	}
	return b, nil
}

// uvarint reads an unsigned varint of at most 32 bits.
func uvarint(b []byte) (uint64, []byte, error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > 1<<32-1 {
		return 0, nil, errShortFrame
	}
	return n, b[used:], nil
}

// smallReserve is what a request may take without anybody being asked.
const smallReserve = 1 << 20

// reserve takes memory that the request needs besides its frame, until it is
// answered. It does not wait: the frame is reserved already, and others may wait
// for that.
func (r *request) reserve(n int64) error {
	if limit := r.srv.limits.ConnectionMemoryBytes; r.reserved+n > limit {
		return fmt.Errorf("a request that takes %d bytes when decoded: a connection may have %d", r.reserved+n, limit)
	}
	least := int64(0)
	if n <= smallReserve {
		least = n
	}
	got := r.srv.memory.take(n, least)
	r.reserved += got
	if got < n {
		return fmt.Errorf("a request that takes %d bytes when decoded: there are not so many", n)
	}
	return nil
}

// respond encodes the answer.
func (r *request) respond(resp kmsg.Response) {
	if t := r.throttled(); t > 0 {
		if s, ok := resp.(kmsg.SetThrottleResponse); ok {
			s.SetThrottle(t)
		}
	}
	r.out.b = resp.AppendTo(r.out.b)
}

// throttled asks the throttler about the request, once, before it is answered. It
// returns milliseconds, which the answer says and the connection keeps.
func (r *request) throttled() int32 {
	t := r.srv.throttler
	if t == nil || r.asked {
		return r.throttle
	}
	r.asked = true
	wait := t.Throttle(Moved{
		Principal: r.principal, ClientID: r.clientID, Key: r.key,
		ProducedBytes: r.producedBytes, FetchedBytes: r.fetchedBytes, Partitions: r.mutated,
		Duration: max(time.Since(r.began)-r.idle, 0),
	})
	wait = max(wait, r.mutationWait)
	r.throttle = int32(min(max(wait, 0), maxThrottle).Milliseconds())
	return r.throttle
}

// maxThrottle bounds how long a connection is left alone.
const maxThrottle = 30 * time.Second
