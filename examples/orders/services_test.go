package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

func testShop(t *testing.T) *shop {
	t.Helper()
	s, err := newShop(t.Context(), embedlogtest.Open(t, nil).DB)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *shop) place(t *testing.T, list ...order) {
	t.Helper()
	for _, o := range list {
		if o.State == "" {
			o.State = created
		}
		if _, err := s.orders.Produce(t.Context(), o.ID, o); err != nil {
			t.Fatal(err)
		}
	}
}

// answers are the results of checks, by order: P and F, in the order in which they were appended. It waits until there are so many.
func (s *shop) answers(t *testing.T, n int) map[string]string {
	t.Helper()
	for {
		found, all := map[string]string{}, 0
		for rec, err := range s.validations.Scan(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			all++
			found[rec.Key] += rec.Value.Result[:1]
		}
		if all >= n {
			return found
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func decode(t *testing.T, b []byte) int64 {
	t.Helper()
	n, err := codec.Int64.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The eight orders of Kafka's test, one after another.
func TestFraud(t *testing.T) {
	s := testShop(t)
	g, err := s.startFraud(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for i, o := range fraudOrders {
		id := fmt.Sprint(i)
		s.place(t, order{ID: id, Customer: o.customer, Quantity: 1, Price: o.price})
		if err := g.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		got += s.answers(t, i+1)[id]
	}
	if got != "PPPPFPFF" {
		t.Errorf("%s", got)
	}
}

// Two of three orders find stock. What is reserved is in the view, and in the store's changelog.
func TestInventory(t *testing.T) {
	s := testShop(t)
	i, err := s.startInventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for product, n := range map[string]int64{"UNDERPANTS": 75, "JUMPERS": 1} {
		if _, err := s.stock.Produce(t.Context(), product, n); err != nil {
			t.Fatal(err)
		}
	}
	reserved := func() map[string]int64 {
		t.Helper()
		rows := map[string]int64{}
		for row, err := range i.reserved.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			rows[row.Key] = row.Value
		}
		return rows
	}
	orders := []order{{ID: "1", Product: "UNDERPANTS", Quantity: 3}, {ID: "2", Product: "JUMPERS", Quantity: 1}, {ID: "3", Product: "JUMPERS", Quantity: 1}}
	for _, o := range orders {
		s.place(t, o)
		if err := i.g.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.answers(t, 3), map[string]string{"1": "P", "2": "P", "3": "F"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	want := map[string]int64{"UNDERPANTS": 3, "JUMPERS": 1}
	if got := reserved(); !maps.Equal(got, want) {
		t.Errorf("reserved %v, want %v", got, want)
	}
	log := map[string]int64{}
	changelog, err := s.db.Topic("inventory-reserved-stock-changelog")
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range changelog.Scan(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		log[string(rec.Key)] = decode(t, rec.Value)
	}
	if !maps.Equal(log, want) {
		t.Errorf("the changelog has %v, want %v", log, want)
	}
	// What fails gives back what it had, once; then there is some for others. An order that nobody could have has no answer but FAIL.
	orders[1].State, orders[2].State = failed, failed
	s.place(t, orders[1], orders[1], orders[2], order{ID: "4", Product: "JUMPERS", Quantity: -5})
	if err := i.g.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.place(t, order{ID: "5", Product: "JUMPERS", Quantity: 1})
	if got := s.answers(t, 5); got["4"] != "F" || got["5"] != "P" {
		t.Errorf("afterwards %v", got)
	}
	if got := reserved(); !maps.Equal(got, want) {
		t.Errorf("afterwards reserved %v, want %v", got, want)
	}
}

// An order is VALIDATED by three checks that are not the same one, and FAILED by the first that it does not pass, once.
func TestValidations(t *testing.T) {
	s := testShop(t)
	if err := s.startValidations(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := s.startOrders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func(id string, results ...string) {
		t.Helper()
		for _, r := range results {
			check, result, _ := strings.Cut(r, "=")
			if _, err := s.validations.Produce(t.Context(), id, validation{id, check, result}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.place(t, order{ID: "1"}, order{ID: "2"}, order{ID: "3"})
	say("3", "a=PASS", "a=PASS", "a=PASS", "b=PASS") // four answers, of two checks
	say("1", "a=PASS", "b=PASS", "c=PASS", "c=PASS", "a=FAIL")
	say("2", "a=PASS", "b=FAIL", "c=FAIL", "b=PASS")
	for id, want := range map[string]state{"1": validated, "2": failed} {
		if got, err := o.orders.wait(t.Context(), id, func(o order) bool { return o.State != created }); got.State != want || err != nil {
			t.Errorf("order %s: %v, %v", id, got, err)
		}
	}
	if got, _, err := o.orders.v.Get(t.Context(), "3"); got.State != created || err != nil {
		t.Errorf("order 3: %v, %v", got, err)
	}
	say("3", "c=PASS")
	if got, err := o.orders.wait(t.Context(), "3", func(o order) bool { return o.State != created }); got.State != validated || err != nil {
		t.Errorf("order 3: %v, %v", got, err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for rec, err := range s.orders.Scan(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		times[rec.Key]++
	}
	if want := map[string]int{"1": 2, "2": 2, "3": 2}; !maps.Equal(times, want) {
		t.Errorf("records of orders: %v, want %v", times, want)
	}
}

// The service of details, which is a consumer, goes on behind what it has answered.
func TestDetailsResume(t *testing.T) {
	s := testShop(t)
	if err := s.startDetails(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.place(t, order{ID: "1", Product: "JUMPERS", Quantity: 1, Price: 1}, order{ID: "2", Product: "JUMPERS", Quantity: -1, Price: 1})
	s.answers(t, 2)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s.place(t, order{ID: "3", Quantity: 1, Price: 1}, order{ID: "4", Product: "JUMPERS", Quantity: 1, Price: -1}, order{ID: "5", State: failed})
	if err := s.startDetails(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.place(t, order{ID: "6", Product: "JUMPERS", Quantity: 1})
	if got, want := s.answers(t, 5), map[string]string{"1": "P", "2": "F", "3": "F", "4": "F", "6": "P"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Orders of customers are handed on by their level.
func TestLevels(t *testing.T) {
	s := testShop(t)
	if err := s.startEmail(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, level := range append([]string{"none"}, levels...) {
		if _, err := s.customers.Produce(t.Context(), int64(i), customer{ID: int64(i), Level: level}); err != nil {
			t.Fatal(err)
		}
		s.place(t, order{ID: fmt.Sprint(i), Customer: int64(i)})
	}
	if err := s.close(); err != nil { // commits what it has read
		t.Fatal(err)
	}
	if err := s.startEmail(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for n := 0; n < 5; time.Sleep(time.Millisecond) {
		n = 0
		for _, top := range s.levels {
			got[top.Name()] = 0
			for _, err := range top.Scan(t.Context(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				got[top.Name()]++
				n++
			}
		}
	}
	if want := map[string]int{"platinum": 1, "gold": 1, "silver": 1, "bronze": 2}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What is asked wrongly is said, and nothing of it is in the log.
func TestREST(t *testing.T) {
	s := testShop(t)
	o, err := s.startOrders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := o.handler()
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/orders", `{`, 400, "unexpected EOF"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","colour":"red"}`, 400, "colour"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS"} {}`, 400, "behind"},
		{"POST", "/v1/orders", `{"id":"a/b","product":"JUMPERS"}`, 400, `id is \"a/b\"`},
		{"POST", "/v1/orders", `{"product":"JUMPERS"}`, 400, `id is \"\"`},
		{"POST", "/v1/orders", `{"id":"1"}`, 400, "product"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","state":"VALIDATED"}`, 400, "a new order is CREATED"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","customerId":-1}`, 400, "customerId"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","price":1e300}`, 400, "billion"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","price":-1e300,"quantity":1000000000}`, 400, "billion"}, // their product is no number: fraud could not go on
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","quantity":-9223372036854775808}`, 400, "billion"},
		{"POST", "/v1/orders", `{"id":"` + strings.Repeat("x", maxBody) + `"}`, 413, "longer"},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","quantity":1,"price":5}`, 201, `"state":"CREATED"`},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","quantity":1,"price":5}`, 200, `"state":"CREATED"`},
		{"POST", "/v1/orders", `{"id":"1","product":"JUMPERS","quantity":2,"price":5}`, 409, "another order 1"},
		{"GET", "/v1/orders/1", "", 200, `"quantity":1`},
		{"GET", "/v1/orders/1?timeout=0", "", 200, `"quantity":1`},
		{"GET", "/v1/orders/1/validated?timeout=1", "", 504, "not so far"},
		{"GET", "/v1/orders/2?timeout=1", "", 504, "not there"},
		{"GET", "/v1/orders/2?timeout=x", "", 400, "timeout"},
		{"GET", "/v1/orders/2?timeout=999999999", "", 400, "timeout"},
		{"DELETE", "/v1/orders/1", "", 405, "Method Not Allowed"},
		{"POST", "/v1/payments", `{"id":"p","orderId":"1","ccy":"CZK"}`, 400, "amount"},
		{"POST", "/v1/payments", `{"id":"p","orderId":"1","ccy":"CZK","amount":1}`, 201, "CZK"},
		{"PUT", "/v1/customers/x", `{}`, 400, "number"},
		{"PUT", "/v1/customers/1", `{"email":"a@b","level":"iron"}`, 400, "level"},
		{"PUT", "/v1/customers/1", `{"id":2,"email":"a@b"}`, 400, "id of the path"},
		{"PUT", "/v1/customers/1", `{"email":"a@b"}`, 204, ""},
		{"PUT", "/v1/stock/JUMPERS", `-1`, 400, "-1"},
		{"PUT", "/v1/stock/JUMPERS", `1`, 204, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %.80s: %d %.200s, want %d %s", c.method, c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
		if loc := w.Header().Get("Location"); (loc == "/v1/orders/1") != (c.method == "POST" && c.path == "/v1/orders" && w.Code/100 == 2) {
			t.Errorf("%s %s: location %q", c.method, c.path, loc)
		}
	}
	n := 0
	for range s.orders.Scan(t.Context(), nil) {
		n++
	}
	if n != 1 {
		t.Errorf("%d orders", n)
	}
}

// Any number of clients wait for one order; each has the answer.
func TestLongPolls(t *testing.T) {
	s := testShop(t)
	o, err := s.startOrders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(o.handler())
	defer server.Close()
	c := &client{server.Client(), strings.TrimPrefix(server.URL, "http://")}
	const clients = 5
	answers := make(chan error, clients)
	for range clients {
		go func() {
			var got order
			_, err := c.ask(t.Context(), http.MethodGet, "/v1/orders/1/validated", nil, &got)
			if err == nil && got.State != failed {
				err = fmt.Errorf("the order is %s", got.State)
			}
			answers <- err
		}()
	}
	s.place(t, order{ID: "1"}, order{ID: "1", State: failed})
	for range clients {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	o.orders.mu.Lock()
	if n := len(o.orders.waiters); n != 0 {
		t.Errorf("%d orders are waited for", n)
	}
	o.orders.mu.Unlock()
	if _, err := c.ask(t.Context(), http.MethodGet, "/v1/orders/9?timeout=0", nil, nil); err == nil || !strings.Contains(err.Error(), "504") {
		t.Error(err)
	}
}
