package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite"

	"github.com/x/embedlog"
	"github.com/x/embedlog/bench/internal/nexmark"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// The two ways in which events are written.
var (
	compact query.Codec[nexmark.Event] = nexmark.EventCodec{}
	asJSON  query.Codec[nexmark.Event] = codec.JSON[nexmark.Event]{}
)

// cores has the process use as many as the repetition says. What it returns undoes it.
func cores(r *rep) (undo func()) {
	if r.Cores == 0 {
		return func() {}
	}
	was := runtime.GOMAXPROCS(r.Cores)
	return func() { runtime.GOMAXPROCS(was) }
}

// onOne is a part of a side with one partition, alone a run on one core, where the row has more of each.
func onOne(f subject0) subject0 {
	return func(r *rep) error {
		one := *r
		one.Count, one.Cores = 1, 1
		return f(&one)
	}
}

func alone(f subject) subject {
	return func(r *rep) (result, error) {
		one := *r
		one.Count, one.Cores = 1, 1
		return f(&one)
	}
}

// produceEvents writes the repetition's events, synced, into a topic of its partitions.
func produceEvents(c query.Codec[nexmark.Event]) subject0 {
	return func(r *rep) error {
		g := nexmark.NewGenerator(1, nexmark.PerSecond)
		return produceTyped(r, codec.Int64, c, func(int64) (int64, nexmark.Event, time.Time) {
			e := g.Next()
			return e.Key(), e, time.UnixMilli(e.At())
		})
	}
}

// produceTyped writes the repetition's records in its batches.
func produceTyped[K, V any](r *rep, key query.Codec[K], value query.Codec[V], next func(i int64) (K, V, time.Time)) error {
	w := *r
	w.Level = "os"
	db, t, err := openTopic(&w)
	if err != nil {
		return err
	}
	typed := embedlog.Typed(t, key, value)
	recs := make([]embedlog.Record, 0, r.Batch)
	for i := range r.Records {
		k, v, at := next(i)
		rec, err := typed.Encode(k, v)
		if err != nil {
			return errors.Join(err, db.Close())
		}
		rec.Timestamp = at
		if recs = append(recs, rec); len(recs) == r.Batch || i == r.Records-1 {
			if _, err := t.Produce(context.Background(), recs...); err != nil {
				return errors.Join(err, db.Close())
			}
			recs = recs[:0]
		}
	}
	return errors.Join(db.Sync(context.Background()), db.Close())
}

// readEvents reads the events as a view does, and decodes them.
func readEvents(c query.Codec[nexmark.Event]) subject {
	return func(r *rep) (result, error) {
		return decodeAll(r, codec.Int64, c, func() func(int64, nexmark.Event) error {
			var last int64 // of a partition: what is decoded is looked at
			return func(_ int64, e nexmark.Event) error {
				if e.At() < last {
					return errors.New("the events are not in order")
				}
				last = e.At()
				return nil
			}
		})
	}
}

// decodeAll reads the topic batch by batch, one goroutine for each partition, which calls what each returns for its records.
func decodeAll[K, V any](r *rep, key query.Codec[K], value query.Codec[V], each func() func(K, V) error) (result, error) {
	defer cores(r)()
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return result{}, err
	}
	var (
		wg    sync.WaitGroup
		errs  = make([]error, r.Count)
		reads = make([]int64, r.Count)
		ends  = make([]int64, r.Count)
	)
	t, err := db.Topic(dbTopic)
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	info, err := t.Describe()
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	taken, start := processorTime(), time.Now()
	for p := range r.Count {
		ends[p] = info.Partitions[p].HighWatermark
		wg.Go(func() { reads[p], errs[p] = decodePartition(db, int32(p), ends[p], key, value, each()) })
	}
	wg.Wait()
	elapsed := time.Since(start)
	taken = processorTime() - taken
	var n int64
	for _, x := range reads {
		n += x
	}
	if err = errors.Join(errs...); err == nil && n != r.Records {
		err = fmt.Errorf("read %d records, %d were written", n, r.Records)
	}
	return result{Records: n, Elapsed: elapsed, CPU: taken}, errors.Join(err, db.Close())
}

func decodePartition[K, V any](db *embedlog.DB, partition int32, end int64, key query.Codec[K], value query.Codec[V], f func(K, V) error) (n int64, err error) {
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: dbTopic, Partition: partition}}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for b, err := range c.Batches(context.Background()) {
		if err != nil {
			return n, err
		}
		for rec, err := range b.Records() {
			if err != nil {
				return n, err
			}
			k, err := key.Decode(rec.Key)
			if err != nil {
				return n, err
			}
			v, err := value.Decode(rec.Value)
			if err != nil {
				return n, err
			}
			if err := f(k, v); err != nil {
				return n, err
			}
			n++
		}
		if b.LastOffset+1 >= end {
			return n, nil
		}
	}
	return n, errors.New("the loop ended")
}

