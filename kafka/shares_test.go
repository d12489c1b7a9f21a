package kafka

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// shareRig is a server with a topic and share group "q", in virtual time.
type shareRig struct {
	t     *testing.T
	db    *embedlog.DB
	s     *Server
	topic *embedlog.Topic
}

// inShareRig runs f in a bubble.
func inShareRig(t *testing.T, o Options, f func(r *shareRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &shareRig{t: t, db: openMemory(t, nil)}
		r.s = pipeServer(t, r.db, o)
		r.topic = createTopic(t, r.db, "orders", &embedlog.TopicConfig{Partitions: 2})
		r.alter("share.auto.offset.reset", "earliest")
		f(r)
	})
}

func (r *shareRig) alter(name, value string) {
	r.t.Helper()
	err := r.db.Engine().Shares().AlterSettings(r.t.Context(), "q", false, func(set map[string]string) (map[string]string, error) {
		set[name] = value
		return set, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *shareRig) produce(partition int32, n int) {
	r.t.Helper()
	p, err := r.db.Engine().Topic("orders")
	if err != nil {
		r.t.Fatal(err)
	}
	part, err := p.Partition(partition)
	if err == nil {
		_, err = part.Append(r.t.Context(), slices.Repeat([]log.Record{{Value: []byte("v")}}, n), nil)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// shareMember is a member with a connection of its own.
type shareMember struct {
	*raw
	rig   *shareRig
	id    string
	epoch int32 // of its session, next
}

func (r *shareRig) member(id string) *shareMember {
	r.t.Helper()
	m := &shareMember{raw: dial(r.t, r.s, nil), rig: r, id: id}
	resp := do[*kmsg.ShareGroupHeartbeatResponse](m.raw, m.beat(0))
	if resp.ErrorCode != codeNone || resp.Assignment == nil {
		r.t.Fatalf("%s joins: %+v", id, resp)
	}
	return m
}

func (m *shareMember) beat(epoch int32) *kmsg.ShareGroupHeartbeatRequest {
	q := kmsg.NewPtrShareGroupHeartbeatRequest()
	q.Version, q.GroupID, q.MemberID, q.MemberEpoch = 1, "q", m.id, epoch
	if epoch == 0 {
		q.SubscribedTopicNames = []string{"orders"}
	}
	return q
}

// fetchOf is a ShareFetch of partitions, with acknowledgements of the first one as "0-2:1 3:2".
func (m *shareMember) fetchOf(epoch int32, acks string, partitions ...int32) *kmsg.ShareFetchRequest {
	q := kmsg.NewPtrShareFetchRequest()
	q.Version, q.GroupID, q.MemberID, q.ShareSessionEpoch = 2, kmsg.StringPtr("q"), &m.id, epoch
	q.MaxBytes, q.MaxRecords, q.ShareAcquireMode, q.IsRenewAck = 1<<20, 100, 1, strings.Contains(acks, ":4")
	t := kmsg.NewShareFetchRequestTopic()
	t.TopicID = m.rig.topic.ID()
	for i, index := range partitions {
		p := kmsg.NewShareFetchRequestTopicPartition()
		p.Partition = index
		for word := range strings.FieldsSeq(acks) {
			if i > 0 {
				break
			}
			b := kmsg.NewShareFetchRequestTopicPartitionAcknowledgementBatch()
			b.FirstOffset, b.LastOffset, b.AcknowledgeTypes = ackOf(m.t, word)
			p.AcknowledgementBatches = append(p.AcknowledgementBatches, b)
		}
		t.Partitions = append(t.Partitions, p)
	}
	if len(partitions) > 0 {
		q.Topics = append(q.Topics, t)
	}
	return q
}

func ackOf(t testing.TB, word string) (first, last int64, types []int8) {
	t.Helper()
	span, kind, _ := strings.Cut(word, ":")
	var n int8
	_, err := fmt.Sscan(kind, &n)
	if err == nil {
		if from, to, ok := strings.Cut(span, "-"); ok {
			_, err = fmt.Sscan(from+" "+to, &first, &last)
		} else {
			_, err = fmt.Sscan(span, &first)
			last = first
		}
	}
	if err != nil {
		t.Fatalf("%q: %v", word, err)
	}
	return first, last, []int8{n}
}

func (m *shareMember) ackOf(epoch int32, acks string) *kmsg.ShareAcknowledgeRequest {
	q := kmsg.NewPtrShareAcknowledgeRequest()
	q.Version, q.GroupID, q.MemberID, q.ShareSessionEpoch, q.IsRenewAck = 2, kmsg.StringPtr("q"), &m.id, epoch, strings.Contains(acks, ":4")
	t := kmsg.NewShareAcknowledgeRequestTopic()
	t.TopicID = m.rig.topic.ID()
	p := kmsg.NewShareAcknowledgeRequestTopicPartition()
	for word := range strings.FieldsSeq(acks) {
		b := kmsg.NewShareAcknowledgeRequestTopicPartitionAcknowledgementBatch()
		b.FirstOffset, b.LastOffset, b.AcknowledgeTypes = ackOf(m.t, word)
		p.AcknowledgementBatches = append(p.AcknowledgementBatches, b)
	}
	if acks != "" {
		t.Partitions = append(t.Partitions, p)
		q.Topics = append(q.Topics, t)
	}
	return q
}

// acquiredIn is an answer as text: "0: 0-2:1; 1: ack 121", codes where there are some.
func acquiredIn(resp *kmsg.ShareFetchResponse) string {
	if resp.ErrorCode != codeNone {
		return fmt.Sprint("error ", resp.ErrorCode)
	}
	var parts []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			words := []string{fmt.Sprintf("%d:", p.Partition)}
			if p.ErrorCode != codeNone {
				words = append(words, fmt.Sprint("error ", p.ErrorCode))
			}
			if p.AcknowledgeErrorCode != codeNone {
				words = append(words, fmt.Sprint("ack ", p.AcknowledgeErrorCode))
			}
			for _, a := range p.AcquiredRecords {
				words = append(words, fmt.Sprintf("%d-%d:%d", a.FirstOffset, a.LastOffset, a.DeliveryCount))
			}
			if (len(p.AcquiredRecords) > 0) != (len(p.Records) > 0) {
				words = append(words, fmt.Sprintf("%d bytes", len(p.Records)))
			}
			parts = append(parts, strings.Join(words, " "))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// fetch is the next request of the session.
func (m *shareMember) fetch(acks string, partitions ...int32) string {
	m.t.Helper()
	resp := do[*kmsg.ShareFetchResponse](m.raw, m.fetchOf(m.epoch, acks, partitions...))
	m.epoch++
	return acquiredIn(resp)
}

func (m *shareMember) ack(acks string) int16 {
	m.t.Helper()
	resp := do[*kmsg.ShareAcknowledgeResponse](m.raw, m.ackOf(m.epoch, acks))
	m.epoch++
	if resp.ErrorCode != codeNone || len(resp.Topics) == 0 {
		return resp.ErrorCode
	}
	return resp.Topics[0].Partitions[0].ErrorCode
}

func (r *shareRig) want(what, got, want string) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestShareFetch(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		r.produce(0, 5)
		r.produce(1, 3)
		a, b := r.member("a"), r.member("b")
		r.want("a fetches", a.fetch("", 0, 1), "0: 0-4:1; 1: 0-2:1")
		r.want("b fetches", b.fetch("", 0, 1), "")
		r.want("a acknowledges as it fetches", a.fetch("0-1:1 2:2 3:3", 0), "0: 2-2:2")
		wantGroupCode(t, "what b does not have", b.ack("4:1"), codeInvalidRecordState)
		r.want("the same, as it fetches", b.fetch("4:1", 0), "0: ack 121")
		wantGroupCode(t, "out of order", a.ack("4:1 2:1"), codeInvalidRequest)
		wantGroupCode(t, "no type", a.ack("4:7"), codeInvalidRequest)
		r.produce(0, 1)
		r.want("b gets what is new", b.fetch("", 0), "0: 5-5:1")
		wantGroupCode(t, "the rest", a.ack("2:1 4:1"), codeNone)
		list, err := r.db.Engine().Shares().Offsets(t.Context(), "q", nil)
		if err != nil || len(list) != 2 || list[0].Start+list[1].Start != 5 {
			t.Errorf("offsets %+v, %v", list, err)
		}
	})
}

// A fetch waits for records, for others' locks, and not when it says something that is wrong.
func TestShareFetchWaits(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		a, b := r.member("a"), r.member("b")
		wait := func(m *shareMember, d time.Duration, partitions ...int32) (string, time.Duration) {
			q := m.fetchOf(m.epoch, "", partitions...)
			q.MaxWaitMillis = int32(d.Milliseconds())
			m.epoch++
			began := time.Now()
			resp := do[*kmsg.ShareFetchResponse](m.raw, q)
			return acquiredIn(resp), time.Since(began)
		}
		if got, took := wait(a, 3*time.Second, 0); got != "" || took != 3*time.Second {
			t.Errorf("without records: %q after %v", got, took)
		}
		go func() {
			time.Sleep(time.Second)
			r.produce(0, 2)
		}()
		if got, took := wait(a, time.Minute); got != "0: 0-1:1" || took != time.Second {
			t.Errorf("for records: %q after %v", got, took)
		}
		if got, took := wait(b, time.Minute, 0); got != "0: 0-1:2" || took < 29*time.Second || took > 31*time.Second {
			t.Errorf("for the end of a lock: %q after %v", got, took)
		}
		if got, took := wait(a, time.Minute, 7); got != "7: error 3" || took != 0 {
			t.Errorf("of no partition: %q after %v", got, took)
		}
	})
}

func TestShareSessions(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		r.produce(0, 4)
		a, b := r.member("a"), r.member("b")
		r.want("before it is open", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, a.fetchOf(1, "", 0))), "error 122")
		r.want("closed before it is open", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, a.fetchOf(-1, ""))), "error 122")
		wantGroupCode(t, "acknowledging before it is open", do[*kmsg.ShareAcknowledgeResponse](a.raw, a.ackOf(1, "0:1")).ErrorCode, codeShareSessionNotFound)
		wantGroupCode(t, "opened by an acknowledgement", do[*kmsg.ShareAcknowledgeResponse](a.raw, a.ackOf(0, "0:1")).ErrorCode, codeInvalidShareSessionEpoch)
		r.want("opened with an acknowledgement", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, a.fetchOf(0, "0:1", 0))), "error 42")
		r.want("opened", a.fetch("", 0), "0: 0-3:1")
		r.want("an epoch ahead", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, a.fetchOf(2, "", 0))), "error 123")
		wantGroupCode(t, "an epoch ahead", do[*kmsg.ShareAcknowledgeResponse](a.raw, a.ackOf(2, "0:1")).ErrorCode, codeInvalidShareSessionEpoch)
		r.want("as it should be", a.fetch("0:1"), "")
		r.want("b", b.fetch("", 0), "")
		// What was acquired before a session began anew is still the member's.
		a.epoch = 0
		r.want("opened anew", a.fetch("", 0), "")
		wantGroupCode(t, "of before", a.ack("0:1 1:1"), codeNone)
		q := a.fetchOf(a.epoch, "")
		q.ForgottenTopicsData = []kmsg.ShareFetchRequestForgottenTopicsData{{TopicID: r.topic.ID(), Partitions: []int32{0}}}
		r.want("forgets the partition", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, q)), "")
		a.epoch++
		r.produce(0, 1)
		r.want("does not fetch from it", a.fetch(""), "")
		r.want("closes", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, a.fetchOf(-1, "2:1", 0))), "0:")
		r.want("b gets what a had", b.fetch(""), "0: 3-3:2 4-4:1")
		wantGroupCode(t, "b closes", do[*kmsg.ShareAcknowledgeResponse](b.raw, b.ackOf(-1, "3:1")).ErrorCode, codeNone)
		c := r.member("c")
		r.want("c gets what b had", c.fetch("", 0), "0: 4-4:2")
		c.c.Close()
		synctest.Wait()
		d := r.member("d")
		r.want("d gets what c had", d.fetch("", 0), "0: 4-4:3")
		if resp := do[*kmsg.ShareGroupHeartbeatResponse](d.raw, d.beat(-1)); resp.ErrorCode != codeNone || resp.MemberEpoch != -1 {
			t.Errorf("d leaves: %+v", resp)
		}
		r.want("d's session", acquiredIn(do[*kmsg.ShareFetchResponse](d.raw, d.fetchOf(1, ""))), "error 122")
	})
}

