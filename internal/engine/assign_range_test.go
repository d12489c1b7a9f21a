package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

func TestAssignRanges(t *testing.T) {
	for _, row := range []struct {
		name       string
		partitions []int32
		topics     string // of each member
		want       string
	}{
		{"equal shares of each topic go together", []int32{4, 4}, "01 01", "0:0-1 1:0-1 | 0:2-3 1:2-3"},
		{"the first have one more", []int32{5, 2}, "01 01 01", "0:0-1 1:0-0 | 0:2-3 1:1-1 | 0:4-4"},
		{"only subscribers are counted", []int32{3, 3}, "01 0 1", "0:0-1 1:0-1 | 0:2-2 | 1:2-2"},
		{"more members than partitions", []int32{1}, "0 0 0", "0:0-0 |  | "},
		{"a topic without partitions", []int32{0, 1}, "01", "1:0-0"},
		{"nobody", []int32{3}, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := assignInput{partitions: row.partitions}
			for _, list := range strings.Fields(row.topics) {
				m := assignMember{}
				for _, c := range list {
					m.topics = append(m.topics, int(c-'0'))
				}
				in.members = append(in.members, m)
			}
			var got []string
			for _, shares := range assignRanges(in) {
				var one []string
				for _, s := range shares {
					for i, p := range s.partitions {
						if p != s.partitions[0]+int32(i) {
							t.Errorf("no run: %v", s)
						}
					}
					one = append(one, fmt.Sprintf("%d:%d-%d", s.topic, s.partitions[0], s.partitions[len(s.partitions)-1]))
				}
				got = append(got, strings.Join(one, " "))
			}
			if g := strings.Join(got, " | "); g != row.want {
				t.Errorf("got  %q\nwant %q", g, row.want)
			}
		})
	}
}

// A group has the assignor that most of its members ask for.
func TestGroupChoosesItsAssignor(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 2)
	join := func(member, assignor, want string) {
		t.Helper()
		db.beat(HeartbeatRequest{Group: "g", MemberID: member, Assignor: assignor, Topics: []string{"orders"}})
		d, err := db.Groups().Describe(context.Background(), "g")
		if err != nil || d.Assignor != want {
			t.Fatalf("%s asks for %q: the group has %q, want %q; %v", member, assignor, d.Assignor, want, err)
		}
	}
	join("a", "", "uniform")
	join("b", "range", "range")
	join("c", "uniform", "uniform")
	join("d", "range", "range")
	db.beat(HeartbeatRequest{Group: "g", MemberID: "d", MemberEpoch: 4, Assignor: "uniform"})
	if d, err := db.Groups().Describe(context.Background(), "g"); err != nil || d.Assignor != "uniform" {
		t.Fatalf("a member changed its mind: %q, %v", d.Assignor, err)
	}
	_, err := db.Groups().Heartbeat(context.Background(), HeartbeatRequest{Group: "g", MemberID: "e", Assignor: "fair", Topics: []string{"orders"}})
	if !errors.Is(err, ErrUnsupportedAssignor) {
		t.Fatalf("an assignor that there is not: %v", err)
	}
}
