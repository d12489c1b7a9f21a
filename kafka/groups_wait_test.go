package kafka

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func joinOf(group, member string) *kmsg.JoinGroupRequest {
	q := kmsg.NewPtrJoinGroupRequest()
	q.Group, q.MemberID, q.SessionTimeoutMillis, q.RebalanceTimeoutMillis, q.ProtocolType = group, member, 60_000, 60_000, "consumer"
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{"orders"}
	q.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: meta.AppendTo(nil)}}
	return q
}

// joinAlone makes a member that leads a stable group.
func joinAlone(t *testing.T, c *kgo.Client, group string) *kmsg.JoinGroupResponse {
	t.Helper()
	resp := askVersion[*kmsg.JoinGroupResponse](t, c, 9, joinOf(group, ""))
	wantGroupCode(t, "the first join", resp.ErrorCode, codeMemberIDRequired)
	resp = askVersion[*kmsg.JoinGroupResponse](t, c, 9, joinOf(group, resp.MemberID))
	wantGroupCode(t, "the second join", resp.ErrorCode, codeNone)
	q := kmsg.NewPtrSyncGroupRequest()
	q.Group, q.MemberID, q.Generation, q.ProtocolType, q.Protocol = group, resp.MemberID, resp.Generation, resp.ProtocolType, resp.Protocol
	q.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: resp.MemberID, MemberAssignment: []byte("all")}}
	synced := askVersion[*kmsg.SyncGroupResponse](t, c, 5, q)
	wantGroupCode(t, "sync", synced.ErrorCode, codeNone)
	if string(synced.MemberAssignment) != "all" || resp.LeaderID != resp.MemberID || len(resp.Members) != 1 {
		t.Fatalf("joined %+v, synced %+v", resp, synced)
	}
	return resp
}

// waitForState polls a group until it has a state and so many members.
func waitForState(t *testing.T, db *embedlog.DB, group string, state embedlog.GroupState, members int) {
	t.Helper()
	ctx := deadline(t)
	for {
		d, err := db.DescribeGroup(ctx, group)
		if err == nil && d.State == state && len(d.Members) == members {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the group is %+v, %v; want %s with %d members", d, err, state, members)
		}
		time.Sleep(time.Millisecond)
	}
}

// joinThatWaits sends a join that is answered when the first member joins again.
func joinThatWaits(t *testing.T, s *Server, db *embedlog.DB, group string) (c *kgo.Client, answer <-chan *kmsg.JoinGroupResponse) {
	t.Helper()
	c = client(t, s)
	answered := make(chan *kmsg.JoinGroupResponse, 1)
	ctx := deadline(t)
	go func() {
		q := joinOf(group, "")
		q.SetVersion(3) // without an id to come again with
		resp, err := c.Request(ctx, &pinned{q, 3})
		if err != nil {
			answered <- nil
			return
		}
		answered <- resp.(*kmsg.JoinGroupResponse)
	}()
	waitForState(t, db, group, embedlog.GroupPreparingRebalance, 2)
	return c, answered
}

// A join that waits does not hold up the end of the server, and is answered.
func TestShutdownDoesNotWaitForJoins(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	s := serve(t, db, Options{})
	joinAlone(t, client(t, s), "g")
	_, answer := joinThatWaits(t, s, db, "g")
	if err := s.Shutdown(deadline(t)); err != nil {
		t.Fatal(err)
	}
	// kgo asks again when it is told that the coordinator has gone, and then finds no server.
	if resp := <-answer; resp != nil && resp.ErrorCode != codeCoordinatorNotAvailable {
		t.Errorf("the join that waited: %v", kerr.ErrorForCode(resp.ErrorCode))
	}
}

// Whoever goes away while he waits is no member, and the others go on without him.
func TestClientGoesWhileItJoins(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	s := serve(t, db, Options{})
	first := client(t, s)
	member := joinAlone(t, first, "g")
	c, _ := joinThatWaits(t, s, db, "g")
	c.Close()
	waitForState(t, db, "g", embedlog.GroupPreparingRebalance, 1)
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.Generation = "g", member.MemberID, member.Generation
	wantGroupCode(t, "heartbeat of the one that is left", askVersion[*kmsg.HeartbeatResponse](t, first, 4, beat).ErrorCode, codeRebalanceInProgress)
	again := askVersion[*kmsg.JoinGroupResponse](t, first, 9, joinOf("g", member.MemberID))
	if again.ErrorCode != 0 || again.Generation != member.Generation+1 || len(again.Members) != 1 {
		t.Errorf("it joins again: %+v", again)
	}
}