// amountKeys is how many keys the topic of amounts has.
const amountKeys = 10_000

// amount is a record of it: of a key, and of a group.
type amountOf struct{ Group, Amount, At int64 }

type amountCodec struct{}

func (amountCodec) Append(dst []byte, a amountOf) ([]byte, error) {
	return nexmark.AppendNumbers(dst, a.Group, a.Amount, a.At), nil
}

func (amountCodec) Decode(b []byte) (a amountOf, err error) {
	err = nexmark.Numbers(b, &a.Group, &a.Amount, &a.At)
	return a, err
}

// produceAmounts writes amounts of as many keys as groups, in any order.
func produceAmounts(r *rep) error {
	rng := rand.New(rand.NewPCG(1, 2))
	return produceTyped(r, codec.Int64, query.Codec[amountOf](amountCodec{}), func(i int64) (int64, amountOf, time.Time) {
		at := time.UnixMilli(1_700_000_000_000 + i)
		return rng.Int64N(amountKeys), amountOf{rng.Int64N(amountKeys), rng.Int64N(1_000_000), at.UnixMilli()}, at
	})
}

// sqliteUpserts is what a row is written with, and how many records the rows are of.
var sqliteUpserts = map[string]struct{ table, upsert, rows string }{
	"latest": {
		"CREATE TABLE v (k INTEGER PRIMARY KEY, g INTEGER, amount INTEGER, at INTEGER)",
		"INSERT INTO v VALUES (?, ?, ?, ?) ON CONFLICT (k) DO UPDATE SET g = excluded.g, amount = excluded.amount, at = excluded.at",
		"SELECT count(*) FROM v",
	},
	"groups": {
		"CREATE TABLE v (k INTEGER PRIMARY KEY, n INTEGER, total INTEGER)",
		"INSERT INTO v VALUES (?, 1, ?) ON CONFLICT (k) DO UPDATE SET n = n + 1, total = total + excluded.total",
		"SELECT sum(n) FROM v",
	},
}

