package kafka

import (
	"context"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// serve serves a database in memory on a free port of loopback.
func serve(t testing.TB, db *embedlog.DB, o Options) *Server {
	t.Helper()
	if o.Listeners == nil {
		o.Listeners = []Listener{{Address: "127.0.0.1:0"}}
	}
	s, err := Serve(db, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openMemory(t testing.TB, o *embedlog.Options) *embedlog.DB {
	t.Helper()
	db, err := embedlog.OpenMemory(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// client is a kgo client of s.
func client(t testing.TB, s *Server, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.Addrs()[0].String())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestMetadata(t *testing.T) {
	db := openMemory(t, nil)
	if _, err := db.CreateTopic(t.Context(), "orders", &embedlog.TopicConfig{Partitions: 3}); err != nil {
		t.Fatal(err)
	}
	s := serve(t, db, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := kadm.NewClient(client(t, s)).Metadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(m.Topics["orders"].Partitions); got != 3 || len(m.Brokers) != 1 || m.Brokers[0].NodeID != 1 || m.Controller != 1 {
		t.Fatalf("metadata %+v: want 3 partitions of orders on broker 1", m)
	}
}
