package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Commit makes offsets durable: when it returns nil, no crash takes them back. All
// that it commits are one batch. Those that cannot be committed are listed in a
// *CommitError, and the others are committed. Any other error is about all of
// them; one that matches ErrRebalance or ErrUnknownMember says that the member
// has lost partitions.
//
// A member may commit for partitions that it has, and for such as nobody has.
func (g *Groups) Commit(ctx context.Context, req CommitRequest) error {
	return g.commit(ctx, &req, nil)
}

// TxnCommit commits offsets as a part of a producer's transaction: they count when
// it is committed. The partition of __consumer_offsets that OffsetsPartition names
// has been added to the transaction before.
func (g *Groups) TxnCommit(ctx context.Context, req CommitRequest, producerID int64, epoch int16) error {
	return g.commit(ctx, &req, &partition.Producer{ID: producerID, Epoch: epoch, Sequence: -1, Transactional: true, Coordinator: true, Verified: req.Verified})
}

// OffsetsPartition is where a group's offsets are kept. It makes __consumer_offsets
// if there is none. In a cluster this node need not lead it.
func (g *Groups) OffsetsPartition(ctx context.Context, group string) (*Partition, error) {
	if g.engine.options.Cluster != nil {
		if err := checkGroupName(group); err != nil {
			return nil, err
		}
		shards, err := g.prepare(ctx, true)
		if err != nil {
			return nil, fmt.Errorf("group %q: %w", group, err)
		}
		return shards[offsetsPartitionOf(group, len(shards))].part, nil
	}
	s, err := g.shard(ctx, group, true)
	if err != nil {
		return nil, err
	}
	return s.part, nil
}

func (g *Groups) commit(ctx context.Context, req *CommitRequest, producer *partition.Producer) (err error) {
	if hook := g.engine.hooks.OnCommit; hook != nil {
		began := time.Now()
		defer func() { hook(req.Group, len(req.Offsets), time.Since(began), err) }()
	}
	x, err := g.enter(ctx, req.Group, req.MemberID == "", false)
	if err != nil {
		return err
	}
	if x == nil {
		return fmt.Errorf("commit of group %q: member %q: %w", req.Group, req.MemberID, ErrUnknownMember)
	}
	defer x.gate.leave()
	// What is fenced in memory only would not be fenced after a crash.
	if err := x.settle(ctx, g.engine.Now(), 0); err != nil {
		return fmt.Errorf("commit of group %q: %w", req.Group, err)
	}
	recs, values, failures, err := g.offsetRecords(x, req, producer != nil)
	if err != nil {
		return fmt.Errorf("commit of group %q: %w", req.Group, err)
	}
	if len(recs) > 0 {
		if producer != nil {
			if err := x.shard.ending.share(ctx); err != nil {
				return fmt.Errorf("commit of group %q: %w", req.Group, err)
			}
			defer x.shard.ending.leave()
		}
		base, err := x.append(ctx, recs, producer, producer != nil && req.Local)
		if err != nil {
			return fmt.Errorf("commit of group %q: %w", req.Group, err)
		}
		x.shard.mu.Lock()
		x.mu.Lock()
		x.noted = notNoted // that was before
		for i := range values {
			v := storedOffset{values[i].value, base + int64(i)}
			if producer != nil {
				x.shard.pendLocked(x, producer.ID, values[i].at, v)
			} else {
				x.storeLocked(values[i].at, v)
			}
		}
		x.mu.Unlock()
		x.shard.mu.Unlock()
	}
	if failures != nil {
		return &CommitError{Group: req.Group, Failures: failures}
	}
	return nil
}

type offsetToStore struct {
	at    offsetAt
	value offsetValue
}

func (o *offsetToStore) record(group string) log.Record {
	key := offsetKey{offsetKeyVersion, group, o.at.topic, o.at.partition}
	return log.Record{Timestamp: o.value.commitMillis, Key: appendOffsetKey(nil, &key), Value: appendOffsetValue(nil, &o.value)}
}

