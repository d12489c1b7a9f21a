package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Records go to the partitions of their keys, in order, and the positions say where.
func TestProduceSpreads(t *testing.T) {
	for _, level := range []Durability{Durable, OS} {
		for _, partitions := range []int{1, 3, 8} {
			t.Run(fmt.Sprintf("%v/partitions=%d", level, partitions), func(t *testing.T) {
				ctx := context.Background()
				db := openMemory(t, nil)
				topic := makeTopic(t, db, "orders", &TopicConfig{Partitions: partitions, Durability: level})
				rng := rand.New(rand.NewPCG(1, uint64(partitions)))
				want := make([][]string, partitions)
				n := 0
				for range 60 {
					recs := make([]Record, rng.IntN(40))
					for i := range recs {
						recs[i].Value = fmt.Append(nil, n)
						n++
						if rng.IntN(4) > 0 {
							recs[i].Key = fmt.Appendf(nil, "key-%d", rng.IntN(20))
						}
					}
					pos, err := topic.Produce(ctx, recs...)
					if err != nil || len(pos) != len(recs) {
						t.Fatalf("%d positions, %v", len(pos), err)
					}
					keyless := int32(-1)
					for i, p := range pos {
						if k := recs[i].Key; k != nil && p.Partition != KeyPartition(k, partitions) {
							t.Fatalf("key %s went to %d", k, p.Partition)
						} else if k == nil && keyless >= 0 && keyless != p.Partition {
							t.Fatalf("records without a key of one call went to %d and %d", keyless, p.Partition)
						} else if k == nil {
							keyless = p.Partition
						}
						if p.Topic != "orders" || p.Offset != int64(len(want[p.Partition])) {
							t.Fatalf("record %d is at %+v, want offset %d", i, p, len(want[p.Partition]))
						}
						want[p.Partition] = append(want[p.Partition], fmt.Sprintf("%d@%d=%s", p.Partition, p.Offset, recs[i].Value))
					}
				}
				if got := readAll(t, topic, nil); !slices.Equal(got, slices.Concat(want...)) {
					t.Errorf("got  %v\nwant %v", got, slices.Concat(want...))
				}
			})
		}
	}
}

// More than MaxRecordBytes is several batches; one record above it is refused.
func TestProduceMoreThanABatch(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "orders", &TopicConfig{Partitions: 2, MaxRecordBytes: 2000})
	var recs []Record
	for i := range 100 {
		recs = append(recs, Record{Key: fmt.Append(nil, i), Value: make([]byte, 500)})
	}
	for range 2 {
		if pos, err := topic.Produce(ctx, recs...); err != nil || len(pos) != 100 {
			t.Fatalf("%d positions, %v", len(pos), err)
		}
		if _, err := topic.ProduceTo(ctx, 1, recs...); err != nil {
			t.Fatal(err)
		}
	}
	if got := readAll(t, topic, nil); len(got) != 400 {
		t.Errorf("%d records, want 400", len(got))
	}

	large := slices.Clone(recs[:10])
	large[4].Value = make([]byte, 3000)
	_, err := topic.Produce(ctx, large[4])
	checkError(t, err, ErrRecordTooLarge, "orders/", "2000")
	pos, err := topic.Produce(ctx, large...)
	var some *ProduceError
	if !errors.As(err, &some) || len(pos) != 10 || len(some.Errs) != 10 {
		t.Fatalf("%v, %T %v", pos, err, err)
	}
	checkError(t, err, ErrRecordTooLarge, "orders", "of 10 records written")
	written := 0
	for i := range pos {
		if (some.Errs[i] == nil) != (pos[i].Offset >= 0) {
			t.Errorf("record %d: %+v, %v", i, pos[i], some.Errs[i])
		}
		if pos[i].Offset >= 0 {
			written++
		}
	}
	if some.Errs[4] == nil || written == 0 {
		t.Errorf("written %d, the large one: %v", written, some.Errs[4])
	}
	if got := readAll(t, topic, nil); len(got) != 400+written {
		t.Errorf("%d records, want %d", len(got), 400+written)
	}
	_, err = topic.ProduceAt(ctx, 0, -1, recs...)
	checkError(t, err, ErrRecordTooLarge, "orders/0")
}

// Of those that expect the same offset, one wins.
func TestProduceAt(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "orders", nil)
	for at := range int64(3) {
		pos, err := topic.ProduceAt(ctx, 0, at*2, Record{Value: []byte("a")}, Record{Value: []byte("b")})
		if err != nil || pos[1].Offset != at*2+1 {
			t.Fatalf("%v, %v", pos, err)
		}
	}
	_, err := topic.ProduceAt(ctx, 0, 4, Record{Value: []byte("late")})
	var where *UnexpectedOffsetError
	if !errors.As(err, &where) || where.LogEnd != 6 || where.Expected != 4 {
		t.Errorf("%v", err)
	}
	checkError(t, err, ErrUnexpectedOffset, "orders/0", "4", "6")
	if got := readAll(t, topic, nil); len(got) != 6 {
		t.Errorf("%v", got)
	}
}

