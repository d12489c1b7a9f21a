package main

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

type pebbleStore struct {
	db   *pebble.DB
	next atomic.Uint64
	sync *pebble.WriteOptions
}

type quiet struct{}

func (quiet) Infof(string, ...any)                   {}
func (quiet) Errorf(string, ...any)                  {}
func (quiet) Fatalf(format string, args ...any)      { panic(format) }
func (quiet) Eventf(context.Context, string, ...any) {}
func (quiet) IsTracingEnabled(context.Context) bool  { return false }

func openPebble(dir string, g guarantee) (store, error) {
	db, err := pebble.Open(dir, &pebble.Options{MemTableSize: 64 << 20, Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	s := &pebbleStore{db: db, sync: pebble.NoSync}
	if g == machine {
		s.sync = pebble.Sync
	}
	return s, nil
}

func (s *pebbleStore) Append(_ context.Context, recs []record) error {
	first := s.next.Add(uint64(len(recs))) - uint64(len(recs))
	var key [8]byte
	if len(recs) == 1 {
		binary.BigEndian.PutUint64(key[:], first)
		return s.db.Set(key[:], joined(recs[0]), s.sync)
	}
	b := s.db.NewBatch()
	for i := range recs {
		binary.BigEndian.PutUint64(key[:], first+uint64(i))
		if err := b.Set(key[:], joined(recs[i]), nil); err != nil {
			return err
		}
	}
	return b.Commit(s.sync)
}

func (s *pebbleStore) ReadAll(ctx context.Context) (int, error) {
	it, err := s.db.NewIterWithContext(ctx, nil)
	if err != nil {
		return 0, err
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		touch(it.Value())
		n++
	}
	return n, it.Close()
}

func (s *pebbleStore) Close() error { return s.db.Close() }
