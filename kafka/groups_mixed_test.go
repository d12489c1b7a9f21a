package kafka

import (
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// beatOf is a heartbeat of a member with an epoch.
func beatOf(group, id string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Version, q.Group, q.MemberID, q.MemberEpoch = 1, group, id, epoch
	if epoch == 0 {
		q.RebalanceTimeoutMillis, q.SubscribedTopicNames, q.Topics = 60_000, []string{"orders"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	return q
}

// A classic client, one with an epoch and a consumer of this process in one group: each
// partition is somebody's in the end, and tools are told of which type the group is.
func TestMixedGroupOverTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 6})
		s := pipeServer(t, db, Options{})
		x, y := dial(t, s, nil), dial(t, s, nil)

		// The classic one leads a group of its own.
		member := ""
		var generation int32
		join := func() {
			t.Helper()
			q := joinOf("g", member)
			q.Version = 3
			resp := do[*kmsg.JoinGroupResponse](x, q)
			wantGroupCode(t, "join", resp.ErrorCode, codeNone)
			member, generation = resp.MemberID, resp.Generation
			sync := kmsg.NewPtrSyncGroupRequest()
			sync.Version, sync.Group, sync.MemberID, sync.Generation = 3, "g", member, generation
			if resp.LeaderID == member {
				sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: member}}
			}
			do[*kmsg.SyncGroupResponse](x, sync)
		}
		join()
		listed := func(want string) {
			t.Helper()
			q := kmsg.NewPtrListGroupsRequest()
			q.Version = 5
			if g := do[*kmsg.ListGroupsResponse](y, q).Groups; len(g) != 1 || g[0].GroupType != want {
				t.Fatalf("listed as %+v, want a %s group", g, want)
			}
		}
		listed("classic")

		// One with an epoch makes it the server's.
		resp := do[*kmsg.ConsumerGroupHeartbeatResponse](y, beatOf("g", "k", 0))
		wantGroupCode(t, "heartbeat", resp.ErrorCode, codeNone)
		epoch := resp.MemberEpoch
		listed("consumer")
		consumer, err := db.Consumer(&embedlog.ConsumerConfig{Group: "g", Topics: []string{"orders"}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range consumer.Records(t.Context()) {
			}
		}()
		owned := []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		for range 40 {
			time.Sleep(time.Second)
			beat := kmsg.NewPtrHeartbeatRequest()
			beat.Version, beat.Group, beat.MemberID, beat.Generation = 3, "g", member, generation
			if code := do[*kmsg.HeartbeatResponse](x, beat).ErrorCode; code == codeRebalanceInProgress {
				join()
			} else {
				wantGroupCode(t, "the classic member's heartbeat", code, codeNone)
			}
			q := beatOf("g", "k", epoch)
			q.Topics = owned
			resp := do[*kmsg.ConsumerGroupHeartbeatResponse](y, q)
			wantGroupCode(t, "heartbeat", resp.ErrorCode, codeNone)
			if epoch = resp.MemberEpoch; resp.Assignment != nil {
				owned = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
				for _, a := range resp.Assignment.Topics {
					owned = append(owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: a.TopicID, Partitions: a.Partitions})
				}
			}
		}
		d, err := db.DescribeGroup(t.Context(), "g")
		if err != nil || string(d.Type) != "consumer" || d.State != embedlog.GroupStable || len(d.Members) != 3 {
			t.Fatalf("the group is %+v, %v", d, err)
		}
		owner := make(map[int32]string)
		for _, m := range d.Members {
			if len(m.Assigned["orders"]) != 2 {
				t.Errorf("%s has %v, want two partitions", m.MemberID, m.Assigned)
			}
			for _, p := range m.Assigned["orders"] {
				if owner[p] != "" {
					t.Errorf("partition %d is %s's and %s's", p, owner[p], m.MemberID)
				}
				owner[p] = m.MemberID
			}
		}
		if len(owner) != 6 {
			t.Errorf("partitions are %v", owner)
		}
		if err := consumer.Close(); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

// A member with an epoch finds no group of its kind where others than consumers are.
func TestGroupOfAnotherType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		createTopic(t, db, "orders", nil)
		x := dial(t, pipeServer(t, db, Options{}), nil)
		join := joinOf("g", "")
		join.Version, join.ProtocolType = 3, "connect"
		wantGroupCode(t, "join", do[*kmsg.JoinGroupResponse](x, join).ErrorCode, codeNone)
		resp := do[*kmsg.ConsumerGroupHeartbeatResponse](x, beatOf("g", "k", 0))
		wantGroupCode(t, "heartbeat", resp.ErrorCode, codeGroupIDNotFound)
		if orEmpty(resp.ErrorMessage) == "" {
			t.Error("it is not said why")
		}
	})
}
