package partition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/crashtest"
	"github.com/x/embedlog/internal/model"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// crashMeta is what a workload knows of a batch besides its records.
type crashMeta struct {
	producer *Producer // nil: none
	marker   bool
	commit   bool
	epoch    int32 // leader epoch
	// committed says that the replicator was told so: the high watermark may be behind it.
	committed bool
	recs      []log.Record
}

// crashPartition is a partition under the explorer of crash states.
type crashPartition struct {
	*Partition
	tr     *crashtest.Trace
	fs     vfs.FS
	script *crashScript
	level  log.Level
	next   map[int64]int32 // of each producer, its next sequence
	term   uint64          // replicated: of the entries it stores
	opened int64           // high watermark when it was opened
	// unsynced has producers' records synced at the end of their transaction.
	unsynced bool
}

var errCrashDamage = errors.New("open reports damage, and there was only a crash")

// crashScript is a workload as a function of an open partition.
type crashScript struct {
	name       string
	replicated bool
	segment    int64
	run        func(c *crashPartition) error
}

func (s *crashScript) open(fsys vfs.FS, level log.Level, tr *crashtest.Trace) (*crashPartition, error) {
	c := &crashPartition{tr: tr, fs: fsys, script: s, level: level, next: map[int64]int32{}}
	o := &Options{FS: fsys, Config: Config{Log: log.Config{
		Level: level, SyncInterval: time.Millisecond, SegmentBytes: s.segment, IndexIntervalBytes: 256, SegmentAge: -1,
	}}}
	if s.replicated {
		o.Replicator = onlyStores{}
	}
	var err error
	if c.Partition, err = Open("", o); err != nil {
		return nil, err
	}
	if rec := c.Recovered(); rec.Corruption != nil {
		c.Partition.Close()
		return nil, fmt.Errorf("%w: %v", errCrashDamage, rec.Corruption)
	}
	c.opened = c.HighWatermark()
	c.Log().Lock()
	c.term = max(c.Log().LastEpoch(), 1)
	c.Log().Unlock()
	return c, nil
}

// onlyStores is the replicator of a node that never leads.
type onlyStores struct{}

func (onlyStores) LeaderEpoch() (int32, error) { return 0, &NotLeaderError{Leader: -1} }
func (onlyStores) Propose(context.Context, int32, int64, [][]byte) (Proposal, error) {
	return nil, &NotLeaderError{Leader: -1}
}

// workload makes the script one of the explorer's, at a level.
func (s *crashScript) workload(level log.Level) crashtest.Workload {
	return crashtest.Workload{
		Name: s.name + "/" + level.String(),
		Run: func(fs vfs.FS, tr *crashtest.Trace) error {
			c, err := s.open(fs, level, tr)
			if err != nil {
				return err
			}
			defer func() { c.Abandon() }()
			if err := s.run(c); err != nil {
				return err
			}
			return c.close()
		},
		Open: func(fs vfs.FS) (crashtest.Store, bool, error) {
			c, err := s.open(fs, level, nil)
			if err != nil {
				return nil, false, err
			}
			return c, c.Recovered().Clean, nil
		},
	}
}

func (c *crashPartition) Abandon() { c.Partition.Close() }

// close closes the partition and notes that all of it is durable.
func (c *crashPartition) close() error {
	if err := c.Partition.Close(); err != nil {
		return err
	}
	return c.tr.Durable(c.tr.End())
}

// crashed says that the machine is gone: what returned nil may not be there.
func (c *crashPartition) crashed() bool {
	m, ok := c.fs.(*vfs.Mem)
	return ok && m.Crashed()
}

// Contents is every record of the log, markers and what is not committed included.
func (c *crashPartition) Contents() (*crashtest.Contents, error) {
	got := &crashtest.Contents{Start: c.LogStart(), End: c.LogEnd()}
	r, err := c.Log().ReadFrom(got.Start)
	if err != nil {
		return nil, err
	}
	for {
		f, err := r.Next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return nil, err
		}
		if f.Kind != log.KindData {
			continue
		}
		for rec, err := range log.Batch(f.Payload).Records(0) {
			if err != nil {
				return nil, err
			}
			if rec.Offset >= got.Start { // the first batch may begin below the log start offset
				got.Recs = append(got.Recs, crashtest.At{Offset: rec.Offset, Key: rec.Key, Value: rec.Value})
			}
		}
	}
}

// Judge compares what the partition knows with what its batches say.
func (c *crashPartition) Judge(tr *crashtest.Trace) error {
	batches := tr.Placed()
	if err := c.judgeWatermark(tr, batches); err != nil {
		return err
	}
	m := model.New(0)
	known := map[int64]*ProducerState{}
	for _, b := range batches {
		x := b.Meta.(*crashMeta)
		if err := tell(m, known, b, x); err != nil {
			return err
		}
		if b.Base >= c.LogStart() {
			if e, ok := c.EpochOf(b.Base); !ok || e != x.epoch {
				return brokenf("epoch of offset %d: %d %t, want %d", b.Base, e, ok, x.epoch)
			}
		}
		if c.LeaderEpoch() < x.epoch {
			return brokenf("the leader epoch is %d, the log has %d", c.LeaderEpoch(), x.epoch)
		}
	}
	m.DeleteTo(c.LogStart())
	var want []ProducerState
	for _, p := range known {
		want = append(want, *p)
	}
	slices.SortFunc(want, func(a, b ProducerState) int { return cmp.Compare(a.ProducerID, b.ProducerID) })
	if got := c.Producers(); !slices.Equal(got, want) {
		return brokenf("producers %+v, want %+v", got, want)
	}
	return c.judgeTransactions(m)
}

// judgeWatermark: here all that is left is committed; on a replica nothing that was
// never committed, and the leader says the rest again.
func (c *crashPartition) judgeWatermark(tr *crashtest.Trace, batches []crashtest.Batch) error {
	if !c.script.replicated {
		if hw := c.HighWatermark(); hw != c.LogEnd() {
			return brokenf("the high watermark is %d, the log ends at %d", hw, c.LogEnd())
		}
		return nil
	}
	committed := c.LogStart()
	for _, b := range batches {
		if b.Meta.(*crashMeta).committed {
			committed = max(committed, b.Next)
		}
	}
	if c.opened > committed {
		return brokenf("the high watermark is %d after open, committed was up to %d", c.opened, committed)
	}
	for i, b := range batches {
		x := *b.Meta.(*crashMeta)
		x.committed = true // in this life and later ones: what it does next may make that durable
		tr.SetMeta(i, &x)
	}
	if err := c.commit(c.LogEnd()); err != nil {
		return err
	}
	if hw := c.HighWatermark(); hw != c.LogEnd() {
		return brokenf("all is committed, the high watermark is %d of %d", hw, c.LogEnd())
	}
	return nil
}

func brokenf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", crashtest.ErrBroken, fmt.Errorf(format, args...))
}

// tell tells the naive log, and the states of producers, of a batch.
func tell(m *model.Log, known map[int64]*ProducerState, b crashtest.Batch, x *crashMeta) error {
	mb := model.Batch{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LeaderEpoch: x.epoch, Records: make([]model.Record, b.Next-b.Base)}
	if x.producer == nil {
		_, _, o := m.Append(mb)
		return told(b, o)
	}
	p := known[x.producer.ID]
	if p == nil {
		p = &ProducerState{ProducerID: x.producer.ID, LastSequence: -1, LastOffset: -1, LastTimestamp: -1, CoordinatorEpoch: -1, TxnFirstOffset: -1}
		known[p.ProducerID] = p
	}
	p.Epoch = x.producer.Epoch
	if x.marker {
		p.CoordinatorEpoch, p.TxnFirstOffset = 0, -1
		_, o := m.EndTxn(model.Marker{Commit: x.commit, ProducerID: p.ProducerID, ProducerEpoch: p.Epoch, LeaderEpoch: x.epoch})
		return told(b, o)
	}
	mb.ProducerID, mb.ProducerEpoch, mb.BaseSequence = p.ProducerID, p.Epoch, x.producer.Sequence
	mb.Transactional = x.producer.Transactional
	p.LastSequence = x.producer.Sequence + int32(b.Next-b.Base) - 1
	p.LastOffset, p.LastTimestamp = b.Next-1, x.recs[0].Timestamp
	for _, r := range x.recs {
		p.LastTimestamp = max(p.LastTimestamp, r.Timestamp)
	}
	if x.producer.Transactional && p.TxnFirstOffset < 0 {
		p.TxnFirstOffset = b.Base
	}
	_, _, o := m.Append(mb)
	return told(b, o)
}

