package kafka

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/partition"
)

// Fetch, versions 4 to 18. Sessions (KIP-227) are declined with session id 0, and
// clients then send each request whole. From 13 on topics are named by their ids.

const fetchKey = 1

func init() { registerRaw(fetchKey, 4, 18, fetch) }

// Versions in which the messages change.
const (
	fetchLogStart  = 5
	fetchSession   = 7  // sessions; an error for the request as a whole
	fetchEpoch     = 9  // the leader epoch that the client knows (KIP-320)
	fetchZstd      = 10 // zstd is allowed (KIP-110)
	fetchRack      = 11 // reading from followers (KIP-392)
	fetchFlexible  = 12 // tagged fields; diverging epochs (KIP-595)
	fetchTopicIDs  = 13 // (KIP-516)
	fetchReplica   = 15 // the replica's id has become a tagged field (KIP-903)
	fetchEndpoints = 16 // errors say who leads (KIP-951)
)

// fetcher is a fetch request under way. A connection uses its memory again.
//
//	read     what the client wants
//	check    topics, permission, epochs
//	gather   batches of each partition, up to the limits
//	         until there are MinBytes, something is wrong, or MaxWait is over:
//	           wait for one of the partitions to get more, gather of those
//	write
//
// What was gathered stays while more is waited for, so that no byte is read twice.
type fetcher struct {
	maxWait            time.Duration
	minBytes, maxBytes int
	isolation          partition.Isolation
	topics             []fetchTopic
	parts              []fetchPart // of all topics, in their order
	size               int         // of the batches gathered
	wrong              bool        // a partition has an answer that is not to wait
	waiter             *partition.Waiter
	timer              *time.Timer
	rack               bool // the client has one, and may read from followers (KIP-392)
	places             fetchPlaces
	memory             fetchMemory
	found              [][]byte // by one partition; between fetches it is empty
}

type fetchTopic struct {
	name  string
	id    engine.TopicID
	parts int // how many
}

// fetchPart is one partition, and what was found in it.
type fetchPart struct {
	topic       int // in fetcher.topics
	index       int32
	leaderEpoch int32 // that the client knows; -1 none
	lastEpoch   int32 // of the record before offset; -1 unknown
	offset      int64 // where the client goes on
	maxBytes    int

	part    *engine.Partition
	code    int16
	err     error
	diverge bool // endEpoch and end say where the client's log and ours part
	epoch   int32
	end     int64
	next    int64 // behind what was gathered
	size    int
	batches [][]byte
	aborted []partition.AbortedTxn

	highWatermark, lastStable, logStart int64

	wait  partition.Wait
	woken bool // there may be more than was gathered
	more  bool // there is, as far as the partition's bounds say
	done  bool // but nothing more can be had for this answer
}

func fetch(r *request, body []byte) error {
	q := &r.conn.fetch
	session, err := q.read(r, body)
	if err != nil {
		return r.failed(err)
	}
	defer q.forget()
	if session != codeNone {
		q.topics, q.parts = q.topics[:0], q.parts[:0]
		q.write(r, session)
		return nil
	}
	for i := range q.parts {
		q.parts[i].woken = true
	}
	q.check(r)
	q.gather(r)
	if q.size < q.minBytes && !q.wrong && q.maxWait > 0 && len(q.parts) > 0 {
		q.await(r)
	}
	r.fetchedBytes = int64(q.size)
	q.write(r, codeNone)
	return nil
}

