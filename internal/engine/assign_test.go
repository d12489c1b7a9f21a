package engine

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

// assignWorld is a group whose members, subscriptions and topics change at random.
type assignWorld struct {
	rng        *rand.Rand
	partitions []int32
	members    []worldMember // ascending by id
	nextID     int
}

type worldMember struct {
	id     int
	topics []int
	shares []share
}

func (w *assignWorld) input() assignInput {
	in := assignInput{partitions: w.partitions}
	for _, m := range w.members {
		in.members = append(in.members, assignMember{topics: m.topics, owned: m.shares})
	}
	return in
}

func (w *assignWorld) subscription(equal bool) []int {
	var topics []int
	for t := range w.partitions {
		if equal || w.rng.IntN(3) > 0 {
			topics = append(topics, t)
		}
	}
	return topics
}

// step changes one thing and says what.
func (w *assignWorld) step(equal bool) string {
	switch n := w.rng.IntN(20); {
	case n < 8 && len(w.members) < 12 || len(w.members) == 0:
		w.members = append(w.members, worldMember{id: w.nextID, topics: w.subscription(equal)})
		w.nextID++
		return "join"
	case n < 15:
		w.members = slices.Delete(w.members, 0, 1)
		if w.rng.IntN(2) == 0 && len(w.members) > 1 {
			i := w.rng.IntN(len(w.members))
			w.members = slices.Delete(w.members, i, i+1)
			return "leave 2"
		}
		return "leave"
	case n < 18:
		w.partitions[w.rng.IntN(len(w.partitions))] += int32(w.rng.IntN(4))
		return "partitions"
	case n < 19:
		for t := range w.partitions { // what it had of a topic may be gone, too
			w.partitions[t] = min(w.partitions[t], int32(w.rng.IntN(20)))
		}
		return "shrink"
	}
	w.members[w.rng.IntN(len(w.members))].topics = w.subscription(equal)
	return "subscription"
}

func shareCount(shares []share) (n int) {
	for _, s := range shares {
		n += len(s.partitions)
	}
	return n
}

// checkAssignment says what is wrong with an assignment.
func checkAssignment(in assignInput, got [][]share) error {
	owners := make([][]int, len(in.partitions))
	for t, n := range in.partitions {
		owners[t] = make([]int, n)
	}
	for m, shares := range got {
		for _, s := range shares {
			if !slices.Contains(in.members[m].topics, s.topic) {
				return fmt.Errorf("member %d has topic %d without a subscription", m, s.topic)
			}
			if !slices.IsSorted(s.partitions) || len(s.partitions) == 0 {
				return fmt.Errorf("member %d has %v of topic %d", m, s.partitions, s.topic)
			}
			for _, p := range s.partitions {
				owners[s.topic][p]++
			}
		}
	}
	for t, list := range owners {
		want := 0
		for _, m := range in.members {
			if slices.Contains(m.topics, t) {
				want = 1
			}
		}
		for p, n := range list {
			if n != want {
				return fmt.Errorf("partition %d/%d has %d owners, want %d", t, p, n, want)
			}
		}
	}
	// No chain of moves makes the counts more equal: what each member reaches.
	for m := range got {
		reached := map[int]bool{m: true}
		for queue := []int{m}; len(queue) > 0; queue = queue[1:] {
			for _, s := range got[queue[0]] {
				for to := range in.members {
					if !reached[to] && slices.Contains(in.members[to].topics, s.topic) {
						reached[to], queue = true, append(queue, to)
						if shareCount(got[to]) <= shareCount(got[m])-2 {
							return fmt.Errorf("member %d with %d partitions can relieve member %d with %d", to, shareCount(got[to]), m, shareCount(got[m]))
						}
					}
				}
			}
		}
	}
	return nil
}

// assignKept counts the partitions that their member had before, and moved those that
// another one, who is still there, had.
func assignKept(in assignInput, got [][]share) (kept, moved int) {
	was := map[[2]int32]int{}
	for m, member := range in.members {
		for _, s := range member.owned {
			for _, p := range s.partitions {
				was[[2]int32{int32(s.topic), p}] = m
			}
		}
	}
	for m, shares := range got {
		for _, s := range shares {
			for _, p := range s.partitions {
				switch old, ok := was[[2]int32{int32(s.topic), p}]; {
				case ok && old == m:
					kept++
				case ok:
					moved++
				}
			}
		}
	}
	return kept, moved
}

