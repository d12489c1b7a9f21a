package engine

import (
	"container/heap"
	"slices"
)

// share is what one member has of one topic.
type share struct {
	topic      int     // index into assignInput.partitions
	partitions []int32 // ascending in results
}

// assignMember is a member as the assignor sees it.
type assignMember struct {
	topics []int   // what it subscribes to, ascending
	owned  []share // what it has by the target before; anything in it may be out of date
}

// assignInput is all that an assignment depends on.
type assignInput struct {
	partitions []int32        // of each topic, how many it has
	members    []assignMember // their order decides between equals: callers sort by id
}

// assign gives each partition of each subscribed topic to exactly one member
// that subscribes to it. It is a function of its input alone.
//
//   - Balanced: no partition, nor any chain of them, can change hands so that a
//     member with two or more above another one's count gets nearer to it. So
//     counts of members with equal subscriptions differ by at most one, and where
//     subscriptions differ the sum of squares of the counts is the least there is.
//   - Sticky: what a member has and may keep is moved for balance only. With equal
//     subscriptions no assignment that is balanced moves less: who joins takes at
//     most his share, from those who have most, and nobody else gains; of who
//     leaves only his own partitions move.
//
// It is an optimal semi-matching found by cost-reducing paths (Harvey, Ladner,
// Lovász, Tamir: "Semi-matchings for bipartite graphs and load balancing", 2006),
// begun from what members have instead of from nothing.
func assign(in assignInput) [][]share {
	a := newAssigner(in)
	a.keep()
	a.place()
	a.balance()
	return a.result()
}

const nobody = int32(-1)

type assigner struct {
	in          assignInput
	subscribers [][]int32 // of each topic
	owner       [][]int32 // of each topic, of each partition: member or nobody
	// held has of each member, for the i-th topic of its subscription, the
	// partitions, those it had before first: a move takes the last.
	held [][][]int32
	load []int   // partitions of each member
	at   []int32 // how many members have this load
	min  int     // smallest load of any member

	// Scratch of a search.
	settled   []bool // nothing that a member reaches is low enough any more
	seen      []int  // of each member, the search that reached it last
	seenTopic []int
	search    int
	from      []int32 // of each member reached: who would give it a partition,
	via       []int   // and of which topic
	queue     []int32
}

func newAssigner(in assignInput) *assigner {
	n, total := len(in.members), 0
	a := &assigner{
		in: in, subscribers: make([][]int32, len(in.partitions)), owner: make([][]int32, len(in.partitions)),
		held: make([][][]int32, n), load: make([]int, n),
		settled: make([]bool, n), seen: make([]int, n), seenTopic: make([]int, len(in.partitions)),
		from: make([]int32, n), via: make([]int, n),
	}
	for m := range in.members {
		a.held[m] = make([][]int32, len(in.members[m].topics))
		for _, t := range in.members[m].topics {
			a.subscribers[t] = append(a.subscribers[t], int32(m))
		}
	}
	for t, count := range in.partitions {
		a.owner[t] = slices.Repeat([]int32{nobody}, int(count))
		total += int(count)
	}
	a.at = make([]int32, total+2)
	a.at[0] = int32(n)
	return a
}

// give adds a partition to a member that subscribes to its topic.
func (a *assigner) give(m int32, topic int, p int32) {
	i, _ := slices.BinarySearch(a.in.members[m].topics, topic)
	a.held[m][i] = append(a.held[m][i], p)
	a.owner[topic][p] = m
	a.addLoad(m, 1)
}

// take removes the partition of the topic that the member got last.
func (a *assigner) take(m int32, topic int) int32 {
	i, _ := slices.BinarySearch(a.in.members[m].topics, topic)
	list := a.held[m][i]
	p := list[len(list)-1]
	a.held[m][i] = list[:len(list)-1]
	a.owner[topic][p] = nobody
	a.addLoad(m, -1)
	return p
}

func (a *assigner) addLoad(m int32, by int) {
	a.at[a.load[m]]--
	a.load[m] += by
	a.at[a.load[m]]++
	a.min = min(a.min, a.load[m])
	for a.at[a.min] == 0 {
		a.min++
	}
}

// keep leaves members what they have, where that still makes sense.
func (a *assigner) keep() {
	for m := range a.in.members {
		member := &a.in.members[m]
		for _, s := range member.owned {
			if _, ok := slices.BinarySearch(member.topics, s.topic); !ok {
				continue
			}
			for _, p := range s.partitions {
				if p >= 0 && p < a.in.partitions[s.topic] && a.owner[s.topic][p] == nobody {
					a.give(int32(m), s.topic, p)
				}
			}
		}
	}
}