// amountsInSQLite keeps the view in a table in memory: the records read and decoded as ours are, a prepared statement, 1,000 a transaction.
func amountsInSQLite(of string) subject {
	return func(r *rep) (res result, err error) {
		db, err := sql.Open("sqlite", ":memory:")
		if err != nil {
			return result{}, err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		db.SetMaxOpenConns(1) // each connection has a memory of its own
		how := sqliteUpserts[of]
		if _, err := db.Exec(how.table); err != nil {
			return result{}, err
		}
		var (
			tx   *sql.Tx
			stmt *sql.Stmt
			n    int64
		)
		upsert := func(k int64, a amountOf) (err error) {
			if tx == nil {
				if tx, err = db.Begin(); err != nil {
					return err
				}
				if stmt, err = tx.Prepare(how.upsert); err != nil {
					return err
				}
			}
			if of == "latest" {
				_, err = stmt.Exec(k, a.Group, a.Amount, a.At)
			} else {
				_, err = stmt.Exec(a.Group, a.Amount)
			}
			if n++; err == nil && (n%1000 == 0 || n == r.Records) {
				err = tx.Commit()
				tx = nil
			}
			return err
		}
		res, err = decodeAll(r, codec.Int64, query.Codec[amountOf](amountCodec{}), func() func(int64, amountOf) error { return upsert })
		if err != nil {
			return result{}, err
		}
		var got int64
		if err := db.QueryRow(how.rows).Scan(&got); err != nil {
			return result{}, err
		}
		if of == "groups" && got != r.Records || of == "latest" && (got == 0 || got > amountKeys) {
			return result{}, fmt.Errorf("SQLite's view has %d: %s", got, how.rows)
		}
		return res, nil
	}
}

// getFromMap is what a program does that keeps rows in a map under a lock.
func getFromMap(r *rep) (result, error) {
	var mu sync.RWMutex
	rows := make(map[int64]amountOf, r.Count)
	for k := range int64(r.Count) {
		rows[k] = amountOf{Group: k}
	}
	return timeGets(r, func(k int64) (amountOf, bool, error) {
		mu.RLock()
		defer mu.RUnlock()
		v, ok := rows[k]
		return v, ok, nil
	})
}

// gets is how many point reads a repetition times.
func gets(r *rep) int { return min(500_000, 50*r.Count) }

// timeGets times reads of keys in any order. A row's group is its key.
func timeGets(r *rep, get func(k int64) (amountOf, bool, error)) (result, error) {
	rng := rand.New(rand.NewPCG(3, 4))
	keys := make([]int64, gets(r))
	for i := range keys {
		keys[i] = rng.Int64N(int64(r.Count))
	}
	taken, start := processorTime(), time.Now()
	for _, k := range keys {
		v, ok, err := get(k)
		if err != nil {
			return result{}, err
		}
		if !ok || v.Group != k {
			return result{}, fmt.Errorf("key %d has %+v, %t", k, v, ok)
		}
	}
	elapsed := time.Since(start)
	taken = processorTime() - taken
	return result{Records: int64(len(keys)), Elapsed: elapsed, CPU: taken, Value: float64(elapsed.Nanoseconds()) / float64(len(keys))}, nil
}

// evenRate is how many records a second are produced where latency is measured, one a call; one of everySeen is waited for.
const (
	evenRate    = 50_000
	everySeen   = 50
	visibleKeys = 1000
)

// produceEvenly produces the repetition's records at the rate. It calls before in front of each call of Produce, and each behind it.
func produceEvenly(r *rep, top *embedlog.Topic, before func(i int64), each func(i int64, at embedlog.Position, row amountOf)) (elapsed time.Duration, err error) {
	typed := embedlog.Typed(top, codec.Int64, query.Codec[amountOf](amountCodec{}))
	start := time.Now()
	for i := range r.Records {
		due := start.Add(time.Duration(i) * (time.Second / evenRate))
		if wait := time.Until(due); wait > 0 {
			// To wait busily would take a processor from the other side. Who has slept too long makes up for it.
			time.Sleep(wait)
		}
		row := amountOf{Group: i % visibleKeys, Amount: i, At: visibleKeys + i}
		rec, err := typed.Encode(row.Group, row)
		if err != nil {
			return 0, err
		}
		before(i)
		at, err := top.Produce(context.Background(), rec)
		if err != nil {
			return 0, err
		}
		each(i, at[0], row)
	}
	return time.Since(start), nil
}

// evenly is the result of what was produced so. It breaks a promise when the rate was not reached.
func evenly(r *rep, elapsed time.Duration, took []time.Duration) result {
	slices.Sort(took)
	res := result{Records: r.Records, Elapsed: elapsed, P50: took[len(took)/2], P99: took[len(took)*99/100]}
	res.Value = float64(res.P99.Nanoseconds()) / 1000
	if reached := float64(r.Records) / elapsed.Seconds(); reached < 0.9*evenRate {
		res.Note = fmt.Sprintf("%.0f records/s", reached)
	}
	return res
}

// seenByConsumer is how long it takes until a consumer has the records.
func seenByConsumer(r *rep) (result, error) {
	db, top, err := openTopic(r)
	if err != nil {
		return result{}, err
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: dbTopic}}})
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	sent := make([]atomic.Int64, r.Records) // nanoseconds since start
	start := time.Now()
	var took []time.Duration
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for rec, err := range c.Records(ctx) {
			if err != nil {
				ended <- err
				return
			}
			if rec.Offset%everySeen == 0 {
				took = append(took, time.Since(start)-time.Duration(sent[rec.Offset].Load()))
			}
			if rec.Offset == r.Records-1 {
				break
			}
		}
		ended <- nil
	}()
	elapsed, err := produceEvenly(r, top, func(i int64) { sent[i].Store(int64(time.Since(start))) }, func(int64, embedlog.Position, amountOf) {})
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-ended)
	if err == nil && int64(len(took)) != (r.Records+everySeen-1)/everySeen {
		err = fmt.Errorf("the consumer has %d of %d records", len(took)*everySeen, r.Records)
	}
	if err != nil {
		return result{}, errors.Join(err, c.Close(), db.Close())
	}
	return evenly(r, elapsed, took), errors.Join(c.Close(), db.Close())
}

// readChangelog reads the view's changelog and decodes its rows.
func readChangelog(r *rep) (result, error) {
	defer cores(r)()
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return result{}, err
	}
	t, err := db.Topic(viewName + "-changelog")
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	taken, start := processorTime(), time.Now()
	var n int64
	for rec, err := range t.Scan(context.Background(), nil) {
		if err == nil {
			_, err = amountCodec{}.Decode(rec.Value)
		}
		if err != nil {
			return result{}, errors.Join(err, db.Close())
		}
		n++
	}
	elapsed := time.Since(start)
	taken = processorTime() - taken
	if n != r.Records {
		err = fmt.Errorf("the changelog has %d rows, %d were committed", n, r.Records)
	}
	return result{Records: n, Elapsed: elapsed, CPU: taken, Value: float64(elapsed) / float64(time.Millisecond)}, errors.Join(err, db.Close())
}

// profiled writes profiles of what run does, where the repetition says so.
func profiled(run subject) subject {
	return func(r *rep) (res result, err error) {
		if r.Profile == "" {
			return run(r)
		}
		if err := os.MkdirAll(filepath.Dir(r.Profile), 0o700); err != nil {
			return result{}, err
		}
		stop, err := startProfiles(r.Profile)
		if err != nil {
			return result{}, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		return run(r)
	}
}
