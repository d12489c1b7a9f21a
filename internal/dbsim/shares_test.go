package dbsim

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/log"
)

const (
	shareGroup = "share"
	// shareLimit is how often a record is delivered at most: so often that a run does not come to it.
	shareLimit = 10
)

// delivery is what is known of a record of a share group.
type delivery struct {
	value int64
	count int16
	tried bool  // a member has said of it that it is done, and perhaps nobody heard it
	done  int64 // since then it is known to be
}

// shares is what members of the share group know together.
type shares struct {
	mu      sync.Mutex
	of      map[history.Key]map[int64]*delivery
	members int
}

// beginShares says where the group begins, and that it gets what is committed only.
func (s *sim) beginShares(ctx context.Context) error {
	return s.until(30*time.Second, func() error {
		p := s.running(s.rng)
		return p.db.Engine().Shares().AlterSettings(ctx, shareGroup, false, func(map[string]string) (map[string]string, error) {
			return map[string]string{"share.auto.offset.reset": "earliest", "share.isolation.level": "read_committed",
				"share.record.lock.duration.ms": "5000", "share.delivery.count.limit": strconv.Itoa(shareLimit), "share.session.timeout.ms": "10000"}, nil
		})
	})
}

// shareMember is a member of the share group at a node.
type shareMember struct {
	*client
	id    string
	epoch int32
	topic engine.TopicID
}

func (c *client) shareMember() (*shareMember, error) {
	topic, err := c.p.db.Engine().Topic(safeTopic)
	if err != nil {
		return nil, err
	}
	c.shares.mu.Lock()
	defer c.shares.mu.Unlock()
	c.shares.members++
	return &shareMember{client: c, id: fmt.Sprint("member-", c.shares.members), epoch: engine.JoinEpoch, topic: topic.ID()}, nil
}

// coordinator asks the coordinator, as a client of the Kafka door does: these calls are not passed on.
func (s *sim) coordinator(f func(e *engine.Engine) error) (err error) {
	err = errors.New("no node runs")
	for _, p := range s.processes() {
		err = f(p.db.Engine())
		if p.dead.Load() {
			return errors.New("it died meanwhile")
		}
		if !errors.Is(err, embedlog.ErrNotLeader) && !errors.Is(err, engine.ErrCoordinatorLoading) {
			return err
		}
	}
	return err
}

func (m *shareMember) heartbeat(ctx context.Context) (resp engine.HeartbeatResponse, err error) {
	err = m.coordinator(func(e *engine.Engine) error {
		resp, err = e.Groups().ShareHeartbeat(ctx, engine.ShareHeartbeatRequest{Group: shareGroup, MemberID: m.id, MemberEpoch: m.epoch, Topics: []string{safeTopic}})
		return err
	})
	return resp, err
}

// beat says that the member is there.
func (m *shareMember) beat(ctx context.Context) error {
	resp, err := m.heartbeat(ctx)
	switch {
	case err == nil:
		if resp.MemberEpoch < m.epoch && !m.p.dead.Load() {
			m.problem("member %s of the share group: its epoch goes from %d to %d", m.id, m.epoch, resp.MemberEpoch)
		}
		m.epoch = resp.MemberEpoch
	case errors.Is(err, engine.ErrUnknownMember), errors.Is(err, engine.ErrRebalance):
		m.epoch = engine.JoinEpoch
	}
	return err
}

// share is a member that accepts most of what it gets, rejects some, gives some back, and forgets some.
func (c *client) share() {
	c.live(func() {
		m, err := c.shareMember()
		if err != nil {
			c.note("member of a share group", err)
			return
		}
		for life := 10 + c.rnd.IntN(60); life > 0 && c.alive(); life-- {
			ctx, cancel := c.limit(time.Duration(1+c.rnd.IntN(10)) * time.Second)
			if life%5 == 0 || m.epoch == engine.JoinEpoch {
				c.note("heartbeat of a share group", m.beat(ctx))
			}
			if m.epoch != engine.JoinEpoch {
				c.note("share", m.work(ctx, int32(c.rnd.IntN(c.parts)), false))
			}
			cancel()
			c.pause(200 * time.Millisecond)
		}
		if !c.p.dead.Load() && c.rnd.IntN(2) == 0 {
			ctx, cancel := c.limit(5 * time.Second)
			m.epoch = engine.LeaveEpoch
			_, err := m.heartbeat(ctx)
			c.note("leave a share group", err)
			cancel()
		}
	})
}

// work gets some records, and says what became of them. The last member accepts all.
func (m *shareMember) work(ctx context.Context, part int32, last bool) error {
	begun := m.now()
	k := history.Key{Topic: safeTopic, Partition: part}
	s := m.p.db.Engine().Shares()
	most := 1 + 20*m.rnd.IntN(2)
	res, err := s.Acquire(ctx, engine.ShareRequest{Group: shareGroup, MemberID: m.id, Topic: m.topic, Partition: part, MaxRecords: most, Strict: m.rnd.IntN(2) == 0})
	if m.p.dead.Load() {
		return nil
	}
	if err != nil {
		return err
	}
	values, err := batchValues(res.Batches)
	if err != nil {
		m.problem("share group at node %d: records of %v: %v", m.p.m.id, k, err)
		return err
	}
	var acks []engine.Ack
	for _, a := range res.Acquired {
		for at := a.First; at <= a.Last; at++ {
			value, ok := values[at]
			if !ok {
				m.problem("share group at node %d: record %d of %v was acquired, and is not in the batches", m.p.m.id, at, k)
			}
			m.delivered(k, at, value, a.DeliveryCount, begun)
			if kind := m.rnd.IntN(20); last || kind > 2 {
				acks = append(acks, engine.Ack{First: at, Last: at, Types: []engine.AckType{engine.AckAccept}})
			} else if kind > 0 {
				acks = append(acks, engine.Ack{First: at, Last: at, Types: []engine.AckType{[]engine.AckType{engine.AckRelease, engine.AckReject}[kind-1]}})
			}
		}
	}
	if len(acks) == 0 {
		return nil
	}
	if m.rnd.IntN(10) == 0 && !last {
		m.pause(8 * time.Second) // perhaps until others have them
	}
	for _, a := range acks {
		if a.Types[0] != engine.AckRelease {
			m.tries(k, a.First)
		}
	}
	err = s.Acknowledge(ctx, engine.AckRequest{Group: shareGroup, MemberID: m.id, Topic: m.topic, Partition: part, Acks: acks})
	if err == nil && !m.p.dead.Load() {
		for _, a := range acks {
			if a.Types[0] != engine.AckRelease {
				m.isDone(k, a.First)
			}
		}
	}
	return err
}