// place gives each free partition to whoever has least, topics with the smallest
// choice of members first.
func (a *assigner) place() {
	order := make([]int, len(a.in.partitions))
	for t := range order {
		order[t] = t
	}
	slices.SortStableFunc(order, func(x, y int) int { return len(a.subscribers[x]) - len(a.subscribers[y]) })
	h := lightest{load: a.load}
	for _, t := range order {
		if len(a.subscribers[t]) == 0 || !slices.Contains(a.owner[t], nobody) {
			continue
		}
		h.members = append(h.members[:0], a.subscribers[t]...)
		heap.Init(&h)
		for p, owner := range a.owner[t] {
			if owner == nobody {
				a.give(h.members[0], t, int32(p))
				heap.Fix(&h, 0)
			}
		}
	}
}

// balance moves partitions from who has most to who has least as long as that
// makes counts more equal: from one to the other where that goes, which moves
// least, and only then through others.
//
// The member with the highest count is searched from again and again. When it
// reaches nobody two below it, then neither does anybody whom it reached, now
// or later: counts never rise above the present highest, and what leads out of
// that set does not change. So one search that fails settles all of them.
func (a *assigner) balance() {
	for _, direct := range []bool{true, false} {
		h := heaviest{lightest{load: a.load}}
		for m := range a.in.members {
			h.members = append(h.members, int32(m))
		}
		heap.Init(&h)
		for len(h.members) > 0 && a.load[h.members[0]] >= a.min+2 {
			m := h.members[0]
			low, ok := nobody, false
			if !a.settled[m] {
				low, ok = a.lowest(m, direct)
			}
			if !ok {
				heap.Pop(&h)
				continue
			}
			for to := low; to != m; to = a.from[to] {
				a.give(to, a.via[to], a.take(a.from[to], a.via[to]))
			}
			heap.Fix(&h, 0)
			if i := slices.Index(h.members, low); i >= 0 {
				heap.Fix(&h, i)
			}
		}
	}
}

// lowest finds, breadth first, the member with the lowest count to which a
// partition can be passed on from m, directly or through others, such that the
// counts become more equal.
func (a *assigner) lowest(m int32, direct bool) (low int32, ok bool) {
	a.search++
	a.seen[m] = a.search
	a.queue = append(a.queue[:0], m)
	low = m
	for i := 0; i < len(a.queue) && (i == 0 || !direct); i++ {
		giver := a.queue[i]
		for ti, t := range a.in.members[giver].topics {
			if a.seenTopic[t] == a.search || len(a.held[giver][ti]) == 0 {
				continue
			}
			a.seenTopic[t] = a.search
			for _, to := range a.subscribers[t] {
				if a.seen[to] == a.search || a.settled[to] {
					continue
				}
				a.seen[to], a.from[to], a.via[to] = a.search, giver, t
				a.queue = append(a.queue, to)
				if a.load[to] < a.load[low] {
					if low = to; a.load[to] == a.min {
						return low, a.load[low] <= a.load[m]-2
					}
				}
			}
		}
	}
	if a.load[low] <= a.load[m]-2 {
		return low, true
	}
	if !direct {
		for _, reached := range a.queue {
			a.settled[reached] = true
		}
	}
	return low, false
}

func (a *assigner) result() [][]share {
	out := make([][]share, len(a.in.members))
	for m := range a.in.members {
		for i, t := range a.in.members[m].topics {
			if list := a.held[m][i]; len(list) > 0 {
				slices.Sort(list)
				out[m] = append(out[m], share{t, list})
			}
		}
	}
	return out
}

// lightest is a heap of members, the one with the lowest count on top.
type lightest struct {
	load    []int
	members []int32
}

func (h *lightest) Len() int      { return len(h.members) }
func (h *lightest) Swap(i, j int) { h.members[i], h.members[j] = h.members[j], h.members[i] }
func (h *lightest) Push(x any)    { h.members = append(h.members, x.(int32)) }
func (h *lightest) Less(i, j int) bool {
	x, y := h.members[i], h.members[j]
	return h.load[x] < h.load[y] || h.load[x] == h.load[y] && x < y
}

func (h *lightest) Pop() any {
	last := h.members[len(h.members)-1]
	h.members = h.members[:len(h.members)-1]
	return last
}

// heaviest has the one with the highest count on top.
type heaviest struct{ lightest }

func (h *heaviest) Less(i, j int) bool {
	x, y := h.members[i], h.members[j]
	return h.load[x] > h.load[y] || h.load[x] == h.load[y] && x < y
}