// read takes the request apart. It returns an error code for sessions that there
// are none of.
func (q *fetcher) read(r *request, body []byte) (session int16, err error) {
	c := cursor{b: body, flexible: r.version >= fetchFlexible}
	if r.version < fetchReplica {
		c.int32() // the replica's id: there are none
	}
	q.maxWait = min(time.Duration(max(c.int32(), 0))*time.Millisecond, r.srv.limits.IdleTimeout)
	q.minBytes, q.maxBytes = int(c.int32()), int(c.int32())
	q.maxBytes = min(max(q.maxBytes, 0), r.srv.limits.FetchBytes)
	q.minBytes = min(q.minBytes, q.maxBytes)
	q.isolation = partition.ReadUncommitted
	if c.int8() == 1 {
		q.isolation = partition.ReadCommitted
	}
	if r.version >= fetchSession {
		// Epoch 0 asks for a session and -1 for none; what goes on with one that was never
		// given is an error.
		if id, epoch := c.int32(), c.int32(); epoch > 0 {
			session = codeFetchSessionIDNotFound
		} else if id != 0 && epoch == 0 {
			session = codeNone // it lets go of an old one, and asks for another
		}
	}
	leastTopic, leastPart := 2+4, 4+8+4
	switch {
	case r.version >= fetchTopicIDs:
		leastTopic, leastPart = 16+1+1, 4+4+8+4+8+4+1
	case c.flexible:
		leastTopic, leastPart = 1+1+1, 4+4+8+4+8+4+1
	}
	q.rack = false
	q.topics, q.parts = q.topics[:0], q.parts[:0]
	for range c.array(leastTopic) {
		var t fetchTopic
		if r.version >= fetchTopicIDs {
			t.id = c.uuid()
		} else {
			t.name = r.conn.intern(c.name())
		}
		t.parts = c.array(leastPart)
		if len(q.parts)+t.parts > maxElements {
			return 0, fmt.Errorf("more than %d partitions", maxElements)
		}
		if err := r.reserve(int64(t.parts) * int64(unsafe.Sizeof(fetchPart{}))); err != nil {
			return 0, err
		}
		for range t.parts {
			p := q.grow()
			p.topic, p.index, p.leaderEpoch, p.lastEpoch = len(q.topics), c.int32(), -1, -1
			if r.version >= fetchEpoch {
				p.leaderEpoch = c.int32()
			}
			p.offset = c.int64()
			if r.version >= fetchFlexible {
				p.lastEpoch = c.int32()
			}
			if r.version >= fetchLogStart {
				c.int64() // the follower's log start offset
			}
			p.maxBytes = int(max(c.int32(), 0))
			p.next = p.offset
			p.highWatermark, p.lastStable, p.logStart = -1, -1, -1
			c.tags()
		}
		c.tags()
		if !c.ok() {
			break
		}
		q.topics = append(q.topics, t)
	}
	if r.version >= fetchSession {
		skipForgotten(&c, r.version)
	}
	if r.version >= fetchRack {
		q.rack = len(c.name()) > 0
	}
	c.tags()
	if !c.ok() {
		return 0, errShortFrame
	}
	return session, nil
}

// skipForgotten passes over the topics that a session is to forget.
func skipForgotten(c *cursor, version int16) {
	least := 2 + 4
	switch {
	case version >= fetchTopicIDs:
		least = 16 + 1 + 1
	case c.flexible:
		least = 1 + 1 + 1
	}
	for range c.array(least) {
		if version >= fetchTopicIDs {
			c.uuid()
		} else {
			c.name()
		}
		c.take(4 * c.array(4))
		c.tags()
		if !c.ok() {
			return
		}
	}
}

// grow returns the next part, empty, with the memory that it had in an earlier request.
func (q *fetcher) grow() *fetchPart {
	if n := len(q.parts); n < cap(q.parts) {
		q.parts = q.parts[:n+1]
	} else {
		q.parts = append(q.parts, fetchPart{})
	}
	p := &q.parts[len(q.parts)-1]
	*p = fetchPart{batches: p.batches[:0], aborted: p.aborted[:0]}
	return p
}

// keptBatches is how many batches' memory a partition of a connection keeps.
const keptBatches = 64

