package partition

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// epochList reads "2@0 5@10": epoch 2 from offset 0, epoch 5 from offset 10.
func epochList(t *testing.T, s string) *leaderEpochs {
	t.Helper()
	var l leaderEpochs
	for _, f := range strings.Fields(s) {
		var e leaderEpoch
		if _, err := fmt.Sscanf(f, "%d@%d", &e.epoch, &e.start); err != nil {
			t.Fatalf("epochs %q: %v", s, err)
		}
		l.list = append(l.list, e)
	}
	return &l
}

func (l *leaderEpochs) String() string {
	var s []string
	for _, e := range l.list {
		s = append(s, fmt.Sprintf("%d@%d", e.epoch, e.start))
	}
	return strings.Join(s, " ")
}

func TestLeaderEpochAssign(t *testing.T) {
	tests := []struct {
		name, before string
		epoch        int32
		start        int64
		after        string
	}{
		{"first", "", 0, 0, "0@0"},
		{"first, not at the log's beginning", "", 7, 100, "7@100"},
		{"next", "2@0", 3, 10, "2@0 3@10"},
		{"gap", "2@0", 9, 10, "2@0 9@10"},
		{"known", "2@0 3@10", 3, 20, "2@0 3@10"},
		{"known, earlier", "2@0 3@10", 3, 5, "2@0 3@10"},
		{"older is refused", "2@0 5@10", 4, 20, "2@0 5@10"},
		{"older than all is refused", "2@0 5@10", 1, 20, "2@0 5@10"},
		{"replaces one that wrote nothing", "2@0 5@10", 6, 10, "2@0 6@10"},
		{"replaces those behind its start", "2@0 5@10 6@20", 7, 4, "2@0 7@4"},
		{"replaces all", "2@3 5@10", 7, 0, "7@0"},
		{"no epoch", "2@0", -1, 10, "2@0"},
		{"no offset", "2@0", 3, -1, "2@0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := epochList(t, tt.before)
			changed := l.assign(tt.epoch, tt.start)
			if got := l.String(); got != tt.after || changed != (tt.before != tt.after) {
				t.Errorf("%q: assign(%d, %d) = %t, list %q, want %q", tt.before, tt.epoch, tt.start, changed, got, tt.after)
			}
		})
	}
}

func TestLeaderEpochEndOffset(t *testing.T) {
	const logEnd = 40
	tests := []struct {
		name, epochs string
		ask          int32
		epoch        int32
		end          int64
	}{
		{"nothing known", "", 0, -1, -1},
		{"undefined asked", "2@0", -1, -1, -1},
		{"latest ends at the log end", "2@0 5@10", 5, 5, logEnd},
		{"only one", "2@0", 2, 2, logEnd},
		{"above all", "2@0 5@10", 6, -1, -1},
		{"exact", "2@0 5@10 7@20", 5, 5, 20},
		{"in a gap: the one below", "2@0 5@10 7@20", 6, 5, 20},
		{"in the first gap", "2@0 5@10 7@20", 3, 2, 10},
		{"below all: itself, start of the oldest", "2@4 5@10", 1, 1, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			epoch, end := epochList(t, tt.epochs).endOffset(tt.ask, logEnd)
			if epoch != tt.epoch || end != tt.end {
				t.Errorf("%q: endOffset(%d) = %d, %d, want %d, %d", tt.epochs, tt.ask, epoch, end, tt.epoch, tt.end)
			}
		})
	}
}

func TestLeaderEpochTruncate(t *testing.T) {
	const list = "2@5 5@10 7@20"
	tests := []struct {
		offset             int64
		fromEnd, fromStart string
	}{
		{0, "", list},
		{4, "", list},
		{5, "", list},
		{6, "2@5", "2@6 5@10 7@20"},
		{10, "2@5", "5@10 7@20"},
		{11, "2@5 5@10", "5@11 7@20"},
		{20, "2@5 5@10", "7@20"},
		{21, list, "7@21"},
		{99, list, "7@99"},
	}
	for _, tt := range tests {
		end, start := epochList(t, list), epochList(t, list)
		end.truncateFromEnd(tt.offset)
		start.truncateFromStart(tt.offset)
		if end.String() != tt.fromEnd || start.String() != tt.fromStart {
			t.Errorf("%q at %d: from the end %q, want %q; from the start %q, want %q",
				list, tt.offset, end, tt.fromEnd, start, tt.fromStart)
		}
	}
}

// Two replicas that shared a log up to some offset and then followed different
// leaders find exactly that offset by asking each other.
func TestLeaderEpochDivergence(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		// logs[i][offset] is the epoch of the record there.
		var logs [2][]int32
		epoch := int32(1)
		write := func(n int, to ...int) {
			epoch += 1 + rnd.Int32N(2)
			for range n {
				for _, i := range to {
					logs[i] = append(logs[i], epoch)
				}
			}
		}
		for range rnd.IntN(5) {
			write(rnd.IntN(4), 0, 1)
		}
		for range rnd.IntN(4) {
			write(rnd.IntN(4), rnd.IntN(2))
		}
		common := 0
		for common < min(len(logs[0]), len(logs[1])) && logs[0][common] == logs[1][common] {
			common++
		}
		var caches [2]leaderEpochs
		for i := range logs {
			for offset, e := range logs[i] {
				caches[i].assign(e, int64(offset))
			}
		}
		// The follower walks back as KIP-279 has it: ask for the latest own epoch, cut
		// to the answer, and ask again until both sides mean the same epoch.
		follower, leader := slices.Clone(caches[1].list), &caches[0]
		f := &leaderEpochs{follower}
		end := int64(len(logs[1]))
		for len(f.list) > 0 {
			asked := f.latest()
			found, leaderEnd := leader.endOffset(asked, int64(len(logs[0])))
			if found == noLeaderEpoch { // the leader is older than we are: go one epoch back
				end = min(end, f.list[len(f.list)-1].start)
				f.truncateFromEnd(end)
				continue
			}
			_, ownEnd := f.endOffset(found, end)
			if ownEnd == noOffset {
				ownEnd = end
			}
			end = min(end, leaderEnd, ownEnd)
			if found == asked {
				break
			}
			f.truncateFromEnd(end)
		}
		if end != int64(common) {
			t.Fatalf("seed %d: logs %v and %v: divergence found at %d, want %d", seed, logs[0], logs[1], end, common)
		}
		for i := range logs {
			for offset, e := range logs[i] {
				if got, ok := caches[i].epochFor(int64(offset)); !ok || got != e {
					t.Fatalf("seed %d: log %v: epochFor(%d) = %d, %t, want %d", seed, logs[i], offset, got, ok, e)
				}
			}
		}
	}
}
