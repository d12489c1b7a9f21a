package engine

// Kafka's names for the two ways of sharing.
const (
	uniformAssignor = "uniform" // assign
	rangeAssignor   = "range"   // assignRanges
)

// assignRanges gives each member a run of neighbours of each topic that it subscribes
// to: with n partitions and m subscribers the first n mod m get one more. Members come
// in one order for all topics, so partitions of the same number of topics that have
// equally many, and equal subscribers, are one member's: what a join of the topics
// needs. It is a function of its input alone, and takes no account of who had what.
// (org.apache.kafka.coordinator.group.assignor.RangeAssignor)
func assignRanges(in assignInput) [][]share {
	subscribers := make([]int, len(in.partitions))
	for _, m := range in.members {
		for _, t := range m.topics {
			subscribers[t]++
		}
	}
	out := make([][]share, len(in.members))
	served := make([]int, len(in.partitions))
	next := make([]int32, len(in.partitions))
	for i, m := range in.members {
		for _, t := range m.topics {
			n, of := int(in.partitions[t]), subscribers[t]
			size := n / of
			if served[t] < n%of {
				size++
			}
			served[t]++
			if size == 0 {
				continue
			}
			run := make([]int32, size)
			for k := range run {
				run[k] = next[t] + int32(k)
			}
			next[t] += int32(size)
			out[i] = append(out[i], share{t, run})
		}
	}
	return out
}

// preferredAssignor is the one that most members ask for. Who asks for none has no
// vote; between equals it is the uniform one.
func (g *groupState) preferredAssignor() string {
	ranges, others := 0, 0
	for _, m := range g.members {
		switch m.assignor {
		case rangeAssignor:
			ranges++
		case uniformAssignor:
			others++
		}
	}
	if ranges > others {
		return rangeAssignor
	}
	return uniformAssignor
}
