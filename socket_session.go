package embedlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/sock"
)

const (
	// helloTimeout is how long a connection may take to say what it is.
	helloTimeout = 10 * time.Second
	// farewellTimeout is how long a client may take to read its last reply when the
	// database closes.
	farewellTimeout = 2 * time.Second
)

func deadlineNow() time.Time { return time.Now().Add(50 * time.Millisecond) }

// ServeCommands serves one session of the command line on conn: what DIR/sock does
// for each of its connections. It is for a program that lets commands in by a way
// of its own. Whoever is at the other end may do everything: ServeCommands asks
// nobody who he is.
//
// It returns when the client hangs up, and when the database closes. conn is
// closed then, and what the session had is gone: its producer, its consumer, a
// backup that was running.
func (db *DB) ServeCommands(ctx context.Context, conn io.ReadWriteCloser) error {
	return db.newSession(ctx, conn).run()
}

func (db *DB) newSession(ctx context.Context, conn io.ReadWriteCloser) *session {
	s := &session{
		db: db, conn: conn,
		requests: make(chan request), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	s.life, s.die = context.WithCancel(ctx)
	return s
}

// run serves the session to its end.
func (s *session) run() error {
	defer close(s.ended)
	defer s.die()
	if err := s.db.opened(s); err != nil {
		return errors.Join(err, s.conn.Close())
	}
	defer s.db.closing(s)
	err := s.serve()
	s.release()
	closeErr := s.conn.Close()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe):
		return nil // the client hung up
	case err != nil:
		return fmt.Errorf("serve commands: %w", err)
	}
	return closeErr
}

// session is one connection: requests one at a time, in order. Its fields belong
// to the goroutine that serves, but for those that say otherwise.
type session struct {
	db   *DB
	conn io.ReadWriteCloser
	life context.Context // ends with the connection
	die  context.CancelFunc

	requests chan request
	closing  chan struct{} // closed when the database closes
	once     sync.Once     // of closing
	ended    chan struct{}

	busy    atomic.Bool // a request is being served; the reader sets it
	current struct {
		sync.Mutex
		cancel context.CancelFunc // of the request being served
	}

	producer *sessionProducer
	consumer *sessionConsumer
	walk     *sessionWalk
}

type request struct {
	op      sock.Op
	payload []byte
	ctx     context.Context // cancelled by a cancel frame
	cancel  context.CancelFunc
}

// closeWithDB lets the request that is being served finish, unless it only waits.
func (s *session) closeWithDB() {
	s.tell()
	<-s.ended
}

// tell says that the database closes.
func (s *session) tell() {
	s.once.Do(func() { close(s.closing) })
	s.hurry()
}

// hurry bounds how long the client may take for what it is still told.
func (s *session) hurry() {
	if c, ok := s.conn.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = c.SetWriteDeadline(time.Now().Add(farewellTimeout)) // one that reads nothing must not keep us
	}
}

func (s *session) serve() error {
	c, timed := s.conn.(interface{ SetReadDeadline(time.Time) error })
	if timed {
		_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	}
	if err := sock.AnswerHello(s.conn); err != nil {
		return err
	}
	if timed {
		_ = c.SetReadDeadline(time.Time{})
	}
	read := make(chan error, 1)
	go func() { read <- s.read() }()
	for {
		select {
		case q := <-s.requests:
			if err := s.answer(q); err != nil {
				return errors.Join(err, s.conn.Close())
			}
		case err := <-read:
			if errors.Is(err, sock.ErrProtocol) {
				_ = sendError(s.conn, &sock.Error{Code: sock.CodeProtocol, Message: err.Error()}) // it may be gone
			}
			return err
		case <-s.closing:
			// Sent only between two requests: whoever gets it instead of a reply knows
			// that nothing was done.
			return sendError(s.conn, closingError)
		}
	}
}

var closingError = &sock.Error{Code: sock.CodeClosing, Message: "the program that holds the database is closing it"}

// read reads requests, and sees a cancel frame or a hang-up while one is served.
func (s *session) read() error {
	defer s.die()
	defer s.hurry()
	for {
		kind, payload, err := sock.ReadFrame(s.conn, sock.MaxRequestBytes)
		if err != nil {
			return err
		}
		if sock.Op(kind) == sock.OpCancel {
			s.cancelCurrent()
			continue
		}
		if !s.busy.CompareAndSwap(false, true) {
			return fmt.Errorf("%w: a request before the last one was answered", sock.ErrProtocol)
		}
		q := request{op: sock.Op(kind), payload: payload}
		q.ctx, q.cancel = context.WithCancel(context.WithoutCancel(s.life))
		s.setCancel(q.cancel) // before the next frame is read: it may be the cancel frame
		select {
		case s.requests <- q:
		case <-s.ended:
			q.cancel()
			return io.ErrClosedPipe
		}
	}
}

func (s *session) cancelCurrent() {
	s.current.Lock()
	defer s.current.Unlock()
	if s.current.cancel != nil {
		s.current.cancel()
	}
}

// handler answers one request: with bytes, or with what becomes JSON.
type handler struct {
	serve func(s *session, ctx context.Context, payload []byte) (any, error)
	// waits says that it may take long and changes nothing that must not be left
	// half done: it ends when the client hangs up or the database closes.
	waits bool
}

