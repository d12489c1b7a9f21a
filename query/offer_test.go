package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/views"
)

// talk is a session of the command socket.
type talk struct {
	*testing.T
	conn net.Conn
}

func (f *fixture) talk() *talk {
	f.Helper()
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- f.db.ServeCommands(f.ctx, there) }()
	if err := sock.Hello(here); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		here.Close()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	return &talk{f.T, here}
}

// ask makes a request. What comes back is an error's code where that is what comes.
func ask[A any](c *talk, op sock.Op, q any) (a A, code sock.Code) {
	c.Helper()
	payload, err := json.Marshal(q)
	if err != nil {
		c.Fatal(err)
	}
	if err := sock.WriteFrame(c.conn, uint8(op), payload); err != nil {
		c.Fatal(err)
	}
	kind, b, err := sock.ReadFrame(c.conn, sock.MaxReplyBytes)
	if err != nil {
		c.Fatal(err)
	}
	if sock.Kind(kind) == sock.KindError {
		var e sock.Error
		if err := json.Unmarshal(b, &e); err != nil || e.Message == "" {
			c.Fatalf("an error frame of %q: %v", b, err)
		}
		return a, e.Code
	}
	if err := json.Unmarshal(b, &a); err != nil {
		c.Fatalf("%q: %v", b, err)
	}
	return a, ""
}

func (c *talk) rows(q sock.ViewOpen, max int) string {
	c.Helper()
	if _, code := ask[struct{}](c, sock.OpViewOpen, q); code != "" {
		return string(code)
	}
	var list []string
	for {
		r, code := ask[sock.ViewRows](c, sock.OpViewRows, sock.ViewPoll{MaxRows: max, Wait: 10e9})
		if code != "" {
			return string(code)
		}
		if len(r.Rows) > max {
			c.Errorf("%d rows, %d were asked for", len(r.Rows), max)
		}
		for _, row := range r.Rows {
			list = append(list, fmt.Sprintf("%s=%s", row.KeyJSON, row.ValueJSON))
		}
		if r.Done || q.Watch && len(list) >= 2 {
			return strings.Join(list, " ")
		}
	}
}

