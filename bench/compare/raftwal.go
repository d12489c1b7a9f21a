package main

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

type raftWAL struct {
	mu   sync.Mutex // it wants its indexes from the caller, in order
	log  *wal.WAL
	last uint64
}

func openRaftWAL(dir string, _ guarantee) (store, error) {
	l, err := wal.Open(dir)
	if err != nil {
		return nil, err
	}
	last, err := l.LastIndex()
	return &raftWAL{log: l, last: last}, err
}

func (s *raftWAL) Append(_ context.Context, recs []record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := make([]*raft.Log, len(recs))
	for i := range recs {
		logs[i] = &raft.Log{Index: s.last + 1 + uint64(i), Term: 1, Data: joined(recs[i])}
	}
	if err := s.log.StoreLogs(logs); err != nil {
		return err
	}
	s.last += uint64(len(recs))
	return nil
}

func (s *raftWAL) ReadAll(context.Context) (int, error) {
	first, err := s.log.FirstIndex()
	if err != nil {
		return 0, err
	}
	n := 0
	var l raft.Log
	for i := first; i <= s.last; i++ {
		if err := s.log.GetLog(i, &l); err != nil {
			return n, err
		}
		touch(l.Data)
		n++
	}
	return n, nil
}

func (s *raftWAL) Close() error { return s.log.Close() }
