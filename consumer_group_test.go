package embedlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A group shares its partitions, and hands them over with what was marked.
func TestGroupSharesAndHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 4})
		for p := range int32(4) {
			put(t, db, "t", p, "a", "b")
		}
		var log []string
		hooks := func(name string) ConsumerConfig {
			say := func(what string) func(context.Context, *Consumer, []Position) {
				return func(_ context.Context, c *Consumer, list []Position) {
					for _, p := range list {
						log = append(log, fmt.Sprintf("%s %s %d@%d", name, what, p.Partition, p.Offset))
					}
				}
			}
			return ConsumerConfig{Group: "g", Topics: []string{"t"}, OnAssigned: say("gets"), OnRevoked: say("gives"), OnLost: say("lost")}
		}
		a := newConsumer(t, db, hooks("a"))
		got := readNow(t, a, 100)
		if len(got) != 8 {
			t.Fatalf("read %v", got)
		}
		if want := []string{"a gets 0@0", "a gets 1@0", "a gets 2@0", "a gets 3@0"}; !slices.Equal(log, want) {
			t.Fatalf("hooks %v, want %v", log, want)
		}
		log = nil
		b := newConsumer(t, db, hooks("b"))
		if got := readNow(t, b, 100); got != nil {
			t.Fatalf("b read %v, a has not given anything up", got)
		}
		if got := readNow(t, a, 100); got != nil {
			t.Fatalf("a read %v", got)
		}
		for p := range int32(4) {
			put(t, db, "t", p, "c")
		}
		fromB, fromA := readNow(t, b, 100), readNow(t, a, 100)
		if len(fromA) != 2 || len(fromB) != 2 {
			t.Fatalf("a read %v, b read %v", fromA, fromB)
		}
		if len(log) != 4 || log[0][:8] != "a gives " || log[2][:7] != "b gets " || log[2][len(log[2])-2:] != "@2" {
			t.Fatalf("hooks %v", log)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		for p := range int32(4) {
			put(t, db, "t", p, "d")
		}
		if got := readNow(t, b, 100); len(got) != 4 {
			t.Fatalf("b read %v", got)
		}
		if err := b.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		list, err := b.Committed(context.Background())
		if err != nil || len(list) != 4 {
			t.Fatalf("committed %v, %v", list, err)
		}
		for _, p := range list {
			if p.Offset != 4 {
				t.Fatalf("committed %v, want 4 everywhere", list)
			}
		}
	})
}

// An application that does not ask for more for too long is out of the group: it is
// told, its marks count no more, and it comes back when it asks.
func TestTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		put(t, db, "t", 0, "a", "b", "c")
		var lost []Position
		slow := newConsumer(t, db, ConsumerConfig{
			Group: "g", Topics: []string{"t"}, MaxPollInterval: time.Minute,
			OnLost: func(_ context.Context, _ *Consumer, list []Position) { lost = append(lost, list...) },
		})
		ctx := context.Background()
		n := 0
		var other *Consumer
		for rec, err := range slow.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if n == 2 {
				if rec.Offset != 1 {
					t.Fatalf("second record is %d", rec.Offset)
				}
				time.Sleep(2 * time.Minute)
				other = newConsumer(t, db, ConsumerConfig{Group: "g", Topics: []string{"t"}})
				wantRead(t, other, "t/0@1=b", "t/0@2=c")
				slow.Mark(rec)
				if err := slow.Commit(ctx); !errors.Is(err, ErrRebalance) {
					t.Fatalf("commit of who is out: %v", err)
				}
				if err := other.Close(); err != nil {
					t.Fatal(err)
				}
				put(t, db, "t", 0, "d")
			}
			if n == 3 {
				if rec.Offset != 3 {
					t.Fatalf("after coming back the first record is %d, want 3", rec.Offset)
				}
				break
			}
		}
		if len(lost) != 1 || lost[0].Offset != 2 {
			t.Fatalf("lost %v", lost)
		}
	})
}

// Marks are committed by and by while a loop runs, at its end and by Close; with
// ManualCommit by Commit alone.
func TestWhenMarksAreCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		put(t, db, "t", 0, "a", "b", "c", "d", "e")
		ctx := context.Background()
		c := newConsumer(t, db, ConsumerConfig{Group: "g", Topics: []string{"t"}})
		want := func(c *Consumer, offset int64) {
			t.Helper()
			list, err := c.Committed(ctx)
			if err != nil {
				t.Fatal(err)
			}
			got := int64(-1)
			if len(list) == 1 {
				got = list[0].Offset
			}
			if got != offset {
				t.Fatalf("committed %d, want %d", got, offset)
			}
		}
		n := 0
		for _, err := range c.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			switch n++; n {
			case 1:
				time.Sleep(5500 * time.Millisecond) // between two of the commits that come each second
				want(c, -1)                         // it is in hand
			case 3:
				want(c, -1)
				time.Sleep(1500 * time.Millisecond)
				want(c, 2)
			}
			if n == 4 {
				break
			}
		}
		want(c, 3)
		if list, err := c.Poll(ctx, 2); err != nil || len(list) != 2 {
			t.Fatalf("polled %v, %v", list, err)
		}
		time.Sleep(2 * time.Second)
		want(c, 3)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		m := newConsumer(t, db, ConsumerConfig{Group: "g", Topics: []string{"t"}, ManualCommit: true})
		list, err := m.Poll(ctx, 0)
		if err != nil || len(list) != 2 || list[0].Offset != 3 {
			t.Fatalf("polled %v, %v", list, err)
		}
		m.Mark(list[0])
		time.Sleep(5 * time.Second)
		want(m, 3)
		if err := m.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		want(m, 4)
		m.Mark(list[1])
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		hand := newConsumer(t, db, ConsumerConfig{Group: "g", Assign: []Position{{Topic: "t", Offset: OffsetCommitted}}})
		wantRead(t, hand, "t/0@4=e")
		want(hand, 5)
	})
}

