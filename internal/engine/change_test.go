package engine

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// Changes that depend on what is there do not get lost, however many are made at once.
func TestChangeSettingsIsAtomic(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	mustTopic(t, e, "orders", 1)
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			err := e.ChangeSettings(ctx, "orders", func(s Settings) (map[string]string, []string, error) {
				var n int
				value, _ := s.Get("leader.replication.throttled.replicas")
				fmt.Sscan(value, &n)
				return map[string]string{"leader.replication.throttled.replicas": fmt.Sprint(n + 1)}, nil, nil
			})
			if err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	topic, _ := e.Topic("orders")
	if got, _ := topic.Settings().Get("leader.replication.throttled.replicas"); got != "20" {
		t.Errorf("20 times one more is %s", got)
	}
}

func TestChecksChangeNothing(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	topic := mustTopic(t, e, "orders", 2)
	end := e.meta.part.LogEnd()
	set := func(name, value string) SettingsChange {
		return func(Settings) (map[string]string, []string, error) { return map[string]string{name: value}, nil, nil }
	}
	mine := errors.New("mine")
	for _, row := range []struct {
		what string
		err  error
		want error
	}{
		{"settings that hold", e.CheckChangeSettings(ctx, "orders", set("retention.ms", "5")), nil},
		{"settings that do not", e.CheckChangeSettings(ctx, "orders", set("retention.ms", "x")), ErrInvalidSetting},
		{"settings of no topic", e.CheckChangeSettings(ctx, "none", set("retention.ms", "5")), ErrUnknownTopic},
		{"no change", e.ChangeSettings(ctx, "orders", set("retention.ms", "x")), ErrInvalidSetting},
		{"refused", e.ChangeSettings(ctx, "orders", func(Settings) (map[string]string, []string, error) { return nil, nil, mine }), mine},
		{"nothing", e.ChangeSettings(ctx, "orders", func(Settings) (map[string]string, []string, error) { return nil, []string{"retention.ms"}, nil }), nil},
		{"more partitions", e.CheckAddPartitions(ctx, topic.ID(), 3), nil},
		{"no more partitions", e.CheckAddPartitions(ctx, topic.ID(), 2), ErrInvalidTopic},
		{"partitions of no topic", e.CheckAddPartitions(ctx, testID('X'), 3), ErrUnknownTopic},
		{"a topic that is there", second(e.CheckCreateTopic(ctx, TopicSpec{Name: "orders"})), ErrTopicExists},
		{"an internal topic", second(e.CheckCreateTopic(ctx, TopicSpec{Name: "__x"})), ErrInvalidTopic},
		{"a topic with bad settings", second(e.CheckCreateTopic(ctx, TopicSpec{Name: "x", Settings: map[string]string{"a": "b"}})), ErrInvalidSetting},
		{"a topic", second(e.CheckCreateTopic(ctx, TopicSpec{Name: "x"})), nil},
	} {
		if !errors.Is(row.err, row.want) || row.want == nil && row.err != nil {
			t.Errorf("%s: got %v, want %v", row.what, row.err, row.want)
		}
	}
	if now := e.meta.part.LogEnd(); now != end {
		t.Errorf("%d commands were written", now-end)
	}
	if err := checkDirs(e); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }
