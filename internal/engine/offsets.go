package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// offsetsTopicName keeps what groups have committed, and their epochs.
const offsetsTopicName = "__consumer_offsets"

// offsetsTopicSettings are what it is made with. One commit is one batch, however
// many partitions it names; segments are small, since loading reads all of them
// and compaction leaves the newest alone.
var offsetsTopicSettings = map[string]string{
	"cleanup.policy": "compact", "segment.bytes": "16777216", "max.message.bytes": "8388608",
}

// offsetsShard is what one partition of __consumer_offsets says, once it has been
// read. Kafka's hash of a group's name decides which one is the group's.
//
// Memory follows the log: what is appended is applied when the append returned,
// and of two records of one key the one with the higher offset counts, in whatever
// order they are applied. Removing is done with nobody else appending for the group
// (groupGate), so that nothing comes back.
type offsetsShard struct {
	part   *Partition
	tenure *tenure       // for which all of this holds; another shard takes its place then
	turn   chan struct{} // holds a token while nobody loads it
	loaded bool          // under turn, and mu

	// ending is shared by who commits within a transaction, from before his append until
	// memory has it; who tells of the transaction's marker waits for them: then what
	// lies before the marker is known, and what comes later is refused by the partition.
	ending groupGate // before mu; waited for with a context

	mu     sync.Mutex // before group.mu
	groups map[string]*group
	// txns are the groups for which a producer has committed in its open transaction.
	txns map[int64]map[*group]struct{}
}

func newOffsetsShard(part *Partition) *offsetsShard {
	s := &offsetsShard{part: part, tenure: newTenure(part), turn: make(chan struct{}, 1), groups: map[string]*group{}, txns: map[int64]map[*group]struct{}{}}
	s.turn <- struct{}{}
	return s
}

// offsetAt is what an offset is committed for. Kafka's key has the topic's name;
// the value's id tells a topic from an earlier one of that name.
type offsetAt struct {
	topic     string
	partition int32
}

// storedOffset is an offset and the place of its record.
type storedOffset struct {
	offsetValue
	at int64
}

// load reads the partition from its start, unless that was done. Where the log is
// replicated it fails with a *partition.NotLeaderError if this node does not lead it.
func (s *offsetsShard) load(ctx context.Context, g *Groups) error {
	if err := take(ctx, s.turn); err != nil {
		return err
	}
	defer func() { s.turn <- struct{}{} }()
	if s.loaded {
		return s.tenure.ended()
	}
	err := s.tenure.begin(ctx)
	if err != nil {
		return err
	}
	if err = s.replay(g); err == nil {
		err = s.tenure.ended() // else what was read may lack what another leader has written
	}
	if err != nil {
		s.groups, s.txns = map[string]*group{}, map[int64]map[*group]struct{}{}
		s.tenure.reset()
		return fmt.Errorf("read %s: %w", s.part, err)
	}
	for _, x := range s.groups {
		// The running time that was noted is that of the node which noted it.
		if x.noted >= 0 && s.tenure == nil {
			x.used = min(x.used, x.noted)
		}
	}
	s.mu.Lock()
	s.loaded = true
	s.mu.Unlock()
	return nil
}

func (s *offsetsShard) isLoaded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded
}

func (s *offsetsShard) replay(g *Groups) error {
	r, err := s.part.ReadFrom(s.part.LogStart(), &partition.ReaderOptions{Control: true, Reuse: true})
	if err != nil {
		return err
	}
	var records log.RecordReader
	for {
		batch, err := r.TryNext()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = records.Reset(batch, 0)
		}
		if err != nil {
			return err
		}
		for records.Next() {
			if err := s.apply(g, records.Header(), records.Record()); err != nil {
				return err
			}
		}
		if err := records.Err(); err != nil {
			return err
		}
	}
}

// apply takes one record in as the partition is read.
func (s *offsetsShard) apply(g *Groups, h *log.BatchHeader, rec *log.Record) error {
	if h.Attributes.Has(log.Control) {
		t, _, err := log.ParseControl(rec)
		if err == nil && (t == log.ControlCommit || t == log.ControlAbort) {
			s.endTxnLocked(h.ProducerID, t == log.ControlCommit)
		}
		return err
	}
	key, err := parseOffsetKey(rec.Key)
	if err != nil {
		return fmt.Errorf("record %d: %w", rec.Offset, err)
	}
	switch key.version {
	case groupKeyVersion, shareGroupKeyVersion:
		v := groupValue{unused: -1}
		if rec.Value != nil {
			if v, err = parseGroupValue(rec.Value); err != nil {
				return fmt.Errorf("record %d: %w", rec.Offset, err)
			}
		}
		x := s.groupLocked(g, key.group)
		x.persisted, x.roster.server.epoch = v.epoch, max(v.epoch, x.roster.classic.generation)
		x.epochRecorded, x.noted = rec.Value != nil, time.Duration(v.unused)*time.Millisecond
		switch {
		case key.version == shareGroupKeyVersion && rec.Value != nil:
			x.roster.kind = GroupTypeShare
		case x.recorded == noRecord:
			x.roster.kind = GroupTypeConsumer
		}
	case classicKeyVersion:
		x := s.groupLocked(g, key.group)
		if rec.Value == nil {
			x.roster.classic.reset()
			x.recorded, x.roster.kind = noRecord, GroupTypeConsumer
			return nil
		}
		v, err := parseClassicValue(rec.Value)
		if err != nil {
			return fmt.Errorf("record %d: %w", rec.Offset, err)
		}
		x.roster.classic.restore(g.engine.Now(), &v)
		x.recorded, x.roster.kind = recordOf(&v), GroupTypeClassic
	case offsetKeyVersion:
		x, at := s.groupLocked(g, key.group), offsetAt{key.topic, key.partition}
		if rec.Value == nil {
			x.forgetLocked(at)
			return nil
		}
		v, err := parseOffsetValue(rec.Value)
		if err != nil {
			return fmt.Errorf("record %d: %w", rec.Offset, err)
		}
		stored := storedOffset{v, rec.Offset}
		x.noted = notNoted // that was before
		if h.Attributes.Has(log.Transactional) {
			s.pendLocked(x, h.ProducerID, at, stored)
		} else {
			x.storeLocked(at, stored)
		}
	}
	return nil
}

// groupLocked returns the group, making it if need be.
func (s *offsetsShard) groupLocked(g *Groups, name string) *group {
	x := s.groups[name]
	if x == nil {
		x = &group{
			shard: s, name: name, roster: newRoster(name, g.limits, g.view.Load()), persisting: make(chan struct{}, 1),
			offsets: map[offsetAt]storedOffset{}, pending: map[int64]map[offsetAt]storedOffset{}, used: s.now(), noted: notNoted,
		}
		x.persisting <- struct{}{}
		s.groups[name] = x
	}
	return x
}

// pendLocked notes what a transaction will have committed.
func (s *offsetsShard) pendLocked(x *group, producerID int64, at offsetAt, v storedOffset) {
	if s.txns[producerID] == nil {
		s.txns[producerID] = map[*group]struct{}{}
	}
	s.txns[producerID][x] = struct{}{}
	if x.pending[producerID] == nil {
		x.pending[producerID] = map[offsetAt]storedOffset{}
	}
	if old, ok := x.pending[producerID][at]; !ok || v.at > old.at {
		x.pending[producerID][at] = v
	}
}

// endTxnLocked lets what the producer committed count, or drops it.
func (s *offsetsShard) endTxnLocked(producerID int64, commit bool) {
	for x := range s.txns[producerID] {
		x.mu.Lock()
		if commit {
			for at, v := range x.pending[producerID] {
				x.storeLocked(at, v)
			}
		}
		delete(x.pending, producerID)
		if x.decided != nil {
			close(x.decided)
			x.decided = nil
		}
		x.mu.Unlock()
	}
	delete(s.txns, producerID)
}

// group is one group: its members and its offsets.
type group struct {
	shard *offsetsShard
	name  string
	// gate: appends of the group's records share it, who removes some is alone.
	gate groupGate
	// persisting holds a token while nobody writes what is known of the members.
	persisting chan struct{}

	mu        sync.Mutex
	roster    roster
	persisted int32 // the epoch on disk, 0 none: no member is told a higher one
	// epochRecorded says that there is a record of the group with its epoch on disk.
	epochRecorded bool
	recorded      groupRecord // what the disk says of classic members
	returns       int         // how many of classicState.returns it knows of
	owes          bool        // the log was told that a record could not be written
	alarm         chan struct{}
	alarmAt       time.Time // who waits for alarm looks again then
	offsets       map[offsetAt]storedOffset
	pending       map[int64]map[offsetAt]storedOffset // by producer id, until its marker
	decided       chan struct{}                       // closed when a transaction ends; nil while nobody waits
	dead          bool                                // no longer in shard.groups: look it up again
	// used is when somebody used the group last, or when it was loaded: see
	// offsetsShard.now. noted is what its record says of that, notNoted when it says
	// nothing, or commits came after it.
	used, noted time.Duration
}

const notNoted = -time.Millisecond

// now is the time that unused groups are forgotten by: the running time of the log,
// which goes on from run to run and never jumps.
func (s *offsetsShard) now() time.Duration { return s.part.Log().RunningTime() }

func (x *group) storeLocked(at offsetAt, v storedOffset) {
	if old, ok := x.offsets[at]; !ok || v.at > old.at {
		x.offsets[at] = v
	}
}

func (x *group) forgetLocked(at offsetAt) {
	delete(x.offsets, at)
	for _, m := range x.pending {
		delete(m, at)
	}
}

// append writes records of the group as one batch. The caller is in the gate. It
// waits for the disk whatever becomes of the caller: what is in the log and what
// is in memory must agree.
func (x *group) append(ctx context.Context, recs []log.Record, producer *partition.Producer, unsynced bool) (base int64, err error) {
	res, err := x.shard.tenure.append(ctx, x.shard.part, recs, partition.AppendOptions{Producer: producer, Internal: true, Unsynced: unsynced})
	return res.BaseOffset, err
}

// tombstoneBatch bounds a batch of tombstones, which need not be one.
const tombstoneBatch = 2000

// remove writes tombstones for offsets, and for the group itself where whole. The
// caller is alone in the gate.
func (x *group) remove(ctx context.Context, now time.Time, list []offsetAt, whole bool) error {
	for len(list) > 0 || whole {
		n := min(len(list), tombstoneBatch)
		recs := make([]log.Record, 0, n+2)
		for _, at := range list[:n] {
			key := offsetKey{offsetKeyVersion, x.name, at.topic, at.partition}
			recs = append(recs, log.Record{Timestamp: now.UnixMilli(), Key: appendOffsetKey(nil, &key)})
		}
		last := n == len(list)
		if last && whole {
			for _, version := range x.recordKeys() {
				key := offsetKey{version: version, group: x.name}
				recs = append(recs, log.Record{Timestamp: now.UnixMilli(), Key: appendOffsetKey(nil, &key)})
			}
			whole = false
		}
		if len(recs) == 0 {
			return nil
		}
		if _, err := x.append(ctx, recs, nil, false); err != nil {
			return err
		}
		x.mu.Lock()
		for _, at := range list[:n] {
			x.forgetLocked(at)
		}
		x.mu.Unlock()
		list = list[n:]
	}
	return nil
}