// forget lets go of what the request was about.
func (q *fetcher) forget() {
	for i := range q.parts {
		p := &q.parts[i]
		p.wait.Disarm()
		clear(p.batches)
		if cap(p.batches) > keptBatches || cap(p.aborted) > keptBatches {
			p.batches, p.aborted = nil, nil
		}
		p.part, p.err = nil, nil
	}
	if cap(q.parts) > keptParts || cap(q.topics) > keptParts {
		q.topics, q.parts = nil, nil
	}
	if cap(q.found) > keptPieces {
		q.found = nil
	}
	q.size, q.wrong = 0, false
}

// check finds the partitions, and judges the epochs that the client knows.
func (q *fetcher) check(r *request) {
	var last struct { // the parts of a topic lie side by side
		topic *engine.Topic
		code  int16
	}
	at := -1
	for i := range q.parts {
		p := &q.parts[i]
		if p.topic != at {
			at = p.topic
			last.topic, last.code = q.findTopic(r, &q.topics[at])
		}
		p.code = last.code
		if p.code == codeNone {
			p.part, p.err = r.partition(last.topic, p.index)
			p.code = codeOf(p.err)
		}
		if p.code == codeNone {
			q.checkLeader(r, p)
		}
		if p.code == codeNone {
			p.code = r.checkLeaderEpoch(p.part, p.leaderEpoch)
		}
		if p.code == codeNone {
			p.checkDivergence(r)
		}
		q.wrong = q.wrong || p.code != codeNone || p.diverge
	}
}

// findTopic finds a topic that the client may read.
func (q *fetcher) findTopic(r *request, t *fetchTopic) (*engine.Topic, int16) {
	if r.version >= fetchTopicIDs {
		topic, err := r.topicByID(t.id)
		if errors.Is(err, embedlog.ErrUnknownTopic) {
			return nil, codeUnknownTopicID
		}
		if err != nil {
			return nil, codeOf(err)
		}
		t.name = topic.Name()
		if !r.authorize(OpRead, ResourceTopic, t.name) {
			return nil, codeTopicAuthorizationFailed
		}
		return topic, codeNone
	}
	if !r.authorize(OpRead, ResourceTopic, t.name) {
		return nil, codeTopicAuthorizationFailed
	}
	topic, err := r.topic(t.name)
	return topic, codeOf(err)
}

// checkLeaderEpoch judges the leader epoch that a client believes in; -1 is none.
// One that is older has to learn what it missed, one that is newer we have to. (KIP-320)
func (r *request) checkLeaderEpoch(p *engine.Partition, known int32) int16 {
	switch _, now := r.leaderOf(p); {
	case known < 0 || known == now:
		return codeNone
	case known < now:
		return codeFencedLeaderEpoch
	default:
		return codeUnknownLeaderEpoch
	}
}

// checkLeader refuses what another node has to be asked for. A follower is read from by
// who has said where he is, up to what it knows to be committed. (KIP-392)
func (q *fetcher) checkLeader(r *request, p *fetchPart) {
	err := r.mustLead(p.part)
	switch {
	case err == nil:
	case !q.rack || p.part.Replicated() == nil:
		p.code, p.err = codeNotLeaderOrFollower, err
	case p.offset > p.part.HighWatermark():
		p.code, p.err = codeOffsetNotAvailable, err // the leader may have it
	}
}

// checkDivergence says where the client's log and ours part, when the record before
// the one it asks for is not the one it had. (KIP-595)
func (p *fetchPart) checkDivergence(r *request) {
	if p.lastEpoch < 0 {
		return
	}
	if r.mustLead(p.part) == nil {
		if err := r.mustKnow(p.part); err != nil {
			p.code, p.err = codeNotLeaderOrFollower, err // it does before long
			return
		}
	}
	epoch, end := p.part.EpochEnd(p.lastEpoch)
	switch {
	case epoch < 0 || end < 0, p.offset < p.part.LogStart():
		p.code = codeOffsetOutOfRange
	case epoch < p.lastEpoch || end < p.offset:
		p.diverge, p.epoch, p.end = true, epoch, end
		p.highWatermark, p.lastStable, p.logStart = p.part.HighWatermark(), p.part.LastStable(), p.part.LogStart()
	}
}

