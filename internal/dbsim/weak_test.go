package dbsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/history"
)

// Topics below durable. What is acknowledged there is in the memory of a majority. A replica that stopped
// without order has no vote until it has caught up, so nothing is lost while fewer than a majority did. Where
// a majority did, nobody leads until the administrator says that they go on, and only then may something be
// lost, of which decided says what: what is known of records is kept here, and held against what is there in the end.
//
// These histories are not for history.Check, which knows no loss that is allowed.
var weakTopics = map[string]embedlog.Durability{"weak-os": embedlog.OS, "weak-interval": embedlog.Interval}

func (s *sim) weakKeys() (keys []history.Key) {
	for _, topic := range slices.Sorted(maps.Keys(weakTopics)) {
		keys = append(keys, history.Key{Topic: topic})
	}
	return keys
}

// known is that a record was at an offset: it was acknowledged, or read as committed. begun is when the call began
// that said so. A read that need not be linearizable may be of a replica that has not heard of a decision yet: there it
// is when the record was sent.
type known struct {
	at           history.Record
	begun, ended int64
	how          string
}

// dispatch is that a value was sent at a time, and may be there.
type dispatch struct {
	begun int64
	may   bool
}

// decision is one of the administrator's to go on with what is there.
type decision struct {
	begun, ended int64
	offset       int64 // whatever is elected then has what was committed below
}

// weak is what is known of the topics below durable.
type weak struct {
	mu        sync.Mutex
	known     map[history.Key][]known
	sent      map[history.Key]map[int64]dispatch // by value
	decisions map[history.Key][]*decision
	stuck     map[history.Key]time.Time // since when nobody leads
}

// mayBeLostLocked says whether a decision may have lost what was known at an offset by a call that began then.
func (w *weak) mayBeLostLocked(k history.Key, offset, begun int64) bool {
	return slices.ContainsFunc(w.decisions[k], func(d *decision) bool { return offset >= d.offset && begun <= d.ended })
}

func (w *weak) mayBeLost(k history.Key, offset, begun int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mayBeLostLocked(k, offset, begun)
}

func (w *weak) isKnown(k history.Key, n known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known == nil {
		w.known = map[history.Key][]known{}
	}
	w.known[k] = append(w.known[k], n)
}

// sends notes a value that may be there from then on, or is refused.
func (w *weak) sends(k history.Key, value int64, d dispatch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent == nil {
		w.sent = map[history.Key]map[int64]dispatch{}
	}
	if w.sent[k] == nil {
		w.sent[k] = map[int64]dispatch{}
	}
	w.sent[k][value] = d
}

func (w *weak) sentAt(k history.Key, value int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[k][value].begun
}

// newest is what is known of the highest offset, by calls that have ended.
func (w *weak) newest(k history.Key) (best known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	best.at.Offset = -1
	for _, n := range w.known[k] {
		if n.at.Offset > best.at.Offset && !w.mayBeLostLocked(k, n.at.Offset, n.begun) {
			best = n
		}
	}
	return best
}

// produceWeak sends records one after the other, as an idempotent producer or without.
func (c *client) produceWeak() {
	c.live(func() {
		var producer *embedlog.Producer
		if c.rnd.IntN(2) == 0 {
			var err error
			if producer, err = c.p.db.Producer(&embedlog.ProducerConfig{DeliveryTimeout: time.Duration(1+c.rnd.IntN(20)) * time.Second}); err != nil {
				c.note("make a producer", err)
				return
			}
			defer func() {
				if !c.p.dead.Load() {
					producer.Abort()
				}
			}()
		}
		for life := 10 + c.rnd.IntN(100); life > 0 && c.alive(); life-- {
			keys := c.weakKeys()
			if !c.sendWeak(producer, keys[c.rnd.IntN(len(keys))]) {
				return
			}
			c.pause(100 * time.Millisecond)
		}
	})
}

func (c *client) sendWeak(producer *embedlog.Producer, k history.Key) bool {
	ctx, cancel := c.limit(time.Duration(1+c.rnd.IntN(20)) * time.Second)
	defer cancel()
	value, begun := c.value(), c.now()
	c.weak.sends(k, value, dispatch{begun, true})
	rec := embedlog.Record{Topic: k.Topic, Value: text(value)}
	var at embedlog.Position
	var err error
	if producer != nil {
		done := make(chan error, 1)
		err = producer.Send(ctx, rec, func(p embedlog.Position, e error) {
			at = p
			done <- e
		})
		if err == nil {
			err = <-done
		}
	} else {
		var topic *embedlog.Topic
		if topic, err = c.p.db.Topic(k.Topic); err == nil {
			var list []embedlog.Position
			if list, err = topic.Produce(ctx, rec); err == nil {
				at = list[0]
			}
		}
	}
	ended := c.now()
	c.note("send below durable", err)
	c.trace("client %d at node %d: value %d to %v: %+v, %v", c.number, c.p.m.id, value, k, at, err)
	switch {
	case c.p.dead.Load():
	case err == nil:
		c.weak.isKnown(k, known{history.Record{Offset: at.Offset, Value: value}, begun, ended, "acknowledged"})
	case errors.Is(err, embedlog.ErrOutOfOrderSequence), errors.Is(err, embedlog.ErrFenced):
		// The records before it are gone.
		if !c.weak.mayBeLost(k, math.MaxInt64, 0) {
			c.problem("process %d at node %d, value %d to %v: %v", c.number, c.p.m.id, value, k, err)
		}
		return false
	case !errors.Is(err, embedlog.ErrUnknownOutcome):
		c.weak.sends(k, value, dispatch{begun, false})
	}
	return true
}

