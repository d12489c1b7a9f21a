package embedlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
)

// share is the part of a call's records that one partition gets, recs[start:end],
// and what became of it: one batch after the other, up to the first that fails.
type share struct {
	p          *engine.Partition
	start, end int
	bytes      int // an upper bound of what the records take in batches
	batches    []wroteBatch
	first      [1]wroteBatch // batches, where there is only one
}

// wroteBatch is what became of one batch, recs[from:to].
type wroteBatch struct {
	from, to int
	base     int64 // offset of the first; -1 when there is an error
	epoch    int32
	err      error
}

// append appends the share in as few batches as MaxRecordBytes allows. Behind one
// that failed nothing is tried: what comes later must not overtake.
func (s *share) append(ctx context.Context, recs []log.Record) {
	s.batches = s.first[:0]
	limit := s.p.Config().MaxBatchBytes
	for from := s.start; from < s.end; {
		to := s.end
		if s.bytes > limit-log.BatchHeaderLen {
			to = cutBatch(recs, from, s.end, limit)
		}
		res, err := s.p.Append(ctx, recs[from:to], nil)
		if err != nil {
			s.batches = append(s.batches, wroteBatch{from, s.end, -1, -1, err})
			if unknown := new(UnknownOutcomeError); errors.As(err, &unknown) && to < s.end {
				s.batches[len(s.batches)-1].to = to
				s.batches = append(s.batches, wroteBatch{to, s.end, -1, -1, errNotTried})
			}
			return
		}
		s.batches = append(s.batches, wroteBatch{from, to, res.BaseOffset, s.p.LeaderEpoch(), nil})
		from = to
	}
}

// errNotTried is what became of records behind those whose outcome is unknown.
var errNotTried = errors.New("embedlog: not written, because the outcome of the records before is unknown")

// cutBatch is the end of the batch that begins at from: as many records as surely
// fit limit, one at least.
func cutBatch(recs []log.Record, from, end, limit int) int {
	size := log.BatchHeaderLen
	for i := from; i < end; i++ {
		r := &recs[i]
		size += recordOverhead + len(r.Key) + len(r.Value)
		for j := range r.Headers {
			size += headerOverhead + len(r.Headers[j].Key) + len(r.Headers[j].Value)
		}
		if size > limit && i > from {
			return i
		}
	}
	return end
}

// appendShares appends all shares and says where the records are. order is the
// caller's index of each record, nil where it is the same.
//
// Syncs of several partitions are waited for together, where the topic syncs.
func appendShares(ctx context.Context, topic string, shares []share, recs []log.Record, order []int32) ([]Position, error) {
	busy, total := 0, 0
	for i := range shares {
		if n := shares[i].end - shares[i].start; n > 0 {
			busy++
			total += n
		}
	}
	together := busy > 1 && (shares[0].p.Log().Level() == log.Durable || !shares[0].p.Leads())
	var others sync.WaitGroup
	for i := range shares {
		s := &shares[i]
		if s.start == s.end {
			continue
		}
		if busy--; together && busy > 0 {
			others.Go(func() { s.append(ctx, recs) })
			continue
		}
		s.append(ctx, recs) // the last one, or one after the other
	}
	others.Wait()

	out := make([]Position, total)
	var failed *ProduceError
	appends := 0
	for i := range shares {
		s := &shares[i]
		appends += len(s.batches)
		for _, b := range s.batches {
			if b.err != nil && failed == nil {
				failed = &ProduceError{Topic: topic, Errs: make([]error, total)}
			}
			for j := b.from; j < b.to; j++ {
				at := j
				if order != nil {
					at = int(order[j])
				}
				out[at] = Position{Topic: topic, Partition: s.p.ID(), LeaderEpoch: b.epoch, Offset: b.base + int64(j-b.from)}
				if b.err != nil {
					out[at].Offset = -1
					failed.Errs[at] = b.err
				}
			}
		}
	}
	switch {
	case failed == nil:
		return out, nil
	case appends == 1:
		return nil, failed.Errs[0] // nothing to tell apart
	}
	return out, failed
}

// ProduceError says which records of a call were written and which were not.
type ProduceError struct {
	Topic string // empty from Producer.Produce, where each record names its own
	// Errs has one error for each record, in the order given: nil for those that are
	// written, whose positions the call returned; one that matches ErrUnknownOutcome
	// for those that may be. All others are not written and will not be.
	Errs []error
}

func (e *ProduceError) Error() string {
	written := 0
	for _, err := range e.Errs {
		if err == nil {
			written++
		}
	}
	var b strings.Builder
	b.WriteString("produce")
	if e.Topic != "" {
		b.WriteString(" to " + e.Topic)
	}
	fmt.Fprintf(&b, ": %d of %d records written", written, len(e.Errs))
	const shown = 3
	for i, err := range e.Unwrap() {
		if i == shown {
			b.WriteString("; ...")
			break
		}
		b.WriteString("; ")
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap returns the errors, each once.
func (e *ProduceError) Unwrap() []error {
	var list []error
	for i, err := range e.Errs {
		if err == nil || i > 0 && err == e.Errs[i-1] {
			continue
		}
		seen := false
		for _, other := range list {
			seen = seen || err == other
		}
		if !seen {
			list = append(list, err)
		}
	}
	return list
}
