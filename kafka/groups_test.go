package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// askVersion sends one request in one version, which kgo leaves alone.
func askVersion[R kmsg.Response](t testing.TB, c *kgo.Client, version int16, q kmsg.Request) R {
	t.Helper()
	q.SetVersion(version)
	resp, err := c.Request(deadline(t), &pinned{q, version})
	if err != nil {
		t.Fatalf("%s version %d: %v", kmsg.NameForKey(q.Key()), version, err)
	}
	return resp.(R)
}

// pinned is a request of one version only.
type pinned struct {
	kmsg.Request
	version int16
}

func (p *pinned) MaxVersion() int16 { return p.version }

func wantGroupCode(t testing.TB, what string, got, want int16) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, kerr.ErrorForCode(got), kerr.ErrorForCode(want))
	}
}

// groupOptions are those of a consumer of orders; server says that it is one with an
// epoch.
func groupOptions(group string, server bool, more ...kgo.Opt) []kgo.Opt {
	opts := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.FetchMaxWait(100 * time.Millisecond)}
	if server {
		opts = append(opts, kgo.ServerSideBalancer())
	}
	return append(opts, more...)
}

// Both protocols: what a group has read it does not read again, also after the server
// was started anew.
func TestGroupGoesOn(t *testing.T) {
	for name, server := range map[string]bool{"classic": false, "consumer": true} {
		t.Run(name, func(t *testing.T) {
			db := openMemory(t, nil)
			createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
			s := serve(t, db, Options{})
			produce := func(from int) {
				t.Helper()
				c := client(t, s, kgo.RecordPartitioner(kgo.ManualPartitioner()))
				for i := range 4 {
					mustProduce(t, c, &kgo.Record{Topic: "orders", Partition: int32(i % 2), Value: fmt.Append(nil, from+i)})
				}
			}
			read := func(want string, more ...kgo.Opt) {
				t.Helper()
				c := client(t, s, groupOptions("billing", server, more...)...)
				var got []string
				for _, rec := range consume(t, c, 4) {
					got = append(got, string(rec.Value))
				}
				if slices.Sort(got); strings.Join(got, " ") != want {
					t.Errorf("read %q, want %s", got, want)
				}
				if err := c.CommitUncommittedOffsets(deadline(t)); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			produce(10)
			read("10 11 12 13")
			produce(20)
			read("20 21 22 23", kgo.InstanceID("i"))
			s.Close()
			s = serve(t, db, Options{})
			produce(30)
			read("30 31 32 33", kgo.InstanceID("i"))
			d, err := db.DescribeGroup(t.Context(), "billing")
			if err != nil || string(d.Type) != name || len(d.Partitions) != 2 || d.Partitions[0].Lag+d.Partitions[1].Lag != 0 {
				t.Errorf("as the Go door sees it: %+v, %v", d, err)
			}
		})
	}
}

// Two classic members share, and what a member leaves the other one gets.
func TestMembersShare(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 4})
	s := serve(t, db, Options{})
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	assigned := make(chan string, 100)
	start := func(who string) *kgo.Client {
		report := func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			assigned <- fmt.Sprintf("%s %d", who, len(m["orders"]))
		}
		c := client(t, s, groupOptions("g", false, kgo.OnPartitionsAssigned(report), kgo.HeartbeatInterval(50*time.Millisecond))...)
		go func() {
			for ctx.Err() == nil {
				c.PollFetches(ctx)
			}
		}()
		return c
	}
	waitFor := func(want string) {
		t.Helper()
		for {
			select {
			case got := <-assigned:
				if got == want {
					return
				}
			case <-ctx.Done():
				t.Fatalf("waited for %q", want)
			}
		}
	}
	a := start("a")
	waitFor("a 4")
	start("b")
	waitFor("b 2")
	a.Close()
	waitFor("b 2") // the other two
}

// readLocally reads with a consumer of this process until ctx ends. What it read it
// puts on the channel.
func readLocally(t *testing.T, ctx context.Context, db *embedlog.DB, group string) <-chan embedlog.Record {
	t.Helper()
	local, err := db.Consumer(&embedlog.ConsumerConfig{Group: group, Topics: []string{"orders"}})
	if err != nil {
		t.Fatal(err)
	}
	recs, done := make(chan embedlog.Record, 100), make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		for rec, err := range local.Records(ctx) {
			if err != nil {
				return
			}
			recs <- rec
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	})
	return recs
}

// heartbeatOf is the request of a member that joins.
func heartbeatOf(group, member string) *kmsg.ConsumerGroupHeartbeatRequest {
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Group, q.MemberID, q.RebalanceTimeoutMillis, q.SubscribedTopicNames = group, member, 10_000, []string{"orders"}
	q.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	return q
}

// A member of this process and one on the network, with an epoch, share a group.
func TestGoAndKafkaClientsShare(t *testing.T) {
	db := openMemory(t, nil)
	orders := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
	c := client(t, serve(t, db, Options{}))
	ctx := deadline(t)
	beat := func(q *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
		t.Helper()
		resp := askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, q)
		if resp.ErrorCode != 0 {
			t.Fatalf("heartbeat: %v", kerr.ErrorForCode(resp.ErrorCode))
		}
		return resp
	}
	has := beat(heartbeatOf("mixed", "remote"))
	if n := len(has.Assignment.Topics[0].Partitions); n != 2 {
		t.Fatalf("alone it has %d partitions", n)
	}
	id := has.Assignment.Topics[0].TopicID
	recs := readLocally(t, ctx, db, "mixed")
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Group, q.MemberID, q.MemberEpoch = "mixed", "remote", has.MemberEpoch
	for has.Assignment == nil || len(has.Assignment.Topics[0].Partitions) != 1 { // until the other one has joined
		has = beat(q)
	}
	mine := has.Assignment.Topics[0].Partitions[0]
	q.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: id, Partitions: []int32{mine}}}
	epoch := beat(q).MemberEpoch
	for p := range int32(2) {
		if _, err := orders.ProduceTo(ctx, p, embedlog.Record{Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case rec := <-recs:
		if rec.Partition == mine {
			t.Errorf("both have partition %d", mine)
		}
	case <-ctx.Done():
		t.Fatal("the local member has read nothing")
	}
	for _, row := range []struct {
		name      string
		partition int32
		want      int16
	}{{"its own partition", mine, codeNone}, {"the other's", 1 - mine, codeStaleMemberEpoch}} {
		commit := offsetCommitOf("mixed", "remote", epoch, "", id, 1)
		commit.Topics[0].Partitions[0].Partition = row.partition
		resp := askVersion[*kmsg.OffsetCommitResponse](t, c, 10, commit)
		wantGroupCode(t, "commit of "+row.name, resp.Topics[0].Partitions[0].ErrorCode, row.want)
	}
	describe := kmsg.NewPtrConsumerGroupDescribeRequest()
	describe.Groups = []string{"mixed", "none"}
	d := askVersion[*kmsg.ConsumerGroupDescribeResponse](t, c, 1, describe)
	if g := d.Groups[0]; g.ErrorCode != 0 || g.State != "Stable" || len(g.Members) != 2 || g.AssignorName != "uniform" {
		t.Errorf("described as %+v", g)
	}
	wantGroupCode(t, "a group that there is not", d.Groups[1].ErrorCode, codeGroupIDNotFound)
	leave := heartbeatOf("mixed", "remote")
	leave.MemberEpoch = -1
	beat(leave)
	if _, err := orders.ProduceTo(ctx, mine, embedlog.Record{Value: []byte("w")}); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case rec := <-recs:
			if rec.Partition == mine && string(rec.Value) == "w" {
				return
			}
		case <-ctx.Done():
			t.Fatal("what the remote member left is not read")
		}
	}
}

// A member of this process and one of the classic protocol share a group.
func TestGoAndClassicClientsShare(t *testing.T) {
	db := openMemory(t, nil)
	orders := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 2})
	s := serve(t, db, Options{})
	ctx := deadline(t)
	recs := readLocally(t, ctx, db, "mixed")
	got := make(chan int32, 100)
	remote := client(t, s, groupOptions("mixed", false, kgo.HeartbeatInterval(50*time.Millisecond), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			for _, p := range m["orders"] {
				got <- p
			}
		}))...)
	go remote.PollFetches(ctx)
	var mine int32
	for {
		select {
		case mine = <-got:
		case <-ctx.Done():
			t.Fatal("the classic member has got nothing")
		}
		d, err := db.DescribeGroup(ctx, "mixed")
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Members) == 2 && d.Type == embedlog.GroupTypeConsumer {
			break
		}
	}
	if _, err := orders.ProduceTo(ctx, 1-mine, embedlog.Record{Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-recs:
	case <-ctx.Done():
		t.Fatal("the local member has read nothing")
	}
}

func offsetCommitOf(group, member string, epoch int32, topic string, id engine.TopicID, offset int64) *kmsg.OffsetCommitRequest {
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Group, q.MemberID, q.Generation = group, member, epoch
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = offset
	q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	return q
}