// readWeak reads on, at one node after the other, now and then so that all must be there that is known.
func (c *client) readWeak() {
	next := map[history.Key]int64{}
	for c.pause(300 * time.Millisecond) {
		if c.p = c.running(c.rnd); c.p == nil {
			continue
		}
		for _, k := range c.weakKeys() {
			linearizable := c.rnd.IntN(2) == 0
			want := c.weak.newest(k)
			from, begun := max(0, next[k]-4), c.now()
			if linearizable && want.at.Offset >= 0 {
				from = min(from, want.at.Offset)
			}
			ctx, cancel := c.limit(10 * time.Second)
			got, err := c.scan(ctx, k, &embedlog.ScanOptions{From: embedlog.AtOffset(from), Linearizable: linearizable})
			cancel()
			if c.p.dead.Load() {
				continue
			}
			c.note("read below durable", err)
			var outside *embedlog.OffsetOutOfRangeError
			if errors.As(err, &outside) {
				if linearizable && !c.weak.mayBeLost(k, from-1, 0) {
					c.problem("read of %v at node %d: %v", k, c.p.m.id, err)
				}
				next[k] = 0
			}
			if err == nil && linearizable && want.at.Offset >= 0 && !slices.Contains(got, want.at) && !c.weak.mayBeLost(k, want.at.Offset, want.begun) {
				c.problem("a linearizable read of %v at node %d has not value %d at offset %d, which was %s before: it has %v", k, c.p.m.id, want.at.Value, want.at.Offset, want.how, got)
			}
			for _, r := range got {
				n := known{r, begun, c.now(), fmt.Sprint("read at node ", c.p.m.id)}
				if !linearizable {
					n.begun = c.weak.sentAt(k, r.Value)
				}
				c.weak.isKnown(k, n)
				next[k] = max(next[k], r.Offset+1)
			}
		}
	}
}

// scan returns what is there of a partition.
func (c *client) scan(ctx context.Context, k history.Key, o *embedlog.ScanOptions) (list []history.Record, err error) {
	topic, err := c.p.db.Topic(k.Topic)
	if err != nil {
		return nil, err
	}
	o.Partitions = []int32{k.Partition}
	for rec, err := range topic.Scan(ctx, o) {
		if err != nil {
			return list, err
		}
		value, err := strconv.ParseInt(string(rec.Value), 10, 64)
		if err != nil {
			return list, err
		}
		list = append(list, history.Record{Offset: rec.Offset, Value: value})
	}
	return list, nil
}

// doubtWords are how a replica says that a person must decide.
const doubtWords = "embedlog cluster recover"

// status is what a process says of a partition.
func (p *process) status(k history.Key) (is embedlog.ReplicaStatus) {
	for _, st := range p.db.Cluster().Status() {
		if st.Topic == k.Topic && st.Partition == k.Partition {
			return st
		}
	}
	return is
}

// recover is the administrator, who looks for partitions that wait for a decision, and makes it. One who is
// patient waits until all is healed.
func (s *sim) recover(hasty bool) (name string) {
	if !hasty && s.down() > 0 {
		return ""
	}
	for _, k := range s.weakKeys() {
		p := s.doubts(k)
		if p == nil {
			delete(s.weak.stuck, k)
			continue
		}
		if s.weak.stuck == nil {
			s.weak.stuck = map[history.Key]time.Time{}
		}
		since, ok := s.weak.stuck[k]
		if !ok {
			s.weak.stuck[k] = time.Now()
		}
		if ok && time.Since(since) > 3*time.Second {
			s.decide(p, k)
			name = "recovery"
		}
	}
	return name
}

// doubts returns a process whose replica says that a person must decide, if nobody knows of a leader.
func (s *sim) doubts(k history.Key) (at *process) {
	for _, p := range s.processes() {
		st := p.status(k)
		if len(st.Members) == 0 {
			continue
		}
		if st.Leader > 0 {
			return nil
		}
		if strings.Contains(st.Reason, doubtWords) {
			at = p
		}
	}
	return at
}

