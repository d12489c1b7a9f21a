package engine

import (
	"errors"
	"fmt"
	"testing"
)

// rememberedShareGroups is how many groups the memory has something about.
func (b *shareBed) rememberedShareGroups() (n int) {
	for _, shard := range b.e.Shares().allShards() {
		shard.mu.Lock()
		n += len(shard.groups)
		shard.mu.Unlock()
	}
	return n
}

// A group about which nothing is known takes no memory, however it came to that.
func TestShareGroupsAreForgotten(t *testing.T) {
	bubble(t, func(b *shareBed) {
		before := b.rememberedShareGroups()
		alter := func(group, name, value string) error {
			return b.e.Shares().AlterSettings(ctx, group, false, func(set map[string]string) (map[string]string, error) {
				if set[name] = value; value == "" {
					delete(set, name)
				}
				return set, nil
			})
		}
		for i := range 10 {
			group := fmt.Sprint("g", i)
			if err := alter(group, shareSettingLimit, "1000"); !errors.Is(err, ErrInvalidSetting) {
				t.Errorf("a bad setting: %v", err)
			}
			b.ok(alter(group, shareSettingLimit, "3"))
			b.ok(alter(group, shareSettingLimit, ""))
			b.ok(b.e.Shares().SetOffset(ctx, group, b.topic.ID(), 0, 0))
			b.ok(b.e.Shares().DeleteOffsets(ctx, group, b.topic.ID()))
			b.ok(b.e.Shares().SetOffset(ctx, group, b.topic.ID(), 0, 0))
			b.ok(b.e.Groups().Delete(ctx, group))
		}
		if n := b.rememberedShareGroups(); n != before {
			t.Errorf("%d groups are remembered, want %d", n, before)
		}
		b.ok(alter("kept", shareSettingLimit, "3"))
		b.ok(b.e.Shares().SetOffset(ctx, "kept", b.topic.ID(), 0, 0))
		b.ok(b.e.Groups().Delete(ctx, "kept"))
		if n := b.rememberedShareGroups(); n != before+1 {
			t.Errorf("%d groups are remembered, want %d: settings stay", n, before+1)
		}
	})
}

// What a session does not fetch from any more takes no memory: all that is remembered is
// bounded by what there is in sessions at a time.
func TestShareSessionsShrink(t *testing.T) {
	var s ShareSessions
	s.init()
	many := make([]int32, 100_000)
	for i := range many {
		many[i] = int32(i)
	}
	topic := TopicID{1}
	if _, err := s.Step(t, "q", "a", ShareSessionOpen, shareParts(topic, many...), nil); err != nil {
		t.Fatal(err)
	}
	list, err := s.Step(t, "q", "a", 1, nil, shareParts(topic, many[3:]...))
	if err != nil || len(list) != 1 || len(list[0].Partitions) != 3 {
		t.Fatalf("the session has %v: %v", list, err)
	}
	x := s.by[shareMemberOf{"q", "a"}]
	if n := cap(x.list); n > 1000 {
		t.Errorf("memory for %d partitions is kept for 3", n)
	}
	if s.parts != 3 || len(x.index) != 3 {
		t.Errorf("3 partitions are counted as %d, and found as %d", s.parts, len(x.index))
	}
}
