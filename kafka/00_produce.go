package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Produce, versions 3 to 13 (0 to 2 are named, see advertise, and refused). From
// 12 on a transactional batch makes its partition part of the transaction
// (KIP-890); 13 has topic ids.

const produceKey = 0

// Requests may be under way while the next ones are begun: see pipeline.go.
func init() { add(&api{key: produceKey, min: 3, max: 13, borrows: true, handle: nil}) }

// Versions in which the messages change.
const (
	produceZstd         = 7  // zstd is allowed (KIP-110)
	produceRecordErrors = 8  // errors say which records (KIP-467)
	produceFlexible     = 9  // tagged fields
	produceLeader       = 10 // errors say who leads (KIP-951)
	produceAbortable    = 11 // TRANSACTION_ABORTABLE is understood (KIP-890)
	produceAdds         = 12 // partitions are added to the transaction
	produceTopicIDs     = 13 // topics are named by their ids (KIP-516)
)

// producer is a produce request under way. A connection uses its memory again:
//
//	read              what the client sends
//	check             topics, permission, what a batch's header says
//	joinTransaction
//	append            or it is begun and finished: see pipeline.go
//	answer
type producer struct {
	transactionalID string
	transactional   bool // there is an id
	acks            int16
	timeout         time.Duration
	topics          []produceTopic
	parts           []producePart // of all topics, in their order
	ready           []*producePart
}

type produceTopic struct {
	name  string
	id    engine.TopicID
	parts int // how many
}

// producePart is one partition's batch, and what became of it.
type producePart struct {
	topic   int // in producer.topics
	index   int32
	records []byte
	batch   batchPeek
	part    *engine.Partition
	// verified is held while it was found that the partition is part of the transaction.
	verified *partition.Verification
	code     int16
	err      error
	result   partition.Result

	begun engine.Begun // when it is under way
	under bool
	done  bool // the outcome is there
}

// batchPeek is what of a batch's header the door itself looks at. The partition
// checks it whole.
type batchPeek struct {
	attributes log.Attributes
	producerID int64
	epoch      int16
}

func (h batchPeek) isZstd() bool { return h.attributes.Codec() == compress.Zstd }

// keptParts is how many partitions' memory a connection keeps.
const keptParts = 1024

// answer encodes the answer of a request whose batches have their outcomes, if there is
// to be one.
func (q *producer) answer(r *request) error {
	for i := range q.parts {
		if q.parts[i].code == codeNone {
			r.producedBytes += int64(len(q.parts[i].records))
		}
	}
	if q.acks == 0 {
		r.out.drop()
		// There is no other way to say that it went wrong.
		return q.firstError()
	}
	q.write(r)
	return nil
}

// read takes the request apart. Records stay where they are.
func (q *producer) read(r *request, body []byte) error {
	c := cursor{b: body, flexible: r.version >= produceFlexible}
	id, ok := c.text()
	q.transactionalID, q.transactional = string(id), ok
	q.acks = c.int16()
	q.timeout = time.Duration(c.int32()) * time.Millisecond
	leastTopic, leastPart := 2+4, 4+4
	switch {
	case r.version >= produceTopicIDs:
		leastTopic, leastPart = 16+1+1, 4+1+1
	case c.flexible:
		leastTopic, leastPart = 1+1+1, 4+1+1
	}
	q.topics, q.parts = q.topics[:0], q.parts[:0]
	for range c.array(leastTopic) {
		var t produceTopic
		if r.version >= produceTopicIDs {
			t.id = c.uuid()
		} else {
			t.name = r.conn.intern(c.name())
		}
		t.parts = c.array(leastPart)
		if len(q.parts)+t.parts > maxElements {
			return fmt.Errorf("more than %d partitions", maxElements)
		}
		if err := r.reserve(int64(t.parts) * int64(unsafe.Sizeof(producePart{}))); err != nil {
			return err
		}
		for range t.parts {
			index := c.int32()
			q.parts = append(q.parts, producePart{topic: len(q.topics), index: index, records: c.bytes()})
			c.tags()
		}
		c.tags()
		if !c.ok() {
			break
		}
		q.topics = append(q.topics, t)
	}
	c.tags()
	if !c.ok() {
		return errShortFrame
	}
	return nil
}

// forget lets go of what the request was about.
func (q *producer) forget() {
	clear(q.parts)
	clear(q.ready)
	if cap(q.parts) > keptParts || cap(q.topics) > keptParts {
		q.topics, q.parts, q.ready = nil, nil, nil
	}
}

// release lets go of what transactional batches were verified under.
func (q *producer) release() {
	for i := range q.parts {
		q.parts[i].verified.Release()
	}
}

// firstError is an error of any partition.
func (q *producer) firstError() error {
	for i := range q.parts {
		if p := &q.parts[i]; p.code != codeNone {
			return fmt.Errorf("a produce request without acknowledgement failed: error code %d: %w", p.code, p.err)
		}
	}
	return nil
}

func (p *producePart) fail(code int16, why string) { p.code, p.err = code, errors.New(why) }

// check finds the partitions, and judges what can be judged without them.
func (q *producer) check(r *request) {
	var last struct { // the parts of a topic lie side by side
		topic *engine.Topic
		code  int16
		err   error
	}
	at := -1
	for i := range q.parts {
		p := &q.parts[i]
		if p.topic != at {
			at = p.topic
			last.topic, last.code, last.err = q.findTopic(r, &q.topics[at])
		}
		if last.code != codeNone {
			p.code, p.err = last.code, last.err
			continue
		}
		if p.part, p.err = r.partition(last.topic, p.index); p.err != nil {
			p.code = codeOf(p.err)
			continue
		}
		if p.err = r.mustLead(p.part); p.err != nil {
			p.code = codeNotLeaderOrFollower // before it is made part of a transaction
			continue
		}
		q.checkBatch(r, p)
	}
	switch {
	case q.acks < -1 || q.acks > 1:
		q.failAll(codeInvalidRequiredAcks, fmt.Sprintf("acks is %d, allowed are -1, 0 and 1", q.acks))
	case q.hasTransactional() && (!q.transactional || !r.authorize(OpWrite, ResourceTransactionalID, q.transactionalID)):
		q.failAll(codeTransactionalIDAuthorizationFailed, "transactional records without an id that may be used")
	}
	q.refuseRepeated()
}

// findTopic finds a topic that the client may write to.
func (q *producer) findTopic(r *request, t *produceTopic) (*engine.Topic, int16, error) {
	var topic *engine.Topic
	var err error
	if r.version >= produceTopicIDs {
		if topic, err = r.topicByID(t.id); err != nil {
			if errors.Is(err, embedlog.ErrUnknownTopic) {
				return nil, codeUnknownTopicID, err
			}
			return nil, codeOf(err), err
		}
		t.name = topic.Name()
	}
	if !r.authorize(OpWrite, ResourceTopic, t.name) {
		return nil, codeTopicAuthorizationFailed, errors.New("not authorized to write to the topic")
	}
	if topic == nil {
		if topic, err = r.topic(t.name); err != nil {
			if bad := engine.CheckTopicName(t.name); bad != nil {
				err = bad
			}
			return nil, codeOf(err), err
		}
	}
	if topic.Internal() {
		return nil, codeInvalidTopicException, errors.New("the topic is internal: only the broker writes to it")
	}
	return topic, codeNone, nil
}

// checkBatch refuses what is not one batch of a client's records.
func (q *producer) checkBatch(r *request, p *producePart) {
	h, err := peekBatch(p.records)
	p.batch = h
	switch {
	case err != nil:
		p.code, p.err = codeInvalidRecord, err
	case h.attributes.Has(log.Control):
		p.fail(codeInvalidRecord, "clients do not write control records")
	case h.isZstd() && r.version < produceZstd:
		p.fail(codeUnsupportedCompressionType, "zstd needs version 7 of Produce")
	}
}

// Positions in a record batch, whose layout docs/format.md has.
const (
	batchLengthAt     = 8
	batchMagicAt      = 16
	batchAttributesAt = 21
	batchProducerAt   = 43
	batchEpochAt      = 51
	batchHeaderBytes  = 61
)

// peekBatch reads what the door looks at, of what claims to be one batch.
func peekBatch(b []byte) (h batchPeek, err error) {
	if len(b) <= batchMagicAt {
		return h, errors.New("no record batch")
	}
	if b[batchMagicAt] != 2 {
		return h, fmt.Errorf("message format %d: only record batches of format 2 are taken", int8(b[batchMagicAt]))
	}
	if len(b) < batchHeaderBytes {
		return h, errors.New("less than a record batch's header")
	}
	c := cursor{b: b[batchLengthAt:]}
	if size := int64(c.int32()) + batchLengthAt + 4; size < int64(len(b)) {
		return h, errors.New("more than one record batch for a partition")
	}
	c.b = b[batchAttributesAt:]
	h.attributes = log.Attributes(c.int16())
	c.b = b[batchProducerAt:]
	h.producerID, h.epoch = c.int64(), c.int16()
	return h, nil
}

func (q *producer) failAll(code int16, why string) {
	for i := range q.parts {
		q.parts[i].fail(code, why)
	}
}

func (p *producePart) isTransactional() bool {
	return p.code == codeNone && p.batch.attributes.Has(log.Transactional)
}

func (q *producer) hasTransactional() bool {
	for i := range q.parts {
		if q.parts[i].isTransactional() {
			return true
		}
	}
	return false
}

// refuseRepeated refuses a partition that the request names before: which of the two
// batches comes first is for nobody to guess.
func (q *producer) refuseRepeated() {
	if len(q.parts) < 2 {
		return
	}
	const few = 16
	if len(q.parts) > few {
		seen := make(map[*engine.Partition]struct{}, len(q.parts))
		for i := range q.parts {
			p := &q.parts[i]
			if p.code != codeNone {
				continue
			}
			if _, ok := seen[p.part]; ok {
				p.fail(codeInvalidRequest, "the request names the partition twice")
			}
			seen[p.part] = struct{}{}
		}
		return
	}
	for i := range q.parts {
		for j := range i {
			if p := &q.parts[i]; p.code == codeNone && q.parts[j].part == p.part {
				p.fail(codeInvalidRequest, "the request names the partition twice")
			}
		}
	}
}

// joinTransaction makes the partitions of transactional batches part of the
// transaction, or looks whether they are.
func (q *producer) joinTransaction(r *request) {
	if !q.hasTransactional() {
		return
	}
	// A marker that lands from here on is after what the coordinator says.
	for i := range q.parts {
		if p := &q.parts[i]; p.isTransactional() {
			p.verified = p.part.BeginVerification(p.batch.producerID)
		}
	}
	if r.version < produceAdds {
		for i := range q.parts {
			if p := &q.parts[i]; p.isTransactional() {
				p.verify(r, q.transactionalID)
			}
		}
		return
	}
	// A request has the batches of one producer. Were they of several, each is added by
	// itself and answered for itself.
	for i := range q.parts {
		first := &q.parts[i]
		if !first.isTransactional() || first.err != nil {
			continue
		}
		var list []engine.TopicPartitions
		same := q.ready[:0]
		for j := i; j < len(q.parts); j++ {
			p := &q.parts[j]
			if !p.isTransactional() || p.batch.producerID != first.batch.producerID || p.batch.epoch != first.batch.epoch {
				continue
			}
			if n := len(list); n == 0 || list[n-1].Topic != p.part.TopicID() {
				list = append(list, engine.TopicPartitions{Topic: p.part.TopicID()})
			}
			last := &list[len(list)-1]
			last.Partitions = append(last.Partitions, p.index)
			same = append(same, p)
			p.err = errAdded
		}
		err := r.engine.Txns().AddPartitions(r.life, q.transactionalID, first.batch.producerID, first.batch.epoch, list)
		if err != nil {
			for _, p := range same {
				p.code, p.err = p.codeOf(r, err), err
			}
		}
		q.ready = same[:0]
	}
	for i := range q.parts {
		if q.parts[i].err == errAdded {
			q.parts[i].err = nil
		}
	}
}

// errAdded marks a partition that was added to the transaction.
var errAdded = errors.New("added")

// verify refuses a batch that would begin a transaction that no coordinator knows of,
// and that nobody would end. While one is open here, the coordinator was asked before.
func (p *producePart) verify(r *request, id string) {
	if s, ok := p.part.ProducerState(p.batch.producerID); ok && s.TxnFirstOffset >= 0 && s.Epoch == p.batch.epoch {
		return
	}
	if err := r.engine.Txns().Verify(r.life, id, p.batch.producerID, p.batch.epoch, p.part.TopicID(), p.index); err != nil {
		p.code, p.err = p.codeOf(r, err), err
	}
}

// codeOf is the code for an error of a produce request: who was fenced hears that of
// a batch's epoch, not that of an id.
func (p *producePart) codeOf(r *request, err error) int16 {
	var state *engine.TxnStateError
	var ended *partition.InvalidTxnStateError
	switch code := codeOf(err); {
	case errors.As(err, &ended) && p.verified != nil && r.engine.Cluster() != nil:
		// A marker came while the batch was on its way. It may be one of the transaction before, which a coordinator
		// that has just come to be it has written again: a client that sends the batch again has it verified again.
		return codeNotEnoughReplicas
	case code == codeProducerFenced:
		return codeInvalidProducerEpoch
	case code == codeCoordinatorLoadInProgress:
		return codeNotEnoughReplicas // as in Kafka: clients try again
	case errors.As(err, &state) && r.version >= produceAbortable:
		return codeTransactionAbortable
	default:
		return code
	}
}

// produceAppend is how a batch is appended.
var produceAppend = partition.AppendOptions{FixMaxTimestamp: true}

// append appends the batches, side by side where each waits for the disk: what they
// wait for is then the same round of it.
func (q *producer) append(r *request) {
	q.ready = q.ready[:0]
	slow := false
	for i := range q.parts {
		if p := &q.parts[i]; p.code == codeNone {
			q.ready = append(q.ready, p)
			slow = slow || p.part.Log().Level() == log.Durable
		}
	}
	ctx, cancel := q.appendContext(r)
	if cancel != nil {
		defer cancel()
	}
	if slow && len(q.ready) > 1 {
		sideBySide(len(q.ready), func(i int) { q.ready[i].append(ctx, r) })
		return
	}
	for _, p := range q.ready {
		p.append(ctx, r)
	}
}

func (p *producePart) appendOptions(r *request) *partition.AppendOptions {
	if p.verified != nil {
		return &partition.AppendOptions{FixMaxTimestamp: true, Producer: &partition.Producer{TxnV2: r.version >= produceAdds, Verified: p.verified}}
	}
	return &produceAppend
}

func (p *producePart) append(ctx context.Context, r *request) {
	if p.result, p.err = p.part.AppendBatch(ctx, p.records, p.appendOptions(r)); p.err != nil {
		p.code = p.codeOf(r, p.err)
	}
}

// write encodes the answer.
func (q *producer) write(r *request) {
	e := encoder{r.out, r.version >= produceFlexible}
	e.array(len(q.topics))
	at := 0
	for i := range q.topics {
		t := &q.topics[i]
		if r.version >= produceTopicIDs {
			e.uuid(t.id)
		} else {
			e.text(t.name)
		}
		e.array(t.parts)
		for range t.parts {
			q.parts[at].write(r, e)
			at++
		}
		e.tags()
	}
	e.int32(r.throttled())
	if r.version < produceLeader {
		e.tags()
		return
	}
	r.writeEndpoints(e, q.leaders())
}

// leaders are the nodes that the answer names.
func (q *producer) leaders() (nodes []int32) {
	for i := range q.parts {
		if lost := leaderNow(q.parts[i].part, q.parts[i].err); lost != nil {
			nodes = append(nodes, lost.Leader)
		}
	}
	return nodes
}

func (p *producePart) write(r *request, e encoder) {
	e.int32(p.index)
	e.int16(p.code)
	if p.code == codeNone {
		e.int64(p.result.BaseOffset)
		e.int64(p.result.AppendTime)
	} else {
		e.int64(-1)
		e.int64(-1)
	}
	if r.version >= 5 {
		start := int64(-1)
		if p.code == codeNone {
			start = p.result.LogStart
		}
		e.int64(start)
	}
	if r.version >= produceRecordErrors {
		p.writeRecordErrors(e)
	}
	if lost := leaderNow(p.part, p.err); lost != nil && r.version >= produceLeader {
		writeLeader(e, 0, lost)
		return
	}
	e.tags()
}

// writeRecordErrors says which records of the batch were the reason. (KIP-467)
func (p *producePart) writeRecordErrors(e encoder) {
	if p.code == codeNone {
		e.array(0)
		e.nullText("")
		return
	}
	var invalid *partition.InvalidRecordError
	n := 0
	if errors.As(p.err, &invalid) {
		for _, rec := range invalid.Records {
			if rec.Index >= 0 {
				n++
			}
		}
	}
	e.array(n)
	if n > 0 {
		for _, rec := range invalid.Records {
			if rec.Index >= 0 {
				e.int32(int32(rec.Index))
				e.nullText(bounded(rec.Reason))
				e.tags()
			}
		}
	}
	e.nullText(bounded(p.err.Error()))
}

// writeLeader ends a structure with the tagged field that says who leads. (KIP-951)
func writeLeader(e encoder, tag int, lost *partition.NotLeaderError) {
	e.uvarint(1)
	e.uvarint(tag)
	e.uvarint(4 + 4 + 1)
	e.int32(lost.Leader)
	e.int32(lost.LeaderEpoch)
	e.uvarint(0)
}
