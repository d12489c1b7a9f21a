package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The test binary stands in for the program when a row starts a fresh process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(childMain(os.Args[2:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == kafkaChild {
		os.Exit(kafkaChildMain(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows() {
		if seen[r.name] {
			t.Errorf("two rows are named %s", r.name)
		}
		seen[r.name] = true
		if (r.target <= 0) != r.stated || r.limit.run == nil || r.against == "" {
			t.Errorf("%s: target %v, limit %q", r.name, r.target, r.against)
		}
		one := r.repetition(config{seconds: time.Second, bytes: 64 << 20})
		if r.timed != (one.Time > 0) || one.Bytes%pageBytes != 0 {
			t.Errorf("%s: repetition %+v", r.name, one)
		}
		if frames := one.Records * int64(frameHeaderBytes+keyBytes+one.ValueBytes); frames > one.Bytes {
			t.Errorf("%s: %d bytes of frames do not fit into %d", r.name, frames, one.Bytes)
		}
	}
	for name := range ours {
		if !seen[name] {
			t.Errorf("a side is registered for %q, which is no row", name)
		}
	}
}

func TestJudge(t *testing.T) {
	per := func(records int64) result { return result{Records: records, Elapsed: time.Second} }
	paused := func(records int64, pause time.Duration) result {
		return result{Records: records, Elapsed: time.Second, Longest: pause}
	}
	p50 := func(d time.Duration) result { return result{P50: d} }
	value := func(v float64) result { return result{Value: v} }
	for _, c := range []struct {
		name        string
		row         row
		limit, ours []result
		ratio       float64
		ok          bool
	}{
		{"rate reached", row{measure: rate, target: 0.5}, []result{per(100), per(10), per(100)}, []result{per(50), per(9), per(40)}, 0.5, true},
		{"the median of ratios, not the ratio of medians", row{measure: rate, target: 0.5}, []result{per(10), per(100), per(1000)}, []result{per(10), per(40), per(100)}, 0.4, false},
		{"rate missed", row{measure: rate, target: 0.5}, []result{per(100)}, []result{per(49)}, 0.49, false},
		{"pause within the slack", row{measure: rate, target: 0.5, steady: true}, []result{paused(100, 2*time.Millisecond)}, []result{paused(90, 7*time.Millisecond)}, 0.9, true},
		{"pause too long", row{measure: rate, target: 0.5, steady: true}, []result{paused(100, 2*time.Millisecond)}, []result{paused(90, 8*time.Millisecond)}, 0.9, false},
		{"pause against the longest of the run", row{measure: rate, target: 0.5, steady: true}, []result{paused(100, 9*time.Millisecond), paused(100, 1)}, []result{paused(90, 1), paused(90, 13*time.Millisecond)}, 0.9, true},
		{"pause that is only shown", row{measure: rate, target: 0.5, pause: true}, []result{paused(100, 1)}, []result{paused(90, time.Second)}, 0.9, true},
		{"latency reached", row{measure: latency, target: 2}, []result{p50(100)}, []result{p50(200)}, 2, true},
		{"latency missed", row{measure: latency, target: 2}, []result{p50(100)}, []result{p50(201)}, 2.01, false},
		{"amount", row{measure: amount, target: 15}, []result{value(14)}, []result{value(15)}, 15, true},
		{"amount missed", row{measure: amount, target: 15}, []result{value(14)}, []result{value(15.5)}, 15.5, false},
		{"growth", row{measure: growth, target: 3}, []result{value(1.5)}, []result{value(4)}, 2.5, true},
		{"growth missed", row{measure: growth, target: 3}, []result{value(1.5)}, []result{value(5)}, 3.5, false},
		{"a note is a miss", row{measure: amount, target: 15}, []result{value(1)}, []result{{Value: 1, Note: "goroutines"}}, 1, false},
	} {
		v := c.row.judge(outcome{limit: c.limit, ours: c.ours})
		if !v.judged || v.ok != c.ok || v.ratio != c.ratio {
			t.Errorf("%s: got ratio %v, ok %t; want %v, %t", c.name, v.ratio, v.ok, c.ratio, c.ok)
		}
	}
	if v := (&row{measure: rate, target: 0.5}).judge(outcome{limit: []result{per(1)}}); v.judged || v.ok {
		t.Errorf("nothing of ours: %+v", v)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"", "log, db, views, kafka, raft or limits?"},
		{"logs", `"logs" is neither`},
		{"log --reps 0", "--reps 0"},
		{"log --seconds NaN", "--seconds NaN"},
		{"log --mib 1048576", "--mib 1048576"},
		{"log --rows (", "--rows: "},
		{"log --rows nothing-is-named-so", "matches no row"},
		{"log --dir " + file, "is not a directory"},
		{"log --dir " + file + "2", "--dir: "},
		{"log more", `unexpected argument "more"`},
		{"log --reps 0 --seconds 0", "--seconds 0 "},
		{"log --fast", "-fast"},
		{"log --profile .", "--profile is for views"},
		{"kafka --profile " + file, "is not a directory"},
		{"kafka --rows nothing-is-named-so", "matches no row"},
	} {
		var stdout, stderr bytes.Buffer
		if status := run(strings.Fields(c.args), &stdout, &stderr); status != 2 || !strings.Contains(stderr.String(), c.want) || stdout.Len() > 0 {
			t.Errorf("bench %s: status %d, stderr %q, stdout %q; want 2 and %q", c.args, status, &stderr, &stdout, c.want)
		}
	}
	for _, args := range []string{"--help", "help", "log --help", "limits -h"} {
		var stdout, stderr bytes.Buffer
		if status := run(strings.Fields(args), &stdout, &stderr); status != 0 || !strings.Contains(stdout.String(), "-rows") || stderr.Len() > 0 {
			t.Errorf("bench %s: status %d, stderr %q, stdout %q", args, status, &stderr, &stdout)
		}
	}
	c, err := parse(strings.Fields("log --short --reps 7"), io.Discard)
	if err != nil || c.reps != 7 || c.bytes != 64<<20 || c.seconds != 200*time.Millisecond {
		t.Errorf("--short --reps 7: %+v, error %v", c, err)
	}
}

// measureOnly measures rows that the test makes up and returns what is printed.
func measureOnly(t *testing.T, c config, r ...*row) (missed int, out string, left []os.DirEntry, err error) {
	t.Helper()
	c.dir, c.reps = t.TempDir(), max(c.reps, 1)
	var b bytes.Buffer
	missed, err = measureAll(c, r, &b)
	left, readErr := os.ReadDir(c.dir)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return missed, b.String(), left, err
}

func TestMeasureTakesTurnsAndCleansUp(t *testing.T) {
	var order []string
	dirs := map[string]int{}
	made := func(name string, value float64, setup subject0) side {
		return side{setup: setup, run: func(r *rep) (result, error) {
			order = append(order, name)
			dirs[name+" "+r.Dir]++
			return result{Value: value}, os.WriteFile(filepath.Join(r.Dir, name), nil, 0o600)
		}}
	}
	const name = "test/turns"
	register(name, made("ours", 4, func(*rep) error { order = append(order, "setup"); return nil }))
	defer delete(ours, name)
	r := &row{name: name, against: "made up", measure: amount, unit: "ms", target: 3, limit: made("limit", 1, nil)}
	missed, out, left, err := measureOnly(t, config{reps: 4}, r)
	if want := "setup limit ours ours limit limit ours ours limit"; strings.Join(order, " ") != want {
		t.Errorf("order %v, want %s", order, want)
	}
	if len(dirs) != 4+1 {
		t.Errorf("directories %v, want four for the limit and one shared for ours", dirs)
	}
	if missed != 1 || err != nil || len(left) > 0 || !strings.Contains(out, "4.00 (4.00-4.00)") || !strings.Contains(out, "NO") {
		t.Errorf("missed %d, error %v, left behind %v, printed:\n%s", missed, err, left, out)
	}
}

func TestMeasureGoesOnAfterAFailure(t *testing.T) {
	bad := &row{name: "test/bad", against: "made up", measure: amount, limit: side{run: func(*rep) (result, error) {
		return result{}, os.ErrDeadlineExceeded
	}}}
	good := &row{name: "test/good", against: "made up", measure: amount, unit: "ms", limit: side{run: func(*rep) (result, error) {
		return result{Value: 7}, nil
	}}}
	_, out, left, err := measureOnly(t, config{}, bad, good)
	if err == nil || !strings.Contains(err.Error(), "test/bad: limit: ") || !strings.Contains(out, "7.00 ms") || len(left) > 0 {
		t.Errorf("error %v, left behind %v, printed:\n%s", err, left, out)
	}
}

// Rows in a fresh process run through the real subcommand.
func TestFreshProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the memory of a process is read from Linux's /proc")
	}
	all := config{rows: regexp.MustCompile(`^idle/partitions=100$`)}.selected(rows())
	if len(all) != 1 {
		t.Fatalf("%d rows", len(all))
	}
	one := all[0].repetition(config{})
	res, err := inChild(all[0].name, "limit", &one)
	if err != nil || res.Value < 0.5 || res.Value > 500 {
		t.Errorf("an idle process holds %v MiB, error %v", res.Value, err)
	}
	if _, err := inChild("no such row", "limit", &one); err == nil || !strings.Contains(err.Error(), `no row "no such row"`) {
		t.Errorf("unknown row: error %v", err)
	}
}
