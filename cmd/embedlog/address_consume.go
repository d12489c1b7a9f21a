package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/sock"
)

// kafkaConsumer is a session's consumer.
type kafkaConsumer struct {
	cl   *kgo.Client
	spec sock.Consumer
	// broken is what was found behind the records of the last poll.
	broken error

	mu sync.Mutex
	// at is where reading stands in each partition that is this consumer's; -1 where
	// nothing was read yet, and a group knows. The epoch is that of what was read last.
	at map[sock.TopicPartition]kgo.EpochOffset
	// joined says that the group has answered, perhaps with no partition; since counts how
	// often lag was asked for since then.
	joined bool
	since  int
}

func (k *kafkaDoor) openConsumer(ctx context.Context, q sock.Consumer) (none, error) {
	k.closeConsumer()
	if q.SkipDamage {
		return none{}, &sock.Error{Code: sock.CodeInvalid, Message: "--skip-damage looks into the files of a database: give --data DIR, not --address"}
	}
	c := &kafkaConsumer{spec: q, at: make(map[sock.TopicPartition]kgo.EpochOffset)}
	start := kgo.NewOffset().AtStart()
	if q.FromLatest {
		start = kgo.NewOffset().AtEnd()
	}
	opts := append(k.opts[:len(k.opts):len(k.opts)],
		kgo.ConsumeStartOffset(start), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords(), // they tell how far reading has got
		kgo.KeepRetryableFetchErrors(), kgo.FetchMaxWait(pollWait), kgo.WithHooks(&connectionNotes{app: k.app}),
	)
	if !q.ReadUncommitted {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if q.Group == "" {
		assign := make(map[string]map[int32]kgo.Offset)
		for _, p := range q.Assign {
			if assign[p.Topic] == nil {
				assign[p.Topic] = make(map[int32]kgo.Offset)
			}
			assign[p.Topic][p.Partition] = kgo.NewOffset().At(p.Offset)
			c.at[sock.TopicPartition{Topic: p.Topic, Partition: p.Partition}] = kgo.EpochOffset{Epoch: p.Epoch, Offset: p.Offset}
		}
		opts = append(opts, kgo.ConsumePartitions(assign))
	} else {
		topics := q.Topics
		if q.Pattern != "" {
			topics = []string{"^(?:" + q.Pattern + ")$"}
			opts = append(opts, kgo.ConsumeRegex())
		} else if err := k.checkTopics(ctx, topics); err != nil {
			return none{}, err
		}
		opts = append(opts, kgo.ConsumerGroup(q.Group), kgo.ConsumeTopics(topics...), kgo.AutoCommitInterval(time.Second),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { c.assigned(p) }),
			kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { c.revoked(p) }),
			kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, p map[string][]int32) {
				// As the client does by itself where there is no callback: what was asked past.
				_ = cl.CommitMarkedOffsets(ctx) // at worst records come again
				c.revoked(p)
			}),
			kgo.AutoCommitMarks())
	}
	var err error
	if c.cl, err = kgo.NewClient(opts...); err != nil {
		return none{}, err
	}
	k.consumer = c
	return none{}, nil
}

// checkTopics says which topic is not there: a group would wait for it.
func (k *kafkaDoor) checkTopics(ctx context.Context, topics []string) error {
	m, err := k.admin.Metadata(ctx, topics...)
	if err != nil {
		return err
	}
	for _, name := range topics {
		if err := topicError(name, m.Topics[name].Err); err != nil {
			return err
		}
	}
	return nil
}

func (c *kafkaConsumer) assigned(parts map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined, c.since = true, 0
	for topic, list := range parts {
		for _, p := range list {
			c.at[sock.TopicPartition{Topic: topic, Partition: p}] = kgo.EpochOffset{Epoch: -1, Offset: -1}
		}
	}
}

func (c *kafkaConsumer) revoked(parts map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, list := range parts {
		for _, p := range list {
			delete(c.at, sock.TopicPartition{Topic: topic, Partition: p})
		}
	}
}