func told(b crashtest.Batch, o model.Outcome) error {
	if o != model.Appended {
		return brokenf("the batch of offsets %d to %d is there, and should have been refused: outcome %d", b.Base, b.Next, o)
	}
	return nil
}

func (c *crashPartition) judgeTransactions(m *model.Log) error {
	start, end := c.LogStart(), c.LogEnd()
	if got, want := c.LastStable(), m.LastStable(end); got != want {
		return brokenf("last stable offset %d of %d, want %d", got, end, want)
	}
	var want, got []int64
	left := map[int64]bool{} // compaction leaves holes
	for _, isolation := range []Isolation{ReadUncommitted, ReadCommitted} {
		got = nil
		rd, err := c.ReadFrom(start, &ReaderOptions{Isolation: isolation})
		if err != nil {
			return err
		}
		for {
			b, err := rd.TryNext()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			for rec, err := range log.Batch(b).Records(0) {
				if err != nil {
					return err
				}
				if rec.Offset >= start {
					got = append(got, rec.Offset)
					left[rec.Offset] = left[rec.Offset] || isolation == ReadUncommitted
				}
			}
		}
	}
	for _, r := range m.Committed(start, end) {
		if left[r.Offset] {
			want = append(want, r.Offset)
		}
	}
	if !slices.Equal(got, want) {
		return brokenf("committed records at %v, want %v", got, want)
	}
	return nil
}

// records makes n records with unique values of about size bytes.
func (c *crashPartition) records(n, size int) []log.Record {
	b := c.tr.Batches()
	recs := make([]log.Record, n)
	for i := range recs {
		value := fmt.Sprintf("v%d.%d ", b, i) + strings.Repeat(string(rune('a'+b%26)), size*(b%3+1)/2)
		recs[i] = log.Record{Key: fmt.Appendf(nil, "k%d", (b+i)%5), Value: []byte(value), Timestamp: int64(1000 + b*37%11 + b)}
	}
	return recs
}

func sentOf(recs []log.Record) []crashtest.Rec {
	sent := make([]crashtest.Rec, len(recs))
	for i, r := range recs {
		sent[i] = crashtest.Rec{Key: string(r.Key), Value: string(r.Value)}
	}
	return sent
}

// append appends a batch, of a producer if its id is not negative.
func (c *crashPartition) append(id int64, transactional bool, n, size int) error {
	x := &crashMeta{recs: c.records(n, size), epoch: c.LeaderEpoch()}
	o := &AppendOptions{}
	if id >= 0 {
		x.producer = &Producer{ID: id, Sequence: c.next[id], Transactional: transactional}
		o.Producer, o.Unsynced = x.producer, c.unsynced
	}
	if c.script.replicated {
		return c.store(x)
	}
	at := c.LogEnd()
	if err := c.tr.SendingAs(at, x, sentOf(x.recs)...); err != nil {
		return err
	}
	res, err := c.Partition.Append(context.Background(), x.recs, o)
	if err := c.acknowledge(at, int64(n), o.Unsynced, res, err); err != nil {
		return err
	}
	if id >= 0 {
		c.next[id] += int32(n)
	}
	return nil
}

