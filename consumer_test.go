package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
)

// memoryDB is an open database in memory with topics of so many partitions.
func memoryDB(t testing.TB, topics map[string]int) *DB {
	t.Helper()
	db, err := OpenMemory(&Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, n := range topics {
		if _, err := db.CreateTopic(context.Background(), name, &TopicConfig{Partitions: n}); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// put produces one record to a partition for each value.
func put(t testing.TB, db *DB, topic string, partition int32, values ...string) {
	t.Helper()
	top, err := db.Topic(topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if _, err := top.ProduceTo(context.Background(), partition, Record{Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
}

func newConsumer(t testing.TB, db *DB, cfg ConsumerConfig) *Consumer {
	t.Helper()
	c, err := db.Consumer(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// readNow reads what there is, up to max records, and asks past all of them.
func readNow(t testing.TB, c *Consumer, max int) (got []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n := 0
	for rec, err := range c.Records(ctx) {
		if errors.Is(err, context.DeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == max {
			break // asked past the last of them, and not past this one
		}
		n++
		got = append(got, fmt.Sprintf("%s/%d@%d=%s", rec.Topic, rec.Partition, rec.Offset, rec.Value))
	}
	return got
}

func wantRead(t testing.TB, c *Consumer, want ...string) {
	t.Helper()
	if got := readNow(t, c, 1<<30); !slices.Equal(got, want) {
		t.Fatalf("read %v\nwant %v", got, want)
	}
}

// The record that a loop breaks on comes again, unless it was marked; with Poll the
// next call is the question for more.
func TestWhatIsAskedPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		put(t, db, "t", 0, "a", "b", "c", "d", "e", "f", "g")
		c := newConsumer(t, db, ConsumerConfig{Assign: []Position{{Topic: "t"}}})
		ctx := context.Background()
		wantAt := func(offset int64) {
			t.Helper()
			if p, ok := c.Position("t", 0); !ok || p.Offset != offset {
				t.Fatalf("position %+v, want offset %d", p, offset)
			}
		}
		first := func() Record {
			t.Helper()
			for rec, err := range c.Records(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				return rec
			}
			panic("a loop without an end ended")
		}
		wantAt(0)
		for range 2 {
			if rec := first(); rec.Offset != 0 {
				t.Fatalf("the loop began with offset %d, want 0 again", rec.Offset)
			}
			wantAt(0)
		}
		c.Mark(first())
		if rec := first(); rec.Offset != 1 {
			t.Fatalf("behind the marked record comes offset %d, want 1", rec.Offset)
		}
		list, err := c.Poll(ctx, 2)
		if err != nil || len(list) != 2 || list[0].Offset != 1 || list[1].Offset != 2 {
			t.Fatalf("polled %v, %v", list, err)
		}
		wantAt(1)
		if list, err = c.Poll(ctx, 1); err != nil || len(list) != 1 || list[0].Offset != 3 {
			t.Fatalf("polled %v, %v", list, err)
		}
		wantAt(3)
		if rec := first(); rec.Offset != 4 {
			t.Fatalf("behind what was polled comes offset %d, want 4", rec.Offset)
		}
		for b, err := range c.Batches(ctx) {
			if err != nil || b.FirstOffset != 4 || b.LastOffset != 4 {
				t.Fatalf("batch %+v, %v", b, err)
			}
			break
		}
		wantAt(4)
		wantRead(t, c, "t/0@4=e", "t/0@5=f", "t/0@6=g")
		wantAt(7)
	})
}

// Whatever an application does, it gets the records of each partition in order,
// from where it stands, and none is left out.
func TestConsumerAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	for run := range testcount.N(60) {
		synctest.Test(t, func(t *testing.T) { consumerModel(t, seed, run) })
	}
}

func consumerModel(t *testing.T, seed uint64, run int) {
	const partitions = 3
	rng := rand.New(rand.NewPCG(seed, uint64(run)))
	db := memoryDB(t, map[string]int{"t": partitions})
	top, err := db.Topic("t")
	if err != nil {
		t.Fatal(err)
	}
	cfg := ConsumerConfig{Topics: []string{"t"}}
	if rng.IntN(2) == 0 {
		cfg.BufferBytes = 1 // each reader at its least
	}
	cfg.ReuseBuffers = rng.IntN(2) == 0
	c := newConsumer(t, db, cfg)
	var at, end, start [partitions]int64
	var paused [partitions]bool
	where := ""
	check := func(rec Record) {
		t.Helper()
		p := rec.Partition
		if at[p] < start[p] {
			at[p] = start[p]
		}
		if rec.Offset != at[p] || string(rec.Value) != fmt.Sprint(p, "@", rec.Offset) || paused[p] {
			t.Fatalf("%s: got %d@%d=%s, the consumer stands at %d, paused %v", where, p, rec.Offset, rec.Value, at[p], paused[p])
		}
	}
	ctx := context.Background()
	for step := range 80 {
		where = fmt.Sprintf("seed %d run %d step %d", seed, run, step)
		p := int32(rng.IntN(partitions))
		switch op := rng.IntN(9); op {
		case 0, 1:
			var recs []Record
			for range 1 + rng.IntN(5) {
				recs = append(recs, Record{Value: fmt.Append(nil, p, "@", end[p])})
				end[p]++
			}
			if _, err := top.ProduceTo(ctx, p, recs...); err != nil {
				t.Fatal(err)
			}
		case 2: // a loop that ends after some
			n := rng.IntN(6)
			short, cancel := context.WithTimeout(ctx, time.Second)
			for rec, err := range c.Records(short) {
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("%s: %v", where, err)
					}
					break
				}
				check(rec)
				if n--; n < 0 {
					if rng.IntN(2) == 0 {
						c.Mark(rec)
						at[rec.Partition]++
					}
					break
				}
				at[rec.Partition]++
			}
			cancel()
		case 3:
			short, cancel := context.WithTimeout(ctx, time.Second)
			list, err := c.Poll(short, 1+rng.IntN(8))
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: %v", where, err)
			}
			for _, rec := range list {
				check(rec)
				at[rec.Partition]++
			}
		case 4:
			n := rng.IntN(4)
			short, cancel := context.WithTimeout(ctx, time.Second)
			for b, err := range c.Batches(short) {
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("%s: %v", where, err)
					}
					break
				}
				was := at
				for rec, err := range b.Records() {
					if err != nil {
						t.Fatal(err)
					}
					check(rec)
					at[rec.Partition]++
				}
				if n--; n < 0 {
					at = was // not asked past
					break
				}
			}
			cancel()
		case 5:
			to := start[p] + rng.Int64N(end[p]-start[p]+1)
			if err := c.Seek(Position{Topic: "t", Partition: p, Offset: to}); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			at[p] = to
		case 6:
			paused[p] = !paused[p]
			f := c.Resume
			if paused[p] {
				f = c.Pause
			}
			if err := f("t", p); err != nil {
				t.Fatal(err)
			}
		case 7:
			if rng.IntN(3) > 0 {
				continue
			}
			to := start[p] + rng.Int64N(end[p]-start[p]+1)
			if start[p], err = top.DeleteRecords(ctx, p, to); err != nil {
				t.Fatal(err)
			}
			if start[p] != to {
				t.Fatalf("%s: log start %d, want %d", where, start[p], to)
			}
			// What was read already may still come; what was not may not.
			if err := c.Seek(Position{Topic: "t", Partition: p, Offset: max(at[p], to)}); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			at[p] = max(at[p], to)
		case 8:
			if _, err := c.Lag(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	where = fmt.Sprintf("seed %d run %d end", seed, run)
	if err := c.Resume("t"); err != nil {
		t.Fatal(err)
	}
	paused = [partitions]bool{}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for rec, err := range c.Records(short) {
		if err != nil {
			break
		}
		check(rec)
		at[rec.Partition]++
	}
	if at != end {
		t.Fatalf("%s: read up to %v, the partitions end at %v", where, at, end)
	}
	lag, err := c.Lag(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lag {
		if l.Lag != 0 || l.Offset != end[l.Position.Partition] {
			t.Fatalf("%s: lag %+v", where, l)
		}
	}
}

// Partitions take turns: one with a lot does not starve the others.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 4})
		big := string(make([]byte, 64<<10))
		for range 40 {
			put(t, db, "t", 0, big)
		}
		for p := range int32(3) {
			put(t, db, "t", p+1, "x")
		}
		c := newConsumer(t, db, ConsumerConfig{Topics: []string{"t"}})
		seen := map[int32]int{}
		for rec, err := range c.Records(context.Background()) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[rec.Partition]++; len(seen) == 4 {
				break
			}
		}
		if n := seen[0]; n > 8 {
			t.Fatalf("%d records of 64 KiB of one partition before the others had a turn", n)
		}
	})
}

