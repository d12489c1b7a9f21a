package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func shareParts(topic TopicID, partitions ...int32) []TopicPartitions {
	return []TopicPartitions{{topic, partitions}}
}

func TestShareSessions(t *testing.T) {
	var s ShareSessions
	s.init()
	x := TopicID{1}
	text := func(list []TopicPartitions, err error) string {
		switch {
		case errors.Is(err, ErrShareSessionNotFound):
			return "not found"
		case errors.Is(err, ErrShareSessionEpoch):
			return "epoch"
		case errors.Is(err, ErrShareSessionLimit):
			return "limit"
		}
		var all []string
		for _, t := range list {
			for _, p := range t.Partitions {
				all = append(all, fmt.Sprint(p))
			}
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	for i, row := range []struct {
		epoch       int32
		add, forget []TopicPartitions
		want        string
	}{
		{1, nil, nil, "not found"}, {-1, nil, nil, "not found"},
		{0, shareParts(x, 0, 1, 2), nil, "0 1 2"}, {0, shareParts(x, 0, 1), nil, "0 1"},
		{2, nil, nil, "epoch"}, {1, shareParts(x, 1, 5), nil, "0 1 5"}, {1, nil, nil, "epoch"},
		{2, shareParts(x, 6), shareParts(x, 0, 6, 7), "1 5"}, {3, nil, nil, "1 5"}, {-1, nil, nil, ""}, {4, nil, nil, "not found"},
	} {
		if got := text(s.Step("owner", "g", "m", row.epoch, row.add, row.forget)); got != row.want {
			t.Errorf("%d. epoch %d: got %q, want %q", i, row.epoch, got, row.want)
		}
	}
	if s.parts != 0 || len(s.by) != 0 {
		t.Errorf("%d partitions of %d sessions are left", s.parts, len(s.by))
	}
	// The epoch goes round, and not through 0.
	s.Step("owner", "g", "m", 0, shareParts(x, 0), nil)
	s.by[shareMemberOf{"g", "m"}].epoch = math.MaxInt32
	if got := text(s.Step("owner", "g", "m", math.MaxInt32, nil, nil)) + text(s.Step("owner", "g", "m", 1, nil, nil)); got != "00" {
		t.Errorf("around the largest epoch: %q", got)
	}
	// Each partition is first now and then.
	s.Step("owner", "g", "m", 0, shareParts(x, 0, 1, 2), nil)
	first := map[int32]bool{}
	for epoch := range int32(3) {
		list, err := s.Step("owner", "g", "m", epoch+1, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		first[list[0].Partitions[0]] = true
	}
	if len(first) != 3 {
		t.Errorf("first are %v", first)
	}
	s.Step("other", "g", "n", 0, shareParts(x, 4), nil)
	if list := s.endOf("owner"); len(list) != 1 || list[0].member != "m" || s.parts != 1 {
		t.Errorf("ended %v, %d partitions are left", list, s.parts)
	}
	for i := range maxShareSessions - 1 {
		if _, err := s.Step("owner", "g", fmt.Sprint(i), 0, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := text(s.Step("owner", "g", "one more", 0, nil, nil)); got != "limit" {
		t.Errorf("one session more: %q", got)
	}
	if got := text(s.Step("owner", "g", "0", 0, nil, nil)); got != "" {
		t.Errorf("one of them anew: %q", got)
	}
	s.most = 1000
	many := make([]int32, s.most)
	for i := range many {
		many[i] = int32(i)
	}
	if got := text(s.Step("owner", "g", "0", 0, shareParts(x, many...), nil)); got != "limit" || s.parts != 1 {
		t.Errorf("more partitions: %.20q, %d are left", got, s.parts)
	}
}

func TestShareAssignment(t *testing.T) {
	for _, row := range []struct {
		members, topics int
		partitions      int32
		want            string // of each member how many of each topic
	}{
		{1, 1, 3, "3"}, {2, 1, 3, "2 1"}, {3, 1, 3, "1 1 1"}, {5, 1, 3, "1 1 1 1 1"}, {2, 2, 1, "1+1 1+1"}, {2, 2, 3, "2+1 1+2"}, {2, 1, 0, "0 0"},
	} {
		view := &topicsView{1, map[string]viewTopic{}, map[TopicID]viewTopic{}}
		var names []string
		for i := range row.topics {
			v := viewTopic{TopicID{byte(i + 1)}, fmt.Sprint("t", i), row.partitions, false}
			view.byName[v.name], view.byID[v.id] = v, v
			names = append(names, v.name)
		}
		epoch := int32(0)
		g := newShareMembers("g", &epoch, view)
		for i := range row.members {
			if _, err := g.heartbeat(time.UnixMilli(1_700_000_000_000), &ShareHeartbeatRequest{Group: "g", MemberID: fmt.Sprint(i), Topics: names}); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		all := map[topicPart]int{}
		for i := range row.members {
			m := g.members[fmt.Sprint(i)]
			var counts []string
			for j := range row.topics {
				counts = append(counts, fmt.Sprint(len(m.assigned[TopicID{byte(j + 1)}])))
			}
			m.assigned.each(func(p topicPart) { all[p]++ })
			got = append(got, strings.Join(counts, "+"))
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("%d members, %d topics of %d: got %s, want %s", row.members, row.topics, row.partitions, text, row.want)
		}
		if len(all) != row.topics*int(row.partitions) {
			t.Errorf("%d members, %d topics of %d: %d partitions are assigned", row.members, row.topics, row.partitions, len(all))
		}
		if epoch != int32(row.members) {
			t.Errorf("epoch %d after %d members", epoch, row.members)
		}
	}
}
