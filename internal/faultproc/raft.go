package faultproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// follower is a replicator that never leads: entries come by Store.
type follower struct{}

func (follower) LeaderEpoch() (int32, error) {
	return 0, &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}
}

func (follower) Propose(context.Context, int32, int64, [][]byte) (partition.Proposal, error) {
	return nil, &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}
}

// raftWork is one life of a partition under a replicator, as Raft would have it:
// entries are stored, some committed, some of the others taken back.
type raftWork struct {
	work
	epoch, committed uint64
}

// store stores one entry for each id, all with one call.
func (w *raftWork) store(ids, kinds []string) error {
	index := w.p.Log().NextIndex()
	var entries []partition.Entry
	for i, id := range ids {
		e := partition.Entry{Kind: log.KindData, Index: index + uint64(i), Epoch: w.epoch}
		n := 1
		switch kinds[i] {
		case "data":
			n = 1 + i%3
			h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LastOffsetDelta: int32(n - 1)}
			var err error
			if e.Data, err = log.AppendBatch(nil, &h, records(id, n)); err != nil {
				return err
			}
		case "noop":
			e.Kind, e.Data = log.KindNoop, []byte(id)
		case "configuration":
			e.Kind, e.Data = log.KindConfiguration, []byte(id)
		}
		entries = append(entries, e)
		w.say("store %d %d %s %s %d", e.Index, e.Epoch, e.Kind, id, n)
	}
	if err := w.p.Store(entries); err != nil {
		return err
	}
	w.say("stored")
	return nil
}

// open opens the partition and commits what was committed before, as the
// replicator does at its start.
func (w *raftWork) open(s *Spec, cfg partition.Config) error {
	var err error
	if w.p, err = s.open(w.out, cfg, follower{}); err != nil {
		return err
	}
	if w.committed > w.p.Log().Boundary().Index {
		return w.p.Commit(w.committed)
	}
	return nil
}

func workRaft(s *Spec, out io.Writer) error {
	r := rand.New(rand.NewPCG(s.Seed, uint64(s.Life)))
	cfg := partition.Config{Log: log.Config{SegmentBytes: 8 << 10, IndexIntervalBytes: 512, Level: log.Level(r.IntN(3))}}
	w := &raftWork{work: work{out: out}, epoch: s.Epoch + 1, committed: s.Committed}
	w.say("epoch %d", w.epoch)
	if err := w.open(s, cfg); err != nil {
		return err
	}
	number := 0
	for range s.Rounds {
		var err error
		next := w.p.Log().NextIndex()
		switch k := r.IntN(20); {
		case k < 9:
			var ids, kinds []string
			for range 1 + r.IntN(6) {
				number++
				ids = append(ids, fmt.Sprintf("%d.r.%ds", s.Life, number))
				kinds = append(kinds, []string{"data", "data", "data", "noop", "configuration"}[r.IntN(5)])
			}
			err = w.store(ids, kinds)
		case k < 12 && next-1 > w.committed:
			to := w.committed + 1 + r.Uint64N(next-1-w.committed)
			w.say("commit %d", to) // the others have it: it may not be lost, whether we hear of it or not
			w.committed = to
			err = w.p.Commit(to)
		case k < 16 && next-1 > w.committed:
			from := w.committed + 1 + r.Uint64N(next-1-w.committed)
			w.say("cut %d", from)
			if err = w.p.TruncateFrom(from); err == nil {
				w.say("cutdone %d", from)
			}
			w.epoch++
			w.say("epoch %d", w.epoch)
		case k < 17:
			err = w.p.SetLevel(log.Level(r.IntN(3)))
		case k < 18:
			start, hw := w.p.LogStart(), w.p.HighWatermark()
			to := start + r.Int64N(hw-start+1)
			w.say("del %d", to)
			if to, err = w.p.DeleteRecords(context.Background(), to); err == nil {
				w.say("deleted %d", to)
			} else if s.Faulty && errors.Is(err, syscall.EIO) && w.p.Err() == nil {
				err = nil // the checkpoint was not replaced: nothing is deleted, and nothing lost
			}
		case k == 19:
			cfg.Log.Level = w.p.Config().Log.Level
			if err = w.p.Close(); err == nil {
				err = w.open(s, cfg)
			}
		}
		if errors.Is(err, log.ErrStorageFailed) {
			w.say("poisoned")
			// The journal is not told: this entry may never be seen again.
			e := partition.Entry{Kind: log.KindNoop, Index: w.p.Log().NextIndex(), Epoch: w.epoch, Data: []byte("refused")}
			if err := w.p.Store([]partition.Entry{e}); !errors.Is(err, log.ErrStorageFailed) {
				return fmt.Errorf("store after a failed sync is answered with %v", err)
			}
			w.p.Close()
			return nil
		}
		if err != nil {
			return err
		}
	}
	return w.p.Close()
}
