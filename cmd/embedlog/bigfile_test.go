package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
)

// command is embedlog as a process of its own: this test's binary, by its other name.
func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	name, err := exec.LookPath("embedlog") // testscript.Main puts it there
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "EMBEDLOG_DATA="+filepath.Join(dir, "data"), "NO_COLOR=1")
	return cmd
}

// must runs embedlog and returns what it printed.
func must(t *testing.T, dir string, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := command(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("embedlog %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.Bytes()
}

// bigFile is n lines "key:number bytes", of 50 keys in no order. Numbers grow, so
// that the order of a key's lines, and a line that comes twice, can be seen.
func bigFile(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "k%02d:%07d %s\n", r.IntN(50), i, strings.Repeat(string(rune('a'+i%26)), r.IntN(120)))
	}
	return b.Bytes()
}

// checkLines wants the lines of got, which may repeat only if they may, to be those
// of want, and each key's in the order of want.
func checkLines(t *testing.T, got, want []byte, repeats bool) {
	t.Helper()
	seen := make(map[string]bool)
	last := make(map[string]string) // the number of each key's last new line
	for line := range strings.Lines(string(got)) {
		if seen[line] {
			if !repeats {
				t.Fatalf("%q came twice", line)
			}
			continue
		}
		seen[line] = true
		key, rest, ok := strings.Cut(line, ":")
		if !ok || rest <= last[key] {
			t.Fatalf("%q came behind %q of the same key", line, last[key])
		}
		last[key] = rest
	}
	n := 0
	for line := range strings.Lines(string(want)) {
		n++
		if !seen[line] {
			t.Fatalf("line %d, %q, did not come", n, line)
		}
	}
	if n != len(seen) {
		t.Fatalf("%d different lines came, %d were produced", len(seen), n)
	}
}

// What is consumed is what was produced, byte for byte, per key in order.
func TestBigFile(t *testing.T) {
	big, smaller := bigFile(testcount.N(200_000)), bigFile(testcount.N(40_000))
	for _, partitions := range []string{"1", "8"} {
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			t.Run("partitions="+partitions+"/codec="+codec, func(t *testing.T) {
				dir := t.TempDir()
				want := smaller
				if codec == "none" || codec == "zstd" {
					want = big
				}
				must(t, dir, nil, "topic", "create", "big", "-p", partitions)
				must(t, dir, want, "produce", "big", "-K", ":", "-z", codec)
				got := must(t, dir, nil, "consume", "big", "--from-beginning", "-e", "-f", `%k:%v\n`)
				if partitions == "1" && !bytes.Equal(got, want) {
					t.Error("from one partition the file is not the same, byte for byte")
				}
				checkLines(t, got, want, false)
			})
		}
	}
}

// Producers and consumers are killed at random moments and begun again. A producer
// sends a part of the file again when it was killed over it, a consumer goes on
// where its group had committed: lines may come twice, none may be missing, and the
// first time they come each key's are in order.
func TestBigFileKilled(t *testing.T) {
	n := testcount.N(200_000)
	want := bigFile(n)
	parts := slices.Collect(slices.Chunk(slices.Collect(bytes.Lines(want)), n/8))
	for _, partitions := range []string{"1", "8"} {
		t.Run("partitions="+partitions, func(t *testing.T) {
			dir := t.TempDir()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			must(t, dir, nil, "topic", "create", "big", "-p", partitions)
			out := filepath.Join(dir, "out")
			kills := 0
			for _, part := range parts {
				for killed(t, r, func() *exec.Cmd {
					cmd := command(t, dir, "produce", "-q", "big", "-K", ":", "-z", "zstd")
					cmd.Stdin = bytes.NewReader(bytes.Join(part, nil))
					return cmd
				}) {
					kills++
				}
				for killed(t, r, func() *exec.Cmd {
					cmd := command(t, dir, "consume", "big", "-g", "g", "-e", "-f", `%k:%v\n`)
					f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { f.Close() })
					cmd.Stdout = f
					return cmd
				}) {
					kills++
					endLine(t, out)
				}
			}
			t.Logf("%d processes were killed", kills)
			got, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			checkLines(t, got, want, true)
			must(t, dir, nil, "verify")
		})
	}
}

// killed runs a command and, two times out of three, kills it at some moment. It
// reports whether the command died of that.
func killed(t *testing.T, r *rand.Rand, begin func() *exec.Cmd) bool {
	t.Helper()
	cmd := begin()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var shot atomic.Bool
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if r.IntN(3) > 0 {
		moment := time.AfterFunc(time.Duration(r.Int64N(int64(60*time.Millisecond))), func() {
			shot.Store(true)
			_ = cmd.Process.Kill() // it may have ended by itself
		})
		defer moment.Stop()
	}
	err := cmd.Wait()
	if err == nil {
		return false
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.ExitCode() == -1 && shot.Load() {
		return true
	}
	t.Fatalf("%v: %v\n%s", cmd.Args[1:], err, &stderr)
	return false
}

// endLine takes off the file what a killed process had begun of a line: whoever
// reads its output would do the same.
func endLine(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, int64(bytes.LastIndexByte(b, '\n')+1)); err != nil {
		t.Fatal(err)
	}
}
