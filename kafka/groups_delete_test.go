package kafka

import (
	"testing"
	"testing/synctest"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetDelete says of a group of consumers which topics are read, and of any other
// that has members that it has them. (KIP-496)
func TestOffsetDeleteOfGroupsInUse(t *testing.T) {
	type codes struct{ all, orders, other int16 }
	for _, row := range []struct {
		name         string
		protocolType string // of the member; empty: none
		want         codes
	}{
		{"empty", "", codes{0, 0, 0}},
		{"consumers", "consumer", codes{0, codeGroupSubscribedToTopic, 0}},
		{"others", "connect", codes{codeNonEmptyGroup, -1, -1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				createTopic(t, db, "orders", nil)
				createTopic(t, db, "other", nil)
				x := dial(t, pipeServer(t, db, Options{}), nil)
				for _, topic := range []string{"orders", "other"} {
					if err := db.CommitPositions(t.Context(), "g", embedlog.Position{Topic: topic}); err != nil {
						t.Fatal(err)
					}
				}
				if row.protocolType != "" {
					join := joinOf("g", "")
					join.Version, join.ProtocolType = 3, row.protocolType
					if resp := do[*kmsg.JoinGroupResponse](x, join); resp.ErrorCode != 0 {
						t.Fatalf("join: %+v", resp)
					}
				}
				q := kmsg.NewPtrOffsetDeleteRequest()
				q.Group = "g"
				q.Topics = []kmsg.OffsetDeleteRequestTopic{
					{Topic: "orders", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}},
					{Topic: "other", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}},
				}
				resp := do[*kmsg.OffsetDeleteResponse](x, q)
				got := codes{resp.ErrorCode, -1, -1}
				if len(resp.Topics) == 2 {
					got.orders, got.other = resp.Topics[0].Partitions[0].ErrorCode, resp.Topics[1].Partitions[0].ErrorCode
				}
				if got != row.want {
					t.Errorf("error codes %v, want %v", got, row.want)
				}
			})
		})
	}
}