func TestOfferedViews(t *testing.T) {
	f := newFixture(t, 2)
	c := f.talk()
	if list, code := ask[[]sock.ViewGraph](c, sock.OpViews, sock.ViewsRequest{}); code != "" || len(list) != 0 {
		t.Errorf("before there are any: %+v, %s", list, code)
	}
	out := f.topic("out", 1)
	g := NewGraph(f.db.DB, "g", nil)
	build := func(g *Graph) {
		Add(g, "lengths", Fold(f.stream(), codec.Int64, func(n int64, _, v string) int64 { return n + int64(len(v)) }, nil))
		Add(g, "sums", Sum(f.stream(), func(_, v string) int64 { return int64(len(v)) }))
		Add(g, "copy", Map(f.stream(), codec.Int64, func(k, v string) (int64, []byte) { return int64(len(k)), []byte(v) }).latest())
		To(g, f.stream(), out)
	}
	lengths := Add(g, "lengths", Fold(f.stream(), codec.Int64, func(n int64, _, v string) int64 { return n + int64(len(v)) }, nil)).Retain(Retention{})
	AddIndex(lengths, "by-length", codec.Int64, func(_ string, n int64) []int64 { return []int64{n} })
	Add(g, "sums", Sum(f.stream(), func(_, v string) int64 { return int64(len(v)) }))
	Add(g, "copy", Map(f.stream(), codec.Int64, func(k, v string) (int64, []byte) { return int64(len(k)), []byte(v) }).latest())
	To(g, f.stream(), out)
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a=xx b=y a=x ab=zz c=")
	name := func(v string) sock.ViewName { return sock.ViewName{Graph: "g", View: v} }
	key := func(s string) *sock.ViewKey { return &sock.ViewKey{Bytes: []byte(s)} }
	for _, row := range []struct {
		q    sock.ViewOpen
		want string
	}{
		{sock.ViewOpen{ViewName: name("lengths")}, `"a"=3 "ab"=2 "b"=1 "c"=0`},
		{sock.ViewOpen{ViewName: name("lengths"), Prefix: []byte("a")}, `"a"=3 "ab"=2`},
		{sock.ViewOpen{ViewName: name("lengths"), From: key("ab"), To: key("c")}, `"ab"=2 "b"=1`},
		{sock.ViewOpen{ViewName: name("lengths"), From: &sock.ViewKey{JSON: []byte(`"b"`)}, Now: true}, `"b"=1 "c"=0`},
		{sock.ViewOpen{ViewName: name("lengths"), To: key("")}, ``},
		{sock.ViewOpen{ViewName: name("lengths"), At: "t/0@0 t/1@0"}, ``},
		{sock.ViewOpen{ViewName: name("lengths"), At: "t/0@9 t/1@9"}, `"a"=3 "ab"=2 "b"=1 "c"=0`},
		{sock.ViewOpen{ViewName: name("lengths"), At: "t"}, `invalid`},
		{sock.ViewOpen{ViewName: name("copy"), At: "t/0@0"}, `failure`}, // it keeps no past
		{sock.ViewOpen{ViewName: name("lengths"), From: &sock.ViewKey{JSON: []byte(`1`)}}, `invalid`},
		{sock.ViewOpen{ViewName: name("copy")}, `1= 2=`}, // bytes have no other words
		{sock.ViewOpen{ViewName: name("nothing")}, `unknown_view`},
		{sock.ViewOpen{ViewName: sock.ViewName{Graph: "h", View: "v"}}, `unknown_view`},
	} {
		for _, max := range []int{1, 3, 100} {
			f.want(fmt.Sprintf("%+v, %d at a time", row.q, max), c.rows(row.q, max), row.want)
		}
	}
	get := func(v string, k sock.ViewKey) string {
		list, code := ask[[]sock.ViewRow](c, sock.OpViewGet, sock.ViewGet{ViewName: name(v), Key: k})
		if code != "" || len(list) == 0 {
			return string(code)
		}
		return fmt.Sprintf("%s=%s %q=%q", list[0].KeyJSON, list[0].ValueJSON, list[0].Key, list[0].Value)
	}
	f.want("get", get("lengths", *key("a")), `"a"=3 "a"="\x00\x00\x00\x00\x00\x00\x00\x03"`)
	f.want("get of nothing", get("lengths", *key("z")), "")
	f.want("get of no key", get("copy", *key("z")), "invalid")
	f.want("get by JSON", get("copy", sock.ViewKey{JSON: []byte("2")}), `2= "\x00\x00\x00\x00\x00\x00\x00\x02"="zz"`)
	list, code := ask[[]sock.ViewGraph](c, sock.OpViews, sock.ViewsRequest{Graph: "g"})
	if code != "" || len(list) != 1 {
		t.Fatalf("%+v, %s", list, code)
	}
	i := list[0]
	f.want("state", string(i.State), "running")
	f.want("definition", i.Definition, g.Describe())
	f.want("views", fmt.Sprintf("%+v", i.Views), "[{View:lengths Rows:4 KeyType:string ValueType:int64 Changelog:g-lengths-changelog Indexes:[by-length]} "+
		"{View:sums Rows:4 KeyType:string ValueType: Changelog:g-sums-changelog Indexes:[]} {View:copy Rows:2 KeyType:int64 ValueType:bytes Changelog:g-copy-changelog Indexes:[]}]")
	f.want("sinks", fmt.Sprint(i.Sinks), "[out]")
	f.want("positions", fmt.Sprintf("%+v", i.Positions[0]), fmt.Sprintf("{Topic:t Partition:0 Position:%[1]d LastStable:%[1]d Lag:0 BehindMS:0}", i.Positions[0].LastStable))
	if i.Records != 5 || len(i.Positions) != 2 {
		t.Errorf("%+v", i)
	}
	// What the progress says afterwards is the same, as far as it is known then.
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if list, code := ask[[]sock.ViewGraph](c, sock.OpViews, sock.ViewsRequest{}); code != "" || len(list) != 0 {
		t.Errorf("closed: %+v, %s", list, code)
	}
	var values [][]byte
	top, _ := f.db.Topic("g-progress")
	for rec, err := range top.Scan(f.ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		values = append(values[:0], rec.Value)
	}
	s, ok := views.ReadProgress("g", values)
	if !ok || s.State != sock.ViewStored || s.Tasks != i.Tasks || !slices.Equal(s.Sinks, i.Sinks) || !slices.Equal(s.Topics, i.Topics) || len(s.Positions) != 2 {
		t.Errorf("%+v, want what was %+v", s, i)
	}
	for n := range s.Views {
		if v := i.Views[n]; v.View != s.Views[n].View || v.Changelog != s.Views[n].Changelog || v.KeyType != s.Views[n].KeyType || v.ValueType != s.Views[n].ValueType {
			t.Errorf("view %d: %+v, was %+v", n, s.Views[n], v)
		}
	}
	// Progress of another definition stops it.
	var other map[string]any
	if err := json.Unmarshal(values[0], &other); err != nil {
		t.Fatal(err)
	}
	other["definition"] = "another"
	mark, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Produce(f.ctx, embedlog.Record{Key: []byte("task 0"), Value: mark}); err != nil {
		t.Fatal(err)
	}
	g = NewGraph(f.db.DB, "g", &Options{OneTask: true})
	build(g)
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); !errors.Is(err, ErrDefinition) {
		t.Errorf("a graph whose progress is of another one: %v", err)
	}
	list, code = ask[[]sock.ViewGraph](c, sock.OpViews, sock.ViewsRequest{Graph: "g"})
	if code != "" || list[0].State != sock.ViewStopped || list[0].Error == "" {
		t.Errorf("a graph that has stopped: %+v, %s", list, code)
	}
	// Whatever there is in a topic of the name.
	for _, b := range []string{"", "{}", "[]", "null", `{"definition":1}`, `{"tasks":2}`} {
		if _, ok := views.ReadProgress("g", [][]byte{[]byte(b)}); ok {
			t.Errorf("%q is progress", b)
		}
	}
}

func TestParseVersion(t *testing.T) {
	v := Version{{Topic: "a.b-c_d", Partition: 3, LeaderEpoch: -1, Offset: 7}, {Topic: "t", LeaderEpoch: -1}}
	if got, err := parseVersion(v.String()); err != nil || !slices.Equal(got, v) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"t", "t/0", "t@1", "/0@1", "t/x@1", "t/0@x", "t/-1@1", "t/0@-1", "t/4294967296@1", "t/0@1 t"} {
		if v, err := parseVersion(text); err == nil {
			t.Errorf("%q is %v", text, v)
		}
	}
}

// latest is a table of a stream's rows, kept where a view is.
func (s *Stream[K, V]) latest() *Table[K, V] { return Reduce(s, func(_, b V) V { return b }) }

// A walk goes on with what changes, ends when the client opens another one or hangs up, and when the graph is closed.
func TestOfferedWatch(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, f.table())
	f.put(f.top, "a=1")
	if err := v.Graph().CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	c := f.talk()
	if _, code := ask[sock.ViewRows](c, sock.OpViewRows, sock.ViewPoll{}); code != sock.CodeProtocol {
		t.Errorf("rows of no walk: %s", code)
	}
	open := sock.ViewOpen{ViewName: sock.ViewName{Graph: "v", View: "v"}, Watch: true}
	next := func(rows int) string {
		t.Helper()
		var list []string
		for len(list) < rows {
			r, code := ask[sock.ViewRows](c, sock.OpViewRows, sock.ViewPoll{MaxRows: 1, Wait: 10e9})
			if code != "" || r.Done {
				return fmt.Sprintf("%s %v", code, r.Done)
			}
			for _, row := range r.Rows {
				switch {
				case row.Version != "":
					list = append(list, row.Version)
				case row.Deleted:
					list = append(list, "-"+string(row.Key))
				default:
					list = append(list, string(row.Key)+"="+string(row.Value))
				}
			}
		}
		return strings.Join(list, " ")
	}
	if _, code := ask[struct{}](c, sock.OpViewOpen, open); code != "" {
		t.Fatal(code)
	}
	f.want("rows of before", next(2), "a=1 t/0@1")
	f.put(f.top, "a")
	f.want("a deletion", next(2), "-a t/0@2")
	if r, code := ask[sock.ViewRows](c, sock.OpViewRows, sock.ViewPoll{MaxRows: 1, Wait: 1}); code != "" || len(r.Rows) > 0 || r.Done {
		t.Errorf("nothing changes: %+v, %s", r, code)
	}
	if _, code := ask[struct{}](c, sock.OpViewOpen, open); code != "" { // and the first walk ends
		t.Fatal(code)
	}
	f.want("another walk", next(1), "t/0@2")
	done := make(chan string)
	go func() { done <- next(1) }()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	f.want("closed", <-done, "closing false")
}

// Watch ends when the graph is closed.
func TestWatchEndsWithTheGraph(t *testing.T) {
	f := newFixture(t, 2)
	v := view(f, f.table())
	began, done := make(chan struct{}), make(chan error)
	go func() {
		first := true
		for _, err := range v.Watch(f.ctx) {
			if first {
				close(began)
				first = false
			}
			if err != nil {
				done <- err
			}
		}
	}()
	<-began
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
