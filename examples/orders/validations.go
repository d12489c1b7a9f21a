package main

import (
	"context"
	"slices"
	"time"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// verdictTime is how far apart the checks of an order, and the order itself, may be.
const verdictTime = 5 * time.Minute

// verdict is what an order's checks have come to.
type verdict struct {
	Passed []string // checks, each once, sorted: an answer that comes twice counts once
	State  state    // what becomes of the order; empty while that is open
	New    bool     // by the last of the checks
}

func (v verdict) with(c validation) verdict {
	v.New = false
	if v.State != "" {
		return v
	}
	if c.Result != pass {
		v.State, v.New = failed, true
		return v
	}
	v.Passed = slices.Clone(v.Passed)
	if i, there := slices.BinarySearch(v.Passed, c.Check); !there {
		v.Passed = slices.Insert(v.Passed, i, c.Check)
	}
	if len(v.Passed) == 3 {
		v.State, v.New = validated, true
	}
	return v
}

// and is what two sessions of an order come to. The earlier one's verdict stands.
func (v verdict) and(o verdict) verdict {
	v.Passed = slices.Concat(v.Passed, o.Passed)
	slices.Sort(v.Passed)
	v.Passed = slices.Compact(v.Passed)
	if v.State == "" {
		v.State = o.State
	}
	v.New = false
	return v
}

// startValidations starts the service that makes an order VALIDATED when it has passed all checks, and FAILED at the first one that it does not pass.
//
//	order-validations ── sessions of an order ── joined with the order ──> orders
//
// It appends to the topic that it reads: a cycle, which ends because only orders that are CREATED are joined.
func (s *shop) startValidations(ctx context.Context) error {
	checks := query.From(s.validations.Topic, codec.String, codec.JSON[validation]{})
	sessions := query.FoldSessions(checks, query.Session(verdictTime), codec.JSON[verdict]{},
		func(v verdict, _ string, c validation) verdict { return v.with(c) },
		func(_ string, a, b verdict) verdict { return a.and(b) })
	verdicts := query.Rekey(sessions.Changes().Filter(func(_ query.WindowKey[string], v verdict) bool { return v.New }),
		codec.String, func(w query.WindowKey[string], _ verdict) string { return w.Key })
	decided := query.JoinStreams(verdicts, s.ofState(created), query.Within(verdictTime), func(_ string, v verdict, o order) order {
		o.State = v.State
		return o
	})
	g := s.graph("validations")
	query.To(g, decided, s.orders.Topic)
	return s.start(ctx, g)
}
