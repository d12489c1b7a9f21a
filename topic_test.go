package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/compress"
)

// Each field of TopicConfig reaches the setting that its comment names.
func TestTopicConfigSettings(t *testing.T) {
	db := openMemory(t, nil)
	c := &TopicConfig{
		Partitions: 3, Durability: Interval, SyncInterval: 50 * time.Millisecond, Cleanup: CompactAndDelete,
		Retention: time.Hour, RetentionBytes: 1 << 20, MaxBytes: 1 << 30, MaxRecordBytes: 5000, SegmentBytes: 2 << 20,
		SegmentAge: 2 * time.Hour, Compression: compress.LZ4, AppendTime: true, MinCompactionLag: time.Second,
		MaxCompactionLag: time.Minute, DeleteRetention: 3 * time.Hour, MinDirtyRatio: 0.25,
		Settings: map[string]string{"index.interval.bytes": "8192"},
	}
	info, err := makeTopic(t, db, "orders", c).Describe()
	if err != nil || len(info.Partitions) != 3 {
		t.Fatalf("%d partitions, %v", len(info.Partitions), err)
	}
	want := map[string]string{
		"embedlog.durability": "interval", "embedlog.sync.interval.ms": "50", "cleanup.policy": "compact,delete",
		"retention.ms": "3600000", "retention.bytes": "1048576", "embedlog.max.bytes": "1073741824", "max.message.bytes": "5000",
		"segment.bytes": "2097152", "segment.ms": "7200000", "compression.type": "lz4", "message.timestamp.type": "LogAppendTime",
		"min.compaction.lag.ms": "1000", "max.compaction.lag.ms": "60000", "delete.retention.ms": "10800000",
		"min.cleanable.dirty.ratio": "0.25", "index.interval.bytes": "8192",
	}
	for _, s := range info.Settings {
		value, named := want[s.Name]
		if s.Explicit != named || named && s.Value != value {
			t.Errorf("%s is %q, explicit %t; want %q", s.Name, s.Value, s.Explicit, value)
		}
		delete(want, s.Name)
	}
	if len(want) != 0 {
		t.Errorf("not described: %v", want)
	}
	forever, err := makeTopic(t, db, "forever", &TopicConfig{Retention: -1}).Describe()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range forever.Settings {
		if s.Name == "retention.ms" && s.Value != "-1" {
			t.Errorf("retention that is off is %q", s.Value)
		}
	}
}

func TestTopicConfigBadInput(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	_, err := db.CreateTopic(ctx, "orders", &TopicConfig{
		Partitions: -1, Durability: 7, SyncInterval: time.Microsecond, Cleanup: 9, MaxRecordBytes: -5, Compression: 77,
		MinDirtyRatio: math.NaN(), Retention: time.Hour,
		Settings: map[string]string{"retention.ms": "1", "segment.bytes": "x", "cleanup.polcy": "compact"},
	})
	checkError(t, err, ErrInvalidSetting, "orders", "partitions", "embedlog.durability", "embedlog.sync.interval.ms",
		"cleanup.policy", "max.message.bytes", "compression.type", "min.cleanable.dirty.ratio", "retention.ms", "segment.bytes", "cleanup.polcy")
	var one *InvalidSettingError
	if !errors.As(err, &one) || one.Reason == "" {
		t.Errorf("%T", err)
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", strings.Repeat("x", 250), "__x"} {
		_, err := db.CreateTopic(ctx, name, nil)
		checkError(t, err, ErrInvalidTopic, name)
		_, err = db.EnsureTopic(ctx, name, nil)
		checkError(t, err, ErrInvalidTopic, name)
	}
	if list := db.Topics(); len(list) != 0 {
		t.Errorf("topics were made: %v", list)
	}
}

