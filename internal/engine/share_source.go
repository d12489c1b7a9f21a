package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// The coordinator of a share group reads what members acquire from its own replica, and where it has none from the
// partition's leader. What a leader cannot be asked for is said as ErrCoordinatorLoading: to who asked the
// coordinator, NotLeaderError would say that somebody else is that.

// shareReadPatience is how long the coordinator looks for a partition's leader. The member asks again.
const shareReadPatience = 5 * time.Second

// partition returns the partition of a share partition, which may be elsewhere.
func (s *Shares) partition(at topicPart) (*Partition, error) {
	if s.engine.cluster != nil {
		if p, err := s.engine.partition(at.topic, at.partition); err == nil && p.Elsewhere() {
			return p, nil
		}
	}
	return s.engine.groups.partition(at)
}

// shareSource gives batches in the order of their offsets, as partition.Reader does.
type shareSource interface {
	TryNext() (log.Batch, error)
	Offset() int64
}

// source reads a partition from an offset on. The context bounds how long a leader is asked.
func (s *Shares) source(ctx context.Context, p *Partition, offset int64, maxBytes int, isolation partition.Isolation) (shareSource, error) {
	if !p.Elsewhere() {
		return p.ReadFrom(offset, &partition.ReaderOptions{Isolation: isolation, ReadAhead: maxBytes})
	}
	ctx, cancel := context.WithTimeout(ctx, shareReadPatience)
	defer cancel()
	a, err := p.readThere(ctx, readCall{Offset: offset, MaxBytes: maxBytes, Isolation: isolation})
	if tryElsewhere(err) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: the leader of %s: %v", ErrCoordinatorLoading, p, err)
	}
	if err != nil {
		return nil, err
	}
	return &shareAnswer{at: offset, next: a.next, batches: a.batches}, nil
}

// shareAnswer is what a leader has answered.
type shareAnswer struct {
	at, next int64
	batches  []log.Batch
}

func (a *shareAnswer) TryNext() (log.Batch, error) {
	if len(a.batches) == 0 {
		a.at = a.next
		return nil, io.EOF
	}
	b := a.batches[0]
	a.batches = a.batches[1:]
	h, err := b.Header()
	if err != nil {
		return nil, err
	}
	a.at = h.LastOffset() + 1
	return b, nil
}

func (a *shareAnswer) Offset() int64 { return a.at }

// shareWaits are what Await waits for.
type shareWaits struct {
	w     *partition.Waiter
	here  []*partition.Wait
	there []*Reader
}

// arm has the waiter woken when there is something from offset on. It is false when there is already.
func (x *shareWaits) arm(p *Partition, offset int64, isolation partition.Isolation) (waits bool) {
	if !p.Elsewhere() {
		wait := &partition.Wait{}
		x.here = append(x.here, wait)
		return wait.Arm(x.w, p.Partition, offset, isolation)
	}
	r, err := p.OpenReader(offset, &partition.ReaderOptions{Isolation: isolation, ReadAhead: 1}, x.w.Wake)
	if err != nil {
		return false // the next look tells why
	}
	x.there = append(x.there, r)
	_, err = r.TryNext() // it begins to ask
	return err == io.EOF
}

func (x *shareWaits) disarm() {
	for _, wait := range x.here {
		wait.Disarm()
	}
	for _, r := range x.there {
		r.Close()
	}
}