// end ends the producer's transaction.
func (c *crashPartition) end(id int64, commit bool) error {
	key, value := log.EndTxnMarker(commit, 0)
	x := &crashMeta{producer: &Producer{ID: id}, marker: true, commit: commit, epoch: c.LeaderEpoch(), recs: []log.Record{{Key: key, Value: value}}}
	if c.script.replicated {
		return c.store(x)
	}
	at := c.LogEnd()
	if err := c.tr.SendingAs(at, x, sentOf(x.recs)...); err != nil {
		return err
	}
	res, err := c.EndTransaction(context.Background(), id, 0, commit, 0, false)
	return c.acknowledge(at, 1, false, res, err)
}

// acknowledge notes what an append's answer promises.
func (c *crashPartition) acknowledge(at, n int64, unsynced bool, res Result, err error) error {
	if err != nil {
		if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, vfs.ErrCrashed) {
			c.tr.Failed()
		}
		return err
	}
	if res.Duplicate || res.BaseOffset != at || res.LastOffset != at+n-1 {
		return brokenf("an append at %d of %d records got %+v", at, n, res)
	}
	if hw := c.HighWatermark(); hw < at+n {
		return brokenf("acknowledged up to %d, the high watermark is %d", at+n, hw)
	}
	if c.level == log.Durable && !unsynced {
		return c.tr.Durable(at + n)
	}
	if !c.crashed() {
		c.tr.Written()
	}
	return nil
}

// store has a batch stored as a replicator does.
func (c *crashPartition) store(x *crashMeta) error {
	h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	if p := x.producer; p != nil {
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = p.ID, p.Epoch, p.Sequence
		if p.Transactional {
			h.Attributes = log.Transactional
		}
		if x.marker {
			h.Attributes, h.BaseSequence = log.Transactional|log.Control, -1
		}
	}
	b, err := log.AppendBatch(nil, &h, x.recs)
	if err != nil {
		return err
	}
	x.epoch = int32(c.term)
	at := c.LogEnd()
	if err := c.tr.SendingAs(at, x, sentOf(x.recs)...); err != nil {
		return err
	}
	err = c.Store([]Entry{{Kind: log.KindData, Index: c.nextIndex(), Epoch: c.term, Data: b}})
	if err != nil {
		if c.Err() == nil && !errors.Is(err, vfs.ErrCrashed) {
			c.tr.Failed()
		}
		return err
	}
	if c.level == log.Durable {
		err = c.tr.Durable(c.LogEnd())
	} else if !c.crashed() {
		c.tr.Written()
	}
	if x.producer != nil && !x.marker {
		c.next[x.producer.ID] += int32(len(x.recs))
	}
	return err
}

func (c *crashPartition) nextIndex() uint64 {
	c.Log().Lock()
	defer c.Log().Unlock()
	return c.Log().NextIndex()
}

// commit says that a majority has what lies below offset, then says the same of an
// older entry, which changes nothing.
func (c *crashPartition) commit(offset int64) error {
	if c.tr != nil {
		for _, b := range c.tr.Placed() {
			if b.Next <= offset {
				b.Meta.(*crashMeta).committed = true
			}
		}
	}
	r, err := c.Log().ReadFrom(c.LogStart())
	if err != nil {
		return err
	}
	last, first := uint64(0), uint64(0)
	for {
		f, err := r.Next()
		if err == io.EOF || err == nil && f.NextOffset > offset {
			break
		}
		if err != nil {
			return err
		}
		if first == 0 {
			first = f.Index
		}
		last = f.Index
	}
	for _, index := range []uint64{last, first} {
		before := c.HighWatermark()
		if err := c.Commit(index); err != nil {
			return err
		}
		if hw := c.HighWatermark(); hw < before {
			return brokenf("the high watermark went back from %d to %d", before, hw)
		}
	}
	return nil
}

