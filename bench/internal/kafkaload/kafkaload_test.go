package kafkaload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const testChild = "kafkaload-test-server"

// The test binary stands in for the programs whose child is a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == testChild {
		if err := ServeChild([]*System{Ours, Bound}, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func matrix(t *testing.T, systems ...*System) *Matrix {
	return &Matrix{Systems: systems, Reps: 2, Time: 30 * time.Millisecond, Rows: regexp.MustCompile(""), Dir: t.TempDir(), Child: []string{testChild}}
}

// Every kind of load runs against a real server in a process of its own, and finds
// there what it did: the loads fail themselves when they do not.
func TestLoadsRun(t *testing.T) {
	for _, kind := range []Kind{Produce, Consume, Latency} {
		for _, durable := range []bool{false, true} {
			l := Load{Kind: kind, Durable: durable, Clients: 2, Bytes: 100, Window: 64, Fill: 5000}
			t.Run(l.Name(), func(t *testing.T) {
				m := matrix(t, Ours, Bound)
				m.Reps, m.Profile = 1, t.TempDir()
				out, err := m.Measure(t.Context(), l, m.Dir, io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range out {
					r := o.Results[0]
					if r.Records <= 0 || r.Bytes < r.Records*100 || r.Elapsed <= 0 || r.CPU < 0 {
						t.Errorf("%s: %+v", o.System.Name, r)
					}
					if (kind == Latency) != (r.P50 > 0) || r.P99 < r.P50 {
						t.Errorf("%s: p50 %v, p99 %v", o.System.Name, r.P50, r.P99)
					}
				}
				if files, err := filepath.Glob(m.Profile + "/*.heap"); err != nil || len(files) != 1 {
					t.Errorf("profiles %v, %v", files, err)
				}
			})
		}
	}
}

// Repetitions take turns, and another system goes first each time; the limit learns
// how large requests are from ours.
func TestMeasureTakesTurns(t *testing.T) {
	var order []string
	made := func(name string) *System {
		return &System{Name: name, Run: func(_ context.Context, _ *Child, l *Load) (Result, error) {
			order = append(order, fmt.Sprint(name, l.Chunk))
			return Result{Records: 10, Bytes: 1000, Requests: 10, Elapsed: time.Second}, nil
		}}
	}
	refuses := made("never")
	refuses.Cannot = func(*Load) string { return "not this" }
	m := matrix(t, made(OursName), made("limit"), refuses)
	m.started = anyServer(m)
	out, err := m.Measure(t.Context(), Load{Kind: Produce, Clients: 1, Bytes: 100, Window: 1}, m.Dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("[%s0 limit%d limit%d %s%d]", OursName, 100+recordOverhead, 100+recordOverhead, OursName, 100+recordOverhead)
	if fmt.Sprint(order) != want || out[2].Cannot != "not this" || len(out[2].Results) > 0 {
		t.Errorf("order %v, want %s; %+v", order, want, out[2])
	}
}

// anyServer starts a server for systems that are made up.
func anyServer(m *Matrix) func() (*Child, error) {
	return func() (*Child, error) {
		return Start(exec.Command(os.Args[0], testChild, "limit", `{"Kind":"produce"}`, m.Dir))
	}
}

func TestAhead(t *testing.T) {
	rate := func(n ...int64) (list []Result) {
		for _, x := range n {
			list = append(list, Result{Records: x, Elapsed: time.Second})
		}
		return list
	}
	p50 := func(n ...time.Duration) (list []Result) {
		for _, x := range n {
			list = append(list, Result{P50: x})
		}
		return list
	}
	for _, c := range []struct {
		name           string
		kind           Kind
		ours, other    []Result
		mid, low, high float64
	}{
		{"the median of ratios, not the ratio of medians", Produce, rate(10, 40, 100), rate(10, 100, 1000), 0.4, 0.1, 1},
		{"less time is better", Latency, p50(100, 50), p50(200, 200), 4, 2, 4},
	} {
		if mid, low, high := ahead(c.kind, c.ours, c.other); mid != c.mid || low != c.low || high != c.high {
			t.Errorf("%s: %v, %v to %v; want %v, %v to %v", c.name, mid, low, high, c.mid, c.low, c.high)
		}
	}
}

// What is printed is Markdown, a table for each kind, and says who is behind.
func TestReport(t *testing.T) {
	run := func(n int64) func(context.Context, *Child, *Load) (Result, error) {
		return func(context.Context, *Child, *Load) (Result, error) {
			return Result{Records: n, Bytes: n * 100, Elapsed: time.Second, CPU: time.Second / 10, P50: time.Duration(n), P99: time.Duration(2 * n)}, nil
		}
	}
	m := matrix(t, &System{Name: OursName, Run: run(2_000_000)}, &System{Name: "other", Note: "another", Run: run(4_000_000)})
	m.Rows = regexp.MustCompile("os/value=100B/clients=1$")
	m.started = anyServer(m)
	var b bytes.Buffer
	behind, err := m.Run(t.Context(), func(*System, *Load) bool { return true }, &b, io.Discard)
	if err != nil || behind != 2 {
		t.Errorf("behind in %d, error %v", behind, err)
	}
	for _, want := range []string{
		"| produce, records a second | embedlog | other | MB/s | CPU/MB embedlog | CPU/MB other |\n|---|---:|---:|---:|---:|---:|\n",
		"| level=os/value=100B/clients=1 | 2.00 M | 4.00 M (0.50, 0.50 to 0.50) | 200 | 500µs | 250µs |\n",
		"| consume, records a second |", "| latency, p50 / p99 |", "2ms / 4ms", "- other: another\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
	if left, err := os.ReadDir(m.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLoadNames(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range Loads() {
		if seen[l.Name()] || l.window()*l.Clients > l.Window || l.Fill*int64(l.Bytes) > 64<<20 {
			t.Errorf("%s: %+v", l.Name(), l)
		}
		seen[l.Name()] = true
	}
	if len(seen) != 30 || !seen["kafka/latency/level=durable/value=1KiB/clients=100"] {
		t.Errorf("%d loads: %v", len(seen), seen)
	}
}

// A child that does not start says why.
func TestChildFails(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"nobody", "{}", t.TempDir()}, `no system "nobody"`},
		{[]string{OursName, "{", t.TempDir()}, "load: "},
		{[]string{OursName}, "are needed"},
	} {
		_, err := Start(exec.Command(os.Args[0], append([]string{testChild}, c.args...)...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}
