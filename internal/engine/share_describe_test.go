package engine

import "testing"

// Whoever describes a share group, a person or a metric, is told how far it is, with members or without.
func TestShareGroupIsDescribedWithItsLag(t *testing.T) {
	bubble(t, func(b *shareBed) {
		b.join("a")
		b.produce(10)
		b.want("a", b.acquire("a", 6), "0-5:1")
		b.ok(b.ack("a", 0, 1, AckAccept))
		b.ok(b.ack("a", 4, 4, AckAccept))
		for _, member := range []string{"a", ""} {
			d, err := b.e.Groups().Describe(ctx, shareGroupName)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Partitions) != 1 || d.Partitions[0].Topic != "orders" || d.Partitions[0].Offset != 2 || d.Partitions[0].Lag != 7 || d.Partitions[0].HighWatermark != 10 {
				t.Errorf("with member %q it is at %+v, want offset 2 and a lag of 7", member, d.Partitions)
			}
			if member != "" {
				if _, err := b.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: member, MemberEpoch: LeaveEpoch}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