// Each version of OffsetCommit and OffsetFetch, and what a group without members may.
func TestOffsetVersions(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	s := serve(t, db, Options{})
	c := client(t, s)
	topic, err := db.Engine().Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	id := topic.ID()
	for v := int16(2); v <= 10; v++ {
		resp := askVersion[*kmsg.OffsetCommitResponse](t, c, v, offsetCommitOf("g", "", -1, "orders", id, int64(v)))
		wantGroupCode(t, fmt.Sprintf("commit with version %d", v), resp.Topics[0].Partitions[0].ErrorCode, codeNone)
	}
	for v := int16(1); v <= 10; v++ {
		q := kmsg.NewPtrOffsetFetchRequest()
		q.Group = "g"
		q.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0, 7}}, {Topic: "nothing", Partitions: []int32{0}}}
		for _, name := range []string{"g", "unknown"} {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = name
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "orders", TopicID: id, Partitions: []int32{0, 7}}}
			q.Groups = append(q.Groups, g)
		}
		resp := askVersion[*kmsg.OffsetFetchResponse](t, c, v, q)
		var got []string
		if v < 8 {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					got = append(got, fmt.Sprint(p.Offset, p.ErrorCode))
				}
			}
		}
		for _, g := range resp.Groups {
			for _, p := range g.Topics[0].Partitions {
				got = append(got, fmt.Sprint(p.Offset, p.ErrorCode))
			}
		}
		want := []string{"10 0", "-1 0", "-1 0"}
		if v >= 8 {
			want = append(want, "-1 0")
		}
		if !slices.Equal(got, want) {
			t.Errorf("fetch with version %d: got %q, want %q", v, got, want)
		}
	}
	// All of a group, and a place that is taken away.
	adm := kadm.NewClient(c)
	if got, err := adm.FetchOffsets(deadline(t), "g"); err != nil || len(got) != 1 || got["orders"][0].At != 10 {
		t.Errorf("all offsets: %+v, %v", got, err)
	}
	askVersion[*kmsg.OffsetCommitResponse](t, c, 2, offsetCommitOf("g", "", -1, "orders", id, -2))
	if got, err := adm.FetchOffsets(deadline(t), "g"); err != nil || len(got) != 0 {
		t.Errorf("after a reset: %+v, %v", got, err)
	}
}

// Commits that are refused, by the code that each version knows.
func TestFencedCommits(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	s := serve(t, db, Options{})
	c := client(t, s)
	topic, err := db.Engine().Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	id := topic.ID()
	member := askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, heartbeatOf("g", "m"))
	if member.ErrorCode != 0 || member.Assignment == nil || len(member.Assignment.Topics) != 1 || member.HeartbeatIntervalMillis != 5000 {
		t.Fatalf("joined: %+v", member)
	}
	epoch := member.MemberEpoch
	for _, row := range []struct {
		name    string
		version int16
		member  string
		epoch   int32
		topic   string
		want    int16
	}{
		{"the member", 10, "m", epoch, "orders", codeNone},
		{"an epoch from the future", 10, "m", epoch + 1, "orders", codeStaleMemberEpoch},
		{"the same with a version that knows no epochs", 8, "m", epoch + 1, "orders", codeUnsupportedVersion},
		{"another member", 9, "x", epoch, "orders", codeUnknownMemberID},
		{"no member", 9, "", -1, "orders", codeUnknownMemberID},
		{"a member that says no epoch", 8, "x", -1, "orders", codeUnknownMemberID},
		{"a topic that there is not", 8, "", -1, "nothing", codeUnknownTopicOrPartition},
	} {
		resp := askVersion[*kmsg.OffsetCommitResponse](t, c, row.version, offsetCommitOf("g", row.member, row.epoch, row.topic, id, 1))
		wantGroupCode(t, row.name, resp.Topics[0].Partitions[0].ErrorCode, row.want)
	}
	resp := askVersion[*kmsg.OffsetCommitResponse](t, c, 10, offsetCommitOf("g", "m", epoch, "", engine.TopicID{1}, 1))
	wantGroupCode(t, "an id of no topic", resp.Topics[0].Partitions[0].ErrorCode, codeUnknownTopicID)
	q := offsetCommitOf("g", "m", epoch, "orders", id, 1)
	q.Topics[0].Partitions[0].Metadata = kmsg.StringPtr(strings.Repeat("x", engine.MaxOffsetMetadataBytes+1))
	resp = askVersion[*kmsg.OffsetCommitResponse](t, c, 10, q)
	wantGroupCode(t, "metadata that is too long", resp.Topics[0].Partitions[0].ErrorCode, codeOffsetMetadataTooLarge)
}

