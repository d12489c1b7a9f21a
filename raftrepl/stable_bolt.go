package raftrepl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime/debug"
	"syscall"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/x/embedlog/log"
)

// boltVotes keeps votes in a file of raft-boltdb. Its log bucket is the table: a group
// has one entry, whose index is a number that the group keeps as long as it is there,
// whose term is the group's and whose data is its vote. So the votes of many groups are
// one transaction, and one group's term and vote are never half written.
//
// The library checks next to nothing of what it reads, so the file is looked at before it is
// opened (checkBolt), each entry has a checksum with its number, and the numbers have
// no gap: a forgotten group keeps its entry, and one that found no room is written with the
// next. Should it come upon damage nevertheless, which makes it panic, that is caught.
type boltVotes struct {
	db   *raftboltdb.BoltStore
	next uint64
	free []uint64 // of groups that were forgotten

	grown func() // where it is not nil, called when the file may have grown
}

// OpenVotes opens the votes in a file of raft-boltdb, and makes it if it is not there.
func OpenVotes(path string) (*Votes, error) {
	v, err := openBolt(path, true)
	if err != nil {
		return nil, fmt.Errorf("votes in %s: %w", path, err)
	}
	return v, nil
}

// openBolt does not sync what it writes without synced: for tests that open many files.
func openBolt(path string, synced bool) (v *Votes, err error) {
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	// The file is mapped: what cannot be read of it is a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("%v: %w", r, log.ErrCorrupt)
		}
	}()
	// The directory has a lock of its own; a file that another process has is no place to wait at.
	db, err := raftboltdb.New(raftboltdb.Options{Path: path, NoSync: !synced, BoltOptions: &bbolt.Options{Timeout: 1e9, FreelistType: bbolt.FreelistMapType}})
	if err != nil {
		return nil, err
	}
	return openVotes(&boltVotes{db: db, next: 1})
}

func (b *boltVotes) load() (list []vote, err error) {
	first, err := b.db.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := b.db.LastIndex()
	if err != nil || last == 0 {
		return nil, err
	}
	b.next = last + 1
	for i := uint64(1); i <= last; i++ {
		var e raft.Log
		if err := b.db.GetLog(i, &e); err != nil || first != 1 {
			return nil, fmt.Errorf("entry %d of %d to %d: %v: %w", i, first, last, err, log.ErrCorrupt)
		}
		data, ok := checkedVote(i, e.Data)
		g, rest, err := decodeVote(data)
		if !ok || err != nil || len(rest) > 0 || g.term != e.Term || e.Index != i {
			return nil, fmt.Errorf("entry %d: %w", i, log.ErrCorrupt)
		}
		if g.slot = i; !g.known() {
			b.free = append(b.free, i)
			continue
		}
		list = append(list, g)
	}
	return list, nil
}

// sealVote adds the CRC32C of a vote and of the number of its entry.
func sealVote(slot uint64, b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, voteSum(slot, b))
}

// checkedVote is the inverse.
func checkedVote(slot uint64, b []byte) (data []byte, ok bool) {
	if len(b) < 4 {
		return nil, false
	}
	data = b[:len(b)-4]
	return data, binary.BigEndian.Uint32(b[len(data):]) == voteSum(slot, data)
}

func voteSum(slot uint64, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(binary.BigEndian.AppendUint64(nil, slot), votesTable), votesTable, b)
}

func (b *boltVotes) store(changed, _ []vote) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v: %w", r, log.ErrCorrupt)
		}
	}()
	logs := make([]*raft.Log, len(changed))
	for i := range changed {
		g := &changed[i]
		if g.slot == 0 {
			if n := len(b.free); n > 0 {
				g.slot, b.free = b.free[n-1], b.free[:n-1]
			} else {
				g.slot = b.next
				b.next++
			}
		}
		logs[i] = &raft.Log{Index: g.slot, Term: g.term, Data: sealVote(g.slot, g.appendTo(nil))}
	}
	err = b.db.StoreLogs(logs)
	if b.grown != nil {
		b.grown()
	}
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: %w", log.ErrNoSpace, err) // the transaction was rolled back
	}
	return err
}

func (b *boltVotes) close() error { return b.db.Close() }
