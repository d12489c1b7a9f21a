package query

import (
	"errors"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// A key in a changelog that is no window's stops the graph when it is started again, whatever store it is in.
func TestForeignKeysInChangelogs(t *testing.T) {
	for name, add := range map[string]func(g *Graph, s *Stream[string, string]){
		"counts": func(g *Graph, s *Stream[string, string]) { Add(g, "v", Count(Windowed(s, Tumbling(10*ms)))) },
		"maxima": func(g *Graph, s *Stream[string, string]) {
			Add(g, "v", CountDistinct(Windowed(s, Tumbling(10*ms)), codec.String, func(_ WindowKey[string], v string) string { return v }))
		},
		"finals": func(g *Graph, s *Stream[string, string]) {
			Add(g, "v", Final(MapTable(Count(Windowed(s, Tumbling(10*ms))), func(_ WindowKey[string], n int64) int64 { return n })))
		},
		"sessions": func(g *Graph, s *Stream[string, string]) { Add(g, "v", CountSessions(s, Session(10*ms))) },
		"slides":   func(g *Graph, s *Stream[string, string]) { Add(g, "v", Count(Windowed(s, Sliding(10*ms)))) },
		"pairs": func(g *Graph, s *Stream[string, string]) {
			Add(g, "v", Count(JoinStreams(s, s, Within(10*ms), func(_, a, b string) string { return a + b })))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1)
			g := f.graphOf(atClose, func(g *Graph) { add(g, f.stream()) })
			f.at(f.top, "a=1@0 a=2@5")
			if err := g.CatchUp(f.ctx); err != nil {
				t.Fatal(err)
			}
			tasks, _ := g.all(f.ctx)
			var stores []string
			for _, s := range tasks[0].stores {
				stores = append(stores, g.changelogName(s.label()))
			}
			f.close(g)
			refused := 0
			for _, name := range stores {
				top, err := f.db.Topic(name)
				if err != nil {
					t.Fatal(err)
				}
				rows := map[string]embedlog.Record{}
				for rec, err := range top.Scan(f.ctx, nil) {
					if err != nil {
						t.Fatal(err)
					}
					if rows[string(rec.Key)] = rec; rec.Value == nil {
						delete(rows, string(rec.Key))
					}
				}
				for _, was := range rows { // another row in its place
					swap := func(gone, is string) {
						t.Helper()
						for _, rec := range []embedlog.Record{{Key: []byte(gone)}, {Key: []byte(is), Value: was.Value, Headers: was.Headers}} {
							if _, err := top.Produce(f.ctx, rec); err != nil {
								t.Fatal(err)
							}
						}
					}
					swap(string(was.Key), "x")
					g := NewGraph(f.db.DB, "g", atClose)
					add(g, f.stream())
					if err := g.Start(f.ctx); err != nil {
						t.Fatal(err)
					}
					stopped := (*StoppedError)(nil)
					switch err := g.CatchUp(f.ctx); {
					case errors.As(err, &stopped) && errors.Is(err, errWindowKey):
						refused++
					case err != nil:
						t.Errorf("%s: %v", name, err)
					}
					g.Close()
					swap("x", string(was.Key))
					break
				}
			}
			if refused == 0 {
				t.Errorf("of %v none was refused", stores)
			}
		})
	}
}

// A codec that panics while rows are restored stops the graph, and not the program.
func TestRestorePanics(t *testing.T) {
	f := newFixture(t, 1)
	start := func(c Codec[string]) error {
		g := NewGraph(f.db.DB, "g", atClose)
		Add(g, "v", TableFrom(f.top, codec.String, c))
		if err := g.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		return g.CatchUp(f.ctx)
	}
	f.put(f.top, "a=x")
	if err := start(codec.String); err != nil {
		t.Fatal(err)
	}
	if err, p := start(panicking{}), (*PanicError)(nil); !errors.As(err, &p) || p.Value != "no" {
		t.Errorf("%v", err)
	}
}

type panicking struct{}

func (panicking) Append(dst []byte, s string) ([]byte, error) { return append(dst, s...), nil }
func (panicking) Decode([]byte) (string, error)               { panic("no") }