// batchValues are the values in batches, by offset.
func batchValues(batches [][]byte) (map[int64]int64, error) {
	values := map[int64]int64{}
	for _, b := range batches {
		var r log.RecordReader
		if err := r.Reset(b, 0); err != nil {
			return nil, err
		}
		if r.Header().Attributes.Has(log.Control) {
			continue
		}
		for r.Next() {
			v, err := strconv.ParseInt(string(r.Record().Value), 10, 64)
			if err != nil {
				return nil, err
			}
			values[r.Record().Offset] = v
		}
		if err := r.Err(); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (c *client) deliveryLocked(k history.Key, at int64) *delivery {
	if c.shares.of == nil {
		c.shares.of = map[history.Key]map[int64]*delivery{}
	}
	if c.shares.of[k] == nil {
		c.shares.of[k] = map[int64]*delivery{}
	}
	d := c.shares.of[k][at]
	if d == nil {
		d = &delivery{}
		c.shares.of[k][at] = d
	}
	return d
}

// delivered notes a delivery, for which was asked at begun.
func (c *client) delivered(k history.Key, at, value int64, count int16, begun int64) {
	c.shares.mu.Lock()
	defer c.shares.mu.Unlock()
	d := c.deliveryLocked(k, at)
	if d.value != 0 && d.value != value {
		c.problem("share group at node %d: record %d of %v has value %d, and had %d", c.p.m.id, at, k, value, d.value)
	}
	if d.done != 0 && d.done < begun {
		c.problem("share group at node %d: record %d of %v is delivered (%d), and was done at %v", c.p.m.id, at, k, count, time.Duration(d.done))
	}
	if count < 1 || count > shareLimit {
		c.problem("share group at node %d: record %d of %v is delivered for the %dth time", c.p.m.id, at, k, count)
	}
	d.value, d.count = value, max(d.count, count)
}

func (c *client) tries(k history.Key, at int64) {
	c.shares.mu.Lock()
	defer c.shares.mu.Unlock()
	c.deliveryLocked(k, at).tried = true
}

func (c *client) isDone(k history.Key, at int64) {
	c.shares.mu.Lock()
	defer c.shares.mu.Unlock()
	if d := c.deliveryLocked(k, at); d.done == 0 {
		d.done = c.now()
	}
}

// shareRest is the last member, who accepts all that is left.
func (c *client) shareRest() error {
	ctx, cancel := context.WithTimeout(c.p.life, 3*time.Minute)
	defer cancel()
	m, err := c.shareMember()
	if err != nil {
		return err
	}
	return c.until(2*time.Minute, func() error {
		if err := m.beat(ctx); err != nil {
			return err
		}
		for part := range int32(c.parts) {
			if err := m.work(ctx, part, true); err != nil {
				return err
			}
		}
		var all []engine.ShareOffset
		err := c.coordinator(func(e *engine.Engine) (err error) {
			all, err = e.Shares().Offsets(ctx, shareGroup, nil)
			return err
		})
		if err != nil || len(all) < c.parts {
			return fmt.Errorf("offsets of %d partitions: %w", len(all), err)
		}
		for _, o := range all {
			if o.Lag != 0 {
				return fmt.Errorf("partition %d: done up to %d, %d are left, %w", o.Partition, o.Start, o.Lag, o.Err)
			}
		}
		return nil
	})
}

// shared says that each record was delivered until somebody said that it is done, and nothing but what is there.
func (c *client) shared(ctx context.Context) error {
	total := 0
	for part := range int32(c.parts) {
		k := history.Key{Topic: safeTopic, Partition: part}
		list, err := c.scan(ctx, k, &embedlog.ScanOptions{Linearizable: true})
		if err != nil {
			return err
		}
		c.shares.mu.Lock()
		there := map[int64]int64{}
		for _, r := range list {
			there[r.Offset] = r.Value
			if d := c.shares.of[k][r.Offset]; d == nil {
				c.problem("share group: record %d of %v was never delivered", r.Offset, k)
			} else if !d.tried && d.count < shareLimit {
				c.problem("share group: record %d of %v was delivered %d times, and nobody said that it is done", r.Offset, k, d.count)
			}
		}
		for at, d := range c.shares.of[k] {
			if there[at] != d.value {
				c.problem("share group: record %d of %v was delivered as %d, and is %d", at, k, d.value, there[at])
			}
			total++
		}
		c.shares.mu.Unlock()
	}
	if total < 10 {
		return fmt.Errorf("%d records were shared: the run proves little", total)
	}
	return nil
}
