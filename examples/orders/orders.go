package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// ordersService takes orders and tells what has become of them, over HTTP, at each instance. What it answers is what its views say, which have every order that was
// acknowledged, wherever that was: whoever gets 201 finds the order, also when the instance that took it was killed and another one answers. The rows are at the
// instance that runs their task; views ask there.
//
//	POST ──> order-requests ── once ──> orders
type ordersService struct {
	shop     *shop
	orders   *waitingView[order]
	mails    *waitingView[mail]
	reserved *query.View[string, int64] // of the inventory: for the audit
}

func (s *shop) startOrders(ctx context.Context) (o *ordersService, err error) {
	g := s.graph("orders-store")
	query.To(g, once(query.From(s.requests.Topic, codec.String, codec.JSON[order]{}), "known-orders"), s.orders.Topic)
	orders := query.Add(g, "orders-store", query.TableFrom(s.orders.Topic, codec.String, codec.JSON[order]{}))
	mails := query.Add(g, "mailbox", query.TableFrom(s.mails.Topic, codec.String, codec.JSON[mail]{}))
	if err := s.start(ctx, g); err != nil {
		return nil, err
	}
	o = &ordersService{shop: s}
	if o.orders, err = waitingOn(ctx, s, s.orders.Topic, orders); err != nil {
		return nil, err
	}
	o.mails, err = waitingOn(ctx, s, s.mails.Topic, mails)
	return o, err
}

// handler is the service's REST interface.
//
//	POST /v1/orders                 an order as JSON         201 with its Location, 200 when it is there already, 409 when another one of its id is
//	GET  /v1/orders/{id}            ?timeout=10000 (ms)      waits until there is such an order: 504 when it does not come
//	GET  /v1/orders/{id}/validated  ?timeout                 waits until it is VALIDATED or FAILED
//	GET  /v1/orders/{id}/email      ?timeout                 waits until its customer was written to
//	POST /v1/payments               a payment                201
//	PUT  /v1/customers/{id}         a customer               204
//	PUT  /v1/stock/{product}        a number                 204
//	GET  /v1/instance               which tasks it runs
//	GET  /v1/audit                  what the topics say
//
// What is wrong with a request is said as {"error": "..."}. After 503, or no answer at all, the same may be asked again, of any instance: it is done once.
func (o *ordersService) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				status := http.StatusInternalServerError
				if bad := (*badRequest)(nil); errors.As(err, &bad) {
					status = bad.status
				} else if passes(err) || r.Context().Err() != nil { // the instance ends
					status = http.StatusServiceUnavailable
				}
				reply(w, status, map[string]string{"error": err.Error()})
			}
		})
	}
	handle("POST /v1/orders", o.postOrder)
	handle("GET /v1/orders/{id}", func(w http.ResponseWriter, r *http.Request) error {
		return longPoll(w, r, o.orders, func(order) bool { return true })
	})
	handle("GET /v1/orders/{id}/validated", func(w http.ResponseWriter, r *http.Request) error {
		return longPoll(w, r, o.orders, func(o order) bool { return o.State == validated || o.State == failed })
	})
	handle("GET /v1/orders/{id}/email", func(w http.ResponseWriter, r *http.Request) error {
		return longPoll(w, r, o.mails, func(mail) bool { return true })
	})
	handle("POST /v1/payments", o.postPayment)
	handle("PUT /v1/customers/{id}", o.putCustomer)
	handle("PUT /v1/stock/{product}", o.putStock)
	handle("GET /v1/instance", o.getInstance)
	handle("GET /v1/audit", o.getAudit)
	return mux
}

// badRequest is an error of who asked.
type badRequest struct {
	status int
	text   string
}

func (b *badRequest) Error() string { return b.text }

func bad(format string, args ...any) error {
	return &badRequest{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}

// maxBody bounds what is read of a request.
const maxBody = 64 << 10

// body decodes a request's JSON, and nothing but what v has.
func body(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
			return &badRequest{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody)}
		}
		return bad("the body is not what is expected: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return bad("there is something behind the body's JSON")
	}
	return nil
}

// checkID says what is wrong with an id: it becomes a part of paths.
func checkID(what, id string) error {
	if id == "" || len(id) > 100 || strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' || r == ':')
	}) {
		return bad("%s is %q: it must have 1 to 100 letters, digits or -_.:", what, id)
	}
	return nil
}