// gather reads from the partitions that may have more, as far as the limits allow.
func (q *fetcher) gather(r *request) {
	for i := range q.parts {
		p := &q.parts[i]
		if !p.woken || p.code != codeNone || p.diverge {
			continue
		}
		before, more := p.next, p.more
		p.woken, p.more = false, false
		q.gatherPart(r, p)
		// What comes next does not fit, or was compacted away: asking again would go round
		// for ever.
		p.done = more && p.next == before
		q.wrong = q.wrong || p.code != codeNone
	}
}

// gatherPart reads from one partition. The first batch of the answer comes whatever
// its size, or a client could never get past it; any other has to fit.
func (q *fetcher) gatherPart(r *request, p *fetchPart) {
	room := min(p.maxBytes-p.size, q.maxBytes-q.size)
	first := q.size == 0
	if room <= 0 && !first {
		// What there is to say is said all the same.
		p.highWatermark, p.lastStable, p.logStart = p.part.HighWatermark(), p.part.LastStable(), p.part.LogStart()
		return
	}
	granted := r.srv.memory.take(int64(max(room, 0)), 0)
	if granted == 0 && !first {
		q.wrong = true // memory is short: the client gets what there is, and asks again
		return
	}
	res, err := p.part.Fetch(r.life, partition.FetchRequest{
		Offset: p.next, MaxBytes: int(max(granted, 1)), Isolation: q.isolation,
		Place: q.places.of(p.part), Memory: q.memory.get, Batches: q.found,
	})
	if errors.Is(err, embedlog.ErrOffsetOutOfRange) && p.next > p.part.LogEnd() {
		err = r.confirmEnd(p.part, err)
	}
	q.found = res.Batches[:0]
	defer clear(res.Batches)
	size := 0
	for _, b := range res.Batches {
		size += len(b)
	}
	if err == nil && !first && size > room && len(res.Batches) == 1 {
		res.Batches, res.Next, size = nil, p.next, 0
	}
	if over := int64(size) - granted; over > 0 {
		granted += r.srv.memory.take(over, over)
	} else {
		r.srv.memory.release(-over)
		granted = int64(size)
	}
	r.reserved += granted
	if err != nil {
		p.code, p.err = fetchCode(err), err
		return
	}
	if r.version < fetchZstd && hasZstd(res.Batches) {
		p.code = codeUnsupportedCompressionType
		return
	}
	p.highWatermark, p.lastStable, p.logStart = res.HighWatermark, res.LastStable, res.LogStart
	p.batches = append(p.batches, res.Batches...)
	p.next = res.Next
	p.size += size
	q.size += size
	for _, a := range res.Aborted {
		p.addAborted(a)
	}
}

// addAborted notes an aborted transaction, once: one that goes on over several reads
// is reported by each.
func (p *fetchPart) addAborted(a partition.AbortedTxn) {
	for _, have := range p.aborted {
		if have == a {
			return
		}
	}
	p.aborted = append(p.aborted, a)
}

// fetchCode is the code for an error of reading. Damage is not something to wait for:
// the client has to hear that its records are not there.
func fetchCode(err error) int16 {
	if errors.Is(err, embedlog.ErrCorrupt) {
		return codeCorruptMessage
	}
	return codeOf(err)
}

func hasZstd(batches [][]byte) bool {
	for _, b := range batches {
		if h, err := peekBatch(b); err == nil && h.isZstd() {
			return true
		}
	}
	return false
}