// However much a client has asked for behind a request that waits: when it goes, the
// request ends within a second or so.
func TestClientGoesWithMuchBehindItsJoin(t *testing.T) {
	for _, behind := range []int{0, aheadFrames, aheadFrames + 1} {
		t.Run(fmt.Sprint("behind=", behind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				s := pipeServer(t, db, Options{})
				x, first := dial(t, s, nil), dial(t, s, nil)
				join := joinOf("g", "")
				join.Version = 3
				member := do[*kmsg.JoinGroupResponse](first, join)
				x.send(join)
				for range behind {
					x.send(kmsg.NewPtrMetadataRequest())
				}
				synctest.Wait()
				x.c.Close()
				time.Sleep(2 * peerLook)
				d, err := db.DescribeGroup(t.Context(), "g")
				if err != nil || len(d.Members) != 1 || d.Members[0].MemberID != member.MemberID {
					t.Errorf("the group is %+v, %v; want the first member alone", d, err)
				}
				synctest.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				if len(s.conns) != 1 {
					t.Errorf("%d connections, want the first member's alone", len(s.conns))
				}
			})
		})
	}
}

// Classic calls and the codes of what is refused.
func TestClassicRefusals(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	c := client(t, serve(t, db, Options{}))
	member := joinAlone(t, c, "g")
	join := func(edit func(*kmsg.JoinGroupRequest)) int16 {
		q := joinOf("g", "")
		edit(q)
		return askVersion[*kmsg.JoinGroupResponse](t, c, 9, q).ErrorCode
	}
	beat := func(group, id string, generation int32) int16 {
		q := kmsg.NewPtrHeartbeatRequest()
		q.Group, q.MemberID, q.Generation = group, id, generation
		return askVersion[*kmsg.HeartbeatResponse](t, c, 4, q).ErrorCode
	}
	leave := func(version int16, group, id string) int16 {
		q := kmsg.NewPtrLeaveGroupRequest()
		q.Group, q.MemberID = group, id
		q.Members = []kmsg.LeaveGroupRequestMember{{MemberID: id}}
		resp := askVersion[*kmsg.LeaveGroupResponse](t, c, version, q)
		if version >= 3 && len(resp.Members) == 1 {
			return resp.Members[0].ErrorCode
		}
		return resp.ErrorCode
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = "g", member.MemberID, member.Generation
	for _, row := range []struct {
		name      string
		got, want int16
	}{
		{"no group", join(func(q *kmsg.JoinGroupRequest) { q.Group = "" }), codeInvalidGroupID},
		{"a session that is too short", join(func(q *kmsg.JoinGroupRequest) { q.SessionTimeoutMillis = 1 }), codeInvalidSessionTimeout},
		{"another protocol type", join(func(q *kmsg.JoinGroupRequest) { q.ProtocolType = "connect" }), codeInconsistentGroupProtocol},
		{"another protocol", join(func(q *kmsg.JoinGroupRequest) { q.Protocols[0].Name = "sticky" }), codeInconsistentGroupProtocol},
		{"an unknown member", join(func(q *kmsg.JoinGroupRequest) { q.MemberID = "x" }), codeUnknownMemberID},
		{"heartbeat", beat("g", member.MemberID, member.Generation), codeNone},
		{"heartbeat of another generation", beat("g", member.MemberID, member.Generation+1), codeIllegalGeneration},
		{"heartbeat of nobody", beat("g", "x", 1), codeUnknownMemberID},
		{"heartbeat in no group", beat("none", "x", 1), codeUnknownMemberID},
		{"sync without a protocol", askVersion[*kmsg.SyncGroupResponse](t, c, 5, sync).ErrorCode, codeInconsistentGroupProtocol},
		{"leave by nobody", leave(2, "g", "x"), codeUnknownMemberID},
		{"leave of no group", leave(5, "none", "x"), codeUnknownMemberID},
		{"leave", leave(5, "g", member.MemberID), codeNone},
		{"leave again, an older version", leave(1, "g", member.MemberID), codeUnknownMemberID},
	} {
		wantGroupCode(t, row.name, row.got, row.want)
	}
}

// JoinGroup is advertised from 0 and refused below 2: the connection ends.
func TestJoinGroupBelow2(t *testing.T) {
	db := openMemory(t, nil)
	c := client(t, serve(t, db, Options{}), kgo.RequestRetries(0), kgo.RetryTimeout(time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	q := joinOf("g", "")
	if resp, err := c.Broker(1).Request(ctx, &pinned{q, 1}); err == nil {
		t.Errorf("version 1 is answered with %+v", resp)
	}
	versions := askVersion[*kmsg.ApiVersionsResponse](t, c, 4, newApiVersions())
	for _, k := range versions.ApiKeys {
		if k.ApiKey == 11 && (k.MinVersion != 0 || k.MaxVersion != 9) {
			t.Errorf("advertised from %d to %d", k.MinVersion, k.MaxVersion)
		}
	}
}

func newApiVersions() *kmsg.ApiVersionsRequest {
	q := kmsg.NewPtrApiVersionsRequest()
	q.ClientSoftwareName, q.ClientSoftwareVersion = "test", "1"
	return q
}
