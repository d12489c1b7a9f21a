package embedlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/x/embedlog/internal/sock"
)

// maxSessions bounds the connections to the command socket. Each holds at most
// one request (16 MiB) and one reply, and what its producer and consumer buffer.
const maxSessions = 32

// socket is DIR/sock and the sessions that came through it. It is made when the
// database is open, and gone before the directory's lock is: whoever finds it
// without an owner may replace it.
type socket struct {
	db       *DB
	listener *sock.Listener
	running  sync.WaitGroup // accept, and the sessions

	mu       sync.Mutex
	closed   bool
	sessions map[*session]struct{}
}

// listen makes the command socket. (Options.Socket)
func (db *DB) listen(dir string, onDisk bool) error {
	if !onDisk {
		return fmt.Errorf("a command socket of a database in memory: %w", errors.ErrUnsupported)
	}
	l, err := sock.Listen(dir)
	if err != nil {
		return err
	}
	s := &socket{db: db, listener: l, sessions: make(map[*session]struct{})}
	if err := db.opened(s); err != nil {
		return errors.Join(err, l.Close())
	}
	s.running.Go(s.accept)
	return nil
}

func (s *socket) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				s.db.engine.Logger().Error("the command socket takes no more connections", "error", err)
			}
			return
		}
		if !s.begin(conn) {
			refuse(conn)
		}
	}
}

// begin runs a session in the background, if there is a place for it.
func (s *socket) begin(conn *os.File) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.sessions) >= maxSessions {
		return false
	}
	one := s.db.newSession(context.Background(), conn)
	s.sessions[one] = struct{}{}
	s.running.Go(func() {
		if err := one.run(); err != nil {
			s.db.engine.Logger().Warn("a session on the command socket", "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, one)
	})
	return true
}

// closeWithDB ends the listening and the sessions.
func (s *socket) closeWithDB() {
	if err := s.listener.Close(); err != nil {
		s.db.engine.Logger().Warn("the command socket could not be removed", "error", err)
	}
	s.mu.Lock()
	s.closed = true
	for one := range s.sessions {
		one.tell() // they are waited for below: one that never began has nobody to answer
	}
	s.mu.Unlock()
	s.running.Wait()
	s.db.closing(s)
}

// refuse tells a client that there are too many, if it listens at once: nobody
// waits for it.
func refuse(conn *os.File) {
	_ = conn.SetDeadline(deadlineNow())
	if sock.AnswerHello(conn) == nil {
		_ = sendError(conn, &sock.Error{Code: sock.CodeBusy, Message: "too many commands use the database at once"})
	}
	_ = conn.Close()
}

func sendError(w io.Writer, e *sock.Error) error {
	return sendJSON(w, sock.KindError, e)
}
