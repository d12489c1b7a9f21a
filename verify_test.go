package embedlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Verify finds a flipped byte and says where; the rest stays readable.
func TestVerifyFindsDamage(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	topic := makeTopic(t, db, "orders", &TopicConfig{Partitions: 2})
	for p := range int32(2) {
		for i := range 20 {
			if _, err := topic.ProduceTo(ctx, p, Record{Value: fmt.Appendf(nil, "value-%02d", i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	report, err := db.Verify(ctx)
	if err != nil || !report.OK() || report.Partitions != 2 || report.Records != 40 {
		t.Fatalf("%+v, %v", report, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "topics", topic.ID().String(), "1", "00000000000000000000.log")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("value-07"))
	b[at] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(dir, nil); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if report, err = db.Verify(ctx); err != nil || report.OK() {
		t.Fatalf("%+v, %v", report, err)
	}
	bad := report.Problems[0]
	if bad.Topic != "orders" || bad.Partition != 1 || bad.Position > int64(at) || !errors.Is(&bad, ErrCorrupt) {
		t.Errorf("%+v", bad)
	}
	if s := bad.Error(); !strings.Contains(s, "orders/1") || !strings.Contains(s, bad.File) {
		t.Error(s)
	}
	topic = makeTopic(t, db, "orders", nil)
	if got := readAll(t, topic, &ScanOptions{Partitions: []int32{0}}); len(got) != 20 {
		t.Errorf("the other partition has %d records", len(got))
	}
	var last error
	n := 0
	for _, err := range topic.Scan(ctx, &ScanOptions{Partitions: []int32{1}}) {
		last = err
		n++
	}
	var where *CorruptionError
	if !errors.As(last, &where) || n != 8 || where.EndOffset != 8 {
		t.Errorf("after %d pairs: %v", n, last)
	}
	if got := readAll(t, topic, &ScanOptions{Partitions: []int32{1}, From: AtOffset(8)}); len(got) != 12 {
		t.Errorf("%d records behind the damage, want 12", len(got))
	}
}

// Compact keeps the last value of each key; a topic that is not compacted is refused.
func TestCompact(t *testing.T) {
	ctx := context.Background()
	now := time.UnixMilli(1_700_000_000_000)
	db := openMemory(t, &Options{MaintenanceInterval: -1, Now: func() time.Time { return now }})
	state := makeTopic(t, db, "state", &TopicConfig{Cleanup: Compact})
	makeTopic(t, db, "plain", nil)
	for i := range 30 {
		if _, err := state.Produce(ctx, Record{Key: fmt.Append(nil, i%3), Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, names := range [][]string{nil, {"state"}} {
		if err := db.Compact(ctx, names...); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(readAll(t, state, nil), " "); got != "0@27=27 0@28=28 0@29=29" {
		t.Error(got)
	}
	checkError(t, db.Compact(ctx, "plain"), ErrInvalidTopic, "plain", "cleanup.policy")
	checkError(t, db.Compact(ctx, "no"), ErrUnknownTopic, "no")
}

// Stats count what is there; Sync makes all of it durable; after Close both say so.
func TestStatsAndSync(t *testing.T) {
	ctx := context.Background()
	db, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	topic := makeTopic(t, db, "orders", &TopicConfig{Partitions: 2, Durability: OS})
	for p := range int32(2) {
		if _, err := topic.ProduceTo(ctx, p, Record{}, Record{}, Record{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := topic.DeleteRecords(ctx, 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := db.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	s := db.Stats()
	if s.Partitions != 2 || s.Records != 4 || s.Failed != 0 || s.Bytes == 0 || len(s.Topics) != 1 {
		t.Errorf("%+v", s)
	}
	for i, p := range s.Topics[0].Partitions {
		want := PartitionInfo{Partition: int32(i), LogStart: int64(2 * i), LogEnd: 3, HighWatermark: 3, LastStable: 3, DurableOffset: 3, Bytes: p.Bytes}
		if !reflect.DeepEqual(p, want) {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	checkError(t, db.Sync(cancelled), context.Canceled, "sync")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	checkError(t, db.Sync(ctx), ErrClosed, "sync")
	_, err = db.Verify(ctx)
	checkError(t, err, ErrClosed, "verify")
	_, err = db.Producer(nil)
	checkError(t, err, ErrClosed, "producer")
}

// A hook is told of every append, and does not change what is written.
func TestHooks(t *testing.T) {
	ctx := context.Background()
	var seen []string
	db := openMemory(t, &Options{Hooks: &Hooks{OnProduce: func(topic string, partition int32, records int, bytes int64, d time.Duration, err error) {
		seen = append(seen, fmt.Sprintf("%s/%d %d %d %t", topic, partition, records, bytes, err == nil))
	}}})
	topic := makeTopic(t, db, "t", &TopicConfig{MaxRecordBytes: 1000})
	if _, err := topic.Produce(ctx, Record{Key: []byte("k"), Value: []byte("vv")}); err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Produce(ctx, Record{Value: []byte("v")}, Record{}); err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Produce(ctx, Record{Value: make([]byte, 2000)}); err == nil {
		t.Fatal("no error")
	}
	if got := strings.Join(seen, ", "); got != "t/0 1 3 true, t/0 2 1 true, t/0 1 2000 false" {
		t.Error(got)
	}
}