// closeConsumer commits what the client asked past, and leaves the group.
func (k *kafkaDoor) closeConsumer() {
	if c := k.consumer; c != nil {
		if c.spec.Group != "" {
			ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
			defer cancel()
			_ = c.cl.CommitMarkedOffsets(ctx) // at worst records come again
		}
		c.cl.CloseAllowingRebalance()
		k.consumer = nil
	}
}

var errNoConsumer = errors.New("a poll before a consumer was opened")

// poll returns records, and marks those of the poll before as done.
func (k *kafkaDoor) poll(ctx context.Context, payload []byte, progress func(sock.Progress)) (any, error) {
	c := k.consumer
	var q sock.Poll
	if err := json.Unmarshal(payload, &q); err != nil {
		return nil, err
	}
	switch {
	case c == nil:
		return nil, errNoConsumer
	case c.broken != nil:
		return nil, c.broken
	}
	c.mark()
	waiting, cancel := context.WithTimeout(ctx, q.Wait)
	defer cancel()
	fetches := c.cl.PollRecords(waiting, max(q.MaxRecords, 1))
	if err := ctx.Err(); err != nil && fetches.NumRecords() == 0 {
		return nil, err
	}
	var recs []sock.Record
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if p.Err != nil {
			c.fault(p.Topic, p.Partition, p.Err, progress, func() error { return k.checkTopics(ctx, []string{p.Topic}) })
		}
		recs = c.take(recs, p, progress)
	})
	if c.broken != nil && len(recs) == 0 {
		return nil, c.broken
	}
	return sock.AppendRecords(nil, recs), nil
}

// take makes records of what was fetched of a partition, and says where reading has
// jumped over what was deleted.
func (c *kafkaConsumer) take(recs []sock.Record, p kgo.FetchTopicPartition, progress func(sock.Progress)) []sock.Record {
	if len(p.Records) == 0 {
		return recs
	}
	committed, known := c.cl.CommittedOffsets()[p.Topic][p.Partition]
	c.mu.Lock()
	defer c.mu.Unlock()
	tp := sock.TopicPartition{Topic: p.Topic, Partition: p.Partition}
	was, mine := c.at[tp]
	if known && was.Offset < 0 {
		was = committed // where the group had got to before this member
	}
	if at := was.Offset; mine && at >= 0 && at < p.LogStartOffset && p.Records[0].Offset >= p.LogStartOffset {
		moved(progress, &sock.Moved{Topic: p.Topic, Partition: p.Partition, From: at, To: p.LogStartOffset, Cause: "the records were deleted"})
	}
	for _, r := range p.Records {
		if mine { // else the group has given it to another member meanwhile
			c.at[tp] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
		}
		if r.Attrs.IsControl() {
			continue
		}
		rec := sock.Record{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Epoch: r.LeaderEpoch, Time: r.Timestamp, Key: r.Key, Value: r.Value,
		}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, sock.Header{Key: h.Key, Value: h.Value})
		}
		recs = append(recs, rec)
	}
	return recs
}

func moved(progress func(sock.Progress), m *sock.Moved) {
	if progress != nil {
		progress(sock.Progress{Moved: m})
	}
}

// fault judges an error of a fetch: what passes by itself is waited for. check says
// whether the topic is there.
func (c *kafkaConsumer) fault(topic string, partition int32, err error, progress func(sock.Progress), check func() error) {
	var loss *kgo.ErrDataLoss
	var group *kgo.ErrGroupSession
	var k *kerr.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
	case errors.As(err, &loss):
		moved(progress, &sock.Moved{Topic: loss.Topic, Partition: loss.Partition, From: loss.ConsumedTo, To: loss.ResetTo, Cause: "the log has lost what was read"})
	case errors.As(err, &group):
		if !errors.As(group.Err, &k) || k.Retriable {
			return // it joins again
		}
		c.broken = failed(group.Err, "", "group %q", c.spec.Group)
	case errors.Is(err, kerr.CorruptMessage):
		c.broken = failed(err, "", "%s/%d", topic, partition)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		// A broker of a cluster may be the last to hear of a new topic.
		if code(check()) == sock.CodeUnknownTopic {
			c.broken = &sock.Error{Code: sock.CodeUnknownTopic, Message: fmt.Sprintf("topic %q was deleted", topic)}
		}
	case errors.As(err, &k) && !k.Retriable:
		c.broken = failed(err, "", "%s/%d", topic, partition)
	case errors.As(err, &k): // a leader that moves, a broker that starts
	default:
		if !kgo.IsRetryableBrokerErr(err) {
			c.broken = fmt.Errorf("%s/%d: %w", topic, partition, err)
		}
	}
}

