package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/x/embedlog"
)

// story is what run has got to.
type story struct {
	out      io.Writer
	dir      string
	http     *http.Client
	instance *instance
	number   int // of instances
	mu       sync.Mutex
	started  *sync.Cond // another instance serves, or none will
	broken   error      // why none will
	ids      []string   // of orders that were acknowledged
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "embedlog-orders-")
	if err != nil {
		return err
	}
	s := &story{out: out, dir: filepath.Join(dir, "data"), http: &http.Client{Transport: &http.Transport{}}}
	s.started = sync.NewCond(&s.mu)
	defer func() {
		s.http.CloseIdleConnections()
		if s.instance != nil {
			err = errors.Join(err, s.instance.end())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	for _, step := range []func(context.Context) error{s.start, s.fill, s.good, s.outOfStock, s.fraud, s.pay, s.crash, s.end, s.check} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// start starts an instance of the shop.
func (s *story) start(ctx context.Context) error {
	i, err := startInstance(ctx, s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started.Broadcast()
	if s.instance, s.broken = i, err; err != nil {
		return err
	}
	s.number++
	s.say("instance %d of the shop serves at http://%s, process %d", s.number, i.address, i.cmd.Process.Pid)
	return nil
}

// client is of the instance that serves. It waits for one whose number is least or more.
func (s *story) client(least int) (c *client, number int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.number < least && s.broken == nil {
		s.started.Wait()
	}
	if s.broken != nil {
		return nil, 0, s.broken
	}
	return &client{s.http, s.instance.address}, s.number, nil
}

// now is a client of the instance that serves.
func (s *story) now() *client { return &client{s.http, s.instance.address} }

func (s *story) acknowledged(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, id)
}

// fill gives the shop what it sells, and to whom.
func (s *story) fill(ctx context.Context) error {
	c := s.now()
	for product, n := range map[string]int{"UNDERPANTS": 75, "JUMPERS": 10} {
		if _, err := c.ask(ctx, http.MethodPut, "/v1/stock/"+product, n, nil); err != nil {
			return err
		}
		s.say("the warehouse has %d %s", n, product)
	}
	franz := customer{ID: 15, FirstName: "Franz", LastName: "Kafka", Email: "frans@thedarkside.net", Address: "oppression street, prague", Level: "gold"}
	_, err := c.ask(ctx, http.MethodPut, "/v1/customers/15", franz, nil)
	return err
}

// order posts an order, and says what became of it.
func (s *story) order(ctx context.Context, o order) (state, error) {
	became, err := s.now().order(ctx, o)
	if err != nil {
		return "", fmt.Errorf("order %s: %w", o.ID, err)
	}
	s.acknowledged(o.ID)
	return became, nil
}

// all has orders become of what they must.
func (s *story) all(ctx context.Context, want state, n int, one func(i int) order) error {
	for i := range n {
		o := one(i)
		if became, err := s.order(ctx, o); err != nil || became != want {
			return errors.Join(err, fmt.Errorf("order %s is %s, not %s", o.ID, became, want))
		}
	}
	return nil
}

func (s *story) good(ctx context.Context) error {
	began := time.Now()
	err := s.all(ctx, validated, 10, func(i int) order {
		return order{ID: fmt.Sprintf("good-%d", i), Customer: int64(i % 6), Product: "UNDERPANTS", Quantity: 1, Price: 1}
	})
	if err == nil {
		s.say("ten orders, one after another: all VALIDATED, each %v after it was posted", (time.Since(began) / 10).Round(time.Millisecond))
	}
	return err
}

func (s *story) outOfStock(ctx context.Context) error {
	err := s.all(ctx, failed, 10, func(i int) order {
		return order{ID: fmt.Sprintf("none-%d", i), Customer: int64(i % 6), Product: "STOCKINGS", Quantity: 1, Price: 1}
	})
	if err == nil {
		s.say("ten orders of STOCKINGS, which the warehouse does not have: all FAILED")
	}
	return err
}

// fraudOrders are the orders of Kafka's example of fraud, and what becomes of them.
var fraudOrders = []struct {
	customer int64
	price    float64
	ok       bool
}{{100, 3, true}, {100, 15, true}, {101, 3, true}, {101, 15, true}, {102, 2000, false}, {101, 15, true}, {102, 1, false}, {102, 4, false}}

func (s *story) fraud(ctx context.Context) error {
	line := ""
	for i, o := range fraudOrders {
		became, err := s.order(ctx, order{ID: fmt.Sprintf("fraud-%d", i), Customer: o.customer, Product: "UNDERPANTS", Quantity: 1, Price: o.price})
		if err != nil {
			return err
		}
		if (became == validated) != o.ok {
			return fmt.Errorf("order fraud-%d is %s", i, became)
		}
		line += fmt.Sprintf("  customer %d for %.0f: %s\n", o.customer, o.price, became)
	}
	s.say("orders of a customer that come to %d within an hour are fraud:\n%s  what they had reserved was given back", fraudLimit, line)
	return nil
}

func (s *story) pay(ctx context.Context) error {
	if _, err := s.order(ctx, order{ID: "castle", Customer: 15, Product: "JUMPERS", Quantity: 2, Price: 10}); err != nil {
		return err
	}
	c := s.now()
	if _, err := c.ask(ctx, http.MethodPost, "/v1/payments", payment{ID: "Payment:1234", Order: "castle", Currency: "CZK", Amount: 1000}, nil); err != nil {
		return err
	}
	var m mail
	if _, err := c.ask(ctx, http.MethodGet, "/v1/orders/castle/email", nil, &m); err != nil {
		return err
	}
	s.say("order castle was paid for: %s gets %q", m.To, m.Text)
	return nil
}

// crash kills the instance while four customers order, and starts another one.
func (s *story) crash(ctx context.Context) error {
	const customers, each = 4, 10
	answered, done := make(chan struct{}, customers*each), make(chan struct{})
	var ordering sync.WaitGroup
	errs := make([]error, customers)
	again := make([]int, customers)
	for who := range customers {
		ordering.Go(func() {
			for i := range each {
				id := fmt.Sprintf("rush-%d-%d", who, i)
				asked, err := s.insist(ctx, order{ID: id, Customer: int64(200 + who), Product: "UNDERPANTS", Quantity: 1, Price: 1})
				if again[who] += asked; err != nil {
					errs[who] = err
					return
				}
				s.acknowledged(id)
				answered <- struct{}{}
			}
		})
	}
	go func() {
		ordering.Wait()
		close(done)
	}()
	for range customers * each / 3 {
		select {
		case <-answered:
		case <-done:
			return errors.Join(errs...)
		}
	}
	if err := s.instance.kill(); err != nil {
		return err
	}
	s.say("instance 1 was killed while %d customers were ordering", customers)
	began := time.Now()
	err := s.start(ctx)
	took := time.Since(began)
	if <-done; err != nil {
		return err
	}
	total := 0
	for _, n := range again {
		total += n
	}
	s.say("it was there after %v: all %d orders have their answer, for which %d requests were made again", took.Round(time.Millisecond), customers*each, total)
	return errors.Join(errs...)
}

// insist posts an order until there is an answer, of whatever instance: an order that is there already is not posted twice.
func (s *story) insist(ctx context.Context, o order) (again int, err error) {
	for least := 0; ; again++ {
		c, number, err := s.client(least)
		if err != nil {
			return again, err
		}
		_, err = c.order(ctx, o)
		says := (*statusError)(nil)
		if err == nil || ctx.Err() != nil || errors.As(err, &says) || number > 1 { // that one is not killed
			return again, err
		}
		least = number + 1 // this one is gone
	}
}

// end has the instance close its database.
func (s *story) end(context.Context) error {
	i := s.instance
	s.instance = nil
	return i.end()
}

// check reads the topics, now that nobody else has the directory.
func (s *story) check(ctx context.Context) (err error) {
	db, err := embedlog.Open(s.dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	shop, err := newShop(ctx, db)
	if err != nil {
		return err
	}
	found, err := shop.audit(ctx)
	if err != nil {
		return err
	}
	for _, id := range s.ids {
		if found.created[id] != 1 {
			return fmt.Errorf("order %s is there %d times", id, found.created[id])
		}
	}
	if len(found.created) != len(s.ids) {
		return fmt.Errorf("%d orders are there, %d were acknowledged", len(found.created), len(s.ids))
	}
	// Whatever the services had not done when they were ended they do now.
	inventory, err := shop.startInventory(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shop.close()) }()
	for product, n := range found.sold {
		got, _, err := inventory.reserved.Get(ctx, product)
		if err != nil || got != n {
			return errors.Join(err, fmt.Errorf("%d %s are reserved, %d were sold", got, product, n))
		}
	}
	s.say("%d orders are in the log, each with three checks and one verdict; reserved is what was sold: %d UNDERPANTS and %d JUMPERS",
		len(s.ids), found.sold["UNDERPANTS"], found.sold["JUMPERS"])
	return nil
}

// audit is what the topics say of orders.
type audit struct {
	created map[string]int
	sold    map[string]int64 // by product, of orders that were validated
}

// audit reads all topics, and says what is wrong: each order has one verdict, and an answer to each of its three checks.
func (s *shop) audit(ctx context.Context) (*audit, error) {
	a := &audit{created: map[string]int{}, sold: map[string]int64{}}
	verdicts, checks := map[string]int{}, map[validation]int{}
	for rec, err := range s.orders.Scan(ctx, nil) {
		if err != nil {
			return nil, err
		}
		switch o := rec.Value; o.State {
		case created:
			a.created[o.ID]++
		case validated:
			a.sold[string(o.Product)] += o.Quantity
			fallthrough
		default:
			verdicts[o.ID]++
		}
	}
	for rec, err := range s.validations.Scan(ctx, nil) {
		if err != nil {
			return nil, err
		}
		checks[validation{Order: rec.Value.Order, Check: rec.Value.Check}]++
	}
	for id := range a.created {
		if verdicts[id] != 1 {
			return nil, fmt.Errorf("order %s has %d verdicts", id, verdicts[id])
		}
		for _, check := range []string{inventoryCheck, fraudCheck, detailsCheck} {
			if n := checks[validation{Order: id, Check: check}]; n != 1 {
				return nil, fmt.Errorf("order %s has %d answers of %s", id, n, check)
			}
		}
	}
	return a, nil
}
