package embedlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/vfs"
)

// damagedDB has a partition of ten records, the bytes of the one at offset 5 of which are
// damaged, and a whole one beside it.
func damagedDB(t *testing.T) *DB {
	t.Helper()
	fs := vfs.NewMem()
	ctx := context.Background()
	db, err := OpenFS(fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	top, err := db.CreateTopic(ctx, "t", &TopicConfig{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	id := top.ID()
	for i := range 10 {
		put(t, db, "t", 0, fmt.Sprintf("%d%s", i, bytes.Repeat([]byte{'x'}, 1000)))
		put(t, db, "t", 1, fmt.Sprint(i))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(fmt.Sprintf("topics/%v/0/%020d.log", id, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make([]byte, 1<<16)
	n, _ := f.ReadAt(all, 0)
	at := bytes.Index(all[:n], []byte("5xxx"))
	if at < 0 {
		t.Fatalf("record 5 is not in the %d bytes of the file", n)
	}
	if _, err := f.WriteAt([]byte("damage"), int64(at)+100); err != nil {
		t.Fatal(err)
	}
	if db, err = OpenFS(fs, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Damage ends the loop with its place; the consumer goes on behind it when it is
// told to, and meets it again when it is not. The other partition is read anyway.
func TestDamageIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := damagedDB(t)
		c := newConsumer(t, db, ConsumerConfig{Assign: []Position{{Topic: "t"}}})
		ctx := context.Background()
		for range 2 {
			var got []int64
			var bad *ReadError
			for rec, err := range c.Records(ctx) {
				if errors.As(err, &bad) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, rec.Offset)
			}
			if len(got) != 5 && len(got) != 0 {
				t.Fatalf("read %v before the damage", got)
			}
			if !errors.Is(bad, ErrCorrupt) || bad.Topic != "t" || bad.Partition != 0 || bad.Offset != 5 || bad.Next != 6 {
				t.Fatalf("error %+v", bad)
			}
		}
		if _, err := c.Poll(ctx, 10); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("poll at the damage: %v", err)
		}
		if err := c.Seek(Position{Topic: "t", Offset: 6}); err != nil {
			t.Fatal(err)
		}
		if got := readNow(t, c, 100); len(got) != 4 || got[0][:8] != "t/0@6=6x" {
			t.Fatalf("behind the damage: %.30q", got)
		}
	})
}

func TestSkipDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := damagedDB(t)
		var resets []Reset
		c := newConsumer(t, db, ConsumerConfig{
			Group: "g", Topics: []string{"t"}, SkipDamage: true,
			OnReset: func(_ context.Context, _ *Consumer, r Reset) { resets = append(resets, r) },
		})
		offsets := map[int32][]int64{}
		ctx := context.Background()
		for n := 0; n < 19; {
			list, err := c.Poll(ctx, 4)
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range list {
				offsets[rec.Partition] = append(offsets[rec.Partition], rec.Offset)
			}
			n += len(list)
		}
		if want := []int64{0, 1, 2, 3, 4, 6, 7, 8, 9}; !slices.Equal(offsets[0], want) || len(offsets[1]) != 10 {
			t.Fatalf("read %v, want %v of partition 0", offsets, want)
		}
		if len(resets) != 1 || resets[0].From != 5 || resets[0].To != 6 || !errors.Is(resets[0].Cause, ErrCorrupt) {
			t.Fatalf("resets %+v", resets)
		}
		wantRead(t, c) // asks past what was polled
		if err := c.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		list, err := c.Committed(ctx)
		if err != nil || len(list) != 2 || list[0].Offset != 10 || list[1].Offset != 10 {
			t.Fatalf("committed %v, %v", list, err)
		}
	})
}

// What is not committed is not shown, and does not hold the position back once it
// is decided; who asks for everything sees it at once.
func TestConsumerIsolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		ctx := context.Background()
		put(t, db, "t", 0, "a")
		committed := newConsumer(t, db, ConsumerConfig{Group: "g", Topics: []string{"t"}})
		all := newConsumer(t, db, ConsumerConfig{Topics: []string{"t"}, ReadUncommitted: true})
		for i, commit := range []bool{false, true} {
			txn, err := db.Begin(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := txn.Produce(ctx, Record{Topic: "t", Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				wantRead(t, committed, "t/0@0=a")
				wantRead(t, all, "t/0@0=a", "t/0@1=x")
			} else {
				wantRead(t, committed)
				wantRead(t, all, "t/0@3=x")
			}
			if commit {
				err = txn.Commit(ctx)
			} else {
				err = txn.Abort(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		wantRead(t, committed, "t/0@3=x")
		wantRead(t, all)
		for _, c := range []*Consumer{committed, all} {
			lag, err := c.Lag(ctx)
			if err != nil || len(lag) != 1 || lag[0].Lag != 0 || lag[0].Offset != 5 {
				t.Fatalf("lag %+v, %v", lag, err)
			}
		}
		list, err := committed.Committed(ctx)
		if err != nil || len(list) != 1 || list[0].Offset != 5 {
			t.Fatalf("committed %v, %v: the marker is not to be left over", list, err)
		}
	})
}
