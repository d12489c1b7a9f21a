package query

import (
	"errors"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// Graphs whose names and views come to one topic do not both start: after a restart each would have the rows of the other one.
func TestNamesThatMeet(t *testing.T) {
	for name, second := range map[string]func(db *embedlog.DB, b *Table[string, string]) (*View[string, string], error){
		"graph of one view": func(_ *embedlog.DB, b *Table[string, string]) (*View[string, string], error) {
			return Materialize("shop-spent", b)
		},
		"graph of two parts": func(db *embedlog.DB, b *Table[string, string]) (*View[string, string], error) {
			g := NewGraph(db, "shop-spent", nil)
			v := Add(g, "late", b)
			return v, g.Start(t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := embedlogtest.Open(t, nil)
			a, b := topicWith(t, db.DB, "a", "of a"), topicWith(t, db.DB, "b", "of b")
			tables := func(top *embedlog.Topic) *Table[string, string] { return TableFrom(top, codec.String, codec.String) }
			g := NewGraph(db.DB, "shop", nil)
			Add(g, "spent", tables(a))
			Add(g, "spent-late", tables(a).Filter(func(string, string) bool { return true }))
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			w, err := second(db.DB, tables(b))
			if there := (*embedlog.TopicExistsError)(nil); !errors.Is(err, embedlog.ErrTopicExists) || !errors.As(err, &there) {
				w.Close()
				t.Fatalf("the second graph: %v", err)
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			g = NewGraph(db.DB, "shop", nil)
			v := Add(g, "spent", tables(a))
			Add(g, "spent-late", tables(a).Filter(func(string, string) bool { return true }))
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, _, err := v.Get(t.Context(), "k"); got != "of a" || err != nil {
				t.Errorf("after a restart: %q, %v", got, err)
			}
		})
	}
}

// A topic of the program's is not taken for a changelog, and the next generation finds another number where its topics are there.
func TestNamesOfTopics(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	a := topicWith(t, db.DB, "a", "of a")
	topicWith(t, db.DB, "g.gen2-changelog", "mine")
	topicWith(t, db.DB, "h-changelog", "mine")
	if _, err := Materialize("h", TableFrom(a, codec.String, codec.String)); !errors.Is(err, embedlog.ErrTopicExists) {
		t.Errorf("a graph whose changelog is there: %v", err)
	}
	v, err := Materialize("g", TableFrom(a, codec.String, codec.String))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Graph().Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _, err := v.Get(t.Context(), "k"); got != "of a" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	mine, err := db.Topic("g.gen2-changelog")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range mine.Scan(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("the program's topic has %d records", n)
	}
}

// topicWith makes a topic with a record.
func topicWith(t *testing.T, db *embedlog.DB, name, value string) *embedlog.Topic {
	t.Helper()
	top, err := db.EnsureTopic(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Produce(t.Context(), embedlog.Record{Key: []byte("k"), Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	return top
}
