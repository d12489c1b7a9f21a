package engine

import (
	"bytes"
	"maps"
	"slices"
)

// groupParts is a set of partitions: of each topic those in the set, ascending,
// and no topic without any.
type groupParts map[TopicID][]int32

// topicPart is one partition.
type topicPart struct {
	topic     TopicID
	partition int32
}

// newGroupParts makes the set of a list, which may name a topic as often as its
// client likes.
func newGroupParts(list []TopicPartitions) groupParts {
	s := make(groupParts, min(len(list), 64))
	for _, t := range list {
		if len(t.Partitions) > 0 {
			s[t.Topic] = append(s[t.Topic], t.Partitions...)
		}
	}
	for t, parts := range s {
		slices.Sort(parts)
		s[t] = slices.Compact(parts)
	}
	return s
}

// list returns the set ordered by topic id; never nil.
func (s groupParts) list() []TopicPartitions {
	out := make([]TopicPartitions, 0, len(s))
	for t, list := range s {
		out = append(out, TopicPartitions{t, slices.Clone(list)})
	}
	slices.SortFunc(out, func(a, b TopicPartitions) int { return bytes.Compare(a.Topic[:], b.Topic[:]) })
	return out
}

func (s groupParts) has(p topicPart) bool {
	_, ok := slices.BinarySearch(s[p.topic], p.partition)
	return ok
}

func (s groupParts) equal(o groupParts) bool { return maps.EqualFunc(s, o, slices.Equal) }

// filter returns the partitions of which f is true, visited in no order of topics.
func (s groupParts) filter(f func(topicPart) bool) groupParts {
	out := groupParts{}
	for t, list := range s {
		var kept []int32
		for _, p := range list {
			if f(topicPart{t, p}) {
				kept = append(kept, p)
			}
		}
		if kept != nil {
			out[t] = kept
		}
	}
	return out
}

func (s groupParts) and(o groupParts) groupParts { return s.filter(o.has) }

func (s groupParts) minus(o groupParts) groupParts {
	return s.filter(func(p topicPart) bool { return !o.has(p) })
}

func (s groupParts) or(o groupParts) groupParts {
	out := make(groupParts, len(s)+len(o))
	maps.Copy(out, s)
	for t, list := range o {
		merged := slices.Concat(out[t], list)
		slices.Sort(merged)
		out[t] = slices.Compact(merged)
	}
	return out
}

func (s groupParts) each(f func(topicPart)) {
	for t, list := range s {
		for _, p := range list {
			f(topicPart{t, p})
		}
	}
}

func (s groupParts) count() (n int) {
	for _, list := range s {
		n += len(list)
	}
	return n
}