func TestEnsureTopic(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, &Options{TopicDefaults: TopicConfig{Partitions: 2, Retention: 24 * time.Hour}})
	first := makeTopic(t, db, "orders", &TopicConfig{Retention: time.Hour})
	if first.Partitions() != 2 {
		t.Errorf("%d partitions, the default is 2", first.Partitions())
	}
	for _, c := range []*TopicConfig{nil, {}, {Retention: time.Hour}, {Partitions: 2}, {Settings: map[string]string{"retention.ms": " 3600000 "}}} {
		if again := makeTopic(t, db, "orders", c); again.ID() != first.ID() {
			t.Errorf("another topic for %+v", c)
		}
	}
	_, err := db.EnsureTopic(ctx, "orders", &TopicConfig{Partitions: 3, Retention: 2 * time.Hour, Cleanup: Delete})
	var differs *TopicDiffersError
	want := []SettingDifference{{"partitions", "3", "2"}, {"retention.ms", "7200000", "3600000"}}
	if !errors.As(err, &differs) || !slices.Equal(differs.Differences, want) {
		t.Errorf("%v, want the differences %v", err, want)
	}
	checkError(t, err, ErrTopicDiffers, "orders", "retention.ms", "7200000", "3600000")
	_, err = db.CreateTopic(ctx, "orders", nil)
	checkError(t, err, ErrTopicExists, "orders")
	_, err = db.EnsureTopic(ctx, "or.ders", nil)
	if err != nil {
		t.Error(err)
	}
	_, err = db.EnsureTopic(ctx, "or_ders", nil) // collides
	checkError(t, err, nil, "or_ders", "or.ders")
}

func TestAlterDeleteAndInfo(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "orders", nil)
	if err := topic.Alter(ctx, map[string]string{"max.message.bytes": "200"}); err != nil {
		t.Fatal(err)
	}
	_, err := topic.Produce(ctx, Record{Value: make([]byte, 300)})
	checkError(t, err, ErrRecordTooLarge, "orders/0")
	if err := topic.Alter(ctx, nil, "max.message.bytes"); err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Produce(ctx, Record{Value: make([]byte, 300)}); err != nil {
		t.Error(err)
	}
	checkError(t, topic.Alter(ctx, map[string]string{"retention.ms": "soon"}), ErrInvalidSetting, "orders", "retention.ms", "soon")
	info := db.Info()
	if len(info.Topics) != 1 || info.Topics[0].ID != topic.ID() || info.Topics[0].Name != topic.Name() {
		t.Errorf("%+v", info)
	}
	if err := db.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	makeTopic(t, db, "orders", nil)
	checkError(t, db.DeleteTopic(ctx, "others"), ErrUnknownTopic, "others")
	for what, err := range map[string]error{
		"alter":          topic.Alter(ctx, map[string]string{"retention.ms": "1"}),
		"add partitions": topic.AddPartitions(ctx, 9),
		"describe":       errorOf(topic.Describe()),
		"list offsets":   errorOf(topic.ListOffsets(ctx, Latest)),
		"delete records": errorOf(topic.DeleteRecords(ctx, 0, -1)),
	} {
		checkError(t, err, ErrUnknownTopic, what, "orders", "deleted")
	}
	if topic.Partitions() != 0 {
		t.Errorf("a deleted topic has %d partitions", topic.Partitions())
	}
}

func errorOf[T any](_ T, err error) error { return err }