// Heartbeats that no member sends are refused before anything happens.
func TestConsumerGroupHeartbeatRefuses(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	c := client(t, serve(t, db, Options{}))
	for _, row := range []struct {
		name string
		edit func(*kmsg.ConsumerGroupHeartbeatRequest)
		want int16
	}{
		{"as it should be", func(q *kmsg.ConsumerGroupHeartbeatRequest) {}, codeNone},
		{"no group", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.Group = "" }, codeInvalidRequest},
		{"no member id", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.MemberID = "" }, codeInvalidRequest},
		{"an empty instance id", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.InstanceID = kmsg.StringPtr("") }, codeInvalidRequest},
		{"no rebalance timeout", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.RebalanceTimeoutMillis = -1 }, codeInvalidRequest},
		{"nothing about what it has", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.Topics = nil }, codeInvalidRequest},
		{"no subscription", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.SubscribedTopicNames = nil }, codeInvalidRequest},
		{"an assignor that there is not", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.ServerAssignor = kmsg.StringPtr("fair") }, codeUnsupportedAssignor},
		{"a pattern that is none", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.SubscribedTopicRegex = kmsg.StringPtr("(") }, codeInvalidRegularExpression},
		{"an epoch of nobody", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.MemberID, q.MemberEpoch = "x", 3 }, codeUnknownMemberID},
		{"an old epoch", func(q *kmsg.ConsumerGroupHeartbeatRequest) { q.MemberEpoch = 9 }, codeFencedMemberEpoch},
	} {
		q := heartbeatOf("g", "m")
		row.edit(q)
		wantGroupCode(t, row.name, askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, q).ErrorCode, row.want)
	}
}

// A commit without a leader epoch gets that of the record before it. A position past
// the end, of the log or of the epoch that a client said, is answered as it was
// committed; one past the end of an epoch that this log knew is brought back.
func TestCommitsKeepTheirEpoch(t *testing.T) {
	db := openMemory(t, nil)
	topic := createTopic(t, db, "orders", nil)
	for range 3 {
		if _, err := topic.Produce(t.Context(), embedlog.Record{Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	top, err := topic.EngineTopic()
	if err != nil {
		t.Fatal(err)
	}
	if err := top.Partitions()[0].SetLeaderEpoch(2); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := topic.Produce(t.Context(), embedlog.Record{Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t, serve(t, db, Options{}))
	fetched := func() kmsg.OffsetFetchResponseTopicPartition {
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Group, fetch.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
		return askVersion[*kmsg.OffsetFetchResponse](t, c, 5, fetch).Topics[0].Partitions[0]
	}
	for _, row := range []struct {
		version          int16
		epoch            int32
		offset           int64
		want, wantOffset int64
	}{
		{2, -1, 3, 0, 3},
		{8, -1, 2, 0, 2},
		{8, 0, 1, 0, 1},
		{8, -1, 0, -1, 0},
		{8, -1, 42, -1, 42},
		{8, 0, 42, 0, 42},
		{8, 0, 5, 0, 5}, // of a client that says the epoch of its first position for ever
		{8, -1, 5, 2, 5},
	} {
		q := offsetCommitOf("g", "", -1, "orders", engine.TopicID{}, row.offset)
		q.Topics[0].Partitions[0].LeaderEpoch = row.epoch
		wantGroupCode(t, "commit", askVersion[*kmsg.OffsetCommitResponse](t, c, row.version, q).Topics[0].Partitions[0].ErrorCode, codeNone)
		p := fetched()
		if int64(p.LeaderEpoch) != row.want || p.Offset != row.wantOffset {
			t.Errorf("offset %d in epoch %d, committed with version %d: got %d in epoch %d, want %d in %d", row.offset, row.epoch, row.version, p.Offset, p.LeaderEpoch, row.wantOffset, row.want)
		}
	}
	lost := engine.OffsetCommit{Topic: "orders", Offset: 5, LeaderEpoch: 0}
	if err := db.Engine().Groups().Commit(t.Context(), engine.CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []engine.OffsetCommit{lost}}); err != nil {
		t.Fatal(err)
	}
	if p := fetched(); p.Offset != 3 || p.LeaderEpoch != 0 {
		t.Errorf("a position that the log lost: got %d in epoch %d, want 3 in 0", p.Offset, p.LeaderEpoch)
	}
}
