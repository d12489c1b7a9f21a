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

// What was not given is said by Start, before there is a record.
func TestNeeds(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topicWith(t, db.DB, "a", "1")
	rows, table := From(top, codec.String, codec.String), TableFrom(top, codec.String, codec.String)
	global := GlobalTable(top, codec.String, codec.String)
	view := func(t *Table[string, string]) func(g *Graph) { return func(g *Graph) { Add(g, "v", t) } }
	count := func(r Rows[string, string]) func(g *Graph) { return func(g *Graph) { Add(g, "v", Count(r)) } }
	sink := func(s *Stream[string, string]) func(g *Graph) { return func(g *Graph) { To(g, s, top) } }
	step := func(*Context[string, string], Record[string, string]) error { return nil }
	for want, build := range map[string]func(g *Graph){
		"stream: its topic is nil":                          count(From(nil, codec.String, codec.String)),
		"stream a: its codec of keys is nil":                count(From[string](top, nil, codec.String)),
		"stream a: its codec of values is nil":              count(From[string, string](top, codec.String, nil)),
		"table: its topic is nil":                           view(TableFrom(nil, codec.String, codec.String)),
		"table a: its codec of values is nil":               view(TableFrom[string, string](top, codec.String, nil)),
		"global table: its topic is nil":                    sink(JoinGlobal(rows, GlobalTable(nil, codec.String, codec.String), func(k, _ string) string { return k }, func(_, v, _ string) string { return v })),
		"sink: its topic is nil":                            func(g *Graph) { To(g, rows, nil) },
		"filter: its function is nil":                       count(rows.Filter(nil)),
		"with codec: its codec is nil":                      count(rows.WithCodec(nil)),
		"map values: its function is nil":                   count(MapValues[string, string, string](rows, nil)),
		"flat map values: its function is nil":              count(FlatMapValues[string, string, string](rows, nil)),
		"map: its codec is nil\nmap: its function is nil":   count(Map[string, string, string, string](rows, nil, nil)),
		"flat map: its function is nil":                     count(FlatMap[string, string, string, string](rows, codec.String, nil)),
		"rekey: its codec is nil":                           count(Rekey(rows, nil, func(k, _ string) string { return k })),
		"group by: its function is nil":                     count(GroupBy[string, string, string](rows, codec.String, nil)),
		"fold: its codec is nil\nfold: its function is nil": view(Fold[string, string, string](rows, nil, nil, nil)),
		"reduce: its function is nil":                       view(Reduce(rows, nil)),
		"sum: its function is nil":                          func(g *Graph) { Add(g, "v", Sum[string, string, int64](rows, nil)) },
		"average: its function is nil":                      func(g *Graph) { Add(g, "v", Average[string, string, int64](table, nil)) },
		"min: its function is nil":                          func(g *Graph) { Add(g, "v", Min[string, string, int64](rows, nil)) },
		"max: its function is nil":                          func(g *Graph) { Add(g, "v", Max[string, string, int64](table, nil)) },
		"top n: its function is nil":                        func(g *Graph) { Add(g, "v", TopN[string, string, int64](table, 1, nil)) },
		"count distinct: its codec is nil":                  func(g *Graph) { Add(g, "v", CountDistinct(rows, nil, func(_, v string) string { return v })) },
		"join: its function is nil":                         view(Join[string, string, string, string](table, table, nil)),
		"left join: its function is nil":                    view(LeftJoin[string, string, string, string](table, table, nil)),
		"outer join: its function is nil":                   view(OuterJoin[string, string, string, string](table, table, nil)),
		"foreign join: its function of foreign keys is nil": view(ForeignJoin(table, table, nil, func(_, v, _ string) string { return v })),
		"join table: its function is nil":                   sink(JoinTable[string, string, string, string](rows, table, nil)),
		"left join table: its function is nil":              sink(LeftJoinTable[string, string, string, string](rows, table, nil)),
		"join global: its function of keys is nil":          sink(JoinGlobal(rows, global, nil, func(_, v, _ string) string { return v })),
		"left join global: its function is nil":             sink(LeftJoinGlobal[string, string, string, string, string](rows, global, func(k, _ string) string { return k }, nil)),
		"its merging function is nil": func(g *Graph) {
			Add(g, "v", FoldSessions(rows, Session(time.Second), codec.String, func(acc, _, _ string) string { return acc }, nil))
		},
		"grace 1s: its function is nil":               sink(JoinStreams[string, string, string, string](rows, rows, Within(time.Second), nil)),
		"late: its definition is nil":                 sink(Late(rows, nil)),
		"size is -1ns: it must be whole milliseconds": sink(Late(rows, Tumbling(-1))),
		"gap is 0s: it must be whole milliseconds":    sink(Late(rows, Session(0))),
		"process p: its function is nil":              sink(Process[string, string, string, string](rows, "p", codec.String, nil)),
		"process p: its store is nil":                 sink(Process(rows, "p", codec.String, step, nil)),
		"store: its name is empty":                    sink(Process(rows, "p", codec.String, step, NewKeyValueStore("", codec.String, codec.String))),
		"store s: its codec of keys is nil":           sink(Process(rows, "p", codec.String, step, NewKeyValueStore[string](`s`, nil, codec.String))),
		"stream time timers t: its function is nil":   sink(Process(rows, "p", codec.String, step, NewTimers[string, string, string]("t", codec.String, StreamTime, nil))),
		"timers t: the type of punctuation is 9":      sink(Process(rows, "p", codec.String, step, NewTimers[string, string, string]("t", codec.String, 9, nil))),
		"view: its name is empty":                     func(g *Graph) { Add(g, "", table) },
		"index: its name is empty": func(g *Graph) {
			AddIndex(Add(g, "v", table), "", codec.String, func(k, _ string) []string { return nil })
		},
		"index i: its codec is nil\nindex i: its function is nil": func(g *Graph) { AddIndex[string](Add(g, "v", table), "i", nil, nil) },
	} {
		g := NewGraph(db.DB, "g", nil)
		build(g)
		err := g.Start(t.Context())
		if err == nil {
			g.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	g := NewGraph(db.DB, "", nil)
	Add(g, "v", table)
	if err := g.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "its name is empty") {
		t.Errorf("a graph without a name: %v", err)
	}
	if _, err := Materialize("g", TableFrom(nil, codec.String, codec.String)); err == nil || !strings.Contains(err.Error(), "table: its topic is nil") {
		t.Errorf("materialize: %v", err)
	}
	if _, err := db.Topic("g-generation"); !errors.Is(err, embedlog.ErrUnknownTopic) {
		t.Errorf("something was made: %v", err)
	}
}
