package kafkaload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The loads with franz-go's client: idempotent with acks=all, as it comes, but without
// lingering, so that the server decides how long a record waits, and with random
// bytes uncompressed.

// grace is how long a load may take longer than it was told.
const grace = 30 * time.Second

// Kafka runs the load against a Kafka server.
func Kafka(ctx context.Context, c *Child, l *Load) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Time+grace)
	defer cancel()
	switch l.Kind {
	case Produce:
		return produce(ctx, c, l)
	case Consume:
		return consume(ctx, c, l)
	case Latency:
		return latency(ctx, c, l)
	}
	return Result{}, fmt.Errorf("no load %q", l.Kind)
}

// Values are as many different ones as a cache does not hold.
func Values(size int) [][]byte {
	src := rand.NewChaCha8([32]byte{1})
	list := make([][]byte, 4096)
	all := make([]byte, len(list)*size)
	src.Read(all)
	for i := range list {
		list[i] = all[i*size:][:size:size]
	}
	return list
}

// batches counts the record batches that clients write. It is a hook of kgo.
type batches struct{ n atomic.Int64 }

func (b *batches) OnProduceBatchWritten(kgo.BrokerMetadata, string, int32, kgo.ProduceBatchMetrics) {
	b.n.Add(1)
}

func newClient(c *Child, l *Load, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Addr), kgo.DefaultProduceTopic(Topic), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(l.window()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, more...)...)
}

// Each runs f for every client at once, between the two looks at the server's
// processor time; start is closed when all of them are ready.
func Each(c *Child, l *Load, f func(i int, ready func()) error) (elapsed, cpu time.Duration, err error) {
	var ready, done sync.WaitGroup
	errs := make([]error, l.Clients)
	start := make(chan struct{})
	for i := range l.Clients {
		ready.Add(1)
		var once sync.Once
		done.Go(func() {
			defer once.Do(ready.Done)
			errs[i] = f(i, func() {
				once.Do(ready.Done)
				<-start
			})
		})
	}
	ready.Wait()
	before, err := c.CPU()
	began := time.Now()
	close(start)
	done.Wait()
	elapsed = time.Since(began)
	after, err2 := c.CPU()
	return elapsed, after - before, errors.Join(append(errs, err, err2)...)
}

// Pump keeps a window of records outstanding until the time is over: it calls send,
// whose done is called when the record is acknowledged, and returns how many were.
func (l *Load) Pump(send func(i int, done func(error)) error) (int64, error) {
	var failed atomic.Pointer[error]
	var outstanding sync.WaitGroup
	window := make(chan struct{}, l.window())
	var acked atomic.Int64
	var end error
	for i, began := 0, time.Now(); failed.Load() == nil; i++ {
		if i%64 == 0 && time.Since(began) > l.Time {
			break
		}
		window <- struct{}{}
		outstanding.Add(1)
		err := send(i, func(err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			} else {
				acked.Add(1)
			}
			<-window
			outstanding.Done()
		})
		if err != nil {
			outstanding.Done()
			end = err
			break
		}
	}
	outstanding.Wait()
	if err := failed.Load(); err != nil {
		end = errors.Join(end, *err)
	}
	return acked.Load(), end
}

func produce(ctx context.Context, c *Child, l *Load) (Result, error) {
	pool := Values(l.Bytes)
	var records atomic.Int64
	var written batches
	elapsed, cpu, err := Each(c, l, func(i int, ready func()) error {
		cl, err := newClient(c, l, kgo.WithHooks(&written))
		if err != nil {
			return err
		}
		defer cl.Close()
		// The first record finds out who leads, and gets the producer's id.
		if err := cl.ProduceSync(ctx, &kgo.Record{Value: pool[0]}).FirstErr(); err != nil {
			return err
		}
		ready()
		n, err := l.Pump(func(n int, done func(error)) error {
			cl.Produce(ctx, &kgo.Record{Value: pool[(n+i*64)%len(pool)]}, func(_ *kgo.Record, err error) { done(err) })
			return nil
		})
		records.Add(n)
		return err
	})
	n := records.Load()
	return Result{Records: n, Bytes: n * int64(l.Bytes), Elapsed: elapsed, CPU: cpu, Requests: max(written.n.Load()-int64(l.Clients), 1)}, err
}

