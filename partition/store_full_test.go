package partition

import (
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// A disk that is full in the middle of a Store may have no room to take back what went in. Whatever
// is in the log then is in the state, too: a producer that sends it again is told so.
// Found by the simulation of package raftrepl.
func TestStateFollowsWhatAFullDiskLeaves(t *testing.T) {
	left := 0
	for room := int64(0); room < 200<<10; room += 512 {
		fs := vfs.NewMem()
		p, err := Open("", &Options{FS: fs, Replicator: follower{}, Config: Config{Log: log.Config{SegmentBytes: 16 << 10, SegmentAge: -1}}})
		if err != nil {
			t.Fatal(err)
		}
		entry := func(i int) Entry {
			h := log.BatchHeader{BaseOffset: int64(i), LeaderEpoch: 1, ProducerID: 7, BaseSequence: int32(i)}
			b, err := log.AppendBatch(nil, &h, []log.Record{{Value: make([]byte, 700), Timestamp: 1}})
			if err != nil {
				t.Fatal(err)
			}
			return Entry{Kind: log.KindData, Index: uint64(i + 1), Epoch: 1, Data: b}
		}
		for i := range 20 {
			if err := p.Store([]Entry{entry(i)}); err != nil {
				t.Fatal(err)
			}
		}
		fs.SetCapacity(room)
		for i := 20; ; i += 3 {
			if err = p.Store([]Entry{entry(i), entry(i + 1), entry(i + 2)}); err != nil || i > 300 {
				break
			}
		}
		if err != nil && !errors.Is(err, log.ErrNoSpace) {
			t.Fatalf("room %d: %v", room, err)
		}
		last, _ := p.LastEntry()
		s, ok := p.ProducerState(7)
		if !ok || int64(s.LastSequence) != int64(last)-1 {
			t.Fatalf("room %d: the log ends with sequence %d, the state knows of %d, after %v", room, last-1, s.LastSequence, err)
		}
		if err != nil && (last-20)%3 != 0 {
			left++
		}
		fs.SetCapacity(-1)
		if err := p.Store([]Entry{entry(int(last))}); err != nil && p.Err() == nil {
			t.Fatalf("room %d: with room again: %v", room, err)
		}
		if err := p.Close(); err != nil && p.Err() == nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d times a part of a Store was left", left)
}
