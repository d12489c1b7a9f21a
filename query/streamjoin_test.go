package query

import (
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/codec"
)

func pairText(_ string, a string, b *string) string {
	if b == nil {
		return a + "-"
	}
	return a + *b
}

func TestJoinStreams(t *testing.T) {
	f := newFixture(t, 1)
	b := f.topic("b", 1)
	out, outLeft := f.topic("out", 1), f.topic("out-left", 1)
	def := Within(10 * ms).Before(5 * ms).Grace(20 * ms)
	start := func(o *Options) *Graph {
		return f.graphOf(o, func(g *Graph) {
			right := From(b, codec.String, codec.String)
			To(g, JoinStreams(f.stream(), right, def, joinText), out)
			To(g, LeftJoinStreams(f.stream(), right, def, pairText), outLeft)
		})
	}
	g := start(atClose)
	step := func(what string, top string, rows string, want, wantLeft string) {
		t.Helper()
		if top == "b" {
			f.at(b, rows)
		} else {
			f.at(f.top, rows)
		}
		if err := g.CatchUp(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.close(g)
		f.want(what, f.records("out"), want)
		f.want(what+", left", f.records("out-left"), wantLeft)
		g = start(atClose)
	}
	step("one side", "a", "k=A@100 -=N@100 j=J@100", "", "")
	step("before and after", "b", "k=1@94 k=2@95 k=3@110 k=4@111 -=N@100", "k=A2 k=A3", "k=A2 k=A3")
	step("equal times", "a", "k=B@100", "k=A2 k=A3 k=B2 k=B3", "k=A2 k=A3 k=B2 k=B3")
	step("late", "a", "k=X@121 k=C@100 k=D@101", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4")
	if n := g.Stats().Late; n != 0 {
		t.Errorf("late since the last start: %d", n)
	}
	step("not certain yet", "b", "x=0@130", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4")
	step("certain", "b", "x=0@131", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4 j=J-")
	f.close(g)
	g = start(&Options{CommitInterval: ms})
	f.at(b, "x=0@400")
	f.at(f.top, "y=0@400")
	f.at(b, "-=0@1000")
	f.at(f.top, "-=0@1000")
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.empty(g)
	f.soon("in the end", "out", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4")
	// X and y are not matched; nothing comes twice.
	f.soon("in the end, left", "out-left", "k=A2 k=A3 k=B2 k=B3 k=D3 k=D4 j=J- k=X- y=0-")
	f.close(g)
}

// Both sides are of one topic, and all its records are in one batch.
func TestJoinStreamsOfOneTopic(t *testing.T) {
	f := newFixture(t, 1)
	out := f.topic("out", 1)
	f.at(f.top, "k=A@1 k=B@1 k=C@9 k=D@12")
	g := f.graphOf(atClose, func(g *Graph) {
		To(g, JoinStreams(f.stream(), f.stream(), Within(8*ms).Before(0), joinText), out)
	})
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.close(g)
	f.want("pairs", sorted(f.records("out")), "k=AA k=AB k=AC k=BA k=BB k=BC k=CC k=CD k=DD")
}

func sorted(text string) string {
	list := strings.Fields(text)
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestJoinStreamsTime(t *testing.T) {
	f := newFixture(t, 1)
	b, out := f.topic("b", 1), f.topic("out", 1)
	g := f.graphOf(atClose, func(g *Graph) {
		To(g, LeftJoinStreams(f.stream(), From(b, codec.String, codec.String), Within(10*ms), pairText), out)
	})
	f.at(f.top, "k=A@5 k=B@20")
	f.at(b, "k=1@12 x=2@12 x=3@90")
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.close(g)
	want := map[string]int64{"A1": 12, "B1": 20}
	for rec, err := range out.Scan(f.ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := want[string(rec.Value)]; !ok || at != rec.Timestamp.UnixMilli()-epoch {
			t.Errorf("%s has the time %d", rec.Value, rec.Timestamp.UnixMilli()-epoch)
		}
		delete(want, string(rec.Value))
	}
	if len(want) > 0 {
		t.Errorf("there is no %v", want)
	}
}

func TestWrongStreamJoins(t *testing.T) {
	f := newFixture(t, 1)
	for want, s := range map[string]*Stream[string, string]{
		"before is -1ms":     JoinStreams(f.stream(), f.stream(), Within(ms).Before(-ms), joinText),
		"grace is 1.5ms":     JoinStreams(f.stream(), f.stream(), Within(ms).Grace(ms+ms/2), joinText),
		"have codecs":        JoinStreams(f.stream(), From(f.top, codec.JSON[string]{}, codec.String), Within(ms), joinText),
		ErrNotStream.Error(): JoinStreams(f.stream(), &Stream[string, string]{f.table().n, codec.String, codec.String}, Within(ms), joinText),
	} {
		g := NewGraph(f.db.DB, "g", nil)
		Add(g, "v", Count(s))
		if err := g.Start(f.ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzWaiting(f *testing.F) {
	f.Add([]byte{2, 1, 'a'})
	f.Add([]byte{0xff, 0xff})
	c := waitingCodec(codec.Bytes)
	f.Fuzz(func(t *testing.T, b []byte) { fuzzRow(t, c, b) })
}