// check says what is wrong with an order as a request. Whether it can be had the services say.
func (o *order) check() error {
	switch {
	case o.State != "" && o.State != created:
		return bad("state is %q: a new order is %s", o.State, created)
	case o.Customer < 0:
		return bad("customerId is %d: it must not be negative", o.Customer)
	case math.Abs(o.Price) > 1e9 || max(o.Quantity, -o.Quantity) > 1e9 || o.Quantity == math.MinInt64: // then their product is a number, which all services can write
		return bad("price and quantity must be a billion at most, either way")
	}
	o.State = created
	return errors.Join(checkID("id", o.ID), checkID("product", string(o.Product)))
}

func (o *ordersService) postOrder(w http.ResponseWriter, r *http.Request) error {
	var in order
	if err := body(w, r, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/orders/"+in.ID)
	status := http.StatusOK // whoever asks again, because no answer came, has ordered once
	is, there, err := o.orders.v.Get(r.Context(), in.ID)
	if err != nil {
		return err
	}
	if !there {
		if _, err := o.shop.requests.Produce(r.Context(), in.ID, in); err != nil {
			return err
		}
		if is, err = o.orders.wait(r.Context(), in.ID, func(order) bool { return true }); err != nil {
			return err
		}
		status = http.StatusCreated
	}
	if is.State = created; is != in {
		w.Header().Del("Location")
		return &badRequest{http.StatusConflict, fmt.Sprintf("there is another order %s", in.ID)}
	}
	reply(w, status, in)
	return nil
}

func (o *ordersService) postPayment(w http.ResponseWriter, r *http.Request) error {
	var p payment
	if err := body(w, r, &p); err != nil {
		return err
	}
	if err := errors.Join(checkID("id", p.ID), checkID("orderId", p.Order)); err != nil {
		return err
	}
	if p.Amount <= 0 || len(p.Currency) != 3 {
		return bad("a payment has an amount, and a currency of three letters")
	}
	if _, err := o.shop.payments.Produce(r.Context(), p.ID, p); err != nil {
		return err
	}
	reply(w, http.StatusCreated, p)
	return nil
}

func (o *ordersService) putCustomer(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 0 {
		return bad("a customer's id is a number, not %q", r.PathValue("id"))
	}
	c := customer{ID: id, Level: levels[len(levels)-1]}
	if err := body(w, r, &c); err != nil {
		return err
	}
	if c.ID != id || c.Email == "" || !knownLevel(c.Level) {
		return bad("a customer has the id of the path, an email and a level of %v", levels)
	}
	if _, err := o.shop.customers.Produce(r.Context(), id, c); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (o *ordersService) putStock(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("product")
	if err := checkID("product", name); err != nil {
		return err
	}
	var n int64
	if err := body(w, r, &n); err != nil {
		return err
	}
	if n < 0 {
		return bad("a stock is not %d", n)
	}
	if _, err := o.shop.stock.Produce(r.Context(), name, n); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// How long a long poll waits.
const (
	defaultPoll = 10 * time.Second
	longestPoll = 5 * time.Minute
	lookTime    = time.Second // more, for the last look: also who does not wait is told what is there
)

// longPoll answers with the row of the order in the path as soon as it is as asked for.
func longPoll[V any](w http.ResponseWriter, r *http.Request, view *waitingView[V], done func(V) bool) error {
	wait := defaultPoll
	if text := r.URL.Query().Get("timeout"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > longestPoll.Milliseconds() {
			return bad("timeout is %q: it must be 0 to %d milliseconds", text, longestPoll.Milliseconds())
		}
		wait = time.Duration(min(n, math.MaxInt32)) * time.Millisecond
	}
	id := r.PathValue("id")
	if err := checkID("id", id); err != nil {
		return err
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	ctx, cancel := context.WithTimeout(r.Context(), wait+lookTime)
	defer cancel()
	row, err := view.waitUntil(ctx, over.C, id, done)
	if errors.Is(err, errPatience) || err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		return &badRequest{http.StatusGatewayTimeout, fmt.Sprintf("order %s is not there, or not so far, after %v", id, wait)}
	}
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, row)
	return nil
}
