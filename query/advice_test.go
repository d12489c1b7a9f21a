package query

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// What errors say should be done helps.
func TestAdvice(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	says := func(err, is error, advice string) {
		t.Helper()
		if !errors.Is(err, is) || !strings.Contains(err.Error(), advice) {
			t.Errorf("want %q: %v", advice, err)
		}
	}
	there := func(v *View[string, int64], want int64) {
		t.Helper()
		if got, _, err := v.Get(t.Context(), "k"); got != want || err != nil {
			t.Errorf("%d, %v; want %d", got, err, want)
		}
	}
	count := func(top *embedlog.Topic, o *Options) (*View[string, int64], error) {
		g := NewGraph(db.DB, top.Name()+"-count", o)
		return Add(g, "n", Count(From(top, codec.String, codec.String))), g.Start(t.Context())
	}
	rebuilt := func(v *View[string, int64], want int64) {
		t.Helper()
		if err := v.Graph().Rebuild(t.Context()); err != nil {
			t.Error(err)
		}
		there(v, want)
	}

	wide, err := db.EnsureTopic(t.Context(), "wide", &embedlog.TopicConfig{Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(3) {
		if _, err := wide.ProduceTo(t.Context(), p, embedlog.Record{Key: []byte("k"), Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := count(wide, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = v.Graph().CatchUp(t.Context())
	if misplaced := (*MisplacedKeyError)(nil); !errors.As(err, &misplaced) {
		t.Errorf("misplaced: %v", err)
	}
	v.Close()
	_, err = count(wide, &Options{OneTask: true})
	says(err, ErrDefinition, "Options.Rebuild")
	if v, err = count(wide, &Options{OneTask: true, Rebuild: true}); err != nil {
		t.Fatal(err)
	}
	there(v, 3)

	old := topicWith(t, db.DB, "again", "1")
	if v, err = count(old, nil); err != nil {
		t.Fatal(err)
	}
	there(v, 1)
	if err := errors.Join(v.Close(), db.DeleteTopic(t.Context(), "again")); err != nil {
		t.Fatal(err)
	}
	if v, err = count(topicWith(t, db.DB, "again", "2"), nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = v.Get(t.Context(), "k")
	says(err, ErrDefinition, "Graph.Rebuild")
	rebuilt(v, 1)

	short := topicWith(t, db.DB, "short", "1")
	if v, err = count(short, nil); err != nil {
		t.Fatal(err)
	}
	there(v, 1)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := short.Produce(t.Context(), embedlog.Record{Key: []byte("k"), Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := short.DeleteRecords(t.Context(), 0, 2); err != nil {
		t.Fatal(err)
	}
	if v, err = count(short, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = v.Get(t.Context(), "k")
	says(err, ErrGap, "Graph.Rebuild")
	rebuilt(v, 2)
}

// A row that is longer than its changelog takes stops the graph, until the changelog takes it.
func TestLongRows(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topicWith(t, db.DB, "a", strings.Repeat("x", 600_000))
	if _, err := top.Produce(t.Context(), embedlog.Record{Key: []byte("k"), Value: []byte(strings.Repeat("x", 600_000))}); err != nil {
		t.Fatal(err)
	}
	start := func() *View[string, string] {
		v, err := Aggregate(From(top, codec.String, codec.String), "all", func(acc, _, s string) string { return acc + s })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := start()
	for v.Graph().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := v.Graph().Err(); !errors.Is(err, embedlog.ErrRecordTooLarge) || !strings.Contains(err.Error(), "all-changelog") {
		t.Error(err)
	}
	v.Close()
	changelog, err := db.Topic("all-changelog")
	if err != nil {
		t.Fatal(err)
	}
	if err := changelog.Alter(t.Context(), map[string]string{"max.message.bytes": "2097152"}); err != nil {
		t.Fatal(err)
	}
	v = start()
	if got, _, err := v.Get(t.Context(), "k"); len(got) != 1_200_000 || err != nil {
		t.Errorf("%d, %v", len(got), err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
