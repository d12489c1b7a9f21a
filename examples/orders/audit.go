package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// audit is what the topics say of orders.
type audit struct {
	Orders   map[string]state `json:"orders"` // what became of them
	Mails    map[string]int   `json:"mails"`  // by order
	Sold     map[string]int64 `json:"sold"`   // by product, of orders that were validated
	Reserved map[string]int64 `json:"reserved"`
	Wrong    []string         `json:"wrong"` // also what is not done yet
}

// audit reads all topics: an order is there once, has one answer of each check, one verdict and one mail at most; reserved is what was sold.
func (s *shop) audit(ctx context.Context, reserved *query.View[string, int64]) (*audit, error) {
	a := &audit{Orders: map[string]state{}, Mails: map[string]int{}, Sold: map[string]int64{}, Reserved: map[string]int64{}}
	times := map[string]int{} // that there is a record: "order 7: CREATED"
	newest := &embedlog.ScanOptions{Linearizable: true}
	for rec, err := range s.orders.Scan(ctx, newest) {
		if err != nil {
			return nil, err
		}
		o := rec.Value
		if times[fmt.Sprintf("order %s: %s", o.ID, o.State)]++; o.State != created {
			times[fmt.Sprintf("order %s: verdict", o.ID)]++
			a.Orders[o.ID] = o.State
		} else if a.Orders[o.ID] == "" {
			a.Orders[o.ID] = created
		}
		if o.State == validated {
			a.Sold[string(o.Product)] += o.Quantity
		}
	}
	for rec, err := range s.validations.Scan(ctx, newest) {
		if err != nil {
			return nil, err
		}
		times[fmt.Sprintf("order %s: %s", rec.Value.Order, rec.Value.Check)]++
	}
	for rec, err := range s.mails.Scan(ctx, newest) {
		if err != nil {
			return nil, err
		}
		a.Mails[rec.Key]++
	}
	for id := range a.Orders {
		for _, what := range []string{string(created), "verdict", inventoryCheck, fraudCheck, detailsCheck} {
			if what = fmt.Sprintf("order %s: %s", id, what); times[what] != 1 {
				a.Wrong = append(a.Wrong, fmt.Sprintf("%s, %d times", what, times[what]))
			}
		}
	}
	for id, n := range a.Mails {
		if n != 1 {
			a.Wrong = append(a.Wrong, fmt.Sprintf("order %s: %d mails", id, n))
		}
	}
	if err := s.auditStock(ctx, a, reserved); err != nil {
		return nil, err
	}
	slices.Sort(a.Wrong)
	return a, nil
}

// auditStock reads what is reserved twice: in the view, and in the changelog of the processor's store.
func (s *shop) auditStock(ctx context.Context, a *audit, reserved *query.View[string, int64]) error {
	for row, err := range reserved.All(ctx) {
		if err != nil {
			return err
		}
		if row.Value != 0 {
			a.Reserved[row.Key] = row.Value
		}
	}
	if !maps.Equal(a.Reserved, a.Sold) {
		a.Wrong = append(a.Wrong, fmt.Sprintf("%v are reserved, %v were sold", a.Reserved, a.Sold))
	}
	changelog, err := s.db.Topic("inventory-reserved-stock-changelog")
	if err != nil {
		return err
	}
	kept := map[string]int64{}
	for rec, err := range changelog.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return err
		}
		n := int64(0)
		if rec.Value != nil {
			if n, err = codec.Int64.Decode(rec.Value); err != nil {
				return err
			}
		}
		if kept[string(rec.Key)] = n; n == 0 {
			delete(kept, string(rec.Key))
		}
	}
	if !maps.Equal(a.Reserved, kept) {
		a.Wrong = append(a.Wrong, fmt.Sprintf("%v are reserved, the changelog has %v", a.Reserved, kept))
	}
	return nil
}

func (o *ordersService) getAudit(w http.ResponseWriter, r *http.Request) error {
	a, err := o.shop.audit(r.Context(), o.reserved)
	if err == nil {
		reply(w, http.StatusOK, a)
	}
	return err
}

// getInstance says which tasks of which graphs run here: those whose partition of <graph>-progress this node leads.
func (o *ordersService) getInstance(w http.ResponseWriter, _ *http.Request) error {
	self, tasks := o.shop.db.Peers().Self(), map[string]int{}
	for _, graph := range []string{"orders-store", "inventory", "fraud", "validations", "email"} {
		progress, err := o.shop.db.Topic(graph + "-progress")
		if err != nil {
			return err
		}
		for p := range int32(progress.Partitions()) {
			leader, err := progress.Leader(p)
			if err != nil {
				return err
			}
			if leader == self {
				tasks[graph]++
			}
		}
	}
	reply(w, http.StatusOK, tasks)
	return nil
}