func TestShareRenews(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		r.produce(0, 2)
		a, b := r.member("a"), r.member("b")
		r.want("a", a.fetch("", 0), "0: 0-1:1")
		r.want("b", b.fetch("", 0), "")
		time.Sleep(20 * time.Second)
		q := a.ackOf(a.epoch, "0:4")
		q.IsRenewAck = false
		resp := do[*kmsg.ShareAcknowledgeResponse](a.raw, q)
		wantGroupCode(t, "without saying so", resp.Topics[0].Partitions[0].ErrorCode, codeInvalidRequest)
		a.epoch++
		wantGroupCode(t, "renewed", a.ack("0:4"), codeNone)
		time.Sleep(15 * time.Second)
		r.want("what was not", b.fetch(""), "0: 1-1:2")
		wantGroupCode(t, "what was", a.ack("0:1"), codeNone)
		r.alter("share.renew.acknowledge.enable", "false")
		wantGroupCode(t, "not allowed", b.ack("1:4"), codeInvalidRequest)
	})
}

// Members of a group that there is not, and of other groups.
func TestShareGroupsThatAreNone(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		x := dial(t, r.s, nil)
		m := &shareMember{raw: x, rig: r, id: "m"}
		r.want("no group", m.fetch("", 0), "0: error 69")
		wantGroupCode(t, "no member", do[*kmsg.ShareGroupHeartbeatResponse](x, m.beat(3)).ErrorCode, codeUnknownMemberID)
		q := m.beat(0)
		q.SubscribedTopicNames = nil
		wantGroupCode(t, "no subscription", do[*kmsg.ShareGroupHeartbeatResponse](x, q).ErrorCode, codeInvalidRequest)
		q = m.beat(0)
		q.MemberID = ""
		wantGroupCode(t, "no member id", do[*kmsg.ShareGroupHeartbeatResponse](x, q).ErrorCode, codeInvalidRequest)
		q = m.beat(0)
		q.GroupID = "c"
		consumer := heartbeatOf("c", "c")
		consumer.Version = 1
		do[*kmsg.ConsumerGroupHeartbeatResponse](x, consumer)
		wantGroupCode(t, "a consumer group", do[*kmsg.ShareGroupHeartbeatResponse](x, q).ErrorCode, codeGroupIDNotFound)
		a := r.member("a")
		wantGroupCode(t, "another epoch", do[*kmsg.ShareGroupHeartbeatResponse](a.raw, a.beat(77)).ErrorCode, codeFencedMemberEpoch)
		consumer = heartbeatOf("q", "c")
		consumer.Version = 1
		wantGroupCode(t, "a consumer in a share group", do[*kmsg.ConsumerGroupHeartbeatResponse](x, consumer).ErrorCode, codeGroupIDNotFound)
		join := joinOf("q", "")
		join.Version = 9
		wantGroupCode(t, "a classic consumer in a share group", do[*kmsg.JoinGroupResponse](x, join).ErrorCode, codeInconsistentGroupProtocol)
	})
}

