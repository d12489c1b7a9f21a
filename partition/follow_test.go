package partition

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// commands is follower where the group replicates commands.
type commands struct{ follower }

func (commands) ProposeCommand(context.Context, int32, []byte) (Proposal, error) {
	return nil, &NotLeaderError{Leader: -1}
}

// followed is a follower's log of entries 1 to 12, a segment each, of which 1 to 8 are known to be committed.
const (
	followedEnd       = 12
	followedCommitted = 8
)

func openFollowed(fs vfs.FS) (*Partition, error) {
	p, err := Open("", &Options{FS: fs, Replicator: commands{}, Config: Config{Log: log.Config{SegmentBytes: 2 << 10, SegmentAge: -1}}})
	if err == nil {
		if err = p.Commit(min(followedCommitted, p.log.NextIndex()-1)); err != nil {
			err = errors.Join(err, p.Close())
		}
	}
	return p, err
}

func newFollowed(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	p, err := Open("", &Options{FS: fs, Replicator: commands{}, Config: Config{Log: log.Config{SegmentBytes: 2 << 10, SegmentAge: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(followedEnd) {
		h := log.BatchHeader{BaseOffset: i, LeaderEpoch: 1, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		b, err := log.AppendBatch(nil, &h, []log.Record{{Key: fmt.Append(nil, i), Value: make([]byte, 1500), Timestamp: 1}})
		if err == nil {
			err = p.Store([]Entry{{Kind: log.KindData, Index: uint64(i + 1), Epoch: 1, Data: b}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Commit(followedCommitted), p.Close()); err != nil {
		t.Fatal(err)
	}
	return fs
}

// checkFollowed looks at what is left, and does what a leader does next: it takes the tail back, sends another one, and has it
// committed.
func checkFollowed(p *Partition, least int64) error {
	start, hw := p.LogStart(), p.HighWatermark()
	if start < least || start > followedCommitted || hw < start || hw > followedCommitted || p.LogEnd() != followedEnd {
		return fmt.Errorf("the log is %d to %d, its high watermark %d", start, p.LogEnd(), hw)
	}
	for offset := start; offset < hw; offset++ {
		res, err := p.Fetch(context.Background(), FetchRequest{Offset: offset, MaxBytes: 1})
		if err != nil || len(res.Batches) != 1 {
			return fmt.Errorf("offset %d: %d batches, %v", offset, len(res.Batches), err)
		}
		for rec := range log.Batch(res.Batches[0]).Records(0) {
			if rec.Offset != offset || string(rec.Key) != fmt.Sprint(offset) {
				return fmt.Errorf("offset %d holds %q", offset, rec.Key)
			}
		}
	}
	if err := p.TruncateFrom(followedCommitted + 1); err != nil {
		return fmt.Errorf("the tail is not taken back: %w", err)
	}
	return errors.Join(p.Store([]Entry{{Kind: log.KindNoop, Index: followedCommitted + 1, Epoch: 2, Data: []byte("lead")}}), p.Commit(followedCommitted+1))
}

// A follower that is told where its group's log starts deletes what it knows to be committed, whole segments, and no more.
func TestFollowStart(t *testing.T) {
	for _, row := range []struct{ start, want, segments int64 }{{0, 0, 12}, {3, 3, 9}, {8, 8, 4}, {10, 8, 4}, {1000, 8, 4}} {
		p, err := openFollowed(newFollowed(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.FollowStart(row.start); err != nil || p.LogStart() != row.want || int64(p.log.Segments()) != row.segments {
				t.Errorf("to %d: %v, it starts at %d and has %d segments, want %d and %d", row.start, err, p.LogStart(), p.log.Segments(), row.want, row.segments)
			}
		}
		if g, _ := p.Group(); g.LogStart != 0 {
			t.Errorf("to %d: its group is said to have decided %d", row.start, g.LogStart)
		}
		if err := errors.Join(checkFollowed(p, row.want), p.Close()); err != nil {
			t.Errorf("to %d: %v", row.start, err)
		}
	}
	p, err := Open("", &Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.FollowStart(0); err != nil {
		t.Error(err)
	}
}

// Power cuts and errors at each operation: what is there afterwards is what was there before, or what was to be.
func TestFollowStartCrashes(t *testing.T) {
	base := newFollowed(t)
	crashes := 0
	for _, choice := range map[string]vfs.Choice{"nothing unsynced": vfs.KeepNone, "all": vfs.KeepAll, "some": vfs.Bits(0x5a5a)} {
		for k := 0; ; k++ {
			fs := base.AfterKill(vfs.CrashAt(k), vfs.CrashCut(func(n int) int { return n / 2 }))
			least := int64(0)
			p, err := openFollowed(fs)
			if err == nil {
				if err = p.FollowStart(10); err == nil {
					least = followedCommitted
				}
				p.Close()
			}
			if !fs.Crashed() {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			crashes++
			p, err = openFollowed(fs.AfterCrash(choice))
			if err == nil {
				err = errors.Join(checkFollowed(p, least), p.Close())
			}
			if err != nil {
				t.Errorf("k=%d: %v", k, err)
			}
		}
	}
	if crashes < 30 {
		t.Errorf("only %d crashes", crashes)
	}
	for k := 0; ; k++ {
		mem := base.AfterKill()
		fault := vfs.NewFault(mem)
		p, err := openFollowed(fault)
		if err != nil {
			t.Fatal(err)
		}
		before := fault.Hits()
		fault.Add(vfs.Rule{Skip: k, Effect: vfs.Fail(vfs.ErrNoSpace)})
		err = p.FollowStart(10)
		hit := fault.Hits() > before
		fault.Clear()
		if !hit {
			p.Close()
			break
		}
		if err == nil && p.LogStart() != followedCommitted {
			t.Errorf("error at operation %d: it starts at %d", k, p.LogStart())
		}
		if p.Err() == nil { // it goes on, and the next time it follows
			if again := p.FollowStart(10); again != nil || p.LogStart() != followedCommitted {
				t.Errorf("error at operation %d: %v, then %v, and it starts at %d", k, err, again, p.LogStart())
			}
		}
		p.Close()
		p, err = openFollowed(mem.AfterKill())
		if err == nil {
			err = errors.Join(checkFollowed(p, 0), p.Close())
		}
		if err != nil {
			t.Errorf("error at operation %d: %v", k, err)
		}
	}
}