// mark says that all that was given out is done; it is committed every second, and by
// commit.
func (c *kafkaConsumer) mark() {
	if c.spec.Group == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	done := make(map[string]map[int32]kgo.EpochOffset)
	for tp, at := range c.at {
		if at.Offset < 0 {
			continue
		}
		if done[tp.Topic] == nil {
			done[tp.Topic] = make(map[int32]kgo.EpochOffset)
		}
		done[tp.Topic][tp.Partition] = at
	}
	c.cl.MarkCommitOffsets(done)
}

func (k *kafkaDoor) commit(ctx context.Context, _ none) (none, error) {
	if k.consumer == nil {
		return none{}, errNoConsumer
	}
	k.consumer.mark()
	return none{}, k.consumer.cl.CommitMarkedOffsets(ctx)
}

// lag is how far the consumer is behind what it could read.
func (k *kafkaDoor) lag(ctx context.Context, _ none) (sock.Lag, error) {
	c := k.consumer
	if c == nil {
		return sock.Lag{}, errNoConsumer
	}
	c.mu.Lock()
	at := make(map[sock.TopicPartition]int64, len(c.at))
	seen := make(map[string]bool)
	var topics []string
	for tp, offset := range c.at {
		at[tp] = offset.Offset
		if !seen[tp.Topic] {
			seen[tp.Topic] = true
			topics = append(topics, tp.Topic)
		}
	}
	// A broker may let a group wait for more members, so that no partition may only mean
	// that there is none yet.
	early := c.spec.Group != "" && (!c.joined || len(at) == 0 && c.since < settle)
	if c.joined {
		c.since++
	}
	c.mu.Unlock()
	lag := sock.Lag{Assigned: len(at)}
	if early {
		lag.Records = -1 // not known
	}
	if len(topics) == 0 {
		return lag, nil
	}
	ends := k.admin.ListCommittedOffsets
	if c.spec.ReadUncommitted {
		ends = k.admin.ListEndOffsets
	}
	end, err := ends(ctx, topics...)
	if err != nil {
		return lag, err
	}
	lag.Records = 0
	start, err := k.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return lag, err
	}
	var committed kadm.OffsetResponses
	if c.spec.Group != "" {
		if committed, err = k.admin.FetchOffsetsForTopics(ctx, c.spec.Group, topics...); err != nil {
			return lag, err
		}
	}
	for tp, offset := range at {
		last, _ := end.Lookup(tp.Topic, tp.Partition)
		first, _ := start.Lookup(tp.Topic, tp.Partition)
		if offset < 0 {
			switch was, ok := committed.Lookup(tp.Topic, tp.Partition); {
			case ok && was.At >= 0:
				offset = was.At
			case c.spec.FromLatest:
				offset = last.Offset
			}
		}
		lag.Records += max(last.Offset-max(offset, first.Offset), 0)
	}
	return lag, nil
}

// connectionNotes say once that a consumer that waits has lost its broker, and once
// that it has it back.
type connectionNotes struct {
	app  *app
	mu   sync.Mutex
	lost map[string]bool
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (n *connectionNotes) OnBrokerConnect(b kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	at := fmt.Sprintf("%s:%d", b.Host, b.Port)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == nil {
		n.lost = make(map[string]bool)
	}
	log := slog.New(&warnings{a: n.app})
	switch {
	case err != nil && errors.Is(err, context.Canceled):
	case err != nil && !n.lost[at]:
		n.lost[at] = true
		log.Warn("the broker is not reached, and tried again until it is", "address", at, "cause", lastCause(err))
	case err == nil && n.lost[at]:
		delete(n.lost, at)
		log.Warn("the broker is back", "address", at)
	}
}