func TestProduceBadInput(t *testing.T) {
	ctx := context.Background()
	db, err := OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	topic := makeTopic(t, db, "orders", &TopicConfig{Partitions: 2})
	compacted := makeTopic(t, db, "state", &TopicConfig{Cleanup: Compact})
	gone := makeTopic(t, db, "gone", nil)
	if err := db.DeleteTopic(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	makeTopic(t, db, "gone", nil) // another one
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	rec := Record{Key: []byte("k"), Value: []byte("v")}
	for _, row := range []struct {
		name string
		f    func() error
		is   error
		says []string
	}{
		{"another topic's record", func() error { _, err := topic.Produce(ctx, rec, Record{Topic: "others"}); return err }, ErrInvalidRecord, []string{"orders", "record 1", "others"}},
		{"partition", func() error { _, err := topic.ProduceTo(ctx, 2, rec); return err }, ErrUnknownPartition, []string{"orders", "2", "0 to 1"}},
		{"negative partition", func() error { _, err := topic.ProduceTo(ctx, -1, rec); return err }, ErrUnknownPartition, []string{"orders", "-1"}},
		{"no key", func() error { _, err := compacted.Produce(ctx, Record{Value: []byte("v")}); return err }, ErrInvalidRecord, []string{"state/0", "record 0", "key"}},
		{"deleted topic", func() error { _, err := gone.Produce(ctx, rec); return err }, ErrUnknownTopic, []string{"gone", "deleted"}},
		{"unknown topic", func() error { _, err := db.Topic("no"); return err }, ErrUnknownTopic, []string{"no"}},
		{"cancelled", func() error { _, err := topic.Produce(cancelled, rec); return err }, context.Canceled, nil},
		{"cancelled, several partitions", func() error {
			_, err := topic.Produce(cancelled, rec, Record{Key: []byte("l")}, Record{Key: []byte("m")}, Record{Key: []byte("n")})
			return err
		}, context.Canceled, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.f()
			checkError(t, err, row.is, row.says...)
			if errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("%v: nothing was written", err)
			}
		})
	}
	if got := readAll(t, topic, nil); len(got) != 0 {
		t.Errorf("refused records are there: %v", got)
	}
	if pos, err := topic.Produce(ctx); err != nil || len(pos) != 0 {
		t.Errorf("nothing to produce: %v, %v", pos, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = topic.Produce(ctx, rec)
	checkError(t, err, ErrClosed, "orders")
	_, err = db.Topic("orders")
	checkError(t, err, ErrClosed, "orders")
	_, err = db.CreateTopic(ctx, "new", nil)
	checkError(t, err, ErrClosed, "new")
	for _, err := range topic.Scan(ctx, nil) {
		checkError(t, err, ErrClosed, "orders")
	}
}

// Times are the caller's, or the database's clock, or the append's.
func TestProduceTimes(t *testing.T) {
	ctx := context.Background()
	now := time.UnixMilli(1_700_000_000_000)
	db := openMemory(t, &Options{Now: func() time.Time { return now }})
	own := now.Add(-time.Hour)
	for _, row := range []struct {
		name string
		c    *TopicConfig
		want [2]time.Time
	}{
		{"create", nil, [2]time.Time{now, own}},
		{"append", &TopicConfig{AppendTime: true}, [2]time.Time{now, now}},
	} {
		topic := makeTopic(t, db, row.name, row.c)
		if _, err := topic.Produce(ctx, Record{}, Record{Timestamp: own}); err != nil {
			t.Fatal(err)
		}
		i := 0
		for rec, err := range topic.Scan(ctx, nil) {
			if err != nil || !rec.Timestamp.Equal(row.want[i]) {
				t.Errorf("%s: record %d has the time %v, want %v (%v)", row.name, i, rec.Timestamp, row.want[i], err)
			}
			i++
		}
	}
}

// A handle sees partitions that are added, and the sticky choice uses them.
func TestProduceAfterAddPartitions(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "orders", nil)
	if _, err := topic.Produce(ctx, Record{Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := topic.AddPartitions(ctx, 3); err != nil || topic.Partitions() != 3 {
		t.Fatalf("%d partitions, %v", topic.Partitions(), err)
	}
	seen := make(map[int32]bool)
	for range 12 {
		pos, err := topic.Produce(ctx, Record{Value: make([]byte, stickyBytes/2)})
		if err != nil {
			t.Fatal(err)
		}
		seen[pos[0].Partition] = true
	}
	if len(seen) != 3 {
		t.Errorf("records without a key reached %d of 3 partitions", len(seen))
	}
	if err := topic.AddPartitions(ctx, 2); err == nil || !strings.Contains(err.Error(), "orders") {
		t.Errorf("fewer partitions: %v", err)
	}
}
