package kafka

import (
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ShareFetch, versions 1 and 2: acquires records for a member of a share group, after
// it has said what became of others. 2 bounds records strictly (KIP-1206) and renews locks
// (KIP-1222). (KIP-932; version 0 was of a preview)

func init() { register(1, 2, shareFetch) }

// shareFetcher is a share fetch under way.
type shareFetcher struct {
	r             *request
	q             *kmsg.ShareFetchRequest
	group, member string
	acks          []shareAcks
	parts         []engine.TopicPartitions // what is fetched from
	resp          *kmsg.ShareFetchResponse
	topics        shareTopics[kmsg.ShareFetchResponseTopic]
	at            map[sharePartition]int // in its topic
	records       int                    // acquired
	size          int
	failed        bool // a partition has an answer that is not to wait
}

func shareFetch(r *request, q *kmsg.ShareFetchRequest) (kmsg.Response, error) {
	f := &shareFetcher{r: r, q: q, group: orEmpty(q.GroupID), member: orEmpty(q.MemberID), resp: q.ResponseKind().(*kmsg.ShareFetchResponse), at: map[sharePartition]int{}}
	if f.resp.ErrorCode = r.mayGroup(OpRead, f.group); f.resp.ErrorCode != codeNone {
		return f.resp, nil
	}
	if err := f.begin(); err != nil {
		f.resp.ErrorCode, f.resp.ErrorMessage = answerTo(err)
		return f.resp, nil
	}
	if err := r.grow(len(f.acks)+countParts(f.parts), explainedBytes); err != nil {
		return nil, err
	}
	r.acknowledge(f.group, f.member, f.acks)
	for i := range f.acks {
		x := &f.acks[i]
		if p := f.part(x.at); p.AcknowledgeErrorCode == codeNone { // of one that is there twice, what went wrong
			p.AcknowledgeErrorCode, p.AcknowledgeErrorMessage = x.code, message(x.err)
		}
	}
	if q.ShareSessionEpoch == engine.ShareSessionClose {
		r.engine.Shares().Release(f.group, f.member)
	} else if !q.IsRenewAck || q.MaxRecords > 0 {
		f.fetch()
	}
	var err error
	if f.resp.AcquisitionLockTimeoutMillis, err = r.engine.Shares().LockTimeout(r.ctx, f.group); err != nil {
		f.resp.ErrorCode, f.resp.ErrorMessage = answerTo(err)
		return f.resp, nil
	}
	r.fetchedBytes = int64(f.size)
	f.resp.Topics = f.topics.list
	return f.resp, nil
}

func countParts(list []engine.TopicPartitions) (n int) {
	for _, t := range list {
		n += len(t.Partitions)
	}
	return n
}

// begin takes the request apart, and the step of the session.
func (f *shareFetcher) begin() (err error) {
	var add, forget []engine.TopicPartitions
	for i := range f.q.Topics {
		t := &f.q.Topics[i]
		parts := engine.TopicPartitions{Topic: t.TopicID}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			parts.Partitions = append(parts.Partitions, p.Partition)
			if len(p.AcknowledgementBatches) == 0 {
				continue
			}
			x := shareAcks{at: sharePartition{t.TopicID, p.Partition}}
			for _, b := range p.AcknowledgementBatches {
				types, ok := ackTypes(b.AcknowledgeTypes, f.q.IsRenewAck)
				if !ok {
					x.code = codeInvalidRequest
				}
				x.acks = append(x.acks, engine.Ack{First: b.FirstOffset, Last: b.LastOffset, Types: types})
			}
			f.acks = append(f.acks, x)
		}
		add = append(add, parts)
	}
	for _, t := range f.q.ForgottenTopicsData {
		forget = append(forget, engine.TopicPartitions{Topic: t.TopicID, Partitions: t.Partitions})
	}
	if f.q.ShareSessionEpoch == engine.ShareSessionOpen && len(f.acks) > 0 {
		return refuse(codeInvalidRequest, "who opens a share session has nothing to acknowledge")
	}
	f.parts, err = f.r.shareStep(f.q.GroupID, f.q.MemberID, f.q.ShareSessionEpoch, add, forget)
	return err
}

