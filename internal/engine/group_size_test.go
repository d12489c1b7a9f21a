package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// What members say of themselves has a bound, each and all together; who goes makes room.
func TestGroupsDoNotFillTheMemory(t *testing.T) {
	const part = maxMemberBytes - 100
	fits := maxGroupBytes / part
	t.Run("classic", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := openClassicDB(t, vfs.NewMem(), nil)
			big := func(name string, n int) *member {
				m := newMember(t, e, name)
				m.req.Protocols = []GroupProtocol{{"range", append(subscription(1, []string{"orders"}), make([]byte, n)...)}}
				return m
			}
			wantErr(t, "too large alone", big("x", maxMemberBytes).join().err2(), ErrInvalidMember)
			chooses := newMember(t, e, "chooses")
			for i := range maxProtocols {
				chooses.req.Protocols = append(chooses.req.Protocols, GroupProtocol{fmt.Sprint(i), nil})
			}
			wantErr(t, "too many protocols", chooses.join().err2(), ErrInvalidMember)
			var first *call[JoinResponse]
			var joins []*call[JoinResponse]
			for i := range fits {
				joins = append(joins, big(fmt.Sprint(i), part).join())
				synctest.Wait()
			}
			first = joins[0]
			wantErr(t, "one too many", big("x", part).join().err2(), ErrGroupMaxSize)
			small := big("small", 10).join()
			id := first.get(t).MemberID
			small.get(t)
			if _, err := e.Groups().Leave(t.Context(), LeaveRequest{Group: "g", Members: []LeavingMember{{MemberID: id}}}); err != nil {
				t.Fatal(err)
			}
			again := big("again", part).join()
			again.waits(t)
			time.Sleep(time.Hour) // the others are gone
			again.get(t)
		})
	})
	t.Run("with an epoch", func(t *testing.T) {
		db := openGroupDB(t, vfs.NewMem(), nil)
		beat := func(name string, epoch int32, topic string) error {
			_, err := db.Groups().Heartbeat(t.Context(), HeartbeatRequest{Group: "g", MemberID: name, MemberEpoch: epoch, Topics: []string{topic}, Local: true})
			return err
		}
		wantErr(t, "too large alone", beat("x", 0, strings.Repeat("t", maxMemberBytes)), ErrInvalidMember)
		long := strings.Repeat("t", part)
		for i := range fits {
			wantErr(t, "one that fits", beat(fmt.Sprint(i), 0, long), nil)
		}
		wantErr(t, "one too many", beat("x", 0, long), ErrGroupMaxSize)
		wantErr(t, "a small one", beat("small", 0, "orders"), nil)
		wantErr(t, "a small one that grows", beat("small", int32(fits)+1, long), ErrGroupMaxSize)
		leave := HeartbeatRequest{Group: "g", MemberID: "0", MemberEpoch: LeaveEpoch}
		if _, err := db.Groups().Heartbeat(t.Context(), leave); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "one after another left", beat("x", 0, long), nil)
	})
}

func TestPatternsHaveABound(t *testing.T) {
	for _, row := range []struct {
		name, pattern string
		ok            bool
	}{
		{"usual", `orders-.*|(audit|billing)\.v[0-9]{1,3}`, true},
		{"a list of topics", strings.Repeat("orders-in-some-place|", 300) + "x", true},
		{"long", strings.Repeat("a", maxPatternBytes+1), false},
		{"repeated", strings.Repeat("a{1000}", 10), true},
		{"repeated too much", strings.Repeat("a{1000}", 60), false},
		{"repeated within", "(" + strings.Repeat("(a{10}b){10}", 60) + "){10}", false},
		{"without an end", strings.Repeat("(a{999,})", 60), false},
		{"many letters", strings.Repeat(`\pL`, 500), false},
		{"closes our parenthesis", "a)|(b", false},
		{"none", "(", false},
	} {
		match, err := CompilePattern(row.pattern)
		if (err == nil) != row.ok || !row.ok && !errors.Is(err, ErrInvalidRegex) {
			t.Errorf("%s: %.100v", row.name, err)
		}
		if err == nil && match.MatchString("orders-1\n") {
			t.Errorf("%s: it matches more than a name", row.name)
		}
	}
}

func BenchmarkGroupParts(b *testing.B) {
	list := make([]TopicPartitions, 100_000) // of one topic, each by itself
	for i := range list {
		list[i].Partitions = []int32{int32(len(list) - i)}
	}
	for b.Loop() {
		if n := newGroupParts(list).count(); n != len(list) {
			b.Fatal(n)
		}
	}
}

func TestGroupPartsOfAList(t *testing.T) {
	a, c := TopicID{1}, TopicID{2}
	list := []TopicPartitions{{a, []int32{3, 1}}, {c, nil}, {c, []int32{7}}, {a, []int32{2, 3}}}
	want := groupParts{a: {1, 2, 3}, c: {7}}
	if got := newGroupParts(list); !got.equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if list[0].Partitions[0] != 3 {
		t.Error("the list was changed")
	}
}
