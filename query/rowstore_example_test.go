package query_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"sync"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// sorted is a RowStore: a list in the order of the keys, which forgets all when the program ends.
type sorted struct {
	mu   sync.RWMutex
	rows []query.RowChange
}

func (s *sorted) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s.rows, string(key), func(r query.RowChange, key string) int { return strings.Compare(string(r.Key), key) })
}

func (s *sorted) Get(dst, key []byte) ([]byte, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.find(key)
	if !ok {
		return dst, false, nil
	}
	return append(dst, s.rows[i].Row...), true, nil
}

func (s *sorted) Walk(from, to []byte, backwards bool, f func(key, row []byte) bool) error {
	s.mu.RLock()
	i, _ := s.find(from)
	j, _ := s.find(to)
	some := slices.Clone(s.rows[i:max(i, j)])
	s.mu.RUnlock()
	if backwards {
		slices.Reverse(some)
	}
	for _, r := range some {
		if !f(r.Key, r.Row) {
			break
		}
	}
	return nil
}

func (s *sorted) Apply(changes []query.RowChange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		i, ok := s.find(c.Key)
		if ok {
			s.rows = slices.Delete(s.rows, i, i+1)
		}
		if !c.Delete {
			s.rows = slices.Insert(s.rows, i, query.RowChange{Key: slices.Clone(c.Key), Row: slices.Clone(c.Row)})
		}
	}
	return nil
}

func (s *sorted) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = nil
	return nil
}

func (s *sorted) Close() error { return nil }

// stores gives each task one.
type stores struct{}

func (stores) OpenStore(_, name string) (query.RowStore, error) { return new(sorted), nil }

// A store of one's own has the rows of views: what a graph asks of it is five methods.
func ExampleStores() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	words, err := db.EnsureTopic(ctx, "words", nil)
	if err != nil {
		log.Fatal(err)
	}
	g := query.NewGraph(db, "language", &query.Options{Store: stores{}})
	counts := query.Add(g, "counts", query.Count(query.From(words, codec.String, codec.String)))
	if err := g.Start(ctx); err != nil {
		log.Fatal(err)
	}
	for _, word := range []string{"log", "view", "log"} {
		if _, err := words.Produce(ctx, embedlog.Record{Key: []byte(word), Value: []byte("seen")}); err != nil {
			log.Fatal(err)
		}
	}
	n, found, err := counts.Get(ctx, "log")
	fmt.Println(n, found, err)
	// Output: 2 true <nil>
}

// A RowStore has rows of bytes in the order of their keys.
func ExampleRowStore() {
	var s query.RowStore = new(sorted)
	err := s.Apply([]query.RowChange{{Key: []byte("bob"), Row: []byte("2")}, {Key: []byte("ann"), Row: []byte("1")}, {Key: []byte("eve"), Row: []byte("3")}})
	if err != nil {
		log.Fatal(err)
	}
	err = s.Walk([]byte("a"), []byte("c"), true, func(key, row []byte) bool {
		fmt.Printf("%s=%s\n", key, row)
		return true
	})
	fmt.Println(err)
	// Output:
	// bob=2
	// ann=1
	// <nil>
}

// Whoever deletes from a changelog takes rows from a view that it has committed. It is noticed when they are read again.
func ExampleStateError() {
	ctx := context.Background()
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	words, err := db.EnsureTopic(ctx, "words", nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, word := range []string{"log", "view", "log"} {
		if _, err := words.Produce(ctx, embedlog.Record{Key: []byte(word), Value: []byte("seen")}); err != nil {
			log.Fatal(err)
		}
	}
	count := func() error {
		counts, err := query.Materialize("counts", query.Count(query.From(words, codec.String, codec.String)))
		if err != nil {
			return err
		}
		_, _, err = counts.Get(ctx, "log")
		return errors.Join(err, counts.Close())
	}
	fmt.Println(count())
	changelog, err := db.Topic("counts-changelog")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := changelog.Produce(ctx, embedlog.Record{Key: []byte("log")}); err != nil { // a tombstone
		log.Fatal(err)
	}
	err = count()
	var lost *query.StateError
	if errors.As(err, &lost) && errors.Is(err, query.ErrState) {
		fmt.Printf("store %s of graph %s has %d rows, %d were committed\n", lost.Store, lost.Graph, lost.Rows, lost.Want)
	}
	// Output:
	// <nil>
	// store counts of graph counts has 1 rows, 2 were committed
}
