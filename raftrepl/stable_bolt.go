package raftrepl

import (
	"errors"
	"fmt"
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
type boltVotes struct {
	db   *raftboltdb.BoltStore
	next uint64
	free []uint64 // of groups that were forgotten
}

// OpenVotes opens the votes in a file of raft-boltdb, and makes it if it is not there.
func OpenVotes(path string) (*Votes, error) {
	// The directory has a lock of its own; a file that another process has is no place to wait at.
	db, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: 1e9, FreelistType: bbolt.FreelistMapType}})
	if err != nil {
		return nil, fmt.Errorf("open votes: %s: %w", path, err)
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
	for i := first; i <= last; i++ {
		var e raft.Log
		if err := b.db.GetLog(i, &e); errors.Is(err, raft.ErrLogNotFound) {
			b.free = append(b.free, i)
			continue
		} else if err != nil {
			return nil, err
		}
		g, rest, err := decodeVote(e.Data)
		if err != nil || len(rest) > 0 || g.term != e.Term {
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

func (b *boltVotes) store(changed, _ []vote) error {
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
		logs[i] = &raft.Log{Index: g.slot, Term: g.term, Data: g.appendTo(nil)}
	}
	err := b.db.StoreLogs(logs)
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: %w", log.ErrNoSpace, err) // the transaction was rolled back
	}
	return err
}

func (b *boltVotes) close() error { return b.db.Close() }
