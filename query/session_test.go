package query

import (
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog/codec"
)

func joinText(_ string, a, b string) string { return a + b }

func addText(acc, _, value string) string { return acc + value }

func TestSessions(t *testing.T) {
	f := newFixture(t, 1)
	def := Session(10 * ms).Grace(20 * ms).Retain(100 * ms)
	var v, final *View[WindowKey[string], string]
	g := f.graphOf(&Options{CommitInterval: ms}, func(g *Graph) {
		table := FoldSessions(f.stream(), def, codec.String, addText, func(_ string, a, b string) string { return a + "+" + b })
		v, final = Add(g, "v", table), Add(g, "final", Final(table))
		To(g, Late(f.stream(), def), f.topic("late", 1))
	})
	defer f.close(g)
	f.at(f.top, "a=1@0 b=1@0 a=2@10 a=3@30 -=0@30")
	f.want("a gap of 10 is none", windows(f, v), "a[0,10]=12 a[30,30]=3 b[0,0]=1")
	f.at(f.top, "a=4@20") // 20 is 10 from both
	f.want("joins two", windows(f, v), "a[0,30]=12+34 b[0,0]=1")
	f.at(f.top, "a=5@30 a=6@15 a=7@15")
	f.want("equal times, and within", windows(f, v), "a[0,30]=12+34567 b[0,0]=1")
	f.at(f.top, "a=8@9 b=2@10") // 9 is older than 30-20
	f.want("late", windows(f, v), "a[0,30]=12+34567 b[0,10]=12")
	f.at(f.top, "c=1@40 c=2@40") // b could have been joined until 10+10+20
	f.want("not over", windows(f, final), "")
	f.at(f.top, "c=3@41")
	f.want("over", windows(f, final), "b[0,10]=12")
	f.at(f.top, "c=4@61")
	f.want("over", windows(f, final), "a[0,30]=12+34567 b[0,10]=12")
	if s := g.Stats(); s.Late != 1 || s.NoKey != 1 {
		t.Errorf("late %d, without a key %d", s.Late, s.NoKey)
	}
	f.at(f.top, "-=0@111")
	f.want("b is gone", windows(f, v), "a[0,30]=12+34567 c[40,41]=123 c[61,61]=4")
	f.at(f.top, "-=0@500")
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.empty(g)
	f.soon("late rows", "late", "a=8")
}

// A session that begins anew to the left, and a restart between the rows.
func TestSessionsAfterRestart(t *testing.T) {
	f := newFixture(t, 1)
	var v, final *View[WindowKey[string], int64]
	start := func() *Graph {
		return f.graphOf(atClose, func(g *Graph) {
			table := CountSessions(f.stream(), Session(10*ms).Retain(100*ms))
			v, final = Add(g, "v", table), Add(g, "final", Final(table))
		})
	}
	g := start()
	f.at(f.top, "a=1@20 a=2@40")
	f.want("two", windows(f, v), "a[20,20]=1 a[40,40]=1")
	f.close(g)
	g = start()
	f.at(f.top, "a=3@30")
	f.want("one", windows(f, v), "a[20,40]=3")
	f.at(f.top, "a=4@61")
	f.want("over", windows(f, final), "a[20,40]=3")
	f.close(g)
	g = start()
	f.at(f.top, "a=5@50") // late by 1
	f.want("as it was", windows(f, v), "a[20,40]=3 a[61,61]=1")
	f.want("over", windows(f, final), "a[20,40]=3")
	f.close(g)
}

// The fraud service of Kafka's example: orders of a customer within an hour of each other that come to 2000 fail. Each order has its answer,
// in the orders' order.
func TestFraud(t *testing.T) {
	f := newFixture(t, 3)
	type order struct {
		ID       string
		Customer int64
		Total    int64
	}
	type sum struct {
		Last  order
		Total int64
	}
	orders := f.topic("orders", 3)
	out := f.topic("validations", 1)
	g := f.graphOf(atClose, func(g *Graph) {
		byCustomer := GroupBy(From(orders, codec.String, codec.JSON[order]{}), codec.Int64, func(_ string, o order) int64 { return o.Customer })
		sums := FoldSessions(byCustomer, Session(time.Hour), codec.JSON[sum]{},
			func(s sum, _ int64, o order) sum { return sum{o, s.Total + o.Total} },
			func(_ int64, a, b sum) sum { return sum{b.Last, a.Total + b.Total} })
		To(g, Map(sums.Changes(), codec.String, func(_ WindowKey[int64], s sum) (string, string) {
			if s.Total >= 2000 {
				return s.Last.ID, "F"
			}
			return s.Last.ID, "P"
		}), out)
	})
	for i, o := range []order{{Customer: 0, Total: 3}, {Customer: 0, Total: 15}, {Customer: 1, Total: 3}, {Customer: 1, Total: 15},
		{Customer: 2, Total: 2000}, {Customer: 1, Total: 15}, {Customer: 2, Total: 1}, {Customer: 2, Total: 4}} {
		o.ID = fmt.Sprint(i)
		produce(t, orders, o.ID, o)
		if err := g.CatchUp(f.ctx); err != nil { // from one partition after another
			t.Fatal(err)
		}
	}
	f.close(g)
	f.want("answers", f.records("validations"), "0=P 1=P 2=P 3=P 4=F 5=P 6=F 7=F")
}
