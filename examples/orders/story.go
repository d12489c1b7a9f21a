package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// story is what run has got to.
type story struct {
	*instances
	out io.Writer
	mu  sync.Mutex
	// What the shop has said: of orders, and who got a mail.
	became map[string]state
	mailed map[string]bool
}

func run(ctx context.Context, n int, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "embedlog-orders-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	i, err := newInstances(dir, int32(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.killAll()) }()
	s := newStory(i, out)
	for _, step := range []func(context.Context) error{s.begin, s.fill, s.good, s.outOfStock, s.fraud, s.castle, s.crash, s.check} {
		if err := step(ctx); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	return nil
}

func newStory(i *instances, out io.Writer) *story {
	return &story{instances: i, out: out, became: map[string]state{}, mailed: map[string]bool{}}
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *story) begin(ctx context.Context) error {
	began := time.Now()
	if err := s.startAll(ctx); err != nil {
		return err
	}
	for node := int32(1); node <= s.n; node++ {
		s.say("instance %d of the shop serves at http://%s", node, s.at(node).address)
	}
	s.say("  after %v", since(began))
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }

// fill gives the shop what it sells, and to whom.
func (s *story) fill(ctx context.Context) error {
	for product, n := range map[string]int{"UNDERPANTS": 75, "JUMPERS": 10} {
		if err := s.ask(ctx, "PUT", "/v1/stock/"+product, n, nil); err != nil {
			return err
		}
		s.say("the warehouse has %d %s", n, product)
	}
	return s.ask(ctx, "PUT", "/v1/customers/15",
		customer{ID: 15, FirstName: "Franz", LastName: "Kafka", Email: "frans@thedarkside.net", Address: "oppression street, prague", Level: "gold"}, nil)
}

// order posts an order, and notes what became of it.
func (s *story) order(ctx context.Context, o order) (state, error) {
	became, err := s.instances.order(ctx, o)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.became[o.ID] = became
	}
	return became, err
}

// pay pays for an order, and notes the mail.
func (s *story) pay(ctx context.Context, id string) (mail, error) {
	m, err := s.instances.pay(ctx, payment{ID: "Payment:" + id, Order: id, Currency: "CZK", Amount: 1000})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mailed[id] = true
	}
	return m, err
}

// ten has ten orders of a product, one after another, become what they must.
func (s *story) ten(ctx context.Context, name string, p product, want state) error {
	for i := range 10 {
		o := order{ID: fmt.Sprintf("%s-%d", name, i), Customer: int64(i % 6), Product: p, Quantity: 1, Price: 1}
		if became, err := s.order(ctx, o); err != nil || became != want {
			return errors.Join(err, fmt.Errorf("order %s is %s, not %s", o.ID, became, want))
		}
	}
	return nil
}

func (s *story) good(ctx context.Context) error {
	began := time.Now()
	if err := s.ten(ctx, "good", "UNDERPANTS", validated); err != nil {
		return err
	}
	s.say("ten orders, one after another, each at another instance: all VALIDATED, %v after they were posted", (time.Since(began) / 10).Round(time.Millisecond))
	return nil
}

func (s *story) outOfStock(ctx context.Context) error {
	if err := s.ten(ctx, "none", "STOCKINGS", failed); err != nil {
		return err
	}
	s.say("ten orders of STOCKINGS, which the warehouse does not have: all FAILED")
	return nil
}

// fraudOrders are the orders of Kafka's example of fraud, and what becomes of them.
var fraudOrders = []struct {
	customer int64
	price    float64
	ok       bool
}{{100, 3, true}, {100, 15, true}, {101, 3, true}, {101, 15, true}, {102, 2000, false}, {101, 15, true}, {102, 1, false}, {102, 4, false}}

// frauds posts them, of customers whose numbers are so much higher.
func (s *story) frauds(ctx context.Context, name string, p product, higher int64) (became []state, err error) {
	for i, o := range fraudOrders {
		is, err := s.order(ctx, order{ID: fmt.Sprintf("%s-%d", name, i), Customer: o.customer + higher, Product: p, Quantity: 1, Price: o.price})
		if err != nil {
			return nil, err
		}
		if (is == validated) != o.ok {
			return nil, fmt.Errorf("order %s-%d is %s", name, i, is)
		}
		became = append(became, is)
	}
	return became, nil
}

func (s *story) fraud(ctx context.Context) error {
	became, err := s.frauds(ctx, "fraud", "UNDERPANTS", 0)
	if err != nil {
		return err
	}
	s.say("orders of a customer that come to %d within an hour are fraud:", fraudLimit)
	for i, o := range fraudOrders {
		s.say("  customer %d for %.0f: %s", o.customer, o.price, became[i])
	}
	s.say("  what they had reserved was given back")
	return nil
}

