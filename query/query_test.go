package query

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

type order struct {
	Customer string
	Cents    int64
}

func produce(t *testing.T, top *embedlog.Topic, key string, v any) embedlog.Position {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	p, err := top.Produce(t.Context(), embedlog.Record{Key: []byte(key), Value: b})
	if err != nil {
		t.Fatal(err)
	}
	return p[0]
}

func TestFirstView(t *testing.T) {
	ctx, db := context.Background(), embedlogtest.Open(t, nil)
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	start := func() *View[string, int64] {
		spent, err := Aggregate(From(orders, codec.String, codec.JSON[order]{}), "spent",
			func(total int64, _ string, o order) int64 { return total + o.Cents })
		if err != nil {
			t.Fatal(err)
		}
		return spent
	}
	check := func(v *View[string, int64], key string, want int64, there bool) {
		t.Helper()
		if got, found, err := v.Get(ctx, key); got != want || found != there || err != nil {
			t.Errorf("%s: %d, %v, %v; want %d, %v", key, got, found, err, want, there)
		}
	}
	spent := start()
	produce(t, orders, "ann", order{"ann", 450})
	produce(t, orders, "ann", order{"ann", 50})
	produce(t, orders, "bob", order{"bob", 7})
	check(spent, "ann", 500, true)
	check(spent, "bob", 7, true)
	check(spent, "eve", 0, false)
	if err := spent.Close(); err != nil {
		t.Fatal(err)
	}
	spent = start()
	check(spent, "ann", 500, true)
	produce(t, orders, "ann", order{"ann", 1})
	check(spent, "ann", 501, true)
	db.Crash()
	if orders, err = db.Topic("orders"); err != nil {
		t.Fatal(err)
	}
	spent = start()
	check(spent, "ann", 501, true)
}
