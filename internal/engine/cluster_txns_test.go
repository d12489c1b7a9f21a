package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// txnClient is a producer of a Kafka client: what it was told it keeps, whatever becomes
// of nodes.
type txnClient struct {
	p     *peers
	id    string
	pid   int64
	epoch int16
	seq   map[int32]int32 // by partition
	v2    bool
}

func (c *txnClient) init(ctx context.Context) error {
	c.seq = map[int32]int32{}
	return c.again(ctx, func(e *Engine) (err error) {
		c.pid, c.epoch, err = e.Txns().InitProducer(ctx, InitRequest{TransactionalID: c.id, Timeout: time.Minute, ProducerID: -1, Epoch: -1})
		return err
	})
}

// again calls f until its outcome is known.
func (c *txnClient) again(ctx context.Context, f func(e *Engine) error) (err error) {
	for ctx.Err() == nil {
		err = c.p.somewhere(ctx, f)
		if !errors.Is(err, partition.ErrUnknownOutcome) && !errors.Is(err, ErrConcurrentTransactions) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// write adds the partition to the transaction, and a record to it.
func (c *txnClient) write(ctx context.Context, topic string, n int32, value string) error {
	t, err := c.p.open[1].Topic(topic)
	if err != nil {
		return err
	}
	if err := c.again(ctx, func(e *Engine) error {
		return e.Txns().AddPartitions(ctx, c.id, c.pid, c.epoch, []TopicPartitions{{Topic: t.ID(), Partitions: []int32{n}}})
	}); err != nil {
		return err
	}
	err = c.again(ctx, func(e *Engine) error {
		t, err := e.Topic(topic)
		if err != nil {
			return err
		}
		part, err := t.Partition(n)
		if err != nil {
			return err
		}
		v := part.BeginVerification(c.pid)
		defer v.Release()
		if !part.Leads() {
			return &partition.NotLeaderError{Leader: -1}
		}
		if err := e.Txns().Verify(ctx, c.id, c.pid, c.epoch, t.ID(), n); err != nil {
			return err
		}
		o := &partition.AppendOptions{Producer: &partition.Producer{ID: c.pid, Epoch: c.epoch, Sequence: c.seq[n], Transactional: true, TxnV2: c.v2, Verified: v}}
		_, err = part.Append(ctx, []log.Record{{Value: []byte(value)}}, o)
		return err
	})
	if err == nil {
		c.seq[n]++
	}
	return err
}

// offsets commits an offset of a group in the transaction.
func (c *txnClient) offsets(ctx context.Context, group string, topic TopicID, offset int64) error {
	if err := c.again(ctx, func(e *Engine) error { return e.Txns().AddOffsets(ctx, c.id, c.pid, c.epoch, group) }); err != nil {
		return err
	}
	return c.again(ctx, func(e *Engine) error {
		return e.Groups().TxnCommit(ctx, CommitRequest{Group: group, MemberEpoch: -1, Offsets: []OffsetCommit{{TopicID: topic, Offset: offset, LeaderEpoch: -1}}}, c.pid, c.epoch)
	})
}

// end ends the transaction, however often it has to ask.
func (c *txnClient) end(ctx context.Context, commit bool) error {
	var pid int64
	var epoch int16
	err := c.again(ctx, func(e *Engine) (err error) {
		if !c.v2 {
			return e.Txns().EndV1(ctx, c.id, c.pid, c.epoch, commit)
		}
		pid, epoch, err = e.Txns().End(ctx, c.id, c.pid, c.epoch, commit)
		return err
	})
	if err == nil && c.v2 {
		if pid != c.pid || epoch != c.epoch {
			c.seq = map[int32]int32{}
		}
		c.pid, c.epoch = pid, epoch
	}
	return err
}

// committed are the values that a reader of committed records gets.
func (p *peers) committed(topic string, n int32) (values []string) {
	p.t.Helper()
	err := p.somewhere(ctx, func(e *Engine) error {
		t, err := e.Topic(topic)
		if err != nil {
			return err
		}
		part, err := t.Partition(n)
		if err != nil {
			return err
		}
		if !part.Leads() {
			return &partition.NotLeaderError{Leader: -1}
		}
		if part.LastStable() != part.HighWatermark() {
			time.Sleep(time.Millisecond)
			return ErrCoordinatorLoading // a marker is on its way
		}
		r, err := part.ReadFrom(0, &partition.ReaderOptions{Isolation: partition.ReadCommitted})
		if err != nil {
			return err
		}
		for {
			b, err := r.TryNext()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			for rec, err := range b.Records(0) {
				if err != nil {
					return err
				}
				values = append(values, string(rec.Value))
			}
		}
	})
	if err != nil {
		p.t.Fatalf("%s/%d: %v", topic, n, err)
	}
	return values
}

// Transactions over moves of their coordinator, of the partitions that they write to and
// of the groups' offsets: what was committed is there once, what was aborted is not, no
// transaction stays open, and who was replaced is fenced.
func TestTransactionsFollowTheirCoordinator(t *testing.T) {
	seed := rand.Uint64() >> 1
	for i := range testcount.N(4) {
		txnsFollow(t, seed+uint64(i))
	}
}

func txnsFollow(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	fatal := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s", seed, fmt.Sprintf(format, args...))
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p := newPeers(t, 3)
	const parts = 3
	id := p.create("orders", parts, 0).ID()
	var clients []*txnClient
	for i := range 2 {
		c := &txnClient{p: p, id: fmt.Sprint("client ", i), v2: i == 0}
		if err := c.init(ctx); err != nil {
			fatal("init: %v", err)
		}
		if err := c.offsets(ctx, "g", id, 0); err != nil {
			fatal("offsets: %v", err)
		}
		if err := c.end(ctx, false); err != nil {
			fatal("abort: %v", err)
		}
		clients = append(clients, c)
	}
	p.known("__transaction_state")
	p.known("__consumer_offsets")
	move := func() {
		node := rnd.Int32N(3) + 1
		switch rnd.IntN(6) {
		case 0:
			p.lead("__transaction_state", 0, node)
		case 1:
			p.lead("__consumer_offsets", 0, node)
		case 2:
			p.lead("orders", rnd.Int32N(parts), node)
		}
	}
	want := map[string]bool{} // committed or not
	offset := int64(-1)
	for step := range 25 {
		c := clients[rnd.IntN(len(clients))]
		if rnd.IntN(8) == 0 {
			// Another process takes the id over; the one before is fenced.
			zombie := *c
			zombie.seq = map[int32]int32{}
			open := rnd.IntN(2) == 0
			if open {
				if err := c.write(ctx, "orders", 0, fmt.Sprint(step, " zombie")); err != nil {
					fatal("step %d: write: %v", step, err)
				}
			}
			move()
			if err := c.init(ctx); err != nil {
				fatal("step %d: init again: %v", step, err)
			}
			move()
			if err := zombie.end(ctx, true); !errors.Is(err, partition.ErrFenced) && !errors.Is(err, ErrProducerMapping) {
				fatal("step %d: the end of one who was replaced: %v", step, err)
			}
			if err := zombie.write(ctx, "orders", 1, "of a zombie"); err == nil {
				fatal("step %d: one who was replaced writes", step)
			}
		}
		commit := rnd.IntN(3) > 0
		n := 1 + rnd.IntN(4)
		for i := range n {
			move()
			value := fmt.Sprint(step, " ", i)
			if err := c.write(ctx, "orders", rnd.Int32N(parts), value); err != nil {
				fatal("step %d: write: %v", step, err)
			}
			want[value] = commit
		}
		if rnd.IntN(2) == 0 {
			move()
			if err := c.offsets(ctx, "g", id, int64(step)); err != nil {
				fatal("step %d: offsets: %v", step, err)
			}
			if commit {
				offset = int64(step)
			}
		}
		move()
		if err := c.end(ctx, commit); err != nil {
			fatal("step %d: end: %v", step, err)
		}
		move()
	}
	var got []string
	for n := range int32(parts) {
		got = append(got, p.committed("orders", n)...)
	}
	slices.Sort(got)
	var all []string
	for v, there := range want {
		if there {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	if !slices.Equal(got, all) {
		fatal("committed are\n%s\nwant\n%s", strings.Join(got, "|"), strings.Join(all, "|"))
	}
	var offsets []CommittedOffset
	if err := p.somewhere(ctx, func(e *Engine) (err error) {
		offsets, err = e.Groups().Committed(ctx, "g", nil, true)
		return err
	}); err != nil {
		fatal("committed offsets: %v", err)
	}
	if offset >= 0 && (len(offsets) != 1 || offsets[0].Offset != offset) {
		fatal("committed offset %+v, want %d", offsets, offset)
	}
}