// Offsets by what lies there, and scans between them.
func TestListOffsetsAndScan(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	topic := makeTopic(t, db, "t", &TopicConfig{Partitions: 2})
	base := time.UnixMilli(1_700_000_000_000)
	for i, minute := range []int{0, 10, 30, 20, 40} { // of partition 0; partition 1 is empty
		if _, err := topic.ProduceTo(ctx, 0, Record{Value: fmt.Append(nil, i), Timestamp: base.Add(time.Duration(minute) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	if start, err := topic.DeleteRecords(ctx, 0, 1); err != nil || start != 1 {
		t.Fatalf("%d, %v", start, err)
	}
	for _, row := range []struct {
		at   OffsetSpec
		want [2]int64
	}{
		{Earliest, [2]int64{1, 0}},
		{Latest, [2]int64{5, 0}},
		{MaxTimestamp, [2]int64{4, 0}},
		{AtTime(base), [2]int64{1, 0}},
		{AtTime(base.Add(15 * time.Minute)), [2]int64{2, 0}},
		{AtTime(base.Add(30*time.Minute + time.Microsecond)), [2]int64{4, 0}},
		{AtTime(base.Add(time.Hour)), [2]int64{5, 0}},
		{AtOffset(3), [2]int64{3, 3}},
	} {
		pos, err := topic.ListOffsets(ctx, row.at)
		if err != nil || len(pos) != 2 || pos[0].Offset != row.want[0] || pos[1].Offset != row.want[1] {
			t.Errorf("%v: %+v, %v; want %v", row.at, pos, err, row.want)
		}
	}
	for _, row := range []struct {
		name string
		o    *ScanOptions
		want string
	}{
		{"all", nil, "0@1=1 0@2=2 0@3=3 0@4=4"},
		{"offsets", &ScanOptions{Partitions: []int32{0}, From: AtOffset(2), To: AtOffset(4)}, "0@2=2 0@3=3"},
		{"from a time", &ScanOptions{From: AtTime(base.Add(15 * time.Minute))}, "0@2=2 0@3=3 0@4=4"},
		{"to a time", &ScanOptions{To: AtTime(base.Add(15 * time.Minute))}, "0@1=1"},
		{"nothing", &ScanOptions{From: Latest}, ""},
		{"an empty range", &ScanOptions{Partitions: []int32{0}, From: AtOffset(3), To: AtOffset(2)}, ""},
		{"past the end", &ScanOptions{Partitions: []int32{0}, From: AtOffset(4), To: AtOffset(99)}, "0@4=4"},
		{"one partition", &ScanOptions{Partitions: []int32{1}}, ""},
	} {
		for range 2 { // it can be repeated
			if got := strings.Join(readAll(t, topic, row.o), " "); got != row.want {
				t.Errorf("%s: %q, want %q", row.name, got, row.want)
			}
		}
	}
	seq := topic.Scan(ctx, nil)
	for rec := range seq {
		if rec.Offset == 2 {
			break
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for _, row := range []struct {
		name string
		ctx  context.Context
		o    *ScanOptions
		is   error
		says []string
	}{
		{"below", ctx, &ScanOptions{Partitions: []int32{0}, From: AtOffset(0)}, ErrOffsetOutOfRange, []string{"t/0", "offset 0", "1 to 5"}},
		{"above", ctx, &ScanOptions{Partitions: []int32{0}, From: AtOffset(6)}, ErrOffsetOutOfRange, []string{"t/0", "offset 6"}},
		{"partition", ctx, &ScanOptions{Partitions: []int32{2}}, ErrUnknownPartition, []string{"t", "2"}},
		{"cancelled", cancelled, nil, context.Canceled, []string{"t/0"}},
	} {
		n := 0
		for _, err := range topic.Scan(row.ctx, row.o) {
			n++
			checkError(t, err, row.is, row.says...)
		}
		if n != 1 {
			t.Errorf("%s: %d pairs, want the error alone", row.name, n)
		}
	}
	_, err := topic.DeleteRecords(ctx, 0, 9)
	checkError(t, err, ErrOffsetOutOfRange, "t/0", "9")
	_, err = topic.DeleteRecords(ctx, 5, 0)
	checkError(t, err, ErrUnknownPartition, "t", "5")
}

// A record that the engine does not understand in a topic of its own would stop
// every group: nobody else writes there.
func TestInternalTopicsAreRefused(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	makeTopic(t, db, "orders", nil)
	if err := db.CommitPositions(ctx, "g", Position{Topic: "orders"}); err != nil {
		t.Fatal(err)
	}
	const name = "__consumer_offsets"
	offsets, err := db.Topic(name)
	if err != nil {
		t.Fatal(err)
	}
	producer, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := Record{Topic: name, Key: []byte("k"), Value: []byte("v")}
	calls := map[string]func() error{
		"Produce":    func() error { _, err := offsets.Produce(ctx, rec); return err },
		"ProduceTo":  func() error { _, err := offsets.ProduceTo(ctx, 0, rec); return err },
		"ProduceAt":  func() error { _, err := offsets.ProduceAt(ctx, 0, 1, rec); return err },
		"Send":       func() error { return producer.Send(ctx, rec, nil) },
		"of several": func() error { _, err := producer.Produce(ctx, rec); return err },
		"Txn": func() error {
			return db.Update(ctx, func(tx *Txn) error { _, err := tx.Produce(ctx, rec); return err })
		},
		"DeleteRecords": func() error { _, err := offsets.DeleteRecords(ctx, 0, -1); return err },
		"AddPartitions": func() error { return offsets.AddPartitions(ctx, 9) },
		"DeleteTopic":   func() error { return db.DeleteTopic(ctx, name) },
		"Alter":         func() error { return offsets.Alter(ctx, map[string]string{"cleanup.policy": "delete"}) },
	}
	for what, call := range calls {
		if err := call(); !errors.Is(err, ErrInvalidTopic) && !errors.Is(err, ErrInvalidSetting) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := db.DescribeGroup(ctx, "g"); err != nil {
		t.Error(err)
	}
}
