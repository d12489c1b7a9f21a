package main

import (
	"context"
	"sync"

	"github.com/tidwall/wal"
)

type tidwallStore struct {
	mu   sync.Mutex // it wants its indexes from the caller, in order
	log  *wal.Log
	last uint64
}

func openTidwall(dir string, g guarantee) (store, error) {
	l, err := wal.Open(dir, &wal.Options{NoSync: g == process, SegmentSize: 64 << 20, SegmentCacheSize: 2, LogFormat: wal.Binary})
	if err != nil {
		return nil, err
	}
	last, err := l.LastIndex()
	return &tidwallStore{log: l, last: last}, err
}

func (s *tidwallStore) Append(_ context.Context, recs []record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(recs) == 1 {
		if err := s.log.Write(s.last+1, joined(recs[0])); err != nil {
			return err
		}
		s.last++
		return nil
	}
	var b wal.Batch
	for i := range recs {
		b.Write(s.last+1+uint64(i), joined(recs[i]))
	}
	if err := s.log.WriteBatch(&b); err != nil {
		return err
	}
	s.last += uint64(len(recs))
	return nil
}

func (s *tidwallStore) ReadAll(context.Context) (int, error) {
	first, err := s.log.FirstIndex()
	if err != nil {
		return 0, err
	}
	n := 0
	for i := first; i <= s.last; i++ {
		b, err := s.log.Read(i)
		if err != nil {
			return n, err
		}
		touch(b)
		n++
	}
	return n, nil
}

func (s *tidwallStore) Close() error { return s.log.Close() }