func TestShareGroupDescribe(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		a := r.member("a")
		r.member("b")
		q := kmsg.NewPtrShareGroupDescribeRequest()
		q.Version, q.GroupIDs, q.IncludeAuthorizedOperations = 1, []string{"q", "none"}, true
		resp := do[*kmsg.ShareGroupDescribeResponse](a.raw, q)
		g := resp.Groups[0]
		if g.ErrorCode != codeNone || g.GroupState != "Stable" || g.Assignor != "simple" || len(g.Members) != 2 || g.AuthorizedOperations == -1<<31 {
			t.Fatalf("described as %+v", g)
		}
		if m := g.Members[0]; m.MemberID != "a" || m.ClientID != "raw" || len(m.Assignment.TopicPartitions) != 1 || len(m.Assignment.TopicPartitions[0].Partitions) != 1 {
			t.Errorf("a is %+v", m)
		}
		wantGroupCode(t, "none", resp.Groups[1].ErrorCode, codeGroupIDNotFound)
		list := kmsg.NewPtrListGroupsRequest()
		list.Version, list.TypesFilter = 5, []string{"Share"}
		if l := do[*kmsg.ListGroupsResponse](a.raw, list); len(l.Groups) != 1 || l.Groups[0].GroupType != "share" || l.Groups[0].ProtocolType != "share" {
			t.Errorf("listed %+v", l.Groups)
		}
	})
}

