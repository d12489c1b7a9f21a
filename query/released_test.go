package query

import (
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// A snapshot that was released has no rows: what it says then would be of no version.
func TestReleased(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topicWith(t, db.DB, "a", "old")
	if _, err := top.Produce(t.Context(), embedlog.Record{Key: []byte("l"), Value: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	g := NewGraph(db.DB, "g", nil)
	v := Add(g, "v", TableFrom(top, codec.String, codec.String))
	x := AddIndex(v, "i", codec.String, func(_, v string) []string { return []string{v} })
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := g.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, err := range v.In(s).All() {
		if rows++; err != nil {
			t.Fatal(err)
		}
	}
	if rows != 2 {
		t.Fatalf("%d rows", rows)
	}
	s.Release()
	if _, err := top.Produce(t.Context(), embedlog.Record{Key: []byte("k"), Value: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if got, _, err := v.In(s).Get("k"); !errors.Is(err, ErrClosed) {
		t.Errorf("get: %q, %v", got, err)
	}
	released := func(err error) {
		t.Helper()
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	walked := 0
	for _, err := range v.In(s).All() {
		walked++
		released(err)
	}
	for _, err := range v.In(s).Prefix([]byte("k")) {
		walked++
		released(err)
	}
	for _, err := range x.In(s).Get("old") {
		walked++
		released(err)
	}
	if walked != 3 {
		t.Errorf("%d pairs of three walks", walked)
	}
	if _, _, err := v.In(nil).Get("k"); !errors.Is(err, ErrOtherGraph) {
		t.Errorf("no snapshot: %v", err)
	}
}

// A walk whose snapshot is released in the middle does not go on with rows of another version.
func TestReleasedWhileWalking(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topicWith(t, db.DB, "a", "v")
	var recs []embedlog.Record
	for i := range 3 * page {
		recs = append(recs, embedlog.Record{Key: fmt.Append(nil, i), Value: []byte("v")})
	}
	if _, err := top.Produce(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	g := NewGraph(db.DB, "g", nil)
	v := Add(g, "v", TableFrom(top, codec.String, codec.String))
	x := AddIndex(v, "i", codec.String, func(_, v string) []string { return []string{v} })
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, walk := range map[string]func(s *Snapshot, each func(error)){
		"view": func(s *Snapshot, each func(error)) {
			for _, err := range v.In(s).All() {
				each(err)
			}
		},
		"index": func(s *Snapshot, each func(error)) {
			for _, err := range x.In(s).All() {
				each(err)
			}
		},
	} {
		s, err := g.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n, last := 0, error(nil)
		walk(s, func(err error) {
			if n++; n == 1 {
				s.Release()
			}
			last = err
		})
		if !errors.Is(last, ErrClosed) || n > page+1 {
			t.Errorf("%s: %d pairs, then %v", name, n, last)
		}
	}
}