// truncate takes back what lies from the batch at offset on, as a new leader would.
func (c *crashPartition) truncate(offset int64) error {
	r, err := c.Log().ReadFrom(offset)
	if err != nil {
		return err
	}
	f, err := r.Next()
	if err != nil {
		return err
	}
	c.tr.Truncating(f.Offset)
	if err := c.TruncateFrom(f.FirstIndex); err != nil {
		return err
	}
	c.tr.Truncated()
	c.term++
	c.sequences(c.tr.Placed())
	return nil
}

// sequences finds what each producer sends next.
func (c *crashPartition) sequences(batches []crashtest.Batch) {
	clear(c.next)
	for _, b := range batches {
		if x := b.Meta.(*crashMeta); x.producer != nil && !x.marker {
			c.next[x.producer.ID] = x.producer.Sequence + int32(len(x.recs))
		}
	}
}

// sync acknowledges everything as durable.
func (c *crashPartition) sync() error {
	end := c.LogEnd()
	if err := c.Sync(context.Background()); err != nil {
		return err
	}
	return c.tr.Durable(end)
}

// delete moves the log start offset.
func (c *crashPartition) delete(offset int64) error {
	c.tr.Starting(offset)
	start, err := c.DeleteRecords(context.Background(), offset)
	if err != nil {
		return err
	}
	return c.tr.Started(start)
}

// compact cleans what is committed and syncs before: only durable segments are touched.
func (c *crashPartition) compact() error {
	if err := c.sync(); err != nil {
		return err
	}
	upto := c.LastStable()
	c.tr.Compacting(upto)
	_, err := c.Log().Compact(context.Background(), log.CompactPolicy{Upto: upto})
	return err
}

// reopen closes the partition and opens it again within the run.
func (c *crashPartition) reopen() error {
	if err := c.close(); err != nil {
		return err
	}
	again, err := c.script.open(c.fs, c.level, c.tr)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	c.Partition, c.opened, c.term = again.Partition, again.opened, again.term
	got, err := c.Contents()
	if err != nil {
		return err
	}
	if err := c.tr.Check(got, crashtest.Nothing); err != nil {
		return err
	}
	c.tr.Adopt(got)
	return c.Judge(c.tr)
}

// repeat sends again each producer's last batches: all are recognised, at their
// offsets, and nothing is written.
func (c *crashPartition) repeat() error {
	kept := map[int64]int{}
	batches, end := c.tr.Placed(), c.LogEnd()
	for _, b := range slices.Backward(batches) {
		x := b.Meta.(*crashMeta)
		if x.producer == nil || x.marker || kept[x.producer.ID] == 5 {
			continue
		}
		kept[x.producer.ID]++
		res, err := c.Partition.Append(context.Background(), x.recs, &AppendOptions{Producer: x.producer})
		if err != nil {
			return fmt.Errorf("repeat offsets %d to %d: %w", b.Base, b.Next, err)
		}
		if !res.Duplicate || res.BaseOffset != b.Base || res.LastOffset != b.Next-1 || c.LogEnd() != end {
			return brokenf("offsets %d to %d sent again: %+v, the log ends at %d, it did at %d", b.Base, b.Next, res, c.LogEnd(), end)
		}
		if c.level == log.Durable { // also when nobody waited for it before
			if err := c.tr.Durable(b.Next); err != nil {
				return err
			}
		}
	}
	return nil
}

// Append is what a reopened partition is asked to do: its producers send their last
// batches again and then go on, open transactions end.
func (c *crashPartition) Append(tr *crashtest.Trace) error {
	c.tr = tr
	batches := tr.Placed()
	c.sequences(batches)
	open := map[int64]bool{}
	for _, b := range batches {
		if x := b.Meta.(*crashMeta); x.producer != nil {
			open[x.producer.ID] = !x.marker && x.producer.Transactional
		}
	}
	if !c.script.replicated {
		if err := c.repeat(); err != nil {
			return err
		}
	}
	for id := int64(-1); id < 3; id++ {
		if err := c.append(id, open[id], 1+int(id&1), 40); err != nil {
			return err
		}
		if open[id] {
			if err := c.end(id, id == 1); err != nil {
				return err
			}
		}
	}
	if c.script.replicated {
		if err := c.commit(c.LogEnd()); err != nil {
			return err
		}
	} else if err := c.repeat(); err != nil {
		return err
	}
	return c.sync()
}

