package engine

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/vfs"
)

// topicsOf are the names of the topics of an assignment.
func (db *groupDB) topicsOf(r HeartbeatResponse) string {
	db.t.Helper()
	var names []string
	for _, t := range r.Assignment {
		topic, err := db.TopicByID(t.Topic)
		if err != nil {
			db.t.Fatal(err)
		}
		names = append(names, topic.Name())
	}
	return fmt.Sprint(names)
}

// A pattern subscribes to nothing that its member may not see, whenever it was made.
func TestRegexSeesWhatItMay(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders-a", 1)
	db.topic("secret-orders-a", 1)
	db.commit("other", at("orders-a", 0, 0)) // makes __consumer_offsets
	public := func(topic string) bool { return !strings.HasPrefix(topic, "secret") }
	a := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", Regex: ".*(orders|offsets).*", MaySee: public})
	if got := db.topicsOf(a); !strings.Contains(got, "orders-a") || !strings.Contains(got, "__consumer_offsets") || strings.Contains(got, "secret") {
		t.Fatalf("assigned %s", got)
	}
	db.topic("secret-orders-b", 1)
	db.topic("orders-b", 1)
	a = db.beat(HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch})
	if got := db.topicsOf(a); !strings.Contains(got, "orders-b") || strings.Contains(got, "secret") {
		t.Fatalf("assigned %s after more topics", got)
	}
	// Without a filter it is all but the internal ones.
	b := db.beat(HeartbeatRequest{Group: "h", MemberID: "b", Regex: ".*(orders|offsets).*"})
	if got := db.topicsOf(b); len(b.Assignment) != 4 || strings.Contains(got, "__") {
		t.Fatalf("assigned %s without a filter", got)
	}
}

// A member may join before it wants anything.
func TestMemberWithoutASubscription(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 1)
	a := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", Topics: []string{}})
	b := db.beat(HeartbeatRequest{Group: "g", MemberID: "b", NoRegex: true})
	if len(a.Assignment)+len(b.Assignment) != 0 {
		t.Fatalf("assigned %v and %v", a, b)
	}
	db.beat(HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch}) // to the epoch of the other's join
	a = db.beat(HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: 2, Topics: []string{"orders"}})
	if got := db.topicsOf(a); got != "[orders]" {
		t.Fatalf("assigned %s", got)
	}
}

// What a member may see changes: its pattern is looked at again, within a second when
// an ACL changed, and now and then anyway, for authorizers of other kinds.
func TestRegexHearsOfACLs(t *testing.T) {
	for _, row := range []struct {
		name string
		tell func(db *groupDB)
	}{
		{"an ACL comes", func(db *groupDB) {
			a := acl.ACL{Resource: acl.ResourceTopic, Name: "orders", Principal: "User:a", Operation: acl.OpRead}
			if err := db.CreateACLs(t.Context(), []acl.ACL{a}); err != nil {
				t.Fatal(err)
			}
		}},
		{"time goes by", func(db *groupDB) { db.clock.Add(patternsInterval) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			db := openGroupDB(t, vfs.NewMem(), nil)
			db.topic("orders", 1)
			var may atomic.Bool
			a := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", Regex: "orders", MaySee: func(string) bool { return may.Load() }, Local: true})
			for _, sees := range []bool{true, false} {
				may.Store(sees)
				db.Tick(t.Context())
				if got := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch}); got.MemberEpoch != a.MemberEpoch {
					t.Fatalf("the pattern was looked at for nothing: %+v", got)
				}
				row.tell(db)
				db.Tick(t.Context())
				owned := a.Assignment
				a = db.beat(HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch})
				if !sees {
					if len(a.Assignment) != 0 {
						t.Fatalf("it keeps %s, and gave up %v", db.topicsOf(a), owned)
					}
					break
				}
				if got := db.topicsOf(a); got != "[orders]" {
					t.Fatalf("assigned %s", got)
				}
				if row.name == "an ACL comes" { // the next one goes
					row.tell = func(db *groupDB) {
						if _, err := db.DeleteACLs(t.Context(), acl.Filter{}); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		})
	}
}