// handlers has a row for each request that there is.
var handlers = map[sock.Op]handler{
	sock.OpInfo:          {serve: asked((*session).info)},
	sock.OpTopics:        {serve: asked((*session).topics)},
	sock.OpCreateTopic:   {serve: asked((*session).createTopic)},
	sock.OpAlterTopic:    {serve: asked((*session).alterTopic)},
	sock.OpAddPartitions: {serve: asked((*session).addPartitions)},
	sock.OpTrim:          {serve: asked((*session).trim)},
	sock.OpDeleteTopic:   {serve: asked((*session).deleteTopic)},
	sock.OpListOffsets:   {serve: asked((*session).listOffsets), waits: true},
	sock.OpProducer:      {serve: asked((*session).openProducer)},
	sock.OpProduce:       {serve: (*session).produce},
	sock.OpConsumer:      {serve: asked((*session).openConsumer)},
	sock.OpPoll:          {serve: asked((*session).poll), waits: true},
	sock.OpCommit:        {serve: asked((*session).commit)},
	sock.OpLag:           {serve: asked((*session).lag), waits: true},
	sock.OpGroups:        {serve: asked((*session).groups)},
	sock.OpGroup:         {serve: asked((*session).group)},
	sock.OpResetGroup:    {serve: asked((*session).resetGroup)},
	sock.OpDeleteGroup:   {serve: asked((*session).deleteGroup)},
	sock.OpVerify:        {serve: asked((*session).verify), waits: true},
	sock.OpBackup:        {serve: asked((*session).backup), waits: true},
	sock.OpExport:        {serve: asked((*session).export), waits: true},
	sock.OpUsers:         {serve: asked((*session).users)},
	sock.OpSetUser:       {serve: asked((*session).setUser)},
	sock.OpDeleteUser:    {serve: asked((*session).deleteUser)},
	sock.OpACLs:          {serve: asked((*session).acls)},
	sock.OpCreateACLs:    {serve: asked((*session).createACLs)},
	sock.OpDeleteACLs:    {serve: asked((*session).deleteACLs)},
	sock.OpCluster:       {serve: asked((*session).cluster), waits: true},
	sock.OpChangeCluster: {serve: asked((*session).changeCluster), waits: true},
	sock.OpViews:         {serve: asked((*session).views), waits: true},
	sock.OpViewGet:       {serve: asked((*session).viewGet), waits: true},
	sock.OpViewOpen:      {serve: asked((*session).viewOpen)},
	sock.OpViewRows:      {serve: asked((*session).viewRows), waits: true},
	sock.OpViewRebuild:   {serve: asked((*session).viewRebuild), waits: true},
}

// asked makes a handler of a function that takes the request as it was before it
// became JSON.
func asked[Q, A any](f func(*session, context.Context, Q) (A, error)) func(*session, context.Context, []byte) (any, error) {
	return func(s *session, ctx context.Context, payload []byte) (any, error) {
		var q Q
		if err := json.Unmarshal(payload, &q); err != nil {
			return nil, &sock.Error{Code: sock.CodeProtocol, Message: "a request that is not JSON: " + err.Error()}
		}
		return f(s, ctx, q)
	}
}

// answer serves a request. Its error is the connection's.
func (s *session) answer(q request) error {
	defer q.cancel()
	h, ok := handlers[q.op]
	if !ok {
		return s.reply(nil, &sock.Error{Code: sock.CodeInvalid,
			Message: fmt.Sprintf("the program that holds the database does not know request %d: it is of an older version", q.op)})
	}
	if h.waits {
		defer context.AfterFunc(s.life, q.cancel)()
		served := make(chan struct{})
		defer close(served)
		go func() {
			select {
			case <-s.closing:
				q.cancel()
			case <-served:
			}
		}()
	}
	a, err := h.serve(s, q.ctx, q.payload)
	if err != nil && h.waits && isDone(s.closing) {
		err = closingError
	}
	return s.reply(a, err)
}

func (s *session) setCancel(f context.CancelFunc) {
	s.current.Lock()
	defer s.current.Unlock()
	s.current.cancel = f
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// reply ends a request.
func (s *session) reply(a any, err error) error {
	s.busy.Store(false) // the client may ask again as soon as it has the reply
	if err != nil {
		return sendError(s.conn, sessionError(err))
	}
	if b, ok := a.([]byte); ok {
		return sock.WriteFrame(s.conn, uint8(sock.KindReply), b)
	}
	return sendJSON(s.conn, sock.KindReply, a)
}

// progress tells the client how far a long request has got. A client that is gone
// is noticed elsewhere.
func (s *session) progress(p sock.Progress) {
	_ = sendJSON(s.conn, sock.KindProgress, p)
}

func sendJSON(w io.Writer, kind sock.Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > sock.MaxReplyBytes {
		return sendError(w, &sock.Error{Code: sock.CodeFailure, Message: "the answer is too large for the command socket"})
	}
	return sock.WriteFrame(w, uint8(kind), b)
}

// release closes what the session had.
func (s *session) release() {
	s.die()
	s.closeProducer()
	s.closeConsumer()
	s.closeWalk()
}
