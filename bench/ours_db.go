package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
)

// Our side of the rows about the public API.

func init() {
	for _, r := range dbRows() {
		name := strings.TrimPrefix(r.name, "db/")
		switch {
		case strings.HasPrefix(name, "produce/"):
			register(r.name, side{run: produceOurs})
		case strings.HasPrefix(name, "read/how=records"):
			register(r.name, side{fresh: true, prepare: produceAll, run: readRecords})
		case strings.HasPrefix(name, "read/how=batches"):
			register(r.name, side{fresh: true, prepare: produceAll, run: readBatches})
		case strings.HasPrefix(name, "latency/"):
			register(r.name, side{run: latencyOurs})
		case strings.HasPrefix(name, "txn/"):
			register(r.name, side{run: txnOurs})
		case strings.HasSuffix(name, "/after=close"):
			register(r.name, side{fresh: true, setup: fillDB, run: openDB})
		case strings.HasSuffix(name, "/after=kill"):
			register(r.name, side{
				fresh: true, setup: fillDB, run: openDB, victim: produceForever,
				prepare: func(one *rep) error { return killVictim(r.name, one) },
			})
		case strings.HasPrefix(name, "idle/"):
			register(r.name, side{fresh: true, prepare: fillDB, run: idleDB})
		}
	}
}

const dbTopic = "bench"

// openTopic opens a database in the repetition's directory, and its topic.
func openTopic(r *rep) (*embedlog.DB, *embedlog.Topic, error) {
	levels := map[string]embedlog.Durability{"os": embedlog.OS, "durable": embedlog.Durable, "": embedlog.Durable}
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return nil, nil, err
	}
	c := &embedlog.TopicConfig{Partitions: max(r.Count, 1), Durability: levels[r.Level], MaxRecordBytes: largestBatchBytes}
	t, err := db.EnsureTopic(context.Background(), dbTopic, c)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, t, nil
}

// topicRecords is the pool as records: once, and the first ones of it again.
func topicRecords(r *rep) []embedlog.Record {
	records := r.records()
	recs := make([]embedlog.Record, poolRecords+r.Batch)
	for i := range recs {
		recs[i].Key, recs[i].Value = records.at(int64(i))
	}
	return recs
}

// producer returns what appends the records from i on with one call.
func producer(t *embedlog.Topic, r *rep) func(i int64) error {
	return repeat(t, r, topicRecords(r))
}

func repeat(t *embedlog.Topic, r *rep, recs []embedlog.Record) func(i int64) error {
	return func(i int64) error {
		at := int(i & (poolRecords - 1))
		_, err := t.Produce(context.Background(), recs[at:at+r.Batch]...)
		return err
	}
}

// keyedProducer is producer with one key for all records, which belongs to that
// partition.
func keyedProducer(t *embedlog.Topic, r *rep, partition int32) func(i int64) error {
	recs := topicRecords(r)
	var key []byte
	for i := range recs {
		if key = recs[i].Key; embedlog.KeyPartition(key, r.Count) == partition {
			break
		}
	}
	for i := range recs {
		recs[i].Key = key
	}
	return repeat(t, r, recs)
}

func produceOurs(r *rep) (result, error) {
	db, t, err := openTopic(r)
	if err != nil {
		return result{}, err
	}
	// The first append to a partition makes its file ready; the limit's was, before the
	// clock started.
	produce := producer(t, r)
	for i := range int64(max(r.Count*16, 1)) {
		if err := produce(i); err != nil {
			return result{}, errors.Join(err, db.Close())
		}
	}
	before, err := written(t)
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	var goroutines atomic.Int32
	res, err := r.parallelEach(func() func(int64) error {
		if r.OneKey {
			return keyedProducer(t, r, (goroutines.Add(1)-1)%int32(r.Count))
		}
		return producer(t, r)
	})
	after, werr := written(t)
	if err = errors.Join(err, werr); err == nil && after-before != res.Records {
		err = fmt.Errorf("the topic took %d records, %d were produced", after-before, res.Records)
	}
	return res, errors.Join(err, db.Close())
}

// written is how many records the topic took so far.
func written(t *embedlog.Topic) (n int64, err error) {
	info, err := t.Describe()
	for _, p := range info.Partitions {
		n += p.HighWatermark
	}
	return n, err
}

// produceAll writes the repetition's records in its batches and closes.
func produceAll(r *rep) error {
	w := *r
	w.Level, w.Count = "os", 1
	db, t, err := openTopic(&w)
	if err != nil {
		return err
	}
	produce := producer(t, &w)
	for i := int64(0); i < r.Records; i += int64(r.Batch) {
		if err := produce(i); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	return db.Close()
}

// reading opens what produceAll wrote, times walk, and checks what it saw.
func reading(r *rep, walk func(ctx context.Context, c *embedlog.Consumer, t *toucher) error) (result, error) {
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return result{}, err
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: dbTopic}}, ReuseBuffers: r.Reuse})
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	var t toucher
	start := time.Now()
	err = walk(context.Background(), c, &t)
	elapsed := time.Since(start)
	if err == nil && (t.records != r.Records || t.sum == 0) {
		err = fmt.Errorf("read %d records (sum %d), %d were written", t.records, t.sum, r.Records)
	}
	return result{Records: t.records, Elapsed: elapsed}, errors.Join(err, c.Close(), db.Close())
}

