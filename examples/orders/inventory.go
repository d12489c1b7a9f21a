package main

import (
	"context"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// stocked is an order with what the warehouse has of its product.
type stocked struct {
	Order order
	Stock int64
}

// inventory is what the service offers to others.
type inventory struct {
	g        *query.Graph
	reserved *query.View[string, int64] // by product
}

// startInventory starts the service that reserves what is ordered, if the warehouse has so much that nobody else has reserved.
//
//	orders, by product ── warehouse-inventory ── processor (reserved-stock, reservations) ──> order-validations
//
// An order that fails later gives back what was reserved for it, once: the reservations say what that was.
func (s *shop) startInventory(ctx context.Context) (*inventory, error) {
	stock := query.GlobalTable(s.stock.Topic, codec.String, codec.Int64)
	byProduct := query.Rekey(s.orderStream().Filter(func(_ string, o order) bool { return o.State == created || o.State == failed }),
		codec.String, func(_ string, o order) string { return string(o.Product) })
	orders := query.LeftJoinGlobal(byProduct, stock, func(p string, _ order) string { return p }, func(_ string, o order, n *int64) stocked {
		if n == nil {
			return stocked{Order: o} // the warehouse has never had it
		}
		return stocked{o, *n}
	})
	reserved := query.NewKeyValueStore("reserved-stock", codec.String, codec.Int64)
	reservations := query.NewKeyValueStore("reservations", codec.String, codec.Int64) // of the orders that were passed
	answers := query.Process(orders, "inventory", codec.String, func(c *query.Context[string, validation], r query.Record[string, stocked]) error {
		o := r.Value.Order
		n, _ := reserved.Get(c, r.Key)
		mine, passed := reservations.Get(c, o.ID)
		switch {
		case o.State == failed && passed:
			reserved.Put(c, r.Key, n-mine)
			reservations.Delete(c, o.ID)
		case o.State == created && !passed:
			ok := o.Quantity > 0 && r.Value.Stock-n >= o.Quantity
			if ok {
				reserved.Put(c, r.Key, n+o.Quantity)
				reservations.Put(c, o.ID, o.Quantity)
			}
			c.Forward(o.ID, validation{o.ID, inventoryCheck, resultOf(ok)})
		}
		return nil
	}, reserved, reservations)

	g := s.graph("inventory")
	query.To(g, answers, s.validations.Topic)
	v := query.Add(g, "reserved-stock", query.StateTable(answers, reserved))
	return &inventory{g, v}, s.start(ctx, g)
}
