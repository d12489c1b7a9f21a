package query

import (
	"testing"
	"time"

	"github.com/x/embedlog/codec"
)

// The example of the documentation of Kafka's SlidingWindows, in milliseconds.
func TestSlidingAsInKafka(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, Fold(Windowed(f.stream(), Sliding(5000*ms).Grace(time.Hour)), codec.String, func(acc string, _ WindowKey[string], v string) string { return acc + v }, nil))
	f.at(f.top, "A=1@8000 A=2@9200 A=3@12400")
	f.want("windows", windows(f, v), "A[3000,8000]=1 A[4200,9200]=12 A[7400,12400]=123 A[8001,13001]=23 A[9201,14201]=3")
}

// Rows between, before and at the time of others, late ones, and a restart between all of them.
func TestSliding(t *testing.T) {
	f := newFixture(t, 1)
	def := Sliding(10 * ms).Grace(20 * ms).Retain(40 * ms)
	var v *View[WindowKey[string], string]
	var final *View[WindowKey[string], int64]
	start := func() *Graph {
		return f.graphOf(&Options{CommitInterval: ms}, func(g *Graph) {
			v = Add(g, "v", Fold(Windowed(f.stream(), def), codec.String, func(acc string, _ WindowKey[string], v string) string { return acc + v }, nil))
			final = Add(g, "final", Final(Count(Windowed(f.stream(), def))))
			To(g, Late(f.stream(), def), f.topic("late", 1))
		})
	}
	g := start()
	step := func(what, records, want string) {
		t.Helper()
		f.at(f.top, records)
		f.want(what, windows(f, v), want)
		f.close(g)
		g = start()
		f.want(what+", again", windows(f, v), want)
	}
	step("two rows, and one without a key", "a=1@5 -=0@5 a=2@9", "a[-5,5]=1 a[-1,9]=12 a[6,16]=2")
	step("far away", "a=3@29", "a[-5,5]=1 a[-1,9]=12 a[6,16]=2 a[19,29]=3")
	step("of a time that there was", "a=4@9", "a[-5,5]=1 a[-1,9]=124 a[6,16]=24 a[19,29]=3")
	step("between", "a=5@14", "a[-5,5]=1 a[-1,9]=124 a[4,14]=1245 a[6,16]=245 a[10,20]=5 a[19,29]=3")
	step("between, again", "a=6@10", "a[-5,5]=1 a[-1,9]=124 a[0,10]=1246 a[4,14]=12456 a[6,16]=2456 a[10,20]=56 a[11,21]=5 a[19,29]=3")
	step("late", "a=7@8", "a[-5,5]=1 a[-1,9]=124 a[0,10]=1246 a[4,14]=12456 a[6,16]=2456 a[10,20]=56 a[11,21]=5 a[19,29]=3")
	f.want("over", windows(f, final), "a[-5,5]=1")
	step("gone", "b=1@61", "a[11,21]=5 a[19,29]=3 b[51,61]=1")
	f.want("over", windows(f, final), "a[11,21]=1 a[19,29]=1")
	f.at(f.top, "-=0@500")
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.empty(g)
	if s := g.Stats(); s.Late != 0 { // of this life
		t.Errorf("late %d", s.Late)
	}
	f.close(g)
	f.want("late rows", f.records("late"), "a=7")
}

func TestSlidingMisuse(t *testing.T) {
	f := newFixture(t, 1)
	for _, w := range []Windows{Sliding(-1), Sliding(time.Microsecond), Sliding(ms).Grace(-ms)} {
		if _, err := Materialize("v", Count(Windowed(f.stream(), w))); err == nil {
			t.Errorf("%v: no error", w)
		}
	}
	f.want("text", Sliding(time.Second).Grace(ms).String(), "sliding 1s, grace 1ms, retain 1.001s")
}
