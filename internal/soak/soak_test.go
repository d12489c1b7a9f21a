package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/history"
)

func TestMain(m *testing.M) {
	Main() // a server does not come back
	os.Exit(m.Run())
}

// logWriter is a test's log.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// soakTime is how long clients work: EMBEDLOG_SOAK_TIME in the environment, or a time
// that keeps `go test` short.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("EMBEDLOG_SOAK_TIME")
	d, err := time.ParseDuration(cmp.Or(text, "4s"))
	if err != nil || d <= 0 {
		t.Fatalf("EMBEDLOG_SOAK_TIME=%q: want a duration", text)
	}
	return d
}

// needsTime skips a test in which real processes work on real files for seconds.
func needsTime(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: real servers are not killed under load for seconds")
	}
}

// Killed again and again, the server loses nothing that it acknowledged, duplicates
// nothing, shows no part of a transaction.
func TestKilledUnderLoad(t *testing.T) {
	needsTime(t)
	seed := rand.Uint64()
	res, err := Run(t.Context(), Config{
		Dir: t.TempDir(), Time: soakTime(t), KillEvery: time.Second, CutEvery: time.Second,
		Rate: 4000, Seed: seed, Log: logWriter{t},
	})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("seed %d\n%v", seed, res)
	if bad := res.Report.Bad(); len(bad) > 0 {
		keep(t, res.History)
		t.Errorf("seed %d: a log may not show this:\n%v", seed, res.Report)
	}
	f := &res.Report.Figures
	if res.Kills == 0 || res.Cuts == 0 || f.Sent.OK == 0 || f.Kinds[history.OpTxn].OK == 0 || f.Kinds[history.OpFinal].OK != 1 {
		t.Errorf("seed %d: not enough happened for this to say much", seed)
	}
	if f.Kinds[history.OpCommit].OK == 0 || f.Kinds[history.OpCommitted].OK == 0 {
		t.Errorf("seed %d: no group committed", seed)
	}
}

// keep copies a history to where EMBEDLOG_KEEP says.
func keep(t *testing.T, path string) {
	to := os.Getenv("EMBEDLOG_KEEP")
	if to == "" {
		t.Log("EMBEDLOG_KEEP=dir keeps the history")
		return
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "history.jsonl"), b, 0o600)
	}
	t.Logf("history kept in %s: %v", to, err)
}

// The run notices a server that forgets: while it is dead its newest files are cut.
func TestForgettingIsNoticed(t *testing.T) {
	needsTime(t)
	seed := rand.Uint64()
	cuts := 0
	res, err := Run(t.Context(), Config{
		Dir: t.TempDir(), Time: 2 * time.Second, KillEvery: 700 * time.Millisecond, CutEvery: -1, Rate: 2000, Seed: seed, Log: logWriter{t},
		WhileDead: func(dir string, _ int) error {
			n, err := cutTopic(dir, fastTopic)
			cuts += n
			return err
		},
	})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("seed %d: %d files cut\n%v", seed, cuts, res)
	if cuts == 0 {
		t.Fatalf("seed %d: no file was cut", seed)
	}
	if res.Report.Count(history.LostWrite) == 0 && res.Report.Count(history.InconsistentOffsets) == 0 {
		t.Errorf("seed %d: acknowledged records were cut away, and nobody noticed", seed)
	}
}

// cutTopic zeroes the second half of what each partition of a topic holds, as if it
// had never been written, and takes away what would tell.
func cutTopic(dir, topic string) (n int, err error) {
	topics, err := filepath.Glob(filepath.Join(dir, "topics", "*"))
	if err != nil {
		return 0, err
	}
	for _, t := range topics {
		text, err := os.ReadFile(filepath.Join(t, "topic"))
		if err != nil || !strings.Contains(string(text), "name "+topic+"\n") {
			continue
		}
		logs, err := filepath.Glob(filepath.Join(t, "*", "*.log"))
		if err != nil {
			return n, err
		}
		for _, path := range logs {
			if err := cutFile(path); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func cutFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	used := len(strings.TrimRight(string(b), "\x00"))
	clear(b[used/2:])
	return os.WriteFile(path, b, 0o600)
}

func TestRelay(t *testing.T) {
	r, err := newRelay()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	// echo is a server that says what it hears, after its name.
	echo := func(name string) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprint(c, name)
					io.Copy(c, c)
				}()
			}
		}()
		return l
	}
	talk := func(word string) (net.Conn, string) {
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, word)
		b := make([]byte, 1+len(word))
		n, _ := io.ReadFull(c, b)
		return c, string(b[:n])
	}
	one, two := echo("1"), echo("2")
	go r.point(one.Addr().String()) // who comes before waits
	c, got := talk("hello")
	if got != "1hello" {
		t.Errorf("heard %q, want 1hello", got)
	}
	r.point(two.Addr().String())
	if _, got := talk("hello"); got != "2hello" {
		t.Errorf("heard %q, want 2hello", got)
	}
	fmt.Fprint(c, "!")
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil || b[0] != '!' {
		t.Errorf("a connection does not live on: %q, %v", b, err)
	}
	r.cut()
	if _, err := c.Read(b); err == nil {
		t.Error("a connection lives on after the cut")
	}
	r.close()
	if _, err := net.Dial("tcp", r.addr()); err == nil {
		t.Error("a closed relay listens")
	}
}

func TestPayload(t *testing.T) {
	for _, size := range []int{8, 9, 100} {
		for _, value := range []int64{0, 1, 700<<32 | 5, -1} {
			b := Encode(value, size)
			if got, err := Decode(b); len(b) != size || got != value || err != nil {
				t.Errorf("size %d, value %d: %d bytes, %d, %v", size, value, len(b), got, err)
			}
			if size == 8 {
				continue
			}
			for i := range b {
				b[i]++
				if got, err := Decode(b); err == nil {
					t.Errorf("size %d, value %d, byte %d changed: taken for %d", size, value, i, got)
				}
				b[i]--
			}
		}
	}
	if _, err := Decode([]byte("short")); err == nil {
		t.Error("5 bytes are no value")
	}
}

func TestConfigs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "something"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"no directory":      {},
		"not empty":         {Dir: dir},
		"negative time":     {Dir: filepath.Join(dir, "new"), Time: -1},
		"too small":         {Dir: filepath.Join(dir, "new"), RecordBytes: 7},
		"no partitions":     {Dir: filepath.Join(dir, "new"), Partitions: -1},
		"no rate":           {Dir: filepath.Join(dir, "new"), Rate: -1},
		"nobody to talk to": {Dir: filepath.Join(dir, "none"), Server: "127.0.0.1:1"},
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("took too long"))
		if _, err := Run(ctx, c); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a configuration that is not valid has left a directory")
	}
}
