package engine

import (
	"context"
	"errors"
	"fmt"
)

// AckType is what a member says of a record that it has, by Kafka's number.
type AckType int8

const (
	AckGap     AckType = 0 // there was no record at the offset
	AckAccept  AckType = 1 // it is done
	AckRelease AckType = 2 // somebody else may have it
	AckReject  AckType = 3 // nobody is to have it any more
	AckRenew   AckType = 4 // it takes longer: the lock begins anew (KIP-1222)
)

// Ack is what a member says of the offsets First to Last.
type Ack struct {
	First, Last int64
	// Types has one element for all of them, or one for each.
	Types []AckType
}

// AckRequest acknowledges records of one partition.
type AckRequest struct {
	Group, MemberID string
	Topic           TopicID
	Partition       int32
	Acks            []Ack // ascending
}

var (
	// ErrInvalidAck is matched by *InvalidAckError.
	ErrInvalidAck = errors.New("embedlog: invalid acknowledgement")
	// ErrNotAcquired is matched by *NotAcquiredError.
	ErrNotAcquired = errors.New("embedlog: record is not acquired by the member")
)

// InvalidAckError is an acknowledgement that does not say what it wants.
type InvalidAckError struct{ Reason string }

func (e *InvalidAckError) Error() string { return "acknowledgement: " + e.Reason }

// Is matches ErrInvalidAck.
func (e *InvalidAckError) Is(target error) bool { return target == ErrInvalidAck }

// NotAcquiredError is an acknowledgement of records that the member does not have: the lock
// is over, or somebody else has said something of them.
type NotAcquiredError struct {
	Group, MemberID string
	First, Last     int64
}

func (e *NotAcquiredError) Error() string {
	return fmt.Sprintf("share group %q: member %q has not acquired all of the records %d to %d", e.Group, e.MemberID, e.First, e.Last)
}

// Is matches ErrNotAcquired.
func (e *NotAcquiredError) Is(target error) bool { return target == ErrNotAcquired }

// Acknowledge takes what a member says of records that it has: all of it or nothing. When it returns
// nil, it is on the disk, and what was accepted is not delivered again. What lies below the
// start offset is passed over: it is done.
//
// It fails with *NotAcquiredError and *InvalidAckError. After any other error the member has
// the records as before.
func (s *Shares) Acknowledge(ctx context.Context, req AckRequest) error {
	if _, err := s.askAcknowledge().of(ctx, s, req.Group, &req); err != nil {
		return fmt.Errorf("acknowledge %d of %s: %w", req.Partition, req.Topic, err)
	}
	return nil
}

func (s *Shares) acknowledge(ctx context.Context, req *AckRequest) error {
	if err := req.check(); err != nil {
		return err
	}
	at := topicPart{req.Topic, req.Partition}
	p, err := s.partition(at)
	if err != nil {
		return err
	}
	g, err := s.group(ctx, req.Group, false)
	if err != nil {
		return err
	}
	none := &NotAcquiredError{req.Group, req.MemberID, req.Acks[0].First, req.Acks[len(req.Acks)-1].Last}
	sp := g.find(at)
	if sp == nil {
		return none
	}
	settings := g.settings.Load()
	if !settings.renewable && req.renews() {
		return &InvalidAckError{"locks of the group cannot be renewed"}
	}
	now := s.engine.Now()
	sp.mu.Lock()
	sp.refreshLocked(p, s.clock(now))
	if sp.dead || !req.acquired(&sp.state) {
		sp.mu.Unlock()
		return none
	}
	sp.tickets++
	ticket, settles := sp.tickets, false
	req.each(func(from, to int64, t AckType) {
		switch t {
		case AckRenew:
			sp.state.renew(from, to, s.clock(now.Add(settings.lock)))
			return
		case AckAccept:
			sp.state.settle(from, to, shareAccepted, settings.limit, ticket)
		case AckRelease:
			sp.state.settle(from, to, shareAvailable, settings.limit, ticket)
		default:
			sp.state.settle(from, to, shareArchived, settings.limit, ticket)
		}
		settles = true
	})
	sp.mu.Unlock()
	if !settles {
		return nil
	}
	err = s.write(ctx, sp, ticket)
	if err == nil {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.durable >= ticket {
		return nil // somebody else's snapshot had it
	}
	sp.state.revert(ticket)
	return err
}

// check says what is wrong with a request, whatever the state.
func (r *AckRequest) check() error {
	bad := func(format string, args ...any) error { return &InvalidAckError{fmt.Sprintf(format, args...)} }
	if len(r.Acks) == 0 {
		return bad("it says nothing")
	}
	next := int64(0)
	for _, a := range r.Acks {
		switch n := int64(len(a.Types)); {
		case a.First < next || a.Last < a.First:
			return bad("offsets %d to %d: they are to ascend, and each to be there once", a.First, a.Last)
		case n == 0, n > 1 && n-1 != a.Last-a.First:
			return bad("%d types for the offsets %d to %d", n, a.First, a.Last)
		}
		for _, t := range a.Types {
			if t < AckGap || t > AckRenew {
				return bad("there is no type %d", t)
			}
		}
		if next = a.Last + 1; next < 0 {
			return bad("offset %d is too large", a.Last)
		}
	}
	return nil
}

// each calls f for offsets [from, to) of which the same is said.
func (r *AckRequest) each(f func(from, to int64, t AckType)) {
	for _, a := range r.Acks {
		if len(a.Types) == 1 {
			f(a.First, a.Last+1, a.Types[0])
			continue
		}
		for i := 0; i < len(a.Types); {
			j := i + 1
			for j < len(a.Types) && a.Types[j] == a.Types[i] {
				j++
			}
			f(a.First+int64(i), a.First+int64(j), a.Types[i])
			i = j
		}
	}
}

func (r *AckRequest) renews() (yes bool) {
	r.each(func(_, _ int64, t AckType) { yes = yes || t == AckRenew })
	return yes
}

// acquired says whether the member has all of it. That an offset without a record is one is
// no news.
func (r *AckRequest) acquired(s *shareState) bool {
	ok := true
	r.each(func(from, to int64, t AckType) {
		if t != AckGap {
			ok = ok && s.holds(from, to, r.MemberID)
			return
		}
		ok = ok && to <= s.end()
		s.update(from, to, func(_, _ int64, x *shareRecord) {
			ok = ok && (x.state == shareAcquired && x.holder == r.MemberID || !x.there())
		})
	})
	return ok
}
