package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// every is operations with every field and every kind.
func every() History {
	a, b := Key{"a", 0}, Key{"töpic \"b\"\\\n", math.MaxInt32}
	h := History{
		{Process: math.MaxInt32, Kind: OpTxn, Outcome: OK, Start: -1, End: math.MaxInt64,
			Sends:   []Run{{a, []Record{{0, math.MinInt64}, {NoOffset, 1}}}, {b, []Record{{5, 2}}}},
			Polls:   []Run{{b, []Record{{7, 3}}}, {a, nil}},
			Group:   "g\tgroup",
			Offsets: []Offset{{a, 9}, {b, -1}},
			Keys:    []Key{a, b}, Uncommitted: true, Retries: true, Final: true},
		{Process: -3, Kind: OpSend, Outcome: Info, Sends: []Run{{a, []Record{{Unanswered, 4}, {Refused, 5}}}}},
	}
	for k := OpSend; k <= OpFinal; k++ {
		for o := OK; o <= Info; o++ {
			h = append(h, Op{Process: 1, Kind: k, Outcome: o})
		}
	}
	return h
}

// normal is an operation as it comes back from a line: empty slices are none.
func normal(op *Op) Op {
	c := *op.Clone()
	for _, runs := range []*[]Run{&c.Sends, &c.Polls} {
		for i := range *runs {
			if len((*runs)[i].Records) == 0 {
				(*runs)[i].Records = nil
			}
		}
		if len(*runs) == 0 {
			*runs = nil
		}
	}
	if len(c.Offsets) == 0 {
		c.Offsets = nil
	}
	if len(c.Keys) == 0 {
		c.Keys = nil
	}
	return c
}