// offsetRecords checks who commits and what, and makes the records.
func (g *Groups) offsetRecords(x *group, req *CommitRequest, transactional bool) (recs []log.Record, values []offsetToStore, failures []CommitFailure, err error) {
	view, at := g.view.Load(), g.engine.Now()
	now := at.UnixMilli()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.roster.server.setTopics(view)
	if err := x.roster.mayCommit(at, req, transactional); err != nil {
		return nil, nil, nil, err
	}
	for i := range req.Offsets {
		o := &req.Offsets[i]
		topic, err := view.find(o, req.Forget)
		if err == nil {
			err = x.roster.mayCommitPart(req, topicPart{topic.id, o.Partition})
		}
		if err != nil {
			failures = append(failures, CommitFailure{i, o.Topic, o.TopicID, o.Partition, err})
			continue
		}
		v := offsetToStore{offsetAt{topic.name, o.Partition}, offsetValue{
			offset: o.Offset, leaderEpoch: max(o.LeaderEpoch, -1), metadata: o.Metadata, commitMillis: now, topicID: topic.id, epochSaid: o.EpochSaid,
		}}
		recs, values = append(recs, v.record(x.name)), append(values, v)
	}
	return recs, values, failures, nil
}

// find returns the topic of an offset that can be committed.
func (v *topicsView) find(o *OffsetCommit, forget bool) (t viewTopic, err error) {
	var ok bool
	if o.Topic != "" {
		t, ok = v.byName[o.Topic]
		ok = ok && (o.TopicID.IsZero() || o.TopicID == t.id)
	} else {
		t, ok = v.byID[o.TopicID]
	}
	switch {
	case !ok:
		return t, &UnknownTopicError{Name: o.Topic, ID: o.TopicID}
	case o.Partition < 0 || o.Partition >= t.partitions:
		return t, &UnknownPartitionError{Topic: t.name, Partition: o.Partition, Partitions: int(t.partitions)}
	case o.Offset < 0 && !(forget && o.Offset == NoOffset):
		return t, &InvalidCommitError{fmt.Sprintf("offset %d is negative", o.Offset)}
	case len(o.Metadata) > MaxOffsetMetadataBytes:
		return t, &InvalidCommitError{fmt.Sprintf("%d bytes of metadata, at most %d are allowed", len(o.Metadata), MaxOffsetMetadataBytes)}
	case strings.ToValidUTF8(o.Metadata, "") != o.Metadata:
		return t, &InvalidCommitError{"metadata is not UTF-8 text"}
	}
	return t, nil
}

// Committed returns where the group goes on reading, of the partitions in want, or
// of all when it is nil. Partitions without an offset are left out, and an unknown
// group has none. It sees every commit that returned before, and waits for those
// under way.
//
// With stable it waits for transactions that are to commit one of the offsets; when
// ctx ends before, the error matches ErrUnstableOffset. Where the offsets' partition
// has failed, none is decided before the next open: the error is the partition's.
func (g *Groups) Committed(ctx context.Context, group string, want []TopicPartitions, stable bool) ([]CommittedOffset, error) {
	var wanted groupParts
	if want != nil {
		wanted = newGroupParts(want)
	}
	unstable := func() error {
		return fmt.Errorf("committed offsets of group %q: %w: %w", group, ErrUnstableOffset, ctx.Err())
	}
	for waited := false; ; waited = true {
		// Alone for a moment: who was fenced while his commit was on its way must not
		// land it after his successor has asked.
		x, err := g.enterKnown(ctx, group)
		if err != nil && waited && ctx.Err() != nil {
			return nil, unstable()
		}
		if err != nil || x == nil {
			return nil, err
		}
		list, undecided := g.committed(x, wanted, stable)
		x.gate.leave()
		if undecided == nil {
			// Somebody else may lead by now, and have taken commits.
			if err := x.shard.tenure.confirm(ctx); err != nil {
				return nil, fmt.Errorf("committed offsets of group %q: %w", group, err)
			}
			return list, nil
		}
		if err := x.shard.part.Err(); err != nil {
			return nil, fmt.Errorf("committed offsets of group %q: %w", group, err)
		}
		select {
		case <-undecided:
		case <-time.After(failedPartitionLook):
		case <-x.shard.tenure.done():
			return nil, fmt.Errorf("committed offsets of group %q: %w", group, x.shard.tenure.ended())
		case <-g.engine.life.Done():
			return nil, fmt.Errorf("committed offsets of group %q: %w", group, log.ErrClosed)
		case <-ctx.Done():
			return nil, unstable()
		}
	}
}

