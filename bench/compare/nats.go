package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream in the process: no listener, a connection through a pipe.
type natsStore struct {
	srv *server.Server
	nc  *nats.Conn
	js  jetstream.JetStream
	str jetstream.Stream
}

const natsSubject = "records"

func openNATS(dir string, g guarantee) (store, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "compare", DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, SyncAlways: g == machine,
	})
	if err != nil {
		return nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		return nil, errors.New("the server did not get ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	str, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{natsSubject}, Storage: jetstream.FileStorage})
	if err != nil {
		return nil, err
	}
	return &natsStore{srv, nc, js, str}, nil
}

func joined(r record) []byte { return append(r.key[:keyBytes:keyBytes], r.value...) }

func (s *natsStore) Append(ctx context.Context, recs []record) error {
	if len(recs) == 1 {
		_, err := s.js.Publish(ctx, natsSubject, joined(recs[0]))
		return err
	}
	// Separate publishes in flight together: faster than its atomic batches.
	acks := make([]jetstream.PubAckFuture, len(recs))
	for i := range recs {
		var err error
		if acks[i], err = s.js.PublishAsync(natsSubject, joined(recs[i])); err != nil {
			return err
		}
	}
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			return err
		}
	}
	return nil
}

func (s *natsStore) ReadAll(ctx context.Context) (int, error) {
	info, err := s.str.Info(ctx)
	if err != nil {
		return 0, err
	}
	want := int(info.State.Msgs)
	c, err := s.str.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, err
	}
	it, err := c.Messages(jetstream.PullMaxMessages(5000))
	if err != nil {
		return 0, err
	}
	defer it.Stop()
	n := 0
	for n < want {
		m, err := it.Next()
		if err != nil {
			return n, err
		}
		touch(m.Data())
		n++
	}
	return n, nil
}

func (s *natsStore) Follow(ctx context.Context, f func([]byte)) (func() error, error) {
	c, err := s.str.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, err
	}
	run, err := c.Consume(func(m jetstream.Msg) { f(m.Data()) })
	if err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond) // it has no call that waits until it follows
	return func() error { run.Stop(); return nil }, nil
}

func (s *natsStore) Close() error {
	s.nc.Close()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	return nil
}
