package main

import (
	"context"
	"time"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// fraudLimit is what a customer may order for without a pause of an hour.
const fraudLimit = 2000

// spent is what a customer's session comes to.
type spent struct {
	Last  order
	Total float64
}

// startFraud starts the service that fails the orders of a customer that come to fraudLimit, or more, in a session: orders that follow each other within an hour.
//
//	orders ── by customer ── sessions ── each change ──> order-validations
func (s *shop) startFraud(ctx context.Context) (*query.Graph, error) {
	byCustomer := query.GroupBy(s.ofState(created), codec.Int64, func(_ string, o order) int64 { return o.Customer })
	sessions := query.FoldSessions(byCustomer, query.Session(time.Hour), codec.JSON[spent]{},
		func(acc spent, _ int64, o order) spent { return spent{o, acc.Total + o.Price*float64(o.Quantity)} },
		func(_ int64, a, b spent) spent { return spent{b.Last, a.Total + b.Total} })
	answers := query.Map(sessions.Changes(), codec.String, func(_ query.WindowKey[int64], v spent) (string, validation) {
		return v.Last.ID, validation{v.Last.ID, fraudCheck, resultOf(v.Total < fraudLimit)}
	})
	g := s.graph("fraud")
	query.To(g, answers, s.validations.Topic)
	return g, s.start(ctx, g)
}