// assignMostKept is how much any balanced assignment can leave where it is when all
// members subscribe to the same: each keeps at most the rounded-down share, and
// as many members as there are partitions over keep one more.
func assignMostKept(in assignInput) (n int) {
	total := 0
	for _, t := range in.members[0].topics {
		total += int(in.partitions[t])
	}
	share, over := total/len(in.members), total%len(in.members)
	for _, m := range in.members {
		valid := 0
		for _, s := range m.owned {
			if slices.Contains(m.topics, s.topic) {
				for _, p := range s.partitions {
					if p < in.partitions[s.topic] {
						valid++
					}
				}
			}
		}
		if valid > share && over > 0 {
			over--
			n++
		}
		n += min(valid, share)
	}
	return n
}

func TestAssignRandom(t *testing.T) {
	for _, equal := range []bool{true, false} {
		t.Run(fmt.Sprintf("equal=%t", equal), func(t *testing.T) {
			moves, steps := 0, testcount.N(20_000)
			for seed := uint64(0); steps > 0; seed++ {
				w := &assignWorld{rng: rand.New(rand.NewPCG(seed, 1)), partitions: make([]int32, 1+seed%5)}
				for i := range w.partitions {
					w.partitions[i] = int32(w.rng.IntN(12))
				}
				for range 100 {
					steps--
					what := w.step(equal)
					if len(w.members) == 0 {
						continue
					}
					in := w.input()
					got := assign(in)
					if err := checkAssignment(in, got); err != nil {
						t.Fatalf("seed %d, %s: %v\n%+v\n%+v", seed, what, err, in, got)
					}
					if again := assign(w.input()); !reflect.DeepEqual(got, again) {
						t.Fatalf("seed %d: not a function of its input\n%v\n%v", seed, got, again)
					}
					stay, moved := assignKept(in, got)
					moves += moved
					if equal {
						if want := assignMostKept(in); stay != want {
							t.Fatalf("seed %d, %s: %d partitions stay, %d can\n%+v\n%+v", seed, what, stay, want, in, got)
						}
						if what == "leave" && moved > 0 {
							t.Fatalf("seed %d: %d partitions of others moved when one left\n%+v\n%+v", seed, moved, in, got)
						}
					}
					for m := range got {
						w.members[m].shares = got[m]
					}
					if in := w.input(); !reflect.DeepEqual(assign(in), got) {
						t.Fatalf("seed %d: assigned once more it changes\n%+v\n%+v", seed, in, got)
					}
				}
			}
			t.Logf("%d partitions moved for balance", moves)
			if moves == 0 {
				t.Fatal("nothing had to move: the test shows nothing")
			}
		})
	}
}

// The least sum of squares, found by trying everything, is what assign finds.
func TestAssignIsOptimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range testcount.N(2000) {
		in := assignInput{partitions: make([]int32, 1+rng.IntN(3))}
		for i := range in.partitions {
			in.partitions[i] = int32(rng.IntN(3))
		}
		for range 1 + rng.IntN(4) {
			var m assignMember
			for topic := range in.partitions {
				if rng.IntN(2) == 0 {
					m.topics = append(m.topics, topic)
				}
			}
			in.members = append(in.members, m)
		}
		got := 0
		for _, shares := range assign(in) {
			got += shareCount(shares) * shareCount(shares)
		}
		if want := leastSquares(in, 0, 0, make([]int, len(in.members))); got != want {
			t.Fatalf("sum of squares %d, want %d: %+v", got, want, in)
		}
	}
}

