package main

import (
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// once are a stream's rows without those under a key that it has had before. Who gets no answer from an instance, because that was killed or knows it too
// late, asks another one the same: so an order, or a payment, may be in its topic twice. It counts once, wherever it was taken.
//
// The name is that of the store which remembers the keys. It remembers them for ever: a shop that lasts has timers that forget the old ones.
func once[V any](s *query.Stream[string, V], name string) *query.Stream[string, V] {
	seen := query.NewKeyValueStore(name, codec.String, codec.String)
	return query.ProcessValues(s, name, func(c *query.Context[string, V], r query.Record[string, V]) error {
		if _, there := seen.Get(c, r.Key); !there {
			seen.Put(c, r.Key, "")
			c.Forward(r.Key, r.Value)
		}
		return nil
	}, seen)
}