func TestShareGroupOffsets(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		r.produce(0, 8)
		x := dial(t, r.s, nil)
		alter := kmsg.NewPtrAlterShareGroupOffsetsRequest()
		alter.GroupID = "q"
		alter.Topics = []kmsg.AlterShareGroupOffsetsRequestTopic{
			{Topic: "orders", Partitions: []kmsg.AlterShareGroupOffsetsRequestTopicPartition{{Partition: 0, StartOffset: 3}, {Partition: 9}}}, {Topic: "none", Partitions: []kmsg.AlterShareGroupOffsetsRequestTopicPartition{{}}},
		}
		altered := do[*kmsg.AlterShareGroupOffsetsResponse](x, alter)
		for i, want := range []int16{codeNone, codeUnknownTopicOrPartition} {
			wantGroupCode(t, fmt.Sprint("altered ", i), altered.Topics[0].Partitions[i].ErrorCode, want)
		}
		wantGroupCode(t, "altered in no topic", altered.Topics[1].Partitions[0].ErrorCode, codeUnknownTopicOrPartition)

		describe := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
		describe.Version = 1
		describe.Groups = []kmsg.DescribeShareGroupOffsetsRequestGroup{
			{GroupID: "q"}, {GroupID: "none"},
			{GroupID: "q", Topics: []kmsg.DescribeShareGroupOffsetsRequestGroupTopic{{Topic: "orders", Partitions: []int32{0, 1, 9}}, {Topic: "none", Partitions: []int32{0}}}},
		}
		text := func() string {
			var parts []string
			for _, g := range do[*kmsg.DescribeShareGroupOffsetsResponse](x, describe).Groups {
				words := []string{fmt.Sprint(g.ErrorCode)}
				for _, top := range g.Topics {
					for _, p := range top.Partitions {
						words = append(words, fmt.Sprintf("%s/%d:%d@%d-%d", top.Topic, p.Partition, p.ErrorCode, p.StartOffset, p.Lag))
					}
				}
				parts = append(parts, strings.Join(words, " "))
			}
			return strings.Join(parts, "; ")
		}
		r.want("described", text(), "0 orders/0:0@3-5; 69; 0 orders/9:3@-1--1 orders/0:0@3-5 orders/1:0@-1--1 none/0:3@-1--1")
		a := r.member("a")
		r.want("a", a.fetch("", 0), "0: 3-7:1")
		wantGroupCode(t, "with a member", do[*kmsg.AlterShareGroupOffsetsResponse](x, alter).ErrorCode, codeNonEmptyGroup)
		remove := kmsg.NewPtrDeleteShareGroupOffsetsRequest()
		remove.GroupID, remove.Topics = "q", []kmsg.DeleteShareGroupOffsetsRequestTopic{{Topic: "orders"}, {Topic: "none"}}
		wantGroupCode(t, "deleted with a member", do[*kmsg.DeleteShareGroupOffsetsResponse](x, remove).ErrorCode, codeNonEmptyGroup)
		do[*kmsg.ShareGroupHeartbeatResponse](a.raw, a.beat(-1))
		removed := do[*kmsg.DeleteShareGroupOffsetsResponse](x, remove)
		wantGroupCode(t, "deleted", removed.Topics[0].ErrorCode, codeNone)
		wantGroupCode(t, "deleted in no topic", removed.Topics[1].ErrorCode, codeUnknownTopicOrPartition)
		describe.Groups = describe.Groups[:1]
		r.want("described", text(), "0")
		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Version, del.Groups = 3, []string{"q"}
		wantGroupCode(t, "group deleted", do[*kmsg.DeleteGroupsResponse](x, del).Groups[0].ErrorCode, codeNone)
		wantGroupCode(t, "of no group", do[*kmsg.DeleteShareGroupOffsetsResponse](x, remove).ErrorCode, codeGroupIDNotFound)
	})
}

