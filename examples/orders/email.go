package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// startEmail starts the service that writes to customers whose order was validated and paid for, and that hands orders on by their customer's level.
//
//	orders ── payments, within a minute ── customers ──> emails
//	orders ── customers ──> platinum, gold, silver or bronze
func (s *shop) startEmail(ctx context.Context) error {
	customers := query.GlobalTable(s.customers.Topic, codec.Int64, codec.JSON[customer]{})
	posted := once(query.From(s.payments.Topic, codec.String, codec.JSON[payment]{}), "known-payments")
	payments := query.Rekey(posted, codec.String, func(_ string, p payment) string { return p.Order })
	type paid struct {
		Order   order
		Payment payment
	}
	pairs := query.JoinStreams(s.ofState(validated), payments, query.Within(time.Minute), func(_ string, o order, p payment) paid { return paid{o, p} })
	mails := query.JoinGlobal(pairs, customers, func(_ string, p paid) int64 { return p.Order.Customer }, func(_ string, p paid, c customer) mail {
		return mail{c.Email, fmt.Sprintf("Dear %s %s, we have your %.2f %s for %d %s.", c.FirstName, c.LastName, p.Payment.Amount, p.Payment.Currency, p.Order.Quantity, p.Order.Product)}
	})
	g := s.graph("email")
	query.To(g, mails, s.mails.Topic)

	leveled := query.JoinGlobal(s.ofState(created), customers, func(_ string, o order) int64 { return o.Customer },
		func(_ string, o order, c customer) enriched { return enriched{o.ID, o.Customer, c.Level} })
	var take []func(string, enriched) bool
	for _, level := range levels[:len(levels)-1] {
		take = append(take, func(_ string, e enriched) bool { return e.Level == level })
	}
	for i, stream := range leveled.Branch(take...) {
		query.To(g, stream, s.levels[i])
	}
	return s.start(ctx, g)
}

// knownLevel says whether there is a topic for a level.
func knownLevel(level string) bool { return slices.Contains(levels, level) }
