package query

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
)

// countedCodec counts what it decodes, and refuses "bad".
type countedCodec struct{ n *atomic.Int64 }

func (c countedCodec) Append(dst []byte, s string) ([]byte, error) { return append(dst, s...), nil }

func (c countedCodec) Decode(b []byte) (string, error) {
	c.n.Add(1)
	switch string(b) {
	case "bad":
		return "", errors.New("it is bad")
	case "panic":
		panic("it is worse")
	}
	return string(b), nil
}

// together produces values with keys 0, 1, ... as one batch.
func (f *fixture) together(values ...string) {
	f.Helper()
	var recs []embedlog.Record
	for i, v := range values {
		recs = append(recs, embedlog.Record{Key: []byte(fmt.Sprint(i)), Value: []byte(v)})
	}
	if _, err := f.top.Produce(f.ctx, recs...); err != nil {
		f.Fatal(err)
	}
}

func startDecoding(f *fixture, name string, c countedCodec) *View[string, string] {
	f.Helper()
	g := NewGraph(f.db.DB, name, nil)
	v := Add(g, "v", TableFrom[string, string](f.top, codec.String, c))
	if err := g.Start(f.ctx); err != nil {
		f.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); err != nil { // it reads by now
		f.Fatal(err)
	}
	return v
}

// Graphs that go along together decode each record once, and have the same rows and dead letters.
func TestDecodedOnce(t *testing.T) {
	f := newFixture(t, 1)
	c := countedCodec{new(atomic.Int64)}
	a, b := startDecoding(f, "a", c), startDecoding(f, "b", c)
	other := startDecoding(f, "c", countedCodec{new(atomic.Int64)}) // another codec: nothing to share
	rounds := testcount.N(200)
	for i := range rounds {
		f.together(fmt.Sprint("x", i), "bad", fmt.Sprint("y", i))
		want := fmt.Sprintf("0=x%d 2=y%d", i, i)
		for _, v := range []*View[string, string]{a, b, other} {
			f.want(v.Name(), rows(f, v), want)
		}
	}
	if got, want := c.n.Load(), int64(3*rounds); got != want {
		t.Errorf("%d values were decoded for two graphs, want %d", got, want)
	}
	for _, v := range []*View[string, string]{a, b} {
		if s := v.Graph().Stats(); s.DeadLetters != int64(rounds) {
			t.Errorf("%d dead letters, want %d", s.DeadLetters, rounds)
		}
	}
	// Alone again: nothing is kept for others.
	if err := b.Graph().Close(); err != nil {
		t.Fatal(err)
	}
	f.together("z")
	f.want("a", rows(f, a), fmt.Sprintf("0=z 2=y%d", rounds-1))
	decodings.Lock()
	defer decodings.Unlock()
	n := 0
	for k, d := range decodings.m {
		if k.db == f.db.DB {
			n += len(d.(*decoding[string, string]).batches)
		}
	}
	if n != 0 {
		t.Errorf("%d partitions have batches that nobody waits for", n)
	}
}

// A codec that panics stops the graphs, and nothing else.
func TestCodecPanics(t *testing.T) {
	f := newFixture(t, 1)
	c := countedCodec{new(atomic.Int64)}
	a, b := startDecoding(f, "a", c), startDecoding(f, "b", c)
	f.together("x", "panic")
	for _, v := range []*View[string, string]{a, b} {
		_, _, err := v.Get(f.ctx, "0")
		var stopped *StoppedError
		if !errors.As(err, &stopped) {
			t.Errorf("%s: %v, want a *StoppedError", v.Name(), err)
		}
	}
}

// Graphs that start, stop and lag at all times have the rows of the topic.
func TestDecodingShared(t *testing.T) {
	f := newFixture(t, 1)
	c := countedCodec{new(atomic.Int64)}
	a := startDecoding(f, "a", c)
	for i := range testcount.N(300) {
		f.together(fmt.Sprint("x", i))
		b := startDecoding(f, "b", c)
		f.together(fmt.Sprint("x", i), fmt.Sprint("y", i))
		want := fmt.Sprintf("0=x%d 1=y%d", i, i)
		f.want("a", rows(f, a), want)
		f.want("b", rows(f, b), want)
		if err := b.Graph().Close(); err != nil {
			t.Fatal(err)
		}
	}
}