// await waits until the partitions have as much as the client asked for, something
// is wrong with one, or the time is over. Nobody polls: a partition wakes its waits.
func (q *fetcher) await(r *request) {
	if q.waiter == nil {
		q.waiter = partition.NewWaiter()
		q.timer = time.NewTimer(q.maxWait)
	} else {
		q.timer.Reset(q.maxWait)
	}
	defer q.timer.Stop()
	for q.size < q.minBytes && !q.wrong {
		if q.arm() {
			q.gather(r)
			continue
		}
		began, more := time.Now(), false
		select {
		case <-q.waiter.C():
			more = true
		case <-q.timer.C:
		case <-r.ctx.Done():
		}
		if r.waited(began); !more {
			return
		}
		for w := q.waiter.Next(); w != nil; w = q.waiter.Next() {
			w.Value.(*fetchPart).woken = true
		}
		q.gather(r)
	}
}

// arm has the partitions without more wake us. It returns true when one has more
// already.
func (q *fetcher) arm() (more bool) {
	for i := range q.parts {
		p := &q.parts[i]
		if p.wait.Armed() || p.full(q) {
			continue
		}
		p.wait.Value = p
		if !p.wait.Arm(q.waiter, p.part.Partition, p.next, q.isolation) {
			p.woken, p.more, more = true, true, true
		}
	}
	return more
}

// full says that nothing more of the partition fits.
func (p *fetchPart) full(q *fetcher) bool {
	return p.done || p.size >= p.maxBytes && q.size > 0 || q.size >= q.maxBytes
}

// write encodes the answer. What says how long the client is to wait depends on how
// much it gets, and stands before it.
func (q *fetcher) write(r *request, code int16) {
	e := encoder{r.out, r.version >= fetchFlexible}
	e.int32(r.throttled())
	if r.version >= fetchSession {
		e.int16(code)
		e.int32(0) // no session
	}
	e.array(len(q.topics))
	at := 0
	for i := range q.topics {
		t := &q.topics[i]
		if r.version >= fetchTopicIDs {
			e.uuid(t.id)
		} else {
			e.text(t.name)
		}
		e.array(t.parts)
		for range t.parts {
			q.parts[at].write(r, e, q.isolation)
			at++
		}
		e.tags()
	}
	if r.version < fetchEndpoints {
		e.tags()
		return
	}
	r.writeEndpoints(e, q.leaders())
}

// leaders are the nodes that the answer names.
func (q *fetcher) leaders() (nodes []int32) {
	for i := range q.parts {
		p := &q.parts[i]
		if p.code != codeNotLeaderOrFollower && p.code != codeFencedLeaderEpoch || p.part == nil {
			continue
		}
		if node, _ := p.part.Leader(); node >= 0 {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

func (p *fetchPart) write(r *request, e encoder, isolation partition.Isolation) {
	e.int32(p.index)
	e.int16(p.code)
	e.int64(p.highWatermark)
	e.int64(p.lastStable)
	if r.version >= fetchLogStart {
		e.int64(p.logStart)
	}
	if isolation == partition.ReadCommitted {
		e.array(len(p.aborted))
		for _, a := range p.aborted {
			e.int64(a.ProducerID)
			e.int64(a.FirstOffset)
			e.tags()
		}
	} else {
		e.array(-1)
	}
	if r.version >= fetchRack {
		e.int32(-1) // no replica that would be better
	}
	if p.code != codeNone {
		p.size, p.batches = 0, p.batches[:0]
	}
	e.array(p.size)
	for _, b := range p.batches {
		e.borrow(b)
	}
	p.writeTags(r, e)
}

func (p *fetchPart) writeTags(r *request, e encoder) {
	if !e.flexible {
		return
	}
	lost := leaderNow(p.part, p.err)
	switch {
	case p.diverge:
		e.uvarint(1)
		e.uvarint(0)
		e.uvarint(4 + 8 + 1)
		e.int32(p.epoch)
		e.int64(p.end)
		e.uvarint(0)
	case lost != nil && p.code == codeNotLeaderOrFollower:
		writeLeader(e, 1, lost)
	case p.code == codeFencedLeaderEpoch && r.version >= fetchEndpoints:
		node, epoch := r.leaderOf(p.part)
		writeLeader(e, 1, &partition.NotLeaderError{Leader: node, LeaderEpoch: epoch})
	default:
		e.tags()
	}
}