func (s *story) castle(ctx context.Context) error {
	if _, err := s.order(ctx, order{ID: "castle", Customer: 15, Product: "JUMPERS", Quantity: 2, Price: 10}); err != nil {
		return err
	}
	m, err := s.pay(ctx, "castle")
	if err == nil {
		s.say("order castle was paid for: %s gets %q", m.To, m.Text)
	}
	return err
}

// rush is customers who order, pay and wait for their mails, all at the same time.
type rush struct {
	answered chan time.Time // when each order was posted that has its answer
	done     chan struct{}  // closed when all are through
	err      error          // then
}

// rush begins one.
func (s *story) rush(ctx context.Context, name string, p product, customers, each int) *rush {
	r := &rush{answered: make(chan time.Time, customers*each), done: make(chan struct{})}
	errs := make([]error, customers)
	var ordering sync.WaitGroup
	for who := range customers {
		ordering.Go(func() {
			for i := 0; i < each && errs[who] == nil; i++ {
				posted := time.Now()
				o := order{ID: fmt.Sprintf("%s-%d-%d", name, who, i), Customer: 15, Product: p, Quantity: 1, Price: 1}
				became, err := s.order(ctx, o)
				if err == nil && became != validated {
					err = fmt.Errorf("order %s is %s", o.ID, became)
				}
				if r.answered <- posted; err == nil {
					_, err = s.pay(ctx, o.ID)
				}
				errs[who] = err
			}
		})
	}
	go func() {
		ordering.Wait()
		r.err = errors.Join(errs...)
		close(r.done)
	}()
	return r
}

// after waits until so many orders were answered that were posted after a time.
func (r *rush) after(ctx context.Context, t time.Time, n int) error {
	for n > 0 {
		select {
		case posted := <-r.answered:
			if posted.After(t) {
				n--
			}
		case <-r.done:
			return errors.Join(r.err, errors.New("there was no order any more"))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// wait waits until all are through.
func (r *rush) wait() error {
	<-r.done
	return r.err
}

// crash kills the instance that runs most of the tasks, while four customers order, and starts it again.
func (s *story) crash(ctx context.Context) error {
	node, tasks, err := s.busiest(ctx)
	if err != nil {
		return err
	}
	r := s.rush(ctx, "rush", "UNDERPANTS", 4, 6)
	if err := errors.Join(r.after(ctx, time.Time{}, 8), s.kill(node)); err != nil {
		return err
	}
	began := time.Now()
	s.say("instance %d was killed while four customers were ordering. It ran %s", node, list(tasks))
	if s.n > 1 {
		if err := r.after(ctx, began, 1); err != nil {
			return err
		}
		s.say("  the first of the orders that came later was VALIDATED %v after the kill, by the others", since(began))
	}
	again := time.Now()
	if err := s.start(ctx, node); err != nil {
		return err
	}
	s.say("  instance %d was back within %v", node, since(again))
	if err := r.wait(); err != nil {
		return err
	}
	s.say("  all 24 orders were validated, paid for and written to, for which %d requests were made again", s.again.Load())
	return nil
}

// list is "2 of fraud, 1 of orders".
func list(tasks map[string]int) string {
	var parts []string
	for _, graph := range slices.Sorted(maps.Keys(tasks)) {
		parts = append(parts, fmt.Sprintf("%d of %s", tasks[graph], graph))
	}
	return "the tasks: " + strings.Join(parts, ", ")
}

// check asks each instance what the topics say, and compares it with what customers were told.
func (s *story) check(ctx context.Context) error {
	for node := int32(1); node <= s.n; node++ {
		a, err := s.audited(ctx, node)
		if err != nil {
			return fmt.Errorf("instance %d: %w", node, err)
		}
		if !maps.Equal(a.Orders, s.became) {
			return fmt.Errorf("instance %d: the topics have the orders %v, customers were told %v", node, a.Orders, s.became)
		}
		for id := range s.mailed {
			if a.Mails[id] != 1 {
				return fmt.Errorf("instance %d: of order %s there are %d mails", node, id, a.Mails[id])
			}
		}
		if len(a.Mails) != len(s.mailed) {
			return fmt.Errorf("instance %d: there are %d mails, %d orders were paid for", node, len(a.Mails), len(s.mailed))
		}
		s.say("instance %d: %d orders, each with three checks and one verdict; %d mails, one for each order that was paid for; reserved is what was sold: %d UNDERPANTS and %d JUMPERS",
			node, len(a.Orders), len(a.Mails), a.Reserved["UNDERPANTS"], a.Reserved["JUMPERS"])
	}
	return nil
}