// failedPartitionLook is how often who waits for a transaction's end looks whether its
// marker can still be written.
const failedPartitionLook = time.Second

// committed returns the offsets by topic and partition, or a channel that is closed
// when a transaction which concerns them ends.
func (g *Groups) committed(x *group, wanted groupParts, stable bool) (list []CommittedOffset, undecided <-chan struct{}) {
	view := g.view.Load()
	x.mu.Lock()
	defer x.mu.Unlock()
	if stable {
		for _, offsets := range x.pending {
			for at, v := range offsets {
				if _, ok := view.wanted(wanted, at, &v.offsetValue); ok {
					if x.decided == nil {
						x.decided = make(chan struct{})
					}
					return nil, x.decided
				}
			}
		}
	}
	for at, v := range x.offsets {
		if id, ok := view.wanted(wanted, at, &v.offsetValue); ok && v.offset != NoOffset {
			list = append(list, CommittedOffset{
				OffsetCommit: OffsetCommit{Topic: view.byID[id].name, TopicID: id, Partition: at.partition, Offset: v.offset, LeaderEpoch: v.leaderEpoch, Metadata: v.metadata, EpochSaid: v.epochSaid},
				CommitTime:   time.UnixMilli(v.commitMillis),
			})
		}
	}
	if x.shard.tenure == nil {
		for i := range list {
			g.checkLost(x.name, &list[i])
		}
	}
	sortCommitted(list)
	return list, nil
}

func sortCommitted(list []CommittedOffset) {
	slices.SortFunc(list, func(a, b CommittedOffset) int { return compareOffsets(&a.OffsetCommit, &b.OffsetCommit) })
}

func compareOffsets(a, b *OffsetCommit) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	if c := bytes.Compare(a.TopicID[:], b.TopicID[:]); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// wanted says of which topic an offset is, and whether it is one that there is and
// that was asked for. The offset of an earlier topic of the same name is not.
func (v *topicsView) wanted(wanted groupParts, at offsetAt, value *offsetValue) (id TopicID, ok bool) {
	id = value.topicID
	if id.IsZero() { // written by something older than topic ids
		id = v.byName[at.topic].id
	}
	t, ok := v.byID[id]
	return id, ok && at.partition < t.partitions && (wanted == nil || wanted.has(topicPart{id, at.partition}))
}

// checkLost brings a position back that lies past the end of what was consumed: the
// log lost its end, and what lies there now is something else. (KIP-320) In a cluster
// the log may be led elsewhere, and what is here lag behind it: there whoever reads holds
// his position against the leader's epochs, and this is not called.
func (g *Groups) checkLost(group string, o *CommittedOffset) {
	t, err := g.engine.TopicByID(o.TopicID)
	if err != nil {
		return
	}
	p, err := t.Partition(o.Partition)
	if err != nil || p.Err() != nil {
		return // what it says of its end is not the truth, and whoever reads it hears why
	}
	epoch, end := int32(-1), int64(-1)
	if o.LeaderEpoch >= 0 {
		epoch, end = p.EpochEnd(o.LeaderEpoch)
	}
	if end < 0 { // no epoch was committed, or nothing is left of it and of all later ones
		epoch, end = -1, p.LogEnd()
		if at, ok := p.EpochOf(end - 1); ok {
			epoch = at
		}
	}
	if o.Offset <= end {
		return
	}
	o.Lost = &PositionLostError{Group: group, Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, End: end}
	o.Offset, o.LeaderEpoch = end, epoch
}

// txnEnded is told of each marker in a partition of __consumer_offsets, after it is
// in the log. It may be told again, and is when it fails, because ctx has ended.
func (g *Groups) txnEnded(ctx context.Context, partition int32, producerID int64, commit bool) error {
	shards := g.allShards()
	if shards == nil {
		return nil // nothing is loaded: whoever loads it reads the marker
	}
	s := shards[partition]
	if err := take(ctx, s.turn); err != nil { // whoever loads it has perhaps read past the marker's place
		return err
	}
	defer func() { s.turn <- struct{}{} }()
	if err := s.ending.exclude(ctx); err != nil {
		return err
	}
	defer s.ending.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		s.endTxnLocked(producerID, commit)
	}
	return nil
}
