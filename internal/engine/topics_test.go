package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func TestTopicNames(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	for _, row := range []struct {
		name string
		want error // nil: it is made
	}{
		{"orders", nil}, {"Orders", nil}, {"ORDERS", nil}, // case is significant
		{"a.b", nil}, {"a_b", ErrInvalidTopic}, {"a.b.c", nil}, {"a_b_c", ErrInvalidTopic}, {"a_b.c", ErrInvalidTopic}, {"a-b", nil},
		{strings.Repeat("n", 249), nil}, {strings.Repeat("n", 250), ErrInvalidTopic},
		{"", ErrInvalidTopic}, {".", ErrInvalidTopic}, {"..", ErrInvalidTopic}, {"...", nil}, {"_", nil}, {"-", nil},
		{"a b", ErrInvalidTopic}, {"a/b", ErrInvalidTopic}, {"ä", ErrInvalidTopic}, {"a\x00", ErrInvalidTopic}, {"a:b", ErrInvalidTopic},
		{"__mine", ErrInvalidTopic}, {"_mine", nil}, {"orders", ErrTopicExists},
	} {
		topic, err := e.CreateTopic(ctx, TopicSpec{Name: row.name})
		if row.want == nil && (err != nil || topic.Name() != row.name || len(topic.Partitions()) != 1) || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%q: got %v, want %v", row.name, err, row.want)
		}
	}
	var exists *TopicExistsError
	if _, err := e.CreateTopic(ctx, TopicSpec{Name: "orders"}); !errors.As(err, &exists) || exists.ID.IsZero() {
		t.Error(err)
	}
	if err := checkDirs(e); err != nil { // what was refused left nothing
		t.Error(err)
	}
	if !slices.IsSortedFunc(e.Topics(), func(a, b *Topic) int { return strings.Compare(a.Name(), b.Name()) }) {
		t.Error("topics are not sorted")
	}
}

