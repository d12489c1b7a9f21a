package main

import (
	"context"
	"errors"
	"sync"

	"github.com/x/embedlog"
)

// embedlog through its public API: a topic of one partition.
type embedlogStore struct {
	db    *embedlog.DB
	topic *embedlog.Topic
	lists sync.Pool // of *[]embedlog.Record: a program that produces many has them at hand
}

func openOurs(dir string, g guarantee) (store, error) {
	level := embedlog.OS
	if g == machine {
		level = embedlog.Durable
	}
	db, err := embedlog.Open(dir, &embedlog.Options{Durability: level})
	if err != nil {
		return nil, err
	}
	t, err := db.EnsureTopic(context.Background(), "records", nil)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &embedlogStore{db: db, topic: t, lists: sync.Pool{New: func() any { return new([]embedlog.Record) }}}, nil
}

func (s *embedlogStore) Append(ctx context.Context, recs []record) error {
	if len(recs) == 1 {
		_, err := s.topic.Produce(ctx, embedlog.Record{Key: recs[0].key, Value: recs[0].value})
		return err
	}
	list := s.lists.Get().(*[]embedlog.Record)
	defer s.lists.Put(list)
	*list = (*list)[:0]
	for _, r := range recs {
		*list = append(*list, embedlog.Record{Key: r.key, Value: r.value})
	}
	_, err := s.topic.Produce(ctx, *list...)
	return err
}

func (s *embedlogStore) ReadAll(ctx context.Context) (int, error) {
	want, err := s.topic.ListOffsets(ctx, embedlog.Latest)
	if err != nil {
		return 0, err
	}
	c, err := s.db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "records"}}, ReuseBuffers: true})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	n := 0
	for rec, err := range c.Records(ctx) {
		if err != nil {
			return n, err
		}
		touch(rec.Value)
		if n++; rec.Offset == want[0].Offset-1 {
			break
		}
	}
	return n, nil
}

func (s *embedlogStore) Follow(ctx context.Context, f func([]byte)) (func() error, error) {
	ctx, cancel := context.WithCancel(ctx)
	c, err := s.db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: "records"}}})
	if err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		for rec, err := range c.Records(ctx) {
			if err != nil {
				if ctx.Err() != nil {
					err = nil
				}
				ended <- err
				return
			}
			f(rec.Value)
		}
		ended <- nil
	}()
	return func() error {
		cancel()
		return errors.Join(<-ended, c.Close())
	}, nil
}

func (s *embedlogStore) Close() error { return s.db.Close() }