// steps runs step n times, syncing now and then where the level does not.
func (c *crashPartition) steps(n, syncEvery int, step func(i int) error) error {
	for i := range n {
		if err := step(i); err != nil {
			return err
		}
		if c.level != log.Durable && i%syncEvery == syncEvery-1 {
			if err := c.sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

var crashScripts = []crashScript{
	{name: "append single", segment: 64 << 10, run: func(c *crashPartition) error {
		return c.steps(8, 3, func(i int) error { return c.append(-1, false, 1, 20+i*20) })
	}},
	{name: "append batch", segment: 64 << 10, run: func(c *crashPartition) error {
		return c.steps(6, 3, func(i int) error { return c.append(-1, false, 2+i, 150) })
	}},
	{name: "roll", segment: 2048, run: func(c *crashPartition) error {
		return c.steps(10, 4, func(i int) error { return c.append(int64(i%2)-1, false, 1+i%3, 200) })
	}},
	{name: "retention", segment: 2048, run: func(c *crashPartition) error {
		return c.steps(12, 4, func(i int) error {
			if err := c.append(int64(i%3)-1, i%3 == 2, 2, 200); err != nil || i%4 != 3 {
				return err
			}
			if i == 7 {
				if err := c.end(1, false); err != nil {
					return err
				}
			}
			return c.delete((c.LogStart() + c.LogEnd()) / 2)
		})
	}},
	{name: "idempotent", segment: 4096, run: func(c *crashPartition) error {
		return c.steps(10, 4, func(i int) error {
			if i%5 == 4 {
				if err := c.SetLeaderEpoch(c.LeaderEpoch() + 2); err != nil {
					return err
				}
			}
			if err := c.append(int64(i%3), false, 1+i%2, 100); err != nil {
				return err
			}
			return c.repeat()
		})
	}},
	{name: "transactions", segment: 4096, run: func(c *crashPartition) error {
		return c.steps(9, 4, func(i int) error {
			if err := c.append(int64(i%2), true, 1+i%2, 60); err != nil {
				return err
			}
			if err := c.append(int64(i%3)-1, i%3 > 0, 1, 60); err != nil || i%3 != 2 {
				return err
			}
			return c.end(int64(i/3%2), i < 5)
		})
	}},
	{name: "transactions synced at their end", segment: 2048, run: func(c *crashPartition) error {
		c.unsynced = true
		defer func() { c.unsynced = false }()
		return c.steps(10, 4, func(i int) error {
			if err := c.append(int64(i%2), true, 1+i%2, 150); err != nil {
				return err
			}
			switch i % 5 {
			case 2:
				return c.end(int64(i/5%2), i < 5)
			case 3:
				return c.append(-1, false, 1, 60) // which waits, and syncs what lies before it
			case 4:
				return c.repeat()
			}
			return nil
		})
	}},
	{name: "checkpoint", segment: 2048, run: func(c *crashPartition) error {
		for round := range 3 {
			err := c.steps(3, 2, func(i int) error { return c.append(int64(i)-1, i == 2, 2, 150) })
			if err != nil {
				return err
			}
			if round == 1 {
				if err := c.end(1, true); err != nil {
					return err
				}
			}
			if err := c.reopen(); err != nil { // a close writes a checkpoint with a snapshot
				return err
			}
		}
		return c.append(0, false, 1, 10)
	}},
	{name: "compaction", segment: 2048, run: func(c *crashPartition) error {
		return c.steps(12, 4, func(i int) error {
			if err := c.append(int64(i%3)-1, false, 2, 120); err != nil || i%5 != 4 {
				return err
			}
			return c.compact()
		})
	}},
	{name: "replica", replicated: true, segment: 2048, run: func(c *crashPartition) error {
		for round := range int64(3) {
			err := c.steps(5, 3, func(i int) error {
				if err := c.append(int64(i%3)-1, i%3 == 2, 1+i%2, 120); err != nil || i != 2 {
					return err
				}
				if round == 1 {
					if err := c.end(1, false); err != nil {
						return err
					}
				}
				return c.commit(c.LogEnd())
			})
			if err != nil {
				return err
			}
			placed := c.tr.Placed()
			if err := c.truncate(placed[len(placed)-1-int(round%2)].Base); err != nil {
				return err
			}
			if round == 1 {
				if err := c.reopen(); err != nil {
					return err
				}
			}
		}
		return c.delete(c.HighWatermark() / 2)
	}},
	{name: "append concurrent", segment: 2048, run: (*crashPartition).concurrently},
}

// concurrently appends from four goroutines, two of which are producers.
func (c *crashPartition) concurrently() error {
	const writers, each = 4, 3
	offers := make([][]*crashtest.Offer, writers)
	recs := make([][][]log.Record, writers)
	for w := range writers {
		for range each {
			r := c.records(1+w%2, 80)
			x := &crashMeta{recs: r, epoch: c.LeaderEpoch()}
			if w < 2 {
				x.producer = &Producer{ID: int64(w), Sequence: int32(len(offers[w]) * (1 + w%2))}
			}
			offers[w], recs[w] = append(offers[w], c.tr.Offering(x, sentOf(r)...)), append(recs[w], r)
		}
	}
	errs := make(chan error)
	for w := range writers {
		go func() {
			var err error
			for i := 0; i < each; i++ {
				o := offers[w][i]
				if err != nil { // the ones before it did not go through: it is never sent
					c.tr.Refused(o)
					continue
				}
				opts := &AppendOptions{}
				if w < 2 {
					opts.Producer = &Producer{ID: int64(w), Sequence: int32(i * (1 + w%2))}
				}
				var res Result
				if res, err = c.Partition.Append(context.Background(), recs[w][i], opts); err == nil {
					if c.level == log.Durable || !c.crashed() {
						c.tr.Acknowledged(o, res.BaseOffset, c.level == log.Durable)
					}
				} else if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, vfs.ErrCrashed) {
					c.tr.Refused(o)
				}
			}
			errs <- err
		}()
	}
	var first error
	for range writers {
		if err := <-errs; first == nil {
			first = err
		}
	}
	if first != nil || c.crashed() {
		return first
	}
	if err := c.tr.Settle(); err != nil {
		return err
	}
	return c.sync()
}

func crashEnv(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, text, err)
	}
	return n
}

// TestCrashStates tries every operation of the workloads, and many of the states
// that each crash can leave: what was acknowledged is there, producers' repetitions
// are recognised, transactions and leader epochs are as the batches say. As in
// package log, EMBEDLOG_CRASH_STATES and EMBEDLOG_CRASH_FROM make a long run of it.
func TestCrashStates(t *testing.T) {
	var all []crashtest.Workload
	for i := range crashScripts {
		for _, level := range []log.Level{log.Durable, log.Interval, log.OS} {
			all = append(all, crashScripts[i].workload(level))
		}
	}
	x := &crashtest.Explorer{Workloads: all, PerRun: 2}
	x.Progress = func(pass int, totals crashtest.Totals) { t.Logf("pass %d: %v", pass, totals) }
	from := crashEnv(t, "EMBEDLOG_CRASH_FROM", 0)
	totals, err := x.Explore(from, crashEnv(t, "EMBEDLOG_CRASH_STATES", testcount.N(6000)))
	t.Logf("from pass %d: %v", from, totals)
	if err != nil {
		t.Fatal(err)
	}
}