// part is the answer for a partition.
func (f *shareFetcher) part(at sharePartition) *kmsg.ShareFetchResponseTopicPartition {
	t := f.topics.topic(at.topic, func() kmsg.ShareFetchResponseTopic {
		t := kmsg.NewShareFetchResponseTopic()
		t.TopicID = at.topic
		return t
	})
	i, has := f.at[at]
	if !has {
		i = len(t.Partitions)
		f.at[at] = i
		p := kmsg.NewShareFetchResponseTopicPartition()
		p.Partition, p.CurrentLeader = at.partition, noLeader
		t.Partitions = append(t.Partitions, p)
	}
	return &t.Partitions[i]
}

// fetch acquires records, and waits for them as long as the client does.
func (f *shareFetcher) fetch() {
	wait := min(time.Duration(max(f.q.MaxWaitMillis, 0))*time.Millisecond, f.r.srv.limits.IdleTimeout)
	until := time.Now().Add(wait)
	for {
		f.gather()
		left := time.Until(until)
		if f.records > 0 || f.failed || left <= 0 || len(f.parts) == 0 || f.r.ctx.Err() != nil {
			return
		}
		if err := f.r.engine.Shares().Await(f.r.ctx, f.group, f.parts, left); err != nil {
			return
		}
	}
}

// gather acquires from each partition, up to the limits.
func (f *shareFetcher) gather() {
	most := max(int(f.q.MaxRecords), 1)
	maxBytes := min(max(int(f.q.MaxBytes), 1), f.r.srv.limits.FetchBytes)
	for _, t := range f.parts {
		if f.records >= most || f.size >= maxBytes {
			return
		}
		code := f.r.mayShare(t.Topic)
		for _, index := range t.Partitions {
			at := sharePartition{t.Topic, index}
			if code != codeNone {
				f.fail(at, code, nil)
				continue
			}
			if f.records >= most || f.size >= maxBytes {
				return
			}
			f.acquire(at, most-f.records, maxBytes-f.size)
		}
	}
}

func (f *shareFetcher) fail(at sharePartition, code int16, err error) {
	p := f.part(at)
	p.ErrorCode, p.ErrorMessage, f.failed = code, message(err), true
}

// shareReadBytes bounds what is read of one partition at a time, as max.partition.fetch.bytes does
// for consumers: a request says no such bound itself.
const shareReadBytes = 1 << 20

// acquire acquires from one partition. Its bytes are there twice: as they were read, and in the
// answer.
func (f *shareFetcher) acquire(at sharePartition, records, room int) {
	r := f.r
	room = min(room, shareReadBytes)
	granted := r.srv.memory.take(2*int64(room), 0)
	if granted < 2 && f.size > 0 {
		return // memory is short: the client gets what there is
	}
	res, err := r.engine.Shares().Acquire(r.life, engine.ShareRequest{
		Group: f.group, MemberID: f.member, Topic: at.topic, Partition: at.partition,
		MaxBytes: max(int(granted/2), 1), MaxRecords: records, Strict: f.q.ShareAcquireMode == 1,
	})
	size := 0
	for _, b := range res.Batches {
		size += len(b)
	}
	if over := 2*int64(size) - granted; over > 0 {
		granted += r.srv.memory.take(over, over)
	} else {
		r.srv.memory.release(-over)
		granted += over
	}
	r.reserved += granted
	if err != nil {
		f.fail(at, shareCodeOf(err), err)
		return
	}
	if len(res.Acquired) == 0 {
		return
	}
	p := f.part(at)
	p.Records = make([]byte, 0, size)
	for _, b := range res.Batches {
		p.Records = append(p.Records, b...)
	}
	for _, a := range res.Acquired {
		x := kmsg.NewShareFetchResponseTopicPartitionAcquiredRecord()
		x.FirstOffset, x.LastOffset, x.DeliveryCount = a.First, a.Last, a.DeliveryCount
		p.AcquiredRecords = append(p.AcquiredRecords, x)
		f.records += int(a.Last - a.First + 1)
	}
	f.size += size
}