func readRecords(r *rep) (result, error) {
	return reading(r, func(ctx context.Context, c *embedlog.Consumer, t *toucher) error {
		for rec, err := range c.Records(ctx) {
			if err != nil {
				return err
			}
			if rec.Offset != t.records || len(rec.Key) != keyBytes || len(rec.Value) != r.ValueBytes {
				return fmt.Errorf("offset %d has a key of %d and a value of %d bytes; expected offset %d", rec.Offset, len(rec.Key), len(rec.Value), t.records)
			}
			t.sum += uint64(rec.Key[0]) + uint64(rec.Key[keyBytes-1]) + uint64(rec.Value[0]) + uint64(rec.Value[len(rec.Value)-1])
			if t.records++; t.records == r.Records {
				break
			}
		}
		return nil
	})
}

func readBatches(r *rep) (result, error) {
	return reading(r, func(ctx context.Context, c *embedlog.Consumer, t *toucher) error {
		for b, err := range c.Batches(ctx) {
			if err == nil {
				err = t.batch(b.Bytes())
			}
			if err != nil {
				return err
			}
			if t.records == r.Records {
				break
			}
		}
		return nil
	})
}

// latencyOurs produces to a topic whose consumer waits in Records.
func latencyOurs(r *rep) (result, error) {
	db, t, err := openTopic(r)
	if err != nil {
		return result{}, err
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: dbTopic}}})
	if err != nil {
		return result{}, errors.Join(err, db.Close())
	}
	consumed := int64(0)
	res, err := r.wakeLoop(producer(t, r), func(got func(error) bool) {
		for rec, err := range c.Records(context.Background()) {
			if err == nil && rec.Offset != consumed {
				err = fmt.Errorf("consumed offset %d, expected %d", rec.Offset, consumed)
			}
			consumed++
			if !got(err) {
				return
			}
		}
	})
	return res, errors.Join(err, c.Close(), db.Close())
}

// txnOurs runs transactions of one record and one committed position.
func txnOurs(r *rep) (result, error) {
	db, t, err := openTopic(r)
	if err != nil {
		return result{}, err
	}
	var group atomic.Int64
	res, err := r.parallelEach(func() func(int64) error {
		recs := topicRecords(r)
		name := fmt.Sprintf("group-%d", group.Add(1))
		return func(i int64) error {
			ctx := context.Background()
			rec := recs[i&(poolRecords-1)]
			rec.Topic = dbTopic
			return db.Update(ctx, func(tx *embedlog.Txn) error {
				if _, err := tx.Produce(ctx, rec); err != nil {
					return err
				}
				return tx.CommitPositions(ctx, name, embedlog.Position{Topic: dbTopic, Offset: 0, LeaderEpoch: -1})
			})
		}
	})
	n := int64(0)
	for _, serr := range t.Scan(context.Background(), nil) {
		if serr != nil {
			err = errors.Join(err, serr)
			break
		}
		n++
	}
	if err == nil && n != res.Records {
		err = fmt.Errorf("the topic has %d records of %d transactions", n, res.Records)
	}
	return res, errors.Join(err, db.Close())
}

// fillDB makes the row's partitions with records in each, and closes.
func fillDB(r *rep) error {
	db, t, err := openTopic(r)
	if err != nil {
		return err
	}
	recs := topicRecords(r)
	for p := range int32(r.Count) {
		if _, err := t.ProduceTo(context.Background(), p, recs[:100]...); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	return db.Close()
}

// produceForever writes to every partition, says when each had some, and goes on until
// it is killed.
func produceForever(r *rep) error {
	db, t, err := openTopic(r)
	if err != nil {
		return err
	}
	defer db.Close()
	recs := topicRecords(r)
	for round := range 1000 {
		for p := range int32(r.Count) {
			if _, err := t.ProduceTo(context.Background(), p, recs[int(p)]); err != nil {
				return err
			}
		}
		if round == 0 {
			if _, err := io.WriteString(os.Stdout, victimReady); err != nil {
				return err
			}
		}
	}
	return errors.New("nobody killed the victim")
}

// openDB times Open.
func openDB(r *rep) (result, error) {
	start := time.Now()
	db, err := embedlog.Open(r.Dir, nil)
	elapsed := time.Since(start)
	if err != nil {
		return result{}, err
	}
	res := result{Records: 1, Elapsed: elapsed, Value: float64(elapsed) / float64(time.Millisecond)}
	s := db.Stats()
	if s.Partitions < r.Count || s.Failed > 0 || s.Records < int64(100*r.Count) {
		res.Note = fmt.Sprintf("%d partitions with %d records, %d failed", s.Partitions, s.Records, s.Failed)
	}
	return res, db.Close()
}

// handful is how many goroutines an idle database may have.
const handful = 8

// idleDB opens a database, waits until nothing goes on any more, and counts.
func idleDB(r *rep) (result, error) {
	goroutines, heap := runtime.NumGoroutine(), heapBytes()
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return result{}, err
	}
	time.Sleep(4 * time.Second)
	var res result
	if n := runtime.NumGoroutine() - goroutines; n > handful {
		res.Note = fmt.Sprintf("%d goroutines", n)
	}
	res.Value = float64(heapBytes()-heap) / (1 << 20)
	return res, db.Close()
}