func TestShareGroupConfigs(t *testing.T) {
	inShareRig(t, Options{}, func(r *shareRig) {
		t := r.t
		x := dial(t, r.s, nil)
		alter := func(op kmsg.IncrementalAlterConfigOp, name, value string) int16 {
			q := kmsg.NewPtrIncrementalAlterConfigsRequest()
			q.Version = 1
			q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "q",
				Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: op, Value: &value}}}}
			return do[*kmsg.IncrementalAlterConfigsResponse](x, q).Resources[0].ErrorCode
		}
		get := func(name string) string {
			q := kmsg.NewPtrDescribeConfigsRequest()
			q.Version = 4
			q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "q", ConfigNames: []string{name}}}
			c := do[*kmsg.DescribeConfigsResponse](x, q).Resources[0].Configs
			if len(c) != 1 {
				return "none"
			}
			return fmt.Sprint(*c[0].Value, " ", c[0].Source)
		}
		const lock = "share.record.lock.duration.ms"
		r.want("default", get(lock), "30000 DEFAULT_CONFIG")
		wantGroupCode(t, "set", alter(kmsg.IncrementalAlterConfigOpSet, lock, "15000"), codeNone)
		r.want("set", get(lock), "15000 GROUP_CONFIG")
		for _, row := range []struct {
			op          kmsg.IncrementalAlterConfigOp
			name, value string
			want        int16
		}{
			{kmsg.IncrementalAlterConfigOpSet, lock, "never", codeInvalidConfig},
			{kmsg.IncrementalAlterConfigOpAppend, lock, "1", codeInvalidConfig},
			{kmsg.IncrementalAlterConfigOpSet, "share.none", "1", codeInvalidConfig},
			{kmsg.IncrementalAlterConfigOpSet, "consumer.session.timeout.ms", "1", codeInvalidConfig},
			{kmsg.IncrementalAlterConfigOpDelete, "consumer.session.timeout.ms", "", codeNone},
			{kmsg.IncrementalAlterConfigOpDelete, "share.auto.offset.reset", "", codeNone},
		} {
			wantGroupCode(t, row.name+"="+row.value, alter(row.op, row.name, row.value), row.want)
		}
		r.want("taken back", get("share.auto.offset.reset"), "latest DEFAULT_CONFIG")
		a := r.member("a")
		r.produce(0, 1)
		if resp := do[*kmsg.ShareFetchResponse](a.raw, a.fetchOf(0, "", 0)); resp.AcquisitionLockTimeoutMillis != 15_000 {
			t.Errorf("lock of %d ms", resp.AcquisitionLockTimeoutMillis)
		}
		list := kmsg.NewPtrListConfigResourcesRequest()
		list.Version, list.ResourceTypes = 1, []int8{int8(kmsg.ConfigResourceTypeGroupConfig)}
		if got := do[*kmsg.ListConfigResourcesResponse](x, list).ConfigResources; len(got) != 1 || got[0].Name != "q" {
			t.Errorf("groups with settings: %+v", got)
		}
		replace := kmsg.NewPtrAlterConfigsRequest()
		replace.Version = 2
		replace.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "q"}}
		wantGroupCode(t, "replaced by nothing", do[*kmsg.AlterConfigsResponse](x, replace).Resources[0].ErrorCode, codeNone)
		r.want("default again", get(lock), "30000 DEFAULT_CONFIG")
	})
}

