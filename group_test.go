package embedlog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestGroupAdministration(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", &TopicConfig{Partitions: 2})
	start := time.UnixMilli(1_000_000)
	for i := range 10 {
		for p := range int32(2) {
			if _, err := topic.ProduceTo(ctx, p, Record{Value: []byte("v"), Timestamp: start.Add(time.Duration(i) * time.Second)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(p int32, offset int64) Position { return Position{Topic: "t", Partition: p, Offset: offset} }
	if err := db.CommitPositions(ctx, "g", at(0, 4), at(1, 10)); err != nil {
		t.Fatal(err)
	}
	list, err := db.Groups(ctx)
	if want := []GroupListing{{Group: "g", Type: GroupTypeClassic, State: GroupEmpty}}; err != nil || !reflect.DeepEqual(list, want) {
		t.Fatalf("groups: %+v %v", list, err)
	}
	lag := func() string {
		t.Helper()
		info, err := db.DescribeGroup(ctx, "g")
		if err != nil {
			t.Fatal(err)
		}
		s := ""
		for _, p := range info.Partitions {
			s += fmt.Sprintf("%s/%d@%d lag %d of %d to %d; ", p.Topic, p.Partition, p.Committed, p.Lag, p.LogStart, p.HighWatermark)
		}
		return s
	}
	if got, want := lag(), "t/0@4 lag 6 of 0 to 10; t/1@10 lag 0 of 0 to 10; "; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	for _, row := range []struct {
		name string
		spec ResetSpec
		want string // before>wanted=committed of each
	}{
		{"earliest", ResetSpec{To: Earliest}, "4>0=0 10>0=0 "},
		{"latest", ResetSpec{To: Latest}, "4>10=10 10>10=10 "},
		{"offset", ResetSpec{To: AtOffset(12)}, "4>12=10 10>12=10 "},
		{"time", ResetSpec{To: AtTime(start.Add(1500 * time.Millisecond))}, "4>2=2 10>2=2 "},
		{"shift", ResetSpec{ShiftBy: -5}, "4>-1=0 10>5=5 "},
		{"current", ResetSpec{Current: true}, "4>4=4 10>10=10 "},
		{"long ago", ResetSpec{ByDuration: 100 * 365 * 24 * time.Hour}, "4>0=0 10>0=0 "},
		{"a topic", ResetSpec{Topics: []string{"t"}, To: Earliest}, "4>0=0 10>0=0 "},
		{"a partition", ResetSpec{Topics: []string{"t"}, Partitions: []int32{1}, To: Earliest}, "10>0=0 "},
	} {
		row.spec.DryRun = true
		got := ""
		results, err := db.ResetGroup(ctx, "g", row.spec)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		for _, r := range results {
			got += fmt.Sprintf("%d>%d=%d ", r.Before, r.Wanted, r.Committed)
			if r.Clamped() != (r.Wanted < 0 || r.Wanted > 10) {
				t.Errorf("%s: clamped is %t: %+v", row.name, r.Clamped(), r)
			}
		}
		if got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
	if _, err := db.ResetGroup(ctx, "g", ResetSpec{To: Earliest}); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteGroupOffsets(ctx, "g", "t", 1); err != nil {
		t.Fatal(err)
	}
	if got, want := lag(), "t/0@0 lag 10 of 0 to 10; "; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	if err := db.DeleteGroupOffsets(ctx, "g", "t"); err != nil {
		t.Fatal(err)
	}

	c, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Poll(ctx, 1); err != nil {
		t.Fatal(err)
	}
	info, err := db.DescribeGroup(ctx, "g")
	if want := map[string][]int32{"t": {0, 1}}; err != nil || len(info.Members) != 1 || !reflect.DeepEqual(info.Members[0].Assigned, want) || info.State != GroupStable {
		t.Fatalf("with a member: %+v %v", info, err)
	}
	for _, row := range []struct {
		name string
		err  error
		want error
	}{
		{"delete", db.DeleteGroup(ctx, "g"), ErrGroupNotEmpty},
		{"delete offsets", db.DeleteGroupOffsets(ctx, "g", "t"), ErrGroupNotEmpty},
		{"commit", db.CommitPositions(ctx, "g", at(0, 1)), ErrGroupNotEmpty},
		{"reset", second(db.ResetGroup(ctx, "g", ResetSpec{To: Earliest})), ErrGroupNotEmpty},
		{"reset to nothing", second(db.ResetGroup(ctx, "h", ResetSpec{Topics: []string{"t"}})), ErrInvalidReset},
		{"reset to two places", second(db.ResetGroup(ctx, "h", ResetSpec{To: Earliest, ShiftBy: 1})), ErrInvalidReset},
		{"reset to the largest timestamp", second(db.ResetGroup(ctx, "h", ResetSpec{To: MaxTimestamp})), ErrInvalidReset},
		{"partitions of no topic", second(db.ResetGroup(ctx, "h", ResetSpec{To: Earliest, Partitions: []int32{1}})), ErrInvalidReset},
		{"reset in an unknown topic", second(db.ResetGroup(ctx, "h", ResetSpec{To: Earliest, Topics: []string{"x"}, Partitions: []int32{1}})), ErrUnknownTopic},
		{"describe", second(db.DescribeGroup(ctx, "h")), ErrUnknownGroup},
		{"delete what is not there", db.DeleteGroup(ctx, "h"), ErrUnknownGroup},
		{"offsets of an unknown topic", db.DeleteGroupOffsets(ctx, "g", "x"), ErrUnknownTopic},
		{"negative offset", db.CommitPositions(ctx, "h", at(0, -1)), ErrInvalidCommit},
		{"no name", db.CommitPositions(ctx, "", at(0, 1)), ErrInvalidGroup},
	} {
		if !errors.Is(row.err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, row.err, row.want)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteGroup(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	if list, err := db.Groups(ctx); err != nil || len(list) != 0 {
		t.Fatalf("groups after deletion: %+v %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }
