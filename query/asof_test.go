package query

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
)

// A store with a history is at each version that is kept what a copy of it was, and keeps nothing of those that are not.
func TestHistoryIsCopies(t *testing.T) {
	for seed := range uint64(testcount.N(100)) {
		r := rand.New(rand.NewPCG(seed, 8))
		c := &clock{version: 1}
		s := newStore[int]("s", c)
		h := &history{r: Retention{Versions: 1 + r.IntN(6)}}
		if r.IntN(2) == 0 {
			h.r.For = 10 * time.Second
		}
		s.keepPast(h)
		p := place{"t", 0}
		now := time.Unix(1000, 0)
		since := now
		copies := map[uint64]map[string]int{}
		model := map[string]int{}
		type shot struct {
			version uint64
			rows    map[string]int
		}
		var shots []shot
		look := func(version uint64, want map[string]int) {
			t.Helper()
			got := map[string]int{}
			for _, e := range s.rows {
				if v, ok := e.at(version); ok {
					got[e.key] = v
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d: at version %d of %d: %v, want %v", seed, version, c.version, got, want)
			}
		}
		for offset := range int64(150) {
			copies[c.version] = maps.Clone(model)
			now = now.Add(time.Duration(r.IntN(4000)) * time.Millisecond)
			h.keep(c, map[place]int64{p: offset}, since, now)
			since = now
			c.version++
			for range r.IntN(4) {
				key := fmt.Appendf(nil, "k%d", r.IntN(5))
				switch r.IntN(7) {
				case 0, 1, 2, 3:
					v := r.Int()
					s.put(key, v)
					model[string(key)] = v
				case 4, 5:
					s.del(key)
					delete(model, string(key))
				case 6:
					s.committed()
				}
			}
			switch {
			case seed%2 == 0: // without snapshots, which keep values of their own for as long as the past goes
			case r.IntN(8) == 0:
				shots = append(shots, shot{c.pin(), maps.Clone(model)})
			case r.IntN(8) == 0 && len(h.points) > 0: // of the past
				at := h.points[r.IntN(len(h.points))].version
				c.pinOld(at)
				shots = append(shots, shot{at, copies[at]})
			case r.IntN(4) == 0 && len(shots) > 0:
				c.release(shots[0].version)
				shots = shots[1:]
			}
			look(c.version, model)
			for _, at := range h.points {
				look(at.version, copies[at.version])
			}
			for _, sh := range shots {
				look(sh.version, sh.rows)
			}
			if h.r.For == 0 && len(h.points) > h.r.Versions || h.r.For > 0 && len(h.points) > h.r.Versions+2 {
				t.Fatalf("seed %d: %d versions are kept: %+v", seed, len(h.points), h.r)
			}
			if h.r.For > 0 && len(h.points) > 1 && now.Sub(h.points[1].when) >= h.r.For {
				t.Fatalf("seed %d: %v is kept at %v", seed, h.points[1].when, now)
			}
			if seed%2 == 0 { // each row has the value of now, and one for each version
				for _, e := range s.rows {
					n := 0
					for p := e.older; p != nil; p = p.older {
						n++
					}
					if n > len(h.points)+1 {
						t.Fatalf("seed %d: %q has %d older values, there are %d versions", seed, e.key, n, len(h.points))
					}
				}
			}
		}
		for _, sh := range shots {
			c.release(sh.version)
		}
		s.committed()
		h.points = nil
		c.version++
		h.trim(c)
		if len(s.rows) != len(model) || len(s.past) != 0 {
			t.Errorf("seed %d: %d entries and %d with a past are left of %d rows", seed, len(s.rows), len(s.past), len(model))
		}
	}
}

// Each version that a graph has published can be read, as it was, with an index; those that are older than what is kept cannot.
func TestAsOf(t *testing.T) {
	const kept = 20
	f := newFixture(t, 2)
	g := NewGraph(f.db.DB, "g", nil)
	v := Add(g, "v", f.table()).Retain(Retention{Versions: kept})
	x := AddIndex(v, "words", codec.String, words)
	now := Add(g, "now", Count(f.stream()))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	read := func(s *Snapshot) (text string) {
		t.Helper()
		for row, err := range v.In(s).All() {
			if err != nil {
				t.Fatal(err)
			}
			text += row.Key + "=" + row.Value + " "
		}
		for row, err := range x.In(s).All() {
			if err != nil {
				t.Fatal(err)
			}
			text += row.Index + ":" + row.Key + " "
		}
		return text
	}
	type was struct {
		version Version
		text    string
	}
	var past []was
	r := rand.New(rand.NewPCG(1, 1))
	for range 40 {
		s, err := g.Snapshot(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		past = append(past, was{s.Version(), read(s)})
		s.Release()
		f.put(f.top, fmt.Sprintf("k%d=%c", r.IntN(6), 'a'+r.IntN(3)))
		if err := g.CatchUp(f.ctx); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for i := len(past) - 1; i >= 0; i-- {
		s, err := g.SnapshotAt(f.ctx, past[i].version)
		if err != nil {
			var e *NotRetainedError
			if !errors.As(err, &e) || !errors.Is(err, ErrNotRetained) || len(e.Oldest) != 2 {
				t.Fatalf("as of %v: %v", past[i].version, err)
			}
			continue
		}
		seen++
		f.want("version", s.Version().String(), past[i].version.String())
		f.want("rows as of "+s.Version().String(), read(s), past[i].text)
		s.Release()
	}
	if seen < kept/2 || seen > 2*kept {
		t.Errorf("%d of %d versions could be read, %d are kept by each of two tasks", seen, len(past), kept)
	}
	// One that was never published is the one before; one that is to come that of now.
	last := past[len(past)-1].version
	ask := Version{{Topic: "t", Partition: 0, Offset: last[0].Offset}, {Topic: "other", Offset: 0}}
	s, err := g.SnapshotAt(f.ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	f.want("one partition", fmt.Sprint(s.Version()[0].Offset), fmt.Sprint(last[0].Offset))
	s.Release()
	last[0].Offset += 100
	last[1].Offset += 100
	if s, err = g.SnapshotAt(f.ctx, last); err != nil {
		t.Fatal(err)
	}
	current, _ := g.Version(f.ctx)
	f.want("a version to come", s.Version().String(), current.String())
	if _, _, err := now.In(s).Get("k1"); err != nil {
		t.Errorf("of now, a view without a past: %v", err)
	}
	s.Release()
	// A view that keeps no past has none.
	current[0].Offset--
	if s, err = g.SnapshotAt(f.ctx, current[:1]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := now.In(s).Get("k1"); !errors.Is(err, ErrNotRetained) || !strings.Contains(err.Error(), "now") {
		t.Errorf("a view without a past: %v", err)
	}
	s.Release()
	s.Release() // does nothing
	// A past is not a part of the definition, and begins anew with the graph.
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g = NewGraph(f.db.DB, "g", nil)
	v = Add(g, "v", f.table())
	Add(g, "now", Count(f.stream()))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	var e *NotRetainedError
	if _, err := g.SnapshotAt(f.ctx, current[:1]); !errors.As(err, &e) || len(e.Oldest) != 2 {
		t.Errorf("after a restart: %v", err)
	}
	v.Retain(Retention{})
	if _, _, err := v.Get(f.ctx, "k1"); !errors.Is(err, ErrStarted) {
		t.Errorf("a past that is asked for too late: %v", err)
	}
}

func TestRetentionsThatCannotBe(t *testing.T) {
	f := newFixture(t, 1)
	for _, c := range []struct {
		says string
		a, b Retention
	}{
		{"all of a graph have the same", Retention{For: time.Hour}, Retention{For: time.Minute}},
		{"-1 versions", Retention{Versions: -1}, Retention{Versions: -1}},
		{"-1ns", Retention{For: -1}, Retention{For: -1}},
	} {
		g := NewGraph(f.db.DB, "g", nil)
		Add(g, "a", f.table()).Retain(c.a)
		Add(g, "b", Count(f.stream())).Retain(c.b)
		if err := g.Start(f.ctx); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v, %+v: %v", c.a, c.b, err)
		}
	}
}

// What a view keeps of its past is bounded, however long it runs.
func TestPastIsBounded(t *testing.T) {
	f := newFixture(t, 1)
	g := NewGraph(f.db.DB, "g", &Options{OneTask: true})
	v := Add(g, "v", f.table()).Retain(Retention{Versions: 3})
	x := AddIndex(v, "words", codec.String, words)
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	var recs []embedlog.Record
	for i := range 20 * chunk {
		rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", i%50), Value: fmt.Appendf(nil, "v%d", i)}
		if i%3 == 0 {
			rec.Value = nil
		}
		recs = append(recs, rec)
	}
	if _, err := f.top.Produce(f.ctx, recs...); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	tasks, _ := g.all(f.ctx)
	task := tasks[0]
	task.clock.RLock()
	defer task.clock.RUnlock()
	rows := task.tables[v.t.n].(*storeRows[string, string]).s
	places := task.indexes[x].(*store[struct{}])
	// 50 keys change in each chunk.
	if len(task.hist.points) != 3 || len(rows.past) > 50*4 || len(places.past) > 100*4 || len(places.rows) > 50*5 {
		t.Errorf("%d versions, %d and %d older values, %d places", len(task.hist.points), len(rows.past), len(places.past), len(places.rows))
	}
}
