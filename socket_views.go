package embedlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/views"
)

// views lists the graphs of views that run in this program.
func (s *session) views(ctx context.Context, q sock.ViewsRequest) ([]sock.ViewGraph, error) {
	if q.Graph != "" {
		g, err := s.db.views.Graph(q.Graph)
		if err != nil {
			return nil, err
		}
		return []sock.ViewGraph{g.Info(ctx)}, nil
	}
	list := []sock.ViewGraph{}
	for _, g := range s.db.views.Graphs() {
		list = append(list, g.Info(ctx))
	}
	return list, nil
}

func (s *session) viewGet(ctx context.Context, q sock.ViewGet) ([]sock.ViewRow, error) {
	v, err := s.db.views.View(q.ViewName)
	if err != nil {
		return nil, err
	}
	row, found, err := v.Get(ctx, &q)
	if err != nil || !found {
		return []sock.ViewRow{}, err
	}
	return []sock.ViewRow{row}, nil
}

// viewRebuild has a graph computed anew, by this program, or by who starts it next.
func (s *session) viewRebuild(ctx context.Context, q sock.ViewsRequest) (r sock.ViewRebuild, err error) {
	r.Left = -1
	g, unknown := s.db.views.Graph(q.Graph)
	if unknown == nil {
		r.Generation, err = g.Rebuild(ctx)
		return r, err
	}
	name := q.Graph + views.GenerationSuffix
	if _, err := s.db.engine.Topic(name); err != nil {
		return r, unknown
	}
	top, err := s.db.Topic(name)
	if err != nil {
		return r, err
	}
	for {
		var last Record
		for rec, err := range top.Scan(ctx, &ScanOptions{Linearizable: true}) {
			if err != nil {
				return r, err
			}
			last = rec
		}
		value, err := views.RequestRebuild(last.Value)
		if err != nil {
			return r, &sock.Error{Code: sock.CodeFailure, Message: fmt.Sprintf("rebuild view graph %s: %v", q.Graph, err)}
		}
		if _, err = top.ProduceAt(ctx, last.Partition, last.Offset+1, Record{Key: last.Key, Value: value}); !errors.Is(err, ErrUnexpectedOffset) {
			return r, err
		}
	}
}

const (
	// walkAhead is how many rows of a walk wait for the client.
	walkAhead = 64
	// maxWalkRows and maxWalkBytes bound what one reply has of a walk; it has one row, however large that is.
	maxWalkRows  = 10_000
	maxWalkBytes = 4 << 20
)

// sessionWalk is a session's walk over a view. A goroutine walks ahead.
type sessionWalk struct {
	watch   bool
	rows    chan sock.ViewRow // closed at the end
	err     error             // once rows is closed
	stop    context.CancelFunc
	running sync.WaitGroup
}

func (s *session) viewOpen(_ context.Context, q sock.ViewOpen) (none, error) {
	s.closeWalk()
	v, err := s.db.views.View(q.ViewName)
	if err != nil {
		return none{}, err
	}
	ctx, stop := context.WithCancel(s.life)
	w := &sessionWalk{watch: q.Watch, rows: make(chan sock.ViewRow, walkAhead), stop: stop}
	walk := func() iter.Seq2[sock.ViewRow, error] { return v.Scan(ctx, &q) }
	if q.Watch {
		walk = func() iter.Seq2[sock.ViewRow, error] { return v.Watch(ctx) }
	}
	w.running.Go(func() {
		defer close(w.rows)
		for row, err := range walk() {
			if err != nil {
				w.err = err
				return
			}
			select {
			case w.rows <- row:
			case <-ctx.Done():
				w.err = ctx.Err()
				return
			}
		}
	})
	s.walk = w
	return none{}, nil
}

// closeWalk ends the walk, whose snapshot is released then.
func (s *session) closeWalk() {
	if s.walk != nil {
		s.walk.stop()
		s.walk.running.Wait()
		s.walk = nil
	}
}

var errNoWalk = &sock.Error{Code: sock.CodeProtocol, Message: "rows of a view were asked for before a walk was opened"}

// viewRows waits for a row, and takes what else there is: of a walk that ends, as many as it may.
func (s *session) viewRows(ctx context.Context, q sock.ViewPoll) (sock.ViewRows, error) {
	reply := sock.ViewRows{Rows: []sock.ViewRow{}}
	if s.walk == nil {
		return reply, errNoWalk
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(q.Wait, time.Millisecond), maxPollWait))
	defer cancel()
	limit, size := min(max(q.MaxRows, 1), maxWalkRows), 0
	for len(reply.Rows) < limit && size < maxWalkBytes {
		row, ok, err := s.walk.next(ctx, s.walk.watch && len(reply.Rows) > 0)
		switch {
		case errors.Is(err, context.DeadlineExceeded), !ok && len(reply.Rows) > 0:
			return reply, nil
		case err != nil:
			return reply, err
		case !ok:
			reply.Done = true
			return reply, s.walk.err
		}
		reply.Rows = append(reply.Rows, row)
		size += len(row.Key) + len(row.Value) + len(row.KeyJSON) + len(row.ValueJSON)
	}
	return reply, nil
}

// next is the next row: of a walk that is over, and where none is there and now says not to wait, there is none.
func (w *sessionWalk) next(ctx context.Context, now bool) (row sock.ViewRow, ok bool, err error) {
	select {
	case row, ok = <-w.rows:
		return row, ok, nil
	default:
		if now {
			return row, false, nil
		}
	}
	select {
	case row, ok = <-w.rows:
		return row, ok, nil
	case <-ctx.Done():
		return row, false, ctx.Err()
	}
}
