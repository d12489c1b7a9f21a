package embedlog

import (
	"context"
	"errors"
	"time"

	"github.com/x/embedlog/internal/sock"
)

// sessionConsumer is a session's consumer.
type sessionConsumer struct {
	*Consumer
	last []Position // of the last reply: a partition's last record, perhaps more than once
}

func (s *session) openConsumer(_ context.Context, q sock.Consumer) (none, error) {
	s.closeConsumer()
	cfg := &ConsumerConfig{
		Group: q.Group, Topics: q.Topics, Pattern: q.Pattern, ReadUncommitted: q.ReadUncommitted, ClientID: q.ClientID,
		SkipDamage: q.SkipDamage,
		OnReset: func(_ context.Context, _ *Consumer, r Reset) { // within a poll
			s.progress(sock.Progress{Moved: &sock.Moved{Topic: r.Topic, Partition: r.Partition, From: r.From, To: r.To, Cause: r.Cause.Error()}})
		},
	}
	if q.FromLatest {
		cfg.Start = Latest
	}
	for _, p := range q.Assign {
		cfg.Assign = append(cfg.Assign, Position{Topic: p.Topic, Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.Epoch})
	}
	c, err := s.db.Consumer(cfg)
	if err != nil {
		return none{}, err
	}
	s.consumer = &sessionConsumer{Consumer: c}
	return none{}, nil
}

// closeConsumer commits what the client asked past, and leaves the group.
func (s *session) closeConsumer() {
	if s.consumer != nil {
		if err := s.consumer.Close(); err != nil {
			s.db.engine.Logger().Warn("close a session's consumer", "error", err)
		}
		s.consumer = nil
	}
}

var errNoConsumer = &sock.Error{Code: sock.CodeProtocol, Message: "a poll before a consumer was opened"}

// maxPollWait bounds what a client may ask to wait.
const maxPollWait = time.Minute

func (s *session) poll(ctx context.Context, q sock.Poll) ([]byte, error) {
	if s.consumer == nil {
		return nil, errNoConsumer
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(q.Wait, 0), maxPollWait))
	defer cancel()
	recs, err := s.consumer.Poll(ctx, min(max(q.MaxRecords, 1), 10_000))
	if errors.Is(err, context.DeadlineExceeded) {
		recs, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]sock.Record, len(recs))
	s.consumer.last = s.consumer.last[:0]
	for i := range recs {
		r := &recs[i]
		out[i] = sock.Record{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Epoch: r.LeaderEpoch,
			Time: r.Timestamp, Key: r.Key, Value: r.Value, Headers: r.Headers,
		}
		if i+1 == len(recs) || recs[i+1].Partition != r.Partition || recs[i+1].Topic != r.Topic {
			s.consumer.last = append(s.consumer.last, r.Position())
		}
	}
	return sock.AppendRecords(nil, out), nil
}

// commit commits all that the client was given.
func (s *session) commit(ctx context.Context, _ none) (none, error) {
	if s.consumer == nil {
		return none{}, errNoConsumer
	}
	for _, p := range s.consumer.last {
		p.Offset++ // behind the record
		s.consumer.MarkPosition(p)
	}
	return none{}, s.consumer.Commit(ctx)
}

func (s *session) lag(ctx context.Context, _ none) (sock.Lag, error) {
	if s.consumer == nil {
		return sock.Lag{}, errNoConsumer
	}
	list, err := s.consumer.Lag(ctx)
	lag := sock.Lag{Assigned: len(list)}
	for _, l := range list {
		lag.Records += l.Lag
	}
	return lag, err
}