// Close ends a loop that waits, from within and from elsewhere; a second loop at the
// same time is refused.
func TestConsumerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		put(t, db, "t", 0, "a", "b")
		c := newConsumer(t, db, ConsumerConfig{Topics: []string{"t"}})
		var got []string
		for rec, err := range c.Records(context.Background()) {
			if err != nil {
				if !errors.Is(err, ErrClosed) {
					t.Fatal(err)
				}
				got = append(got, "closed")
				break
			}
			if len(got) == 0 {
				for _, err := range c.Records(context.Background()) {
					if !errors.Is(err, ErrBusy) {
						t.Fatalf("a loop within a loop: %v", err)
					}
				}
				if _, err := c.Poll(context.Background(), 1); !errors.Is(err, ErrBusy) {
					t.Fatalf("a poll within a loop: %v", err)
				}
			}
			if got = append(got, string(rec.Value)); len(got) == 2 {
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if want := []string{"a", "b", "closed"}; !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if _, err := c.Poll(context.Background(), 1); !errors.Is(err, ErrClosed) {
			t.Fatalf("poll of a closed consumer: %v", err)
		}
		if err := c.Seek(Position{Topic: "t"}); !errors.Is(err, ErrClosed) {
			t.Fatalf("seek of a closed consumer: %v", err)
		}

		waits := newConsumer(t, db, ConsumerConfig{Topics: []string{"t"}, Start: Latest})
		ended := make(chan error)
		go func() {
			for _, err := range waits.Records(context.Background()) {
				ended <- err
			}
		}()
		synctest.Wait()
		if err := waits.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Fatalf("the loop ended with %v", err)
		}

		// The database takes its consumers with it.
		last := newConsumer(t, db, ConsumerConfig{Topics: []string{"t"}, Start: Latest})
		go func() {
			for _, err := range last.Records(context.Background()) {
				ended <- err
			}
		}()
		synctest.Wait()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Fatalf("the loop ended with %v", err)
		}
		if _, err := db.Consumer(&ConsumerConfig{Topics: []string{"t"}}); !errors.Is(err, ErrClosed) && !errors.Is(err, ErrUnknownTopic) {
			t.Fatalf("a consumer of a closed database: %v", err)
		}
	})
}