func leastSquares(in assignInput, topic int, p int32, counts []int) int {
	for topic < len(in.partitions) && p >= in.partitions[topic] {
		topic, p = topic+1, 0
	}
	if topic == len(in.partitions) {
		sum := 0
		for _, n := range counts {
			sum += n * n
		}
		return sum
	}
	best := -1
	for m, member := range in.members {
		if slices.Contains(member.topics, topic) {
			counts[m]++
			if sum := leastSquares(in, topic, p+1, counts); best < 0 || sum < best {
				best = sum
			}
			counts[m]--
		}
	}
	if best < 0 { // nobody subscribes
		return leastSquares(in, topic+1, 0, counts)
	}
	return best
}

func TestAssignByHand(t *testing.T) {
	for _, row := range []struct {
		name string
		in   assignInput
		want [][]share
	}{
		{"nobody", assignInput{partitions: []int32{3}}, [][]share{}},
		{"no partitions", assignInput{partitions: []int32{0}, members: []assignMember{{topics: []int{0}}}}, [][]share{nil}},
		{"one has all", assignInput{partitions: []int32{3}, members: []assignMember{{topics: []int{0}}}},
			[][]share{{{0, []int32{0, 1, 2}}}}},
		{"a second one takes half, the last ones", assignInput{partitions: []int32{4}, members: []assignMember{
			{topics: []int{0}, owned: []share{{0, []int32{0, 1, 2, 3}}}}, {topics: []int{0}}}},
			[][]share{{{0, []int32{0, 1}}}, {{0, []int32{2, 3}}}}},
		{"more members than partitions", assignInput{partitions: []int32{1}, members: []assignMember{{topics: []int{0}}, {topics: []int{0}, owned: []share{{0, []int32{0}}}}}},
			[][]share{nil, {{0, []int32{0}}}}},
		{"two say they own one", assignInput{partitions: []int32{1}, members: []assignMember{{topics: []int{0}, owned: []share{{0, []int32{0}}}}, {topics: []int{0}, owned: []share{{0, []int32{0}}}}}},
			[][]share{{{0, []int32{0}}}, nil}},
		{"one hop rather than two", assignInput{partitions: []int32{2, 2}, members: []assignMember{
			{topics: []int{0}, owned: []share{{0, []int32{0, 1}}}},
			{topics: []int{0, 1}, owned: []share{{1, []int32{0, 1}}}},
			{topics: []int{1}}}},
			[][]share{{{0, []int32{0, 1}}}, {{1, []int32{0}}}, {{1, []int32{1}}}}},
		{"passed on through a third", assignInput{partitions: []int32{2, 1}, members: []assignMember{
			{topics: []int{0}, owned: []share{{0, []int32{0, 1}}}},
			{topics: []int{0, 1}, owned: []share{{1, []int32{0}}}},
			{topics: []int{1}}}},
			[][]share{{{0, []int32{0}}}, {{0, []int32{1}}}, {{1, []int32{0}}}}},
	} {
		if got := assign(row.in); !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

func BenchmarkAssign(b *testing.B) {
	for _, row := range []struct{ members, topics, partitions int }{{3, 1, 12}, {100, 10, 100}, {1000, 10, 1000}, {1000, 1000, 10}} {
		in := assignInput{partitions: slices.Repeat([]int32{int32(row.partitions)}, row.topics)}
		all := make([]int, row.topics)
		for i := range all {
			all[i] = i
		}
		in.members = slices.Repeat([]assignMember{{topics: all}}, row.members)
		name := fmt.Sprintf("members=%d/topics=%d/partitions=%d", row.members, row.topics, row.topics*row.partitions)
		b.Run(name+"/change=first", func(b *testing.B) {
			for b.Loop() {
				assign(in)
			}
		})
		joined := in
		joined.members = nil
		for m, shares := range assign(in) {
			joined.members = append(joined.members, assignMember{in.members[m].topics, shares})
		}
		joined.members = append(joined.members, assignMember{topics: all})
		b.Run(name+"/change=join", func(b *testing.B) {
			for b.Loop() {
				assign(joined)
			}
		})
		uneven := joined
		uneven.members = slices.Clone(joined.members)
		for m := range uneven.members {
			uneven.members[m].topics = all[:1+m%len(all)]
		}
		b.Run(name+"/change=subscriptions", func(b *testing.B) {
			for b.Loop() {
				assign(uneven)
			}
		})
	}
}
