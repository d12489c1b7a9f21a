package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/x/embedlog/bench/internal/kafkaload"
)

// NATS over loopback, with and without JetStream.

const natsStream = "load"

// natsSubjectOf is what stands for a partition.
func natsSubjectOf(partition int) string { return fmt.Sprintf("%s.%d", kafkaload.Topic, partition) }

func serveNATS(dir string, l *kafkaload.Load) error {
	srv, err := server.NewServer(&server.Options{
		ServerName: "compare", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, SyncAlways: l.Durable,
	})
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		return errors.New("the server did not get ready")
	}
	err = kafkaload.Serve(srv.Addr().String())
	srv.Shutdown()
	srv.WaitForShutdown()
	return err
}

func natsConnect(c *kafkaload.Child, o ...jetstream.JetStreamOpt) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect("nats://" + c.Addr)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, o...)
	if err != nil {
		nc.Close()
	}
	return nc, js, err
}

// natsMake makes the stream, unless it is there.
func natsMake(ctx context.Context, c *kafkaload.Child) error {
	nc, js, err := natsConnect(c)
	if err != nil {
		return err
	}
	defer nc.Close()
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: natsStream, Subjects: []string{kafkaload.Topic + ".>"}, Storage: jetstream.FileStorage})
	return err
}

// natsLoad runs the load with JetStream, or without it.
func natsLoad(core bool) func(context.Context, *kafkaload.Child, *kafkaload.Load) (kafkaload.Result, error) {
	return func(ctx context.Context, c *kafkaload.Child, l *kafkaload.Load) (kafkaload.Result, error) {
		ctx, cancel := context.WithTimeout(ctx, l.Time+30*time.Second)
		defer cancel()
		if !core {
			if err := natsMake(ctx, c); err != nil {
				return kafkaload.Result{}, err
			}
		}
		switch l.Kind {
		case kafkaload.Produce:
			return natsProduce(c, l, core)
		case kafkaload.Consume:
			return natsConsume(ctx, c, l)
		default:
			return natsLatency(ctx, c, l, core)
		}
	}
}

// natsPublisher publishes without waiting, and calls done for each acknowledgement.
type natsPublisher struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	done atomic.Pointer[func(error)] // the same one for all
}