// decide has a partition go on. Nothing crashes meanwhile, because this is the goroutine that lets things crash.
func (s *sim) decide(p *process, k history.Key) {
	d := &decision{begun: s.now(), ended: math.MaxInt64}
	tails, voters := s.tails(p, k)
	s.weak.mu.Lock()
	if s.weak.decisions == nil {
		s.weak.decisions = map[history.Key][]*decision{}
	}
	s.weak.decisions[k] = append(s.weak.decisions[k], d)
	s.weak.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.life, 10*time.Second)
	defer cancel()
	r, err := p.db.Cluster().Recover(ctx, k.Topic, k.Partition)
	s.trace("recovery of %v at node %d: %+v, %v; there were %+v", k, p.m.id, r, err, tails)
	s.weak.mu.Lock()
	defer s.weak.mu.Unlock()
	if errors.Is(err, embedlog.ErrNotRecoverable) {
		s.weak.decisions[k] = slices.DeleteFunc(s.weak.decisions[k], func(other *decision) bool { return other == d })
		return
	}
	d.offset, d.ended = survives(tails, voters, r.Doubted, err), s.now()
	delete(s.weak.stuck, k)
	s.mu.Lock()
	s.faults["recovery"]++
	s.mu.Unlock()
}

// tail is where the log of a member with a vote ends.
type tail struct {
	node         int32
	epoch, index uint64
	offset       int64
	down, doubts bool
}

// tails are those of a partition's members that may ever vote again, of so many voters.
func (s *sim) tails(at *process, k history.Key) (list []tail, voters int) {
	for _, st := range at.status(k).Members {
		m := s.machines[st.Node-1]
		if st.Voter {
			voters++
		}
		if !st.Voter || m.part.Load() == wasNode || m.lost.Load() {
			continue
		}
		t := tail{node: st.Node, down: true}
		if p := m.run.Load(); p != nil {
			if topic, err := p.db.Engine().Topic(k.Topic); err == nil {
				if part, err := topic.Partition(k.Partition); err == nil && !part.Elsewhere() {
					t.index, t.epoch = part.LastEntry()
					t.offset, t.down = part.LogEnd(), false
				}
			}
			t.doubts = strings.Contains(p.status(k).Reason, doubtWords)
		}
		list = append(list, t)
	}
	return list, voters
}

// survives is the offset below which all is still there, whoever is elected after a decision: whoever gets the votes of a
// majority has a log that is at least as new as each of theirs. Of those that were in doubt only doubted have a
// vote, unless the decision has failed midway. What a node has that is down nobody looks at.
func survives(tails []tail, voters int, doubted []int32, failed error) int64 {
	majority := voters/2 + 1
	var votes []tail
	for _, t := range tails {
		if t.down {
			t.offset = 0
		}
		if failed != nil || !t.doubts || slices.Contains(doubted, t.node) {
			votes = append(votes, t)
		}
	}
	slices.SortFunc(votes, func(a, b tail) int {
		if a.down != b.down {
			return map[bool]int{true: -1, false: 1}[a.down]
		}
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.index, b.index))
	})
	if len(votes) < majority {
		return 0
	}
	return votes[majority-1].offset
}

// finalWeak holds what was known against what is there in the end.
func (c *client) finalWeak(ctx context.Context) error {
	w := &c.weak
	total, decided := 0, 0
	for _, k := range c.weakKeys() {
		list, err := c.scan(ctx, k, &embedlog.ScanOptions{Linearizable: true})
		if err != nil {
			return err
		}
		w.mu.Lock()
		there, where := map[int64]int64{}, map[int64]int64{}
		for _, r := range list {
			d, sent := w.sent[k][r.Value]
			if !sent {
				c.problem("%v has value %d at offset %d, which nobody sent", k, r.Value, r.Offset)
			} else if !d.may {
				c.problem("%v has value %d at offset %d, which was refused", k, r.Value, r.Offset)
			}
			if other, twice := where[r.Value]; twice {
				c.problem("%v has value %d at the offsets %d and %d", k, r.Value, other, r.Offset)
			}
			there[r.Offset], where[r.Value] = r.Value, r.Offset
		}
		for _, n := range w.known[k] {
			if there[n.at.Offset] != n.at.Value && !w.mayBeLostLocked(k, n.at.Offset, n.begun) {
				c.problem("%v has not value %d at offset %d, which was %s between %v and %v, but %d; decided was %v", k, n.at.Value, n.at.Offset, n.how,
					time.Duration(n.begun), time.Duration(n.ended), there[n.at.Offset], decisions(w.decisions[k]))
			}
		}
		total += len(w.known[k])
		decided += len(w.decisions[k])
		w.mu.Unlock()
	}
	if total < 10 {
		return fmt.Errorf("%d records are known: the run proves little", total)
	}
	c.trace("%d records below durable are known, %d decisions were made", total, decided)
	return nil
}

func decisions(list []*decision) (text []string) {
	for _, d := range list {
		text = append(text, fmt.Sprintf("%v to %v: from %d on", time.Duration(d.begun), time.Duration(d.ended), d.offset))
	}
	return text
}