// A transaction takes the marks of a consumer along; when it is aborted, the
// consumer reads again.
func TestOffsetsForTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 1})
		put(t, db, "t", 0, "a", "b", "c")
		ctx := context.Background()
		auto := newConsumer(t, db, ConsumerConfig{Group: "h", Topics: []string{"t"}})
		if _, _, err := auto.offsetsForTxn(ctx); err == nil {
			t.Fatal("a transaction took the marks of a consumer that commits by itself")
		}
		c := newConsumer(t, db, ConsumerConfig{Group: "g", Topics: []string{"t"}, ManualCommit: true})
		for _, committed := range []bool{false, true} {
			list, err := c.Poll(ctx, 2)
			if err != nil || len(list) != 2 || list[0].Offset != 0 {
				t.Fatalf("polled %v, %v", list, err)
			}
			c.Mark(list[1])
			r, done, err := c.offsetsForTxn(ctx)
			if err != nil || len(r.Offsets) != 1 || r.Offsets[0].Offset != 2 || r.MemberEpoch < 1 {
				t.Fatalf("request %+v, %v", r, err)
			}
			done(committed)
		}
		if r, _, err := c.offsetsForTxn(ctx); err != nil || len(r.Offsets) != 0 {
			t.Fatalf("what was committed is to be committed again: %+v, %v", r, err)
		}
		wantRead(t, c, "t/0@2=c")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.Mark(Record{Topic: "t", Offset: 2})
	})
}

// A static member that comes back has its partitions again, and nobody had them
// meanwhile; one that is there keeps others with its id out.
func TestStaticMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memoryDB(t, map[string]int{"t": 2})
		cfg := func(id string) ConsumerConfig {
			return ConsumerConfig{Group: "g", Topics: []string{"t"}, InstanceID: id, SessionTimeout: time.Minute}
		}
		a := newConsumer(t, db, cfg("a"))
		wantRead(t, a)
		b := newConsumer(t, db, cfg("b"))
		wantRead(t, b)
		wantRead(t, a)
		wantRead(t, b)
		had := a.Assignment()
		if len(had) != 1 || len(b.Assignment()) != 1 {
			t.Fatalf("a has %v, b has %v", had, b.Assignment())
		}
		second := newConsumer(t, db, cfg("a"))
		if _, err := second.Poll(context.Background(), 1); !errors.Is(err, ErrInstanceInUse) {
			t.Fatalf("a second one with the same id: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		put(t, db, "t", had[0].Partition, "x")
		time.Sleep(30 * time.Second)
		wantRead(t, b)
		back := newConsumer(t, db, cfg("a"))
		wantRead(t, back, fmt.Sprintf("t/%d@0=x", had[0].Partition))
		if len(b.Assignment()) != 1 {
			t.Fatalf("b has %v", b.Assignment())
		}
	})
}

// A group by pattern gets topics and partitions as they are made, from their
// beginning whatever Start says, and lets go of those that are deleted.
func TestGroupFollowsPattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := memoryDB(t, map[string]int{"logs-a": 1, "other": 1})
		put(t, db, "logs-a", 0, "old")
		c := newConsumer(t, db, ConsumerConfig{Group: "g", Pattern: "logs-.*", Start: Latest})
		wantRead(t, c)
		put(t, db, "logs-a", 0, "new")
		wantRead(t, c, "logs-a/0@1=new")
		top, err := db.CreateTopic(ctx, "logs-b", nil)
		if err != nil {
			t.Fatal(err)
		}
		put(t, db, "logs-b", 0, "first")
		wantRead(t, c, "logs-b/0@0=first")
		if err := top.AddPartitions(ctx, 2); err != nil {
			t.Fatal(err)
		}
		put(t, db, "logs-b", 1, "added")
		wantRead(t, c, "logs-b/1@0=added")
		if err := db.DeleteTopic(ctx, "logs-b"); err != nil {
			t.Fatal(err)
		}
		wantRead(t, c)
		if list := c.Assignment(); len(list) != 1 || list[0].Topic != "logs-a" {
			t.Fatalf("it has %v", list)
		}
		if err := c.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		// Where a group with Start Latest began is kept, also when it read nothing.
		late := newConsumer(t, db, ConsumerConfig{Group: "late", Topics: []string{"other"}, Start: Latest})
		wantRead(t, late)
		if err := late.Close(); err != nil {
			t.Fatal(err)
		}
		put(t, db, "other", 0, "meanwhile")
		late = newConsumer(t, db, ConsumerConfig{Group: "late", Topics: []string{"other"}, Start: Latest})
		wantRead(t, late, "other/0@0=meanwhile")
	})
}
