package embedlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

func beginTxn(t *testing.T, db *DB, o *TxnOptions) *Txn {
	t.Helper()
	tx, err := db.Begin(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func produceTxn(t *testing.T, tx *Txn, recs ...Record) []Position {
	t.Helper()
	at, err := tx.Produce(context.Background(), recs...)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// values are the values of a topic that a reader of committed records sees, sorted.
func values(t *testing.T, topic *Topic) []string {
	t.Helper()
	var list []string
	for rec, err := range topic.Scan(context.Background(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(rec.Value))
	}
	slices.Sort(list)
	return list
}

func wantValues(t *testing.T, topic *Topic, want ...string) {
	t.Helper()
	if got := values(t, topic); !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", topic.Name(), got, want)
	}
}

func text(topic, value string) Record { return Record{Topic: topic, Value: []byte(value)} }

func keyed(topic, key, value string) Record {
	return Record{Topic: topic, Key: []byte(key), Value: []byte(value)}
}

func TestTxn(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	orders := makeTopic(t, db, "orders", &TopicConfig{Partitions: 4})
	paid := makeTopic(t, db, "paid", &TopicConfig{Durability: OS})
	tx := beginTxn(t, db, nil)
	at := produceTxn(t, tx, keyed("orders", "ann", "1"), text("paid", "2"), keyed("orders", "bob", "3"), text("paid", "4"))
	for i, key := range []string{"ann", "", "bob", ""} {
		want := Position{Topic: "orders", Partition: KeyPartition([]byte(key), 4)}
		if key == "" {
			want = Position{Topic: "paid", Offset: int64(i / 2)}
		}
		if i == 3 || i == 2 && KeyPartition([]byte("ann"), 4) == KeyPartition([]byte("bob"), 4) {
			want.Offset = 1
		}
		if at[i] != want {
			t.Errorf("record %d is at %+v, want %+v", i, at[i], want)
		}
	}
	wantValues(t, orders)
	wantValues(t, paid)
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	wantValues(t, orders, "1", "3")
	wantValues(t, paid, "2", "4")

	for what, err := range map[string]error{
		"commit": tx.Commit(ctx), "abort": tx.Abort(ctx), "offsets": tx.CommitPositions(ctx, "g", Position{Topic: "paid"}),
		"produce": func() error { _, err := tx.Produce(ctx, text("paid", "x")); return err }(),
	} {
		if !errors.Is(err, ErrTxnEnded) {
			t.Errorf("%s after the end: %v", what, err)
		}
	}

	tx = beginTxn(t, db, nil)
	produceTxn(t, tx, text("paid", "5"))
	if err := tx.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	empty := beginTxn(t, db, nil)
	if err := empty.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	wantValues(t, paid, "2", "4")
	if n := len(db.engine.Txns().List()); n != 1 {
		t.Errorf("%d transactional ids for one transaction at a time", n)
	}
}

func TestUpdate(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", nil)
	put := func(v string, err error) func(*Txn) error {
		return func(tx *Txn) error {
			produceTxn(t, tx, text("t", v))
			return err
		}
	}
	if err := db.Update(ctx, put("a", nil)); err != nil {
		t.Fatal(err)
	}
	why := errors.New("no")
	if err := db.Update(ctx, put("b", why)); err != why {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		db.Update(ctx, func(tx *Txn) error {
			produceTxn(t, tx, text("t", "c"))
			panic("no")
		})
	}()
	if err := db.Update(ctx, put("d", nil)); err != nil {
		t.Fatal(err)
	}
	wantValues(t, topic, "a", "d")
}

// A transaction of which a part failed is not committed, whatever the caller does.
func TestTxnWithAFailedPart(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", &TopicConfig{MaxRecordBytes: 1000})
	for name, part := range map[string]func(*Txn) error{
		"unknown topic": func(tx *Txn) error { _, err := tx.Produce(ctx, text("other", "x")); return err },
		"too large":     func(tx *Txn) error { _, err := tx.Produce(ctx, text("t", strings.Repeat("x", 2000))); return err },
		"partition":     func(tx *Txn) error { _, err := tx.ProduceTo(ctx, Record{Topic: "t", Partition: 7}); return err },
		"offsets":       func(tx *Txn) error { return tx.CommitPositions(ctx, "g", Position{Topic: "other"}) },
		"cancelled": func(tx *Txn) error {
			over, cancel := context.WithCancel(ctx)
			cancel()
			_, err := tx.Produce(over, text("t", "x"))
			if tx.failed != nil {
				t.Error("a call that took nothing failed the transaction")
			}
			tx.fail(err)
			return err
		},
	} {
		tx := beginTxn(t, db, nil)
		produceTxn(t, tx, text("t", "a"))
		why := part(tx)
		if why == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := tx.Produce(ctx, text("t", "b")); err == nil {
			t.Errorf("%s: it goes on", name)
		}
		if err := tx.Commit(ctx); err == nil || !strings.Contains(err.Error(), why.Error()) {
			t.Errorf("%s: commit: %v, want %v", name, err, why)
		}
		if err := tx.Abort(ctx); !errors.Is(err, ErrTxnEnded) {
			t.Errorf("%s: abort after that: %v", name, err)
		}
	}
	wantValues(t, topic)
	if err := db.Update(ctx, func(tx *Txn) error { produceTxn(t, tx, text("t", "z")); return nil }); err != nil {
		t.Fatal(err)
	}
	wantValues(t, topic, "z")
}

func TestNamedTxnFences(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", nil)
	named := &TxnOptions{ID: "billing"}
	old := beginTxn(t, db, named)
	produceTxn(t, old, text("t", "old"))
	young := beginTxn(t, db, named)
	if _, err := old.Produce(ctx, text("t", "x")); !errors.Is(err, ErrFenced) {
		t.Errorf("produce: %v", err)
	}
	if err := old.Commit(ctx); !errors.Is(err, ErrFenced) {
		t.Errorf("commit: %v", err)
	}
	produceTxn(t, young, text("t", "young"))
	if err := young.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	wantValues(t, topic, "young")
	// One that learns only at its commit.
	old = beginTxn(t, db, named)
	produceTxn(t, old, text("t", "old"))
	beginTxn(t, db, named)
	if err := old.Commit(ctx); !errors.Is(err, ErrFenced) {
		t.Errorf("commit: %v", err)
	}
	if err := old.Commit(ctx); !errors.Is(err, ErrTxnEnded) {
		t.Errorf("a second commit: %v", err)
	}
	wantValues(t, topic, "young")
}

func TestTxnTimesOut(t *testing.T) {
	ctx := context.Background()
	var now atomic.Int64
	now.Store(1e18)
	db := openMemory(t, &Options{Now: func() time.Time { return time.Unix(0, now.Load()) }})
	topic := makeTopic(t, db, "t", nil)
	tx := beginTxn(t, db, &TxnOptions{Timeout: time.Second})
	produceTxn(t, tx, text("t", "a"))
	other := beginTxn(t, db, &TxnOptions{Timeout: time.Second})
	produceTxn(t, other, text("t", "b"))
	now.Add(int64(time.Second))
	db.engine.Tick(ctx)
	var aborted *TxnAbortedError
	if err := tx.Commit(ctx); !errors.As(err, &aborted) || !errors.Is(err, ErrTxnAborted) || aborted.Timeout != time.Second {
		t.Errorf("commit: %v", err)
	}
	if err := other.Abort(ctx); err != nil {
		t.Errorf("abort: %v", err)
	}
	wantValues(t, topic)
	for _, timeout := range []time.Duration{-1, time.Hour} {
		if _, err := db.Begin(ctx, &TxnOptions{Timeout: timeout}); err == nil {
			t.Errorf("a timeout of %v is accepted", timeout)
		}
	}
}

// consume, transform, produce: whatever is aborted on the way, each record is
// transformed once.
func TestTxnWithOffsets(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	in := makeTopic(t, db, "in", &TopicConfig{Partitions: 2})
	out := makeTopic(t, db, "out", nil)
	const n = 20
	var want []string
	for i := range n {
		v := fmt.Sprintf("%02d", i)
		want = append(want, v+"!")
		if _, err := in.Produce(ctx, Record{Key: []byte(v), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	config := &ConsumerConfig{Group: "g", Topics: []string{"in"}, ManualCommit: true}
	c, err := db.Consumer(config)
	if err != nil {
		t.Fatal(err)
	}
	for round := 0; len(values(t, out)) < n; round++ {
		if round > 200 {
			t.Fatalf("only %q", values(t, out))
		}
		list, err := c.Poll(ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		tx := beginTxn(t, db, nil)
		for _, rec := range list {
			produceTxn(t, tx, text("out", string(rec.Value)+"!"))
			c.Mark(rec)
		}
		if err := tx.CommitOffsets(ctx, c); err != nil {
			t.Fatal(err)
		}
		switch round % 4 {
		case 1:
			err = tx.Abort(ctx)
		case 3: // the worker is replaced
			if err = tx.Commit(ctx); err == nil {
				err = c.Close()
			}
			if err == nil {
				c, err = db.Consumer(config)
			}
		default:
			err = tx.Commit(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wantValues(t, out, want...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(ctx, func(tx *Txn) error {
		return tx.CommitPositions(ctx, "simple", Position{Topic: "in", Partition: 1, Offset: 3})
	}); err != nil {
		t.Fatal(err)
	}
	got, err := db.engine.Groups().Committed(ctx, "simple", nil, true)
	if err != nil || len(got) != 1 || got[0].Offset != 3 {
		t.Errorf("committed %+v, %v", got, err)
	}
}

// Transactions from many goroutines: all are there, and none is mixed with another.
func TestTxnsAtTheSameTime(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", &TopicConfig{Partitions: 3})
	const workers = 8
	each := testcount.N(40)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for i := range each {
				err := db.Update(ctx, func(tx *Txn) error {
					for k := range 3 {
						if _, err := tx.Produce(ctx, keyed("t", fmt.Sprint(k), fmt.Sprintf("%d/%d/%d", w, i, k))); err != nil {
							return err
						}
					}
					if i%3 == 2 {
						return errTestAbort
					}
					return nil
				})
				if (i%3 == 2) != (err == errTestAbort) {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	var want []string
	for w := range workers {
		for i := range each {
			for k := range 3 {
				if i%3 != 2 {
					want = append(want, fmt.Sprintf("%d/%d/%d", w, i, k))
				}
			}
		}
	}
	slices.Sort(want)
	wantValues(t, topic, want...)
	if n := len(db.engine.Txns().List()); n > workers {
		t.Errorf("%d ids for %d workers", n, workers)
	}
}

var errTestAbort = errors.New("abort")

// The database is closed, or the process killed, while transactions are open.
func TestTxnOpenAtTheEnd(t *testing.T) {
	ctx := context.Background()
	for _, kill := range []bool{false, true} {
		mem := vfs.NewMem()
		db, err := OpenFS(mem, nil)
		if err != nil {
			t.Fatal(err)
		}
		makeTopic(t, db, "t", nil)
		tx := beginTxn(t, db, nil)
		produceTxn(t, tx, text("t", "a"))
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		tx = beginTxn(t, db, &TxnOptions{ID: "billing"})
		produceTxn(t, tx, text("t", "b"))
		fs := mem
		if kill {
			fs = mem.AfterKill()
			db.Close()
		} else {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(ctx); !errors.Is(err, ErrTxnEnded) {
				t.Errorf("commit after the database was closed: %v", err)
			}
			if _, err := db.Begin(ctx, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("begin after the database was closed: %v", err)
			}
		}
		if db, err = OpenFS(fs, nil); err != nil {
			t.Fatal(err)
		}
		topic, err := db.Topic("t")
		if err != nil {
			t.Fatal(err)
		}
		wantValues(t, topic, "a")
		if err := db.Update(ctx, func(tx *Txn) error { produceTxn(t, tx, text("t", "c")); return nil }); err != nil {
			t.Fatal(err)
		}
		wantValues(t, topic, "a", "c")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Ids that were made up are forgotten in the next run, names are not.
func TestMadeUpIDsAreForgotten(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem()
	for range 3 {
		db, err := OpenFS(mem, nil)
		if err != nil {
			t.Fatal(err)
		}
		makeTopic(t, db, "t", nil)
		for _, id := range []string{"", "billing"} {
			tx := beginTxn(t, db, &TxnOptions{ID: id})
			produceTxn(t, tx, text("t", "a"))
			if err := tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		db.engine.Tick(ctx)
		if list := db.engine.Txns().List(); len(list) != 2 {
			t.Errorf("known: %+v", list)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A commit takes three syncs one after another, however much was produced: what was
// written, the decision, the markers. An abort takes the markers'.
func TestTxnSyncs(t *testing.T) {
	ctx := context.Background()
	var mu sync.Mutex
	syncs := map[string]int{}
	db := openMemory(t, &Options{Hooks: &Hooks{OnFsync: func(topic string, _ int32, _ time.Duration, _ error) {
		mu.Lock()
		defer mu.Unlock()
		syncs[topic]++
	}}})
	makeTopic(t, db, "t", nil)
	made := false // the internal topics, and the group
	use := func(end func(*Txn) error) map[string]int {
		mu.Lock()
		clear(syncs)
		mu.Unlock()
		tx := beginTxn(t, db, nil)
		for i := range 5 {
			at := produceTxn(t, tx, text("t", "a"), text("t", "b"))
			if err := tx.CommitPositions(ctx, "g", at[i%2]); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		if made && len(syncs) > 0 {
			t.Errorf("before the end: %v", syncs)
		}
		made = true
		mu.Unlock()
		if err := end(tx); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(syncs)
	}
	commit := func(tx *Txn) error { return tx.Commit(ctx) }
	use(commit)
	want := map[string]int{"t": 2, "__consumer_offsets": 2, "__transaction_state": 1}
	if got := use(commit); !maps.Equal(got, want) {
		t.Errorf("a commit syncs %v, want %v", got, want)
	}
	want = map[string]int{"t": 1, "__consumer_offsets": 1}
	if got := use(func(tx *Txn) error { return tx.Abort(ctx) }); !maps.Equal(got, want) {
		t.Errorf("an abort syncs %v, want %v", got, want)
	}
}