// A context that ends between two records ends the loop before the next one.
func TestContextEndsLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		top, err := db.Topic("t")
		if err != nil {
			t.Fatal(err)
		}
		recs := make([]Record, 1000)
		for i := range recs {
			recs[i].Value = []byte("v")
		}
		if _, err := top.Produce(context.Background(), recs...); err != nil {
			t.Fatal(err)
		}
		c := newConsumer(t, db, ConsumerConfig{Topics: []string{"t"}})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		n := 0
		for _, err := range c.Records(ctx) {
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				break
			}
			n++
			time.Sleep(3 * time.Second)
		}
		if n != 4 {
			t.Fatalf("%d records of 3 s each in 10 s, want 4", n)
		}
	})
}

// Without a group a consumer follows its topics as they come, grow and go.
func TestFollowsTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := memoryDB(t, map[string]int{"logs-a": 1, "other": 1})
		put(t, db, "logs-a", 0, "old")
		put(t, db, "other", 0, "no")
		c := newConsumer(t, db, ConsumerConfig{Pattern: "logs-.*", Start: Latest})
		wantRead(t, c)
		put(t, db, "logs-a", 0, "new")
		if _, err := db.CreateTopic(ctx, "logs-b", nil); err != nil {
			t.Fatal(err)
		}
		put(t, db, "logs-b", 0, "first")
		got := readNow(t, c, 10)
		slices.Sort(got)
		if want := []string{"logs-a/0@1=new", "logs-b/0@0=first"}; !slices.Equal(got, want) {
			t.Fatalf("read %v, want %v", got, want)
		}
		if err := db.DeleteTopic(ctx, "logs-b"); err != nil {
			t.Fatal(err)
		}
		wantRead(t, c)
		if list := c.Assignment(); len(list) != 1 || list[0].Topic != "logs-a" || list[0].Offset != 2 {
			t.Fatalf("assignment %v", list)
		}
		// A topic of the same name is another one.
		if _, err := db.CreateTopic(ctx, "logs-b", nil); err != nil {
			t.Fatal(err)
		}
		put(t, db, "logs-b", 0, "again")
		wantRead(t, c, "logs-b/0@0=again")
		top, err := db.Topic("logs-b")
		if err != nil {
			t.Fatal(err)
		}
		if err := top.AddPartitions(ctx, 2); err != nil {
			t.Fatal(err)
		}
		put(t, db, "logs-b", 1, "added")
		wantRead(t, c, "logs-b/1@0=added")
	})
}

