package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// state is how far an order has come.
type state string

const (
	created   state = "CREATED"
	validated state = "VALIDATED"
	failed    state = "FAILED"
)

type product string

type order struct {
	ID       string  `json:"id"`
	Customer int64   `json:"customerId"`
	State    state   `json:"state"`
	Product  product `json:"product"`
	Quantity int64   `json:"quantity"`
	Price    float64 `json:"price"`
}

// The three checks of an order.
const (
	inventoryCheck = "INVENTORY_CHECK"
	fraudCheck     = "FRAUD_CHECK"
	detailsCheck   = "ORDER_DETAILS_CHECK"
)

const (
	pass = "PASS"
	fail = "FAIL"
)

// validation is what a service says of an order.
type validation struct {
	Order  string `json:"orderId"`
	Check  string `json:"checkType"`
	Result string `json:"validationResult"`
}

func resultOf(ok bool) string {
	if ok {
		return pass
	}
	return fail
}

type payment struct {
	ID       string  `json:"id"`
	Order    string  `json:"orderId"`
	Currency string  `json:"ccy"`
	Amount   float64 `json:"amount"`
}

type customer struct {
	ID        int64  `json:"id"`
	FirstName string `json:"firstName"`
	LastName  string `json:"lastName"`
	Email     string `json:"email"`
	Address   string `json:"address"`
	Level     string `json:"level"`
}

// enriched is an order with its customer's level.
type enriched struct {
	ID       string `json:"id"`
	Customer int64  `json:"customerId"`
	Level    string `json:"customerLevel"`
}

// mail is what a customer is sent.
type mail struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// levels are the topics of enriched orders. Who has no level that is known is a customer of the last one.
var levels = []string{"platinum", "gold", "silver", "bronze"}

const partitions = 3

// shop is the database and the topics that the services have in common.
type shop struct {
	db          *embedlog.DB
	requests    *embedlog.TypedTopic[string, order] // orders as they were posted, some of them more than once
	orders      *embedlog.TypedTopic[string, order]
	validations *embedlog.TypedTopic[string, validation]
	stock       *embedlog.TypedTopic[string, int64]
	payments    *embedlog.TypedTopic[string, payment]
	customers   *embedlog.TypedTopic[int64, customer]
	mails       *embedlog.TypedTopic[string, mail]
	levels      []*embedlog.Topic
	closers     []func() error
	failed      chan error // of a service that cannot go on
}

// typed makes a topic, unless it is there. Who leads the cluster may go while it is asked: then it is asked again.
func typed[K, V any](ctx context.Context, db *embedlog.DB, name string, cleanup embedlog.Cleanup, key embedlog.Codec[K]) (*embedlog.TypedTopic[K, V], error) {
	for {
		t, err := db.EnsureTopic(ctx, name, &embedlog.TopicConfig{Partitions: partitions, Cleanup: cleanup})
		if err == nil {
			return embedlog.Typed(t, key, query.DefaultCodec[V]()), nil
		}
		if !passes(err) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// newShop makes the topics.
func newShop(ctx context.Context, db *embedlog.DB) (s *shop, err error) {
	s = &shop{db: db, failed: make(chan error, 10)}
	for _, make := range []func() error{
		func() error {
			s.requests, err = typed[string, order](ctx, db, "order-requests", embedlog.Delete, codec.String)
			return err
		},
		func() error {
			s.orders, err = typed[string, order](ctx, db, "orders", embedlog.Delete, codec.String)
			return err
		},
		func() error {
			s.validations, err = typed[string, validation](ctx, db, "order-validations", embedlog.Delete, codec.String)
			return err
		},
		func() error {
			s.stock, err = typed[string, int64](ctx, db, "warehouse-inventory", embedlog.Compact, codec.String)
			return err
		},
		func() error {
			s.payments, err = typed[string, payment](ctx, db, "payments", embedlog.Delete, codec.String)
			return err
		},
		func() error {
			s.customers, err = typed[int64, customer](ctx, db, "customers", embedlog.Compact, codec.Int64)
			return err
		},
		func() error {
			s.mails, err = typed[string, mail](ctx, db, "emails", embedlog.Delete, codec.String)
			return err
		},
		func() error {
			for _, level := range levels {
				t, err := typed[string, enriched](ctx, db, level, embedlog.Delete, codec.String)
				if err != nil {
					return err
				}
				s.levels = append(s.levels, t.Topic)
			}
			return nil
		},
	} {
		if err := make(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// passes says whether the same may be tried again: somebody else leads soon, or has it by now.
func passes(err error) bool {
	for _, one := range []error{
		embedlog.ErrRebalance, embedlog.ErrUnknownMember, embedlog.ErrTxnAborted, embedlog.ErrFenced, embedlog.ErrUnknownOutcome, query.ErrInterrupted,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	return embedlog.IsRetriable(err)
}

// graph makes the graph of a service. It commits often: each step of an order waits for a commit.
func (s *shop) graph(name string) *query.Graph {
	return query.NewGraph(s.db, name, &query.Options{CommitInterval: 5 * time.Millisecond})
}

// start starts a service's graph, which is closed with the shop.
func (s *shop) start(ctx context.Context, g *query.Graph) error {
	if err := g.Start(ctx); err != nil {
		return err
	}
	s.closers = append(s.closers, g.Close)
	return nil
}

// startAll starts all services. Every instance does: each task of a graph runs at one of them, which the others take over from.
func (s *shop) startAll(ctx context.Context) (o *ordersService, err error) {
	var i *inventory
	for _, service := range []struct {
		name  string
		start func(context.Context) error
	}{
		{"inventory", func(ctx context.Context) (err error) { i, err = s.startInventory(ctx); return err }},
		{"fraud", func(ctx context.Context) error { _, err := s.startFraud(ctx); return err }},
		{"details", s.startDetails}, {"validations", s.startValidations}, {"email", s.startEmail},
		{"orders", func(ctx context.Context) (err error) { o, err = s.startOrders(ctx); return err }},
	} {
		if err := service.start(ctx); err != nil {
			return nil, fmt.Errorf("start %s: %w", service.name, err)
		}
	}
	o.reserved = i.reserved
	return o, nil
}

// close ends the services, the last one first.
func (s *shop) close() (err error) {
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	s.closers = nil
	return err
}

func (s *shop) orderStream() *query.Stream[string, order] {
	return query.From(s.orders.Topic, codec.String, codec.JSON[order]{})
}

// ofState are the orders of a state: what is CREATED is to be checked, the rest are answers.
func (s *shop) ofState(want state) *query.Stream[string, order] {
	return s.orderStream().Filter(func(_ string, o order) bool { return o.State == want })
}