func line(t testing.TB, op *Op) []byte {
	t.Helper()
	b, err := AppendLine(nil, op)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLines(t *testing.T) {
	var d Decoder
	var got Op
	for i, op := range every() {
		b := line(t, &op)
		if bytes.Count(b, []byte("\n")) != 1 || b[len(b)-1] != '\n' || !json.Valid(b) {
			t.Fatalf("operation %d is not one line of JSON: %q", i, b)
		}
		b = b[:len(b)-1]
		if err := d.Decode(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if got, want := normal(&got), normal(&op); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", b, got, want)
		}
		// A writer may be killed after any byte: none of the beginnings is taken for a line.
		for n := range b {
			if err := d.Decode(b[:n], &got); !errors.Is(err, ErrTorn) {
				t.Fatalf("%s, cut after %d bytes: error %v, want ErrTorn", b, n, err)
			}
		}
	}
}

func TestLinesThatAreNone(t *testing.T) {
	for _, text := range []string{
		`x`,
		`[]`,
		`{}`,
		`{"p":1,"f":"send"}`,
		`{"p":1,"o":"ok"}`,
		`{"f":"send","o":"ok"}`,
		`{"p":1,"f":"send","o":"ok"} x`,
		`{"p":1,"f":"send","o":"ok"}}`,
		`{"p":1,"p":1,"f":"send","o":"ok"}`,
		`{"p":1,"f":"","o":"ok"}`,
		`{"p":1,"f":"sent","o":"ok"}`,
		`{"p":1,"f":"send","o":"okay"}`,
		`{"p":01,"f":"send","o":"ok"}`,
		`{"p":1.5,"f":"send","o":"ok"}`,
		`{"p":1e3,"f":"send","o":"ok"}`,
		`{"p":-,"f":"send","o":"ok"}`,
		`{"p":2147483648,"f":"send","o":"ok"}`,
		`{"p":1,"f":"send","o":"ok","s":9223372036854775808}`,
		`{"p":1,"f":"send","o":"ok","s":-9223372036854775809}`,
		`{"p":1,"f":"send","o":"ok","s":99999999999999999999999}`,
		`{"p":1,"f":"send","o":"ok","w":[["a",0,[1]]]}`,
		`{"p":1,"f":"send","o":"ok","w":[["a",0]]}`,
		`{"p":1,"f":"send","o":"ok","w":[["a",0,[1,2],3]]}`,
		`{"p":1,"f":"send","o":"ok","w":{}}`,
		`{"p":1,"f":"send","o":"ok","g":"\x"}`,
		`{"p":1,"f":"send","o":"ok","g":"` + "\xff" + `"}`,
		`{"p":1,"f":"send","o":"ok","g":"` + "\x01" + `"}`,
		`{"p":1,"f":"send","o":"ok","u":tru }`,
		`{"p":1,"f":"send","o":"ok","u":null}`,
		`{"p":1,"f":"send","o":"ok","q":1}`,
		`{"p":1,"f":"send","o":"ok","qq":1}`,
		`{"p":1,"f":"send","o":"ok",}`,
	} {
		var d Decoder
		var op Op
		var syntax *SyntaxError
		if err := d.Decode([]byte(text), &op); !errors.As(err, &syntax) || errors.Is(err, ErrTorn) {
			t.Errorf("%s: error %v, want a *SyntaxError", text, err)
		}
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	for _, op := range []Op{
		{Outcome: OK},
		{Kind: OpSend},
		{Kind: OpFinal + 1, Outcome: OK},
		{Kind: OpSend, Outcome: Begun + 1},
		{Kind: OpCommit, Outcome: OK, Group: "\xff"},
		{Kind: OpAssign, Outcome: OK, Keys: []Key{{"\xc3", 0}}},
	} {
		if b, err := AppendLine(nil, &op); err == nil || len(b) > 0 {
			t.Errorf("%+v: %q, error %v", op, b, err)
		}
	}
}

func write(t *testing.T, path string, h History) {
	t.Helper()
	w, err := OpenWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range h {
		if err := w.Append(&h[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// read is what a walk gives, and the torn lines.
func read(t *testing.T, f *Files) (h History, torn []int) {
	t.Helper()
	for op, err := range f.Ops() {
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, normal(op))
	}
	for _, l := range f.TornLines() {
		torn = append(torn, l.Line)
	}
	return h, torn
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	h := every()
	write(t, one, h[:5])
	write(t, one, h[5:9])
	write(t, two, h[9:])
	f := OpenFiles(one, two)
	for range 2 {
		got, torn := read(t, f)
		if len(torn) > 0 || len(got) != len(h) {
			t.Fatalf("%d operations and torn lines %v, want %d and none", len(got), torn, len(h))
		}
		for i := range h {
			if want := normal(&h[i]); !reflect.DeepEqual(got[i], want) {
				t.Errorf("operation %d:\n got %+v\nwant %+v", i, got[i], want)
			}
		}
	}
	// A walk may be left.
	n := 0
	for range f.Ops() {
		if n++; n == 3 {
			break
		}
	}
}

// A file is cut at each byte, as by a kill, and another writer goes on.
func TestWriterKilledInTheMiddleOfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	h := parseScript(t, "1 send ok a 0=10\n1 send ok a 1=11")
	write(t, path, h)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	more := parseScript(t, "2 send ok a 2=12\n2 poll ok a 0=10")
	for n := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, path, more)
		got, torn := read(t, OpenFiles(path))
		want, wantTorn := 0, -1
		switch {
		case n == 0:
		case n < first-1:
			wantTorn = 1
		case n <= first:
			want = 1
		case n < len(whole)-1:
			want, wantTorn = 1, 2
		default:
			want = 2
		}
		if len(got) != want+len(more) {
			t.Errorf("cut after %d bytes: %d operations, want %d and %d", n, len(got), want, len(more))
		}
		if (wantTorn < 0) != (len(torn) == 0) || wantTorn >= 0 && torn[0] != wantTorn {
			t.Errorf("cut after %d bytes: torn lines %v, want %d", n, torn, wantTorn)
		}
	}
}

func TestTornLinesAreReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	h := parseScript(t, "1 send ok a 0=10\n2 poll ok a 0=10")
	write(t, path, h)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"p":1,"f":"se`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r := check(t, OpenFiles(path), nil)
	if got := found(r); got != "" || len(r.Torn) != 1 || r.Torn[0].Line != 3 || !strings.Contains(r.String(), "torn line: "+path+":3") {
		t.Errorf("found %q, torn %v\n%v", got, r.Torn, r)
	}
}

// What was announced and never ended is Info; what ended is there once.
func TestAnnouncements(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	script := `
		1 send begin a ?=10           from=1 to=1
		2 txn begin                   from=1 to=1
		2 txn begin poll b 0=20 send a ?=30 from=1 to=1
		1 send ok a 0=10              from=1 to=5
		1 send begin a ?=11           from=6 to=6
		2 txn ok poll b 0=20 send a 1=30 from=1 to=9
		1 poll ok b 0=20              from=10 to=11
		1 send begin b ?=21           from=12 to=12
		3 txn begin send b ?=22       from=1 to=1`
	write(t, path, parseScript(t, script))
	got, torn := read(t, OpenFiles(path))
	want := parseScript(t, `
		1 send ok a 0=10              from=1 to=5
		2 txn ok poll b 0=20 send a 1=30 from=1 to=9
		1 send info a ?=11            from=6 to=6
		1 poll ok b 0=20              from=10 to=11
		1 send info b ?=21            from=12 to=12
		3 txn info send b ?=22        from=1 to=1`)
	if len(torn) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v\ntorn %v", got, want, torn)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("{\"p\":1,\"f\":\"crash\",\"o\":\"ok\"}\n{\"p\":x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var where *LineError
	if _, err := Check(OpenFiles(bad), nil); !errors.As(err, &where) || where.Line != 2 || where.Path != bad {
		t.Errorf("error %v, want one of line 2", err)
	}
	if _, err := Check(OpenFiles(filepath.Join(dir, "none")), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, bytes.Repeat([]byte{' '}, maxLine+2), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(OpenFiles(long), nil); !errors.Is(err, ErrLineTooLong) {
		t.Errorf("error %v, want ErrLineTooLong", err)
	}
}

// What the decoder takes is JSON, means the same when it is written again, and none
// of its beginnings is a line.
func FuzzDecode(f *testing.F) {
	for _, op := range every() {
		b := line(f, &op)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte(`{"p":1,"f":"send","o":"ok","w":[["\u00e4\ud83d\ude00",0,[ -1 , 5 ] ]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<12 {
			return // all beginnings are tried
		}
		var d Decoder
		var op, again Op
		if err := d.Decode(text, &op); err != nil {
			var syntax *SyntaxError
			if !errors.Is(err, ErrTorn) && !errors.As(err, &syntax) {
				t.Fatalf("error %v of no kind", err)
			}
			return
		}
		var generic map[string]any
		if err := json.Unmarshal(text, &generic); err != nil {
			t.Fatalf("taken, and not JSON: %v", err)
		}
		b := line(t, &op)
		if err := new(Decoder).Decode(b[:len(b)-1], &again); err != nil {
			t.Fatalf("written again as %s: %v", b, err)
		}
		if got, want := normal(&again), normal(&op); !reflect.DeepEqual(got, want) {
			t.Fatalf("written again:\n got %+v\nwant %+v", got, want)
		}
		if n := len(op.Sends); n > 0 && generic["w"].([]any)[n-1].([]any)[0] != op.Sends[n-1].Key.Topic {
			t.Fatalf("topic %q, JSON says %v", op.Sends[n-1].Key.Topic, generic["w"])
		}
		text = bytes.TrimRight(text, " \t\r")
		for n := range text {
			if err := d.Decode(text[:n], &again); !errors.Is(err, ErrTorn) {
				t.Fatalf("cut after %d bytes: error %v, want ErrTorn", n, err)
			}
		}
	})
}

// No history makes the checker panic, whatever it says.
func FuzzCheck(f *testing.F) {
	for _, row := range forged {
		var b []byte
		for _, op := range parseScript(&testing.T{}, row.script) {
			b = append(b, line(f, &op)...)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var h History
		var d Decoder
		for l := range bytes.Lines(text) {
			var op Op
			if d.Decode(bytes.TrimSuffix(l, []byte("\n")), &op) == nil {
				h = append(h, *op.Clone())
			}
		}
		r, err := Check(h, nil)
		if err != nil {
			var bad *BadHistoryError
			if !errors.As(err, &bad) {
				t.Fatalf("error %v of no kind", err)
			}
			return
		}
		_ = r.String()
		for _, a := range r.Anomalies {
			if a.Count < len(a.First) || len(a.First) == 0 {
				t.Fatalf("%v: count %d, %d instances", a.Kind, a.Count, len(a.First))
			}
		}
	})
}
