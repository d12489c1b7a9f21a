package query

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
)

// farNodes are a cluster with a graph of three tasks, one at each node: what one node answers it has to ask the others for.
type farNodes struct {
	*nodes
	g     []*Graph
	words []*View[string, string]
	index []*Index[string, string, string]
	top   *embedlog.Topic
	rows  map[string]string // what was produced comes to
}

func openFar(t *testing.T, set ...func(*View[string, string])) *farNodes {
	t.Helper()
	f := &farNodes{nodes: openNodes(t, 3), rows: map[string]string{}}
	ctx := soon(t)
	for i := range 3 {
		top, err := f.dbs[i].EnsureTopic(ctx, "things", &embedlog.TopicConfig{Partitions: 3})
		if err != nil {
			t.Fatal(err)
		}
		g := NewGraph(f.dbs[i], "far", &Options{CommitInterval: 5 * time.Millisecond})
		v := Add(g, "words", TableFrom(top, codec.String, codec.String))
		for _, s := range set {
			s(v)
		}
		f.index = append(f.index, AddIndex(v, "by-word", codec.String, words))
		if err := g.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		f.g, f.words = append(f.g, g), append(f.words, v)
		if i == 0 {
			f.top = top
		}
	}
	for p := range int32(3) {
		f.move(p, p+1)
	}
	f.until("each node has a task", func() bool { return f.has(0, 1, 2) })
	return f
}

// move has a node have a task.
func (f *farNodes) move(task, node int32) {
	f.t.Helper()
	f.until("it leads", func() bool { return f.lead(f.g[0].progressName(), task, node) == nil })
}

// has says that the tasks run at these nodes.
func (f *farNodes) has(at ...int) bool {
	for task, i := range at {
		s := &f.g[i].slots[task]
		s.mu.Lock()
		runs := s.task != nil
		s.mu.Unlock()
		if !runs {
			return false
		}
	}
	return true
}

// put produces rows; an empty value deletes one.
func (f *farNodes) put(rows ...string) {
	f.t.Helper()
	ctx := soon(f.t)
	var recs []embedlog.Record
	for _, r := range rows {
		key, value, _ := strings.Cut(r, "=")
		rec := embedlog.Record{Key: []byte(key)}
		if f.rows[key] = value; value != "" {
			rec.Value = []byte(value)
		} else {
			delete(f.rows, key)
		}
		recs = append(recs, rec)
	}
	for {
		_, err := f.top.Produce(ctx, recs...)
		if err == nil {
			return
		}
		if !embedlog.IsRetriable(err) && !errors.Is(err, embedlog.ErrUnknownOutcome) || ctx.Err() != nil {
			f.t.Fatal(err)
		}
	}
}

// indexed is what an index should have from one word to another.
func (f *farNodes) indexed(from, to string) (list []string) {
	for key, value := range f.rows {
		for _, w := range words(key, value) {
			if from <= w && (to == "" || w < to) {
				list = append(list, w+":"+key+"="+value)
			}
		}
	}
	slices.Sort(list)
	return list
}

// foundBy walks an index, again when a task begins again in the middle.
func foundBy(t *testing.T, walk iter.Seq2[IndexRow[string, string, string], error]) (list []string) {
	t.Helper()
	for {
		list = nil
		var failed error
		for r, err := range walk {
			if failed = err; err == nil {
				list = append(list, r.Index+":"+r.Key+"="+r.Value)
			}
		}
		if failed == nil {
			return list
		}
		if !errors.Is(failed, ErrInterrupted) {
			t.Fatal(failed)
		}
	}
}

// Lookups in an index find at each node what the rows of all have, and what large rows there are come in several answers.
func TestIndexAtOtherNodes(t *testing.T) {
	f := openFar(t)
	ctx := soon(t)
	var rows []string
	for i := range 300 {
		rows = append(rows, fmt.Sprintf("k%03d=a-w%d-%c", i, i%7, 'b'+i%3))
	}
	f.put(rows...)
	for i := range 3 {
		x := f.index[i]
		for what, got := range map[string][2][]string{
			"all":    {foundBy(t, x.All(ctx)), f.indexed("", "")},
			"range":  {foundBy(t, x.Range(ctx, "b", "d")), f.indexed("b", "d")},
			"prefix": {foundBy(t, x.Prefix(ctx, []byte("w"))), f.indexed("w", "x")},
		} {
			if !slices.Equal(got[0], got[1]) {
				t.Errorf("node %d: %s has %d rows, want %d", i+1, what, len(got[0]), len(got[1]))
			}
		}
	}
	// A snapshot has what was there when it was taken. One in which an owner is lost before something was found is taken anew.
	want := f.indexed("w3", "w4")
	first := true
	got := foundBy(t, inSnapshot(ctx, f.g[0], func(s *Snapshot) iter.Seq2[IndexRow[string, string, string], error] {
		if first {
			first = false
			f.move(1, 3)
			f.until("the task moves", func() bool { return f.has(0, 2, 2) && !f.has(0, 1, 2) })
		} else {
			f.put("k003=zz", "k010=")
		}
		return f.index[0].In(s).Range("w3", "w4")
	}))
	if !slices.Equal(got, want) {
		t.Errorf("the snapshot has %d rows, want %d", len(got), len(want))
	}
	long := strings.Repeat("x", answerBytes/2)
	f.put("l1=long-"+long, "l2=long-"+long, "l3=long-"+long, "l4=long-"+long, "l5=long-"+long, "l6=long-"+long)
	for i, r := range foundBy(t, f.index[1].Range(ctx, "long", "lonh")) {
		if want := fmt.Sprintf("long:l%d=long-", i+1) + long; r != want {
			t.Errorf("row %d is of %d bytes, want %d", i, len(r), len(want))
		}
	}
	if n := len(foundBy(t, f.index[1].Range(ctx, "long", "lonh"))); n != 6 {
		t.Errorf("%d long rows, want 6", n)
	}
}

// While tasks move and a node is cut off, a lookup finds what was acknowledged before it, or says that it was interrupted, and it does that only in the
// middle.
func TestIndexWhileTasksMove(t *testing.T) {
	f := openFar(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		r := rand.New(rand.NewPCG(rand.Uint64(), 3))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(20)) * time.Millisecond):
			}
			if r.IntN(8) == 0 {
				node := 1 + r.IntN(2)
				f.peers[node].Cut(true)
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				f.peers[node].Cut(false)
			}
			_ = f.lead(f.g[0].progressName(), r.Int32N(3), 1+r.Int32N(3)) // it may be cut off: then nothing moves this time
		}
	})
	defer moving.Wait()
	defer close(stop)
	for n := range testcount.N(100) {
		f.put(fmt.Sprintf("k%d=w-x%d", n%9, n), fmt.Sprintf("m%d=w-y%d", n%4, n))
		var got []string
		var failed error
		for r, err := range f.index[n%3].Get(ctx, "w") {
			if failed = err; err == nil {
				got = append(got, r.Key+"="+r.Value)
			}
		}
		if failed != nil {
			if !errors.Is(failed, ErrInterrupted) && !embedlog.IsRetriable(failed) || len(got) == 0 {
				t.Fatalf("write %d, behind %d rows: %v", n, len(got), failed)
			}
			continue
		}
		var want []string
		for key, value := range f.rows {
			want = append(want, key+"="+value)
		}
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Fatalf("write %d: node %d finds %v, want %v", n, n%3+1, got, want)
		}
	}
}

// What peers ask of an index is answered page by page, or refused.
func TestIndexRequestsOfPeers(t *testing.T) {
	a := newAsks(t, func(i int) string { return strings.Repeat(string(rune('a'+i%3)), 100_000) }, 30)
	pin, _, err := a.ask(t.Context(), request{Op: opPin})
	if err != nil || pin.Pin == 0 {
		t.Fatal(pin, err)
	}
	title := a.x.title()
	n, from := 0, []byte{}
	for more := true; more; {
		r, bytes, err := a.ask(t.Context(), request{Op: opIndex, View: "things", Index: title, Pin: pin.Pin, From: from})
		if err != nil {
			t.Fatal(err)
		}
		if bytes > 4<<20 {
			t.Fatalf("an answer has %d bytes", bytes)
		}
		n += len(r.Rows)
		more, from = r.More, r.Next
	}
	if n != 30 {
		t.Errorf("%d rows came, want 30", n)
	}
	for _, q := range []request{
		{Op: opIndex, Pin: pin.Pin}, {Op: opIndex, View: "things", Pin: pin.Pin}, {Op: opIndex, View: "things", Index: "first of int", Pin: pin.Pin},
		{Op: opIndex, View: "things", Index: title, Slot: 7, Pin: pin.Pin}, {Op: opIndex, View: "things", Index: title, Slot: -1, Pin: pin.Pin},
	} {
		if r, _, err := a.ask(t.Context(), q); err == nil {
			t.Errorf("%+v is answered with %+v", q, r)
		}
	}
	for _, q := range []request{{Op: opIndex, View: "things", Index: title}, {Op: opIndex, View: "things", Index: title, Pin: pin.Pin + 1}} {
		if r, _, err := a.ask(t.Context(), q); err != nil || !r.Interrupted {
			t.Errorf("%+v is answered with %+v, %v", q, r, err)
		}
	}
	if r, _, err := a.ask(t.Context(), request{Op: opIndex, View: "things", Index: title, Pin: pin.Pin, From: []byte("\x00\xff\xff"), To: []byte("\x00")}); err != nil || len(r.Rows) > 0 {
		t.Errorf("from behind the end: %+v, %v", r, err)
	}
}