func TestShareAuthorization(t *testing.T) {
	rules := groupRules{
		forbid(OpRead, ResourceTopic, "secret"), forbid(OpDescribe, ResourceTopic, "secret"),
		forbid(OpRead, ResourceGroup, "closed"), forbid(OpDescribe, ResourceGroup, "closed"), forbid(OpDelete, ResourceGroup, "closed"),
	}
	inShareRig(t, Options{Authorizer: rules}, func(r *shareRig) {
		t := r.t
		secret := createTopic(t, r.db, "secret", nil)
		a := r.member("a")
		closed, none := codeGroupAuthorizationFailed, codeTopicAuthorizationFailed
		beat := a.beat(0)
		beat.GroupID = "closed"
		wantGroupCode(t, "join", do[*kmsg.ShareGroupHeartbeatResponse](a.raw, beat).ErrorCode, closed)
		beat = a.beat(0)
		beat.SubscribedTopicNames = []string{"secret"}
		wantGroupCode(t, "subscribe", do[*kmsg.ShareGroupHeartbeatResponse](a.raw, beat).ErrorCode, none)
		fetch := a.fetchOf(0, "", 0)
		fetch.GroupID = kmsg.StringPtr("closed")
		wantGroupCode(t, "fetch", do[*kmsg.ShareFetchResponse](a.raw, fetch).ErrorCode, closed)
		fetch = a.fetchOf(0, "", 0)
		fetch.Topics[0].TopicID = secret.ID()
		r.want("fetch from a secret topic", acquiredIn(do[*kmsg.ShareFetchResponse](a.raw, fetch)), fmt.Sprint("0: error ", none))
		ack := a.ackOf(1, "0:1")
		ack.GroupID = kmsg.StringPtr("closed")
		wantGroupCode(t, "acknowledge", do[*kmsg.ShareAcknowledgeResponse](a.raw, ack).ErrorCode, closed)
		ack = a.ackOf(1, "0:1")
		ack.Topics[0].TopicID = secret.ID()
		wantGroupCode(t, "acknowledge in a secret topic", do[*kmsg.ShareAcknowledgeResponse](a.raw, ack).Topics[0].Partitions[0].ErrorCode, none)
		describe := kmsg.NewPtrShareGroupDescribeRequest()
		describe.Version, describe.GroupIDs = 1, []string{"closed", "q"}
		wantGroupCode(t, "describe", do[*kmsg.ShareGroupDescribeResponse](a.raw, describe).Groups[0].ErrorCode, closed)
		if _, err := r.db.Engine().Groups().ShareHeartbeat(t.Context(), engine.ShareHeartbeatRequest{Group: "q", MemberID: "n", Topics: []string{"secret"}}); err != nil {
			t.Fatal(err)
		}
		if g := do[*kmsg.ShareGroupDescribeResponse](a.raw, describe).Groups[1]; g.ErrorCode != none || len(g.Members) != 0 {
			t.Errorf("describe a group that reads a secret topic: %+v", g)
		}
		offsets := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
		offsets.Groups = []kmsg.DescribeShareGroupOffsetsRequestGroup{{GroupID: "closed"}, {GroupID: "q", Topics: []kmsg.DescribeShareGroupOffsetsRequestGroupTopic{{Topic: "secret", Partitions: []int32{0}}}}}
		about := do[*kmsg.DescribeShareGroupOffsetsResponse](a.raw, offsets).Groups
		wantGroupCode(t, "describe offsets", about[0].ErrorCode, closed)
		wantGroupCode(t, "describe offsets of a secret topic", about[1].Topics[0].Partitions[0].ErrorCode, none)
		alter := kmsg.NewPtrAlterShareGroupOffsetsRequest()
		alter.GroupID = "closed"
		wantGroupCode(t, "alter offsets", do[*kmsg.AlterShareGroupOffsetsResponse](a.raw, alter).ErrorCode, closed)
		alter.GroupID, alter.Topics = "other", []kmsg.AlterShareGroupOffsetsRequestTopic{{Topic: "secret", Partitions: []kmsg.AlterShareGroupOffsetsRequestTopicPartition{{}}}}
		wantGroupCode(t, "alter offsets of a secret topic", do[*kmsg.AlterShareGroupOffsetsResponse](a.raw, alter).Topics[0].Partitions[0].ErrorCode, none)
		remove := kmsg.NewPtrDeleteShareGroupOffsetsRequest()
		remove.GroupID = "closed"
		wantGroupCode(t, "delete offsets", do[*kmsg.DeleteShareGroupOffsetsResponse](a.raw, remove).ErrorCode, closed)
		remove.GroupID, remove.Topics = "other", []kmsg.DeleteShareGroupOffsetsRequestTopic{{Topic: "secret"}}
		wantGroupCode(t, "delete offsets of a secret topic", do[*kmsg.DeleteShareGroupOffsetsResponse](a.raw, remove).Topics[0].ErrorCode, none)
	})
}

// A partition that is there twice in one request hears what went wrong, whichever of the two it was.
func TestShareFetchOfAPartitionTwice(t *testing.T) {
	for _, acks := range [][2]string{{"0-1:1", "7-8:1"}, {"7-8:1", "0-1:1"}} {
		inShareRig(t, Options{}, func(r *shareRig) {
			m := r.member("a")
			r.produce(0, 2)
			r.want("fetch", m.fetch("", 0), "0: 0-1:1")
			q, second := m.fetchOf(m.epoch, acks[0], 0), m.fetchOf(m.epoch, acks[1], 0)
			q.Topics[0].Partitions = append(q.Topics[0].Partitions, second.Topics[0].Partitions...)
			r.want("twice", acquiredIn(do[*kmsg.ShareFetchResponse](m.raw, q)), fmt.Sprint("0: ack ", codeInvalidRecordState))
		})
	}
}