// Fill produces what a consumer is to find.
func Fill(ctx context.Context, c *Child, l *Load) error {
	one := *l
	one.Clients = 1
	cl, err := newClient(c, &one)
	if err != nil {
		return err
	}
	defer cl.Close()
	pool := Values(l.Bytes)
	var failed atomic.Pointer[error]
	for i := range l.Fill {
		cl.Produce(ctx, &kgo.Record{Value: pool[i%int64(len(pool))]}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func reading(partition int32) kgo.Opt {
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{Topic: {partition: kgo.NewOffset().AtStart()}})
}

func consume(ctx context.Context, c *Child, l *Load) (Result, error) {
	var records atomic.Int64
	elapsed, cpu, err := Each(c, l, func(i int, ready func()) error {
		cl, err := newClient(c, l, reading(0), kgo.FetchMaxPartitionBytes(int32(l.FetchBytes())), kgo.FetchMaxBytes(int32(l.FetchBytes())))
		if err != nil {
			return err
		}
		defer cl.Close()
		next := int64(0)
		poll := func() error {
			fetches := cl.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				return err
			}
			for rec := range fetches.RecordsAll() {
				if rec.Offset != next || len(rec.Value) != l.Bytes {
					return fmt.Errorf("record %d with %d bytes, expected %d", rec.Offset, len(rec.Value), next)
				}
				next++
			}
			return nil
		}
		if err := poll(); err != nil {
			return err
		}
		first := next
		ready()
		for began := time.Now(); next < l.Fill && time.Since(began) < l.Time; {
			if err := poll(); err != nil {
				return err
			}
		}
		records.Add(next - first)
		return nil
	})
	n := records.Load()
	return Result{Records: n, Bytes: n * int64(l.Bytes), Elapsed: elapsed, CPU: cpu}, err
}

// warmUp is how many records of each client are not counted in latencies.
const warmUp = 20

// RoundTrips calls one for record after record until the time is over, and returns how
// long each took.
func (l *Load) RoundTrips(ready func(), one func(i int) error) ([]time.Duration, error) {
	for i := range warmUp {
		if err := one(i); err != nil {
			return nil, err
		}
	}
	ready()
	var took []time.Duration
	for i, start := warmUp, time.Now(); time.Since(start) < l.Time; i++ {
		at := time.Now()
		if err := one(i); err != nil {
			return nil, err
		}
		took = append(took, time.Since(at))
	}
	return took, nil
}

// Latencies is Each for clients that wait for each of their records.
func Latencies(c *Child, l *Load, f func(i int, ready func()) ([]time.Duration, error)) (Result, error) {
	all := make([][]time.Duration, l.Clients)
	elapsed, cpu, err := Each(c, l, func(i int, ready func()) (err error) {
		all[i], err = f(i, ready)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	took := slices.Concat(all...)
	if len(took) == 0 {
		return Result{}, errors.New("no record came back in time")
	}
	slices.Sort(took)
	n := int64(len(took))
	return Result{
		Records: n, Bytes: n * int64(l.Bytes), Elapsed: elapsed, CPU: cpu,
		P50: took[len(took)/2], P99: took[len(took)*99/100],
	}, nil
}

func latency(ctx context.Context, c *Child, l *Load) (Result, error) {
	pool := Values(l.Bytes)
	return Latencies(c, l, func(i int, ready func()) ([]time.Duration, error) {
		cl, err := newClient(c, l, reading(int32(i)))
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		var failed atomic.Pointer[error]
		return l.RoundTrips(ready, func(n int) error {
			cl.Produce(ctx, &kgo.Record{Partition: int32(i), Value: pool[n%len(pool)]}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			})
			for {
				fetches := cl.PollFetches(ctx)
				if err := fetches.Err(); err != nil {
					return err
				}
				if err := failed.Load(); err != nil {
					return *err
				}
				if fetches.NumRecords() > 0 {
					break
				}
			}
			return nil
		})
	})
}