// By hand: a deleted topic is an error, and the rest goes on.
func TestAssignedTopicIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"a": 1, "b": 1})
		c := newConsumer(t, db, ConsumerConfig{Assign: []Position{{Topic: "a"}, {Topic: "b"}}})
		wantRead(t, c)
		if err := db.DeleteTopic(context.Background(), "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Poll(context.Background(), 1); !errors.Is(err, ErrUnknownTopic) {
			t.Fatalf("poll: %v", err)
		}
		put(t, db, "b", 0, "x")
		wantRead(t, c, "b/0@0=x")
	})
}

// Positions that do not exist are refused where they are named, and reported where
// retention overtakes a consumer.
func TestOutOfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := memoryDB(t, map[string]int{"t": 1})
		put(t, db, "t", 0, "a", "b", "c", "d")
		top, err := db.Topic("t")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := top.DeleteRecords(ctx, 0, 1); err != nil {
			t.Fatal(err)
		}
		for _, offset := range []int64{0, 5} {
			_, err := db.Consumer(&ConsumerConfig{Assign: []Position{{Topic: "t", Offset: offset}}})
			var out *OffsetOutOfRangeError
			if !errors.As(err, &out) || out.Offset != offset || out.LogStart != 1 || out.LogEnd != 4 {
				t.Fatalf("assigned at %d: %v", offset, err)
			}
		}
		var resets []Reset
		c := newConsumer(t, db, ConsumerConfig{
			Assign:  []Position{{Topic: "t", Offset: OffsetEarliest}},
			OnReset: func(_ context.Context, _ *Consumer, r Reset) { resets = append(resets, r) },
		})
		var out *OffsetOutOfRangeError
		if err := c.Seek(Position{Topic: "t", Offset: 9}); !errors.As(err, &out) {
			t.Fatalf("seek: %v", err)
		}
		if err := c.Seek(Position{Topic: "t", Partition: 1}); !errors.Is(err, ErrRebalance) {
			t.Fatalf("seek in a partition it does not have: %v", err)
		}
		if got := readNow(t, c, 1); !slices.Equal(got, []string{"t/0@1=b"}) {
			t.Fatalf("read %v", got)
		}
		if _, err := top.DeleteRecords(ctx, 0, 3); err != nil {
			t.Fatal(err)
		}
		wantRead(t, c, "t/0@2=c", "t/0@3=d") // c was in hand: its batch had been read
		if err := c.Seek(Position{Topic: "t", Offset: 3}); err != nil {
			t.Fatal(err)
		}
		put(t, db, "t", 0, "e", "f")
		if _, err := top.DeleteRecords(ctx, 0, 5); err != nil {
			t.Fatal(err)
		}
		wantRead(t, c, "t/0@5=f")
		if len(resets) != 1 || resets[0].From != 3 || resets[0].To != 5 || !errors.Is(resets[0].Cause, ErrOffsetOutOfRange) {
			t.Fatalf("resets %+v", resets)
		}
	})
}

// All wrong settings are told at once.
func TestConsumerConfigErrors(t *testing.T) {
	db := memoryDB(t, map[string]int{"t": 1})
	_, err := db.Consumer(&ConsumerConfig{
		Topics: []string{"t", "nope"}, Pattern: "(", InstanceID: "i", SessionTimeout: -1, CommitInterval: -1, BufferBytes: -1,
	})
	for _, want := range []string{"Topics", "Pattern", "InstanceID", "SessionTimeout", "CommitInterval", "BufferBytes", "nope"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not speak of %s: %v", want, err)
		}
	}
	if !errors.Is(err, ErrUnknownTopic) || !errors.Is(err, ErrInvalidSetting) {
		t.Errorf("error %v", err)
	}
	if _, err := db.Consumer(nil); !errors.Is(err, ErrInvalidSetting) {
		t.Errorf("no settings: %v", err)
	}
	if _, err := db.Consumer(&ConsumerConfig{Assign: []Position{{Topic: "t", Partition: 7}}}); !errors.Is(err, ErrUnknownPartition) {
		t.Errorf("a partition that there is not: %v", err)
	}
}