func newNATSPublisher(c *kafkaload.Child, window int) (*natsPublisher, error) {
	p := &natsPublisher{}
	var err error
	p.nc, p.js, err = natsConnect(c, jetstream.WithPublishAsyncMaxPending(window+1),
		jetstream.WithPublishAsyncAckHandler(func(jetstream.JetStream, *nats.Msg, *jetstream.PubAck) { (*p.done.Load())(nil) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { (*p.done.Load())(err) }))
	return p, err
}

func (p *natsPublisher) send(value []byte, done func(error)) error {
	if p.done.Load() == nil {
		p.done.Store(&done)
	}
	_, err := p.js.PublishAsync(natsSubjectOf(0), value)
	return err
}

func natsProduce(c *kafkaload.Child, l *kafkaload.Load, core bool) (kafkaload.Result, error) {
	pool := kafkaload.Values(l.Bytes)
	var records atomic.Int64
	elapsed, cpu, err := kafkaload.Each(c, l, func(i int, ready func()) error {
		window := max(l.Window/l.Clients, 1)
		p, err := newNATSPublisher(c, window)
		if err != nil {
			return err
		}
		defer p.nc.Close()
		ready()
		if core {
			n, err := natsFlood(p.nc, l, max(window/2, 1), pool)
			records.Add(n)
			return err
		}
		n, err := l.Pump(func(n int, done func(error)) error { return p.send(pool[(n+i*64)%len(pool)], done) })
		records.Add(n)
		return err
	})
	n := records.Load()
	return kafkaload.Result{Records: n, Bytes: n * int64(l.Bytes), Elapsed: elapsed, CPU: cpu}, err
}

// natsFlood publishes to core NATS, and hears from the server after so many.
func natsFlood(nc *nats.Conn, l *kafkaload.Load, between int, pool [][]byte) (n int64, err error) {
	for began := time.Now(); time.Since(began) < l.Time; {
		for range between {
			if err := nc.Publish(natsSubjectOf(0), pool[n%int64(len(pool))]); err != nil {
				return n, err
			}
			n++
		}
		if err := nc.Flush(); err != nil {
			return n, err
		}
	}
	return n, nil
}

func natsFill(ctx context.Context, c *kafkaload.Child, l *kafkaload.Load) error {
	if err := natsMake(ctx, c); err != nil {
		return err
	}
	p, err := newNATSPublisher(c, l.Window)
	if err != nil {
		return err
	}
	defer p.nc.Close()
	pool := kafkaload.Values(l.Bytes)
	window := make(chan struct{}, l.Window)
	var failed atomic.Pointer[error]
	for i := range l.Fill {
		window <- struct{}{}
		err := p.send(pool[i%int64(len(pool))], func(err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
			<-window
		})
		if err != nil {
			return err
		}
	}
	select {
	case <-p.js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func natsConsume(ctx context.Context, c *kafkaload.Child, l *kafkaload.Load) (kafkaload.Result, error) {
	var records atomic.Int64
	elapsed, cpu, err := kafkaload.Each(c, l, func(i int, ready func()) error {
		nc, js, err := natsConnect(c)
		if err != nil {
			return err
		}
		defer nc.Close()
		cons, err := js.OrderedConsumer(ctx, natsStream, jetstream.OrderedConsumerConfig{})
		if err != nil {
			return err
		}
		// As much ahead as the others ask for at once.
		it, err := cons.Messages(jetstream.PullMaxMessages(max(l.FetchBytes()/l.Bytes, 500)))
		if err != nil {
			return err
		}
		defer it.Stop()
		next := func() error {
			m, err := it.Next()
			if err == nil && len(m.Data()) != l.Bytes {
				err = fmt.Errorf("a message of %d bytes", len(m.Data()))
			}
			return err
		}
		if err := next(); err != nil {
			return err
		}
		ready()
		n := int64(1)
		for began := time.Now(); n < l.Fill; n++ {
			if n%64 == 0 && time.Since(began) >= l.Time {
				break
			}
			if err := next(); err != nil {
				return err
			}
		}
		records.Add(n - 1)
		return nil
	})
	n := records.Load()
	return kafkaload.Result{Records: n, Bytes: n * int64(l.Bytes), Elapsed: elapsed, CPU: cpu}, err
}

func natsLatency(ctx context.Context, c *kafkaload.Child, l *kafkaload.Load, core bool) (kafkaload.Result, error) {
	pool := kafkaload.Values(l.Bytes)
	return kafkaload.Latencies(c, l, func(i int, ready func()) ([]time.Duration, error) {
		nc, js, err := natsConnect(c)
		if err != nil {
			return nil, err
		}
		defer nc.Close()
		// One for each way, as Kafka's clients have them.
		in, inJS, err := natsConnect(c)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		got := make(chan struct{}, 1)
		subject := natsSubjectOf(i)
		if core {
			if _, err := in.Subscribe(subject, func(*nats.Msg) { got <- struct{}{} }); err != nil {
				return nil, err
			}
			if err := in.Flush(); err != nil {
				return nil, err
			}
		} else {
			cons, err := inJS.OrderedConsumer(ctx, natsStream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
			if err != nil {
				return nil, err
			}
			run, err := cons.Consume(func(jetstream.Msg) { got <- struct{}{} })
			if err != nil {
				return nil, err
			}
			defer run.Stop()
		}
		return l.RoundTrips(ready, func(n int) error {
			if core {
				if err := nc.Publish(subject, pool[n%len(pool)]); err != nil {
					return err
				}
			} else if _, err := js.PublishAsync(subject, pool[n%len(pool)]); err != nil {
				return err
			}
			select {
			case <-got:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
}