func TestCreateReportsAllThatIsWrong(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	_, err := e.CreateTopic(ctx, TopicSpec{Name: "a b", Partitions: -1, Settings: map[string]string{"retention.ms": "x", "no.such": "y"}})
	for _, want := range []string{"letters", "-1 partitions", "retention.ms", "no.such"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if !errors.Is(err, ErrInvalidTopic) || !errors.Is(err, ErrInvalidSetting) {
		t.Error(err)
	}
	if _, err := e.CreateTopic(ctx, TopicSpec{Name: "many", Partitions: maxPartitions + 1}); !errors.Is(err, ErrInvalidTopic) {
		t.Error(err)
	}
}

func TestUnknown(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	topic := mustTopic(t, e, "orders", 2)
	_, nameErr := e.Topic("nope")
	_, idErr := e.TopicByID(testID('X'))
	for what, err := range map[string]error{
		"topic": nameErr, "id": idErr, "alter": e.AlterTopic(ctx, "nope", nil, nil), "add": e.AddPartitions(ctx, "nope", 3), "delete": e.DeleteTopic(ctx, "nope"),
	} {
		if !errors.Is(err, ErrUnknownTopic) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, n := range []int32{-1, 2, 1 << 30} {
		var unknown *UnknownPartitionError
		if _, err := topic.Partition(n); !errors.As(err, &unknown) || unknown.Partition != n || unknown.Partitions != 2 {
			t.Error(err)
		}
	}
	if p, err := topic.Partition(1); err != nil || p.ID() != 1 || p.Topic() != "orders" || p.TopicID() != topic.ID() || p.String() != "orders/1" {
		t.Error(p, err)
	}
	if got, err := e.TopicByID(topic.ID()); err != nil || got != topic {
		t.Error(got, err)
	}
	for _, total := range []int{-1, 0, 1, 2, maxPartitions + 1} {
		if err := e.AddPartitions(ctx, "orders", total); !errors.Is(err, ErrInvalidTopic) {
			t.Errorf("%d partitions: %v", total, err)
		}
	}
}

func TestAlterIsLive(t *testing.T) {
	e := openEngine(t, vfs.NewMem(), func(o *Options) {
		o.Defaults = map[string]string{"max.message.bytes": "2000", "embedlog.durability": "os"}
	})
	topic := mustTopic(t, e, "orders", 2)
	p := topic.Partitions()[1]
	if c := p.Config(); c.MaxBatchBytes != 2000 || c.Log.Level != log.OS {
		t.Errorf("the database's defaults: %+v", c)
	}
	if err := e.AlterTopic(ctx, "orders", map[string]string{"max.message.bytes": "100", "embedlog.durability": "durable"}, nil); err != nil {
		t.Fatal(err)
	}
	if c := p.Config(); c.MaxBatchBytes != 100 || c.Log.Level != log.Durable {
		t.Errorf("after a change: %+v", c)
	}
	if err := e.AlterTopic(ctx, "orders", nil, []string{"max.message.bytes", "retention.ms"}); err != nil {
		t.Fatal(err)
	}
	if c := p.Config(); c.MaxBatchBytes != 2000 || c.Log.Level != log.Durable {
		t.Errorf("after it was unset: %+v", c)
	}
	if v, _ := topic.Settings().Get("max.message.bytes"); v != "2000" {
		t.Errorf("a topic that was asked for before: %s", v)
	}
	for _, row := range []struct {
		name  string
		set   map[string]string
		unset []string
	}{
		{"a bad value", map[string]string{"retention.ms": "x"}, nil},
		{"an unknown name", map[string]string{"no.such": "x"}, nil},
		{"an unknown name to unset", nil, []string{"no.such"}},
		{"set and unset", map[string]string{"retention.ms": "1"}, []string{"retention.ms"}},
	} {
		if err := e.AlterTopic(ctx, "orders", row.set, row.unset); !errors.Is(err, ErrInvalidSetting) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if got, _ := e.Topic("orders"); len(got.Settings().Explicit()) != 1 {
		t.Error(got.Settings().Explicit())
	}
}

// Users cannot break what the engine keeps for itself.
func TestInternalTopics(t *testing.T) {
	fs := vfs.NewMem()
	e := openEngine(t, fs, func(o *Options) {
		o.Defaults = map[string]string{"embedlog.durability": "os", "max.message.bytes": "100"}
		o.InternalPartitions = 3
	})
	topic, err := e.InternalTopic(ctx, "__offsets", map[string]string{"cleanup.policy": "compact"})
	if err != nil {
		t.Fatal(err)
	}
	if c := topic.Partitions()[2].Config(); !topic.Internal() || c.Log.Level != log.Durable || !topic.Settings().Compacts() || c.MaxBatchBytes == 100 {
		t.Errorf("%+v", c)
	}
	if again, err := e.InternalTopic(ctx, "__offsets", nil); err != nil || again != topic {
		t.Error(again, err)
	}
	if _, err := e.InternalTopic(ctx, "offsets", nil); !errors.Is(err, ErrInvalidTopic) {
		t.Error(err)
	}
	for what, row := range map[string]struct{ err, want error }{
		"delete":         {e.DeleteTopic(ctx, "__offsets"), ErrInvalidTopic},
		"add partitions": {e.AddPartitions(ctx, "__offsets", 9), ErrInvalidTopic},
		"policy":         {e.AlterTopic(ctx, "__offsets", map[string]string{"cleanup.policy": "delete"}, nil), ErrInvalidSetting},
		"durability":     {e.AlterTopic(ctx, "__offsets", map[string]string{"embedlog.durability": "os"}, nil), ErrInvalidSetting},
		"unset":          {e.AlterTopic(ctx, "__offsets", nil, []string{"embedlog.durability", "cleanup.policy"}), ErrInvalidSetting},
		"segment size":   {e.AlterTopic(ctx, "__offsets", map[string]string{"segment.bytes": "1048576"}, nil), nil},
	} {
		if !errors.Is(row.err, row.want) {
			t.Errorf("%s: got %v, want %v", what, row.err, row.want)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, fs)
	if topic, err = e.Topic("__offsets"); err != nil || !topic.Internal() || topic.Partitions()[0].Config().Log.SegmentBytes != 1<<20 {
		t.Error(topic, err)
	}
}

func TestOnMetadata(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	var seen []int
	cancel := e.OnMetadata(func() { seen = append(seen, len(e.Topics())) })
	mustTopic(t, e, "a", 1)
	for _, err := range []error{e.AddPartitions(ctx, "a", 2), e.AlterTopic(ctx, "a", nil, nil), e.DeleteTopic(ctx, "a")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	cancel()
	mustTopic(t, e, "b", 1)
	if !slices.Equal(seen, []int{1, 1, 1, 0}) {
		t.Error(seen)
	}
}

func TestProducerIDsNeverComeAgain(t *testing.T) {
	fs := vfs.NewMem()
	last := int64(-1)
	for range 3 {
		e := openEngine(t, fs)
		commands := e.meta.part.LogEnd()
		for range producerIDBlock + 5 {
			id, err := e.AllocateProducerID(ctx)
			if err != nil || id <= last {
				t.Fatalf("%d after %d: %v", id, last, err)
			}
			last = id
		}
		if n := e.meta.part.LogEnd() - commands; n != 2 {
			t.Errorf("%d commands for %d ids", n, producerIDBlock+5)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHooks(t *testing.T) {
	var said []string
	syncs := 0
	say := func(what string) { said = append(said, what) }
	e := openEngine(t, vfs.NewMem(), func(o *Options) {
		o.Hooks = &Hooks{
			OnProduce: func(topic string, p int32, records int, bytes int64, _ time.Duration, err error) {
				say(fmt.Sprint("produce ", topic, p, records, bytes, err != nil))
			},
			OnFsync: func(topic string, p int32, d time.Duration, err error) {
				syncs++
				if topic != "t" || p != 0 || d < 0 || err != nil {
					t.Error("sync", topic, p, d, err)
				}
			},
			OnFetch: func(topic string, p int32, batches int, bytes int64, _ time.Duration, err error) {
				say(fmt.Sprint("fetch ", topic, p, batches, bytes > 0, err != nil))
			},
		}
	})
	p := mustTopic(t, e, "t", 1).Partitions()[0]
	if _, err := p.Append(ctx, []log.Record{{Key: []byte("k"), Value: []byte("vv")}, {}}, nil); err != nil {
		t.Fatal(err)
	}
	batch, err := log.AppendBatch(nil, &log.BatchHeader{ProducerID: -1}, []log.Record{{}, {}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AppendBatch(ctx, batch, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.AppendBatch(ctx, batch[:10], nil); err == nil || !strings.HasPrefix(err.Error(), "append t/0: ") {
		t.Error(err)
	}
	if _, err := p.Append(ctx, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "append t/0: ") {
		t.Error(err)
	}
	if _, err := p.Fetch(ctx, partition.FetchRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := p.Fetch(ctx, partition.FetchRequest{Offset: 99}); err == nil || !strings.HasPrefix(err.Error(), "fetch t/0: ") {
		t.Error(err)
	}
	if syncs < 2 {
		t.Errorf("%d syncs of two durable appends", syncs)
	}
	want := []string{"produce t 0 2 3 false", fmt.Sprint("produce t 0 2 ", len(batch), " false"), "produce t 0 0 10 true", "produce t 0 0 0 true", "fetch t 0 2 true false", "fetch t 0 0 false true"}
	got := strings.Join(said, "|")
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(strings.Join(want, "|"), " ", "") {
		t.Errorf("got  %s\nwant %s", got, strings.Join(want, "|"))
	}
}

// What is changed by its id is the topic that had it, and never the next one of that
// name.
func TestChangesByID(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	make := func() *Topic {
		t.Helper()
		topic, err := e.CreateTopic(ctx, TopicSpec{Name: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		return topic
	}
	calls := map[string]func(TopicID) error{
		"alter topic":             func(id TopicID) error { return e.AlterTopicByID(ctx, id, map[string]string{"retention.ms": "1"}, nil) },
		"add partitions to topic": func(id TopicID) error { return e.AddPartitionsByID(ctx, id, 3) },
		"delete topic":            func(id TopicID) error { return e.DeleteTopicByID(ctx, id) },
	}
	old := make()
	if err := e.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	now := make()
	for what, call := range calls {
		for _, id := range []TopicID{old.ID(), {}} {
			var unknown *UnknownTopicError
			if err := call(id); !errors.As(err, &unknown) || unknown.ID != id || !strings.HasPrefix(err.Error(), what) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if now, err := e.Topic("orders"); err != nil || len(now.Partitions()) != 1 || len(now.meta.settings) != 0 {
		t.Fatalf("%+v, %v", now, err)
	}
	for _, what := range []string{"alter topic", "add partitions to topic"} {
		if err := calls[what](now.ID()); err != nil {
			t.Error(err)
		}
	}
	if now, err := e.TopicByID(now.ID()); err != nil || len(now.Partitions()) != 3 || now.meta.settings["retention.ms"] != "1" {
		t.Errorf("%+v, %v", now, err)
	}
	if err := e.AddPartitionsByID(ctx, now.ID(), 3); !errors.Is(err, ErrInvalidTopic) || !strings.HasPrefix(err.Error(), "add partitions to topic orders: ") {
		t.Error(err)
	}
	if err := calls["delete topic"](now.ID()); err != nil {
		t.Error(err)
	}
	if _, err := e.Topic("orders"); !errors.Is(err, ErrUnknownTopic) {
		t.Error(err)
	}
	if err := checkDirs(e); err != nil {
		t.Error(err)
	}
}
