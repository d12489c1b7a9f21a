package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/x/embedlog/internal/sock"
)

// door is a way into a database: the command socket, at whose other end is the
// program that holds the directory or this process itself, or Kafka's protocol at an
// address. What is asked and answered is the same at each, in the words of package
// sock. Its methods are for one goroutine.
type door interface {
	// do makes one request and waits for its reply. When ctx ends, the request is
	// cancelled where it can be, and the error then says what became of it. progress is
	// told how far a long one has got; nil is nobody. An error that is a *sock.Error has
	// a code.
	do(ctx context.Context, op sock.Op, payload []byte, progress func(sock.Progress)) ([]byte, error)
	// Close ends the session, and closes the database if this process opened it.
	Close() error
}

// client is one session with a database. The verbs see no difference between doors.
type client struct {
	door
	mine bool // this process holds the directory
}

// wire is the door of the command socket.
type wire struct {
	conn  io.ReadWriteCloser
	close func() error // closes what stands behind conn, too

	writing sync.Mutex // a cancel frame may be written while a reply is waited for
}

func newClient(conn io.ReadWriteCloser, closeAll func() error) (*client, error) {
	if err := sock.Hello(conn); err != nil {
		return nil, err
	}
	return &client{door: &wire{conn: conn, close: closeAll}}, nil
}

// Close implements door.
func (c *wire) Close() error { return c.close() }

// errLost says that the connection ended in the middle of a request.
var errLost = errors.New("the program that holds the directory went away")

// do implements door. When ctx ends, the request is cancelled, and its reply, or the
// error, is still waited for: a second interrupt ends the process.
func (c *wire) do(ctx context.Context, op sock.Op, payload []byte, progress func(sock.Progress)) ([]byte, error) {
	if err := c.send(op, payload); err != nil {
		return nil, err
	}
	if ctx.Done() != nil {
		cancelled := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(cancelled)
			_ = c.write(sock.OpCancel, nil) // a connection that is gone ends the wait as well
		})
		defer func() {
			// No cancel frame may hit the next request.
			if !stop() {
				<-cancelled
			}
		}()
	}
	for {
		kind, b, err := sock.ReadFrame(c.conn, sock.MaxReplyBytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errLost, err)
		}
		switch sock.Kind(kind) {
		case sock.KindReply:
			return b, nil
		case sock.KindProgress:
			var p sock.Progress
			if err := json.Unmarshal(b, &p); err != nil {
				return nil, fmt.Errorf("%w: %w", sock.ErrProtocol, err)
			}
			if progress != nil {
				progress(p)
			}
		case sock.KindError:
			e := new(sock.Error)
			if err := json.Unmarshal(b, e); err != nil {
				return nil, fmt.Errorf("%w: %w", sock.ErrProtocol, err)
			}
			return nil, e
		default:
			return nil, fmt.Errorf("%w: a frame of kind %d", sock.ErrProtocol, kind)
		}
	}
}

// send writes a request. When that fails, the program may have said why before it
// hung up; nothing of the request was done, since it is not whole.
func (c *wire) send(op sock.Op, payload []byte) error {
	err := c.write(op, payload)
	if err == nil {
		return nil
	}
	if kind, b, readErr := sock.ReadFrame(c.conn, sock.MaxReplyBytes); readErr == nil && sock.Kind(kind) == sock.KindError {
		e := new(sock.Error)
		if json.Unmarshal(b, e) == nil {
			return e
		}
	}
	return &sock.Error{Code: sock.CodeClosing, Message: fmt.Sprintf("%v: %v", errLost, err)}
}

func (c *wire) write(op sock.Op, payload []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return sock.WriteFrame(c.conn, uint8(op), payload)
}

// call is do with JSON on both sides.
func call[Reply any](ctx context.Context, c *client, op sock.Op, request any) (Reply, error) {
	return callProgress[Reply](ctx, c, op, request, nil)
}

func callProgress[Reply any](ctx context.Context, c *client, op sock.Op, request any, progress func(sock.Progress)) (Reply, error) {
	var reply Reply
	payload, err := json.Marshal(request)
	if err != nil {
		return reply, err
	}
	b, err := c.do(ctx, op, payload, progress)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(b, &reply); err != nil {
		return reply, fmt.Errorf("%w: %w", sock.ErrProtocol, err)
	}
	return reply, nil
}

// produce sends records through the session's producer and waits until all of
// them are acknowledged or have failed.
func (c *client) produce(ctx context.Context, recs []sock.Record) ([]sock.Ack, error) {
	b, err := c.do(ctx, sock.OpProduce, sock.AppendRecords(nil, recs), nil)
	if err != nil {
		return nil, err
	}
	reply, err := sock.DecodeProduced(b)
	if err != nil {
		return nil, err
	}
	if reply.Err != nil {
		return reply.Acks, reply.Err
	}
	return reply.Acks, nil
}

// poll asks the session's consumer for records. moved is told where it goes on
// elsewhere than it stood.
func (c *client) poll(ctx context.Context, q sock.Poll, moved func(*sock.Moved)) ([]sock.Record, error) {
	payload, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	b, err := c.do(ctx, sock.OpPoll, payload, func(p sock.Progress) {
		if p.Moved != nil {
			moved(p.Moved)
		}
	})
	if err != nil {
		return nil, err
	}
	return sock.DecodeRecords(b)
}

// isClosing reports whether the program closed the directory before it did
// anything for the request: asking again, elsewhere, is right.
func isClosing(err error) bool { return code(err) == sock.CodeClosing }

// code is what kind of failure err is, as far as a program told.
func code(err error) sock.Code {
	if e := (*sock.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}
