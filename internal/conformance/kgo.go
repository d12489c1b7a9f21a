package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	_ "github.com/twmb/franz-go/pkg/kgo" // its tests are what runs: the version is that of go.mod

	"github.com/x/embedlog/kafka"
)

const kgoPackage = "github.com/twmb/franz-go/pkg/kgo"

type kgoMode int

const (
	kgoPlain kgoMode = iota
	kgoChaos
	kgoSecure
	kgoCluster
	kgoClusterShort
)

// The user that kgo's tests of SCRAM are.
const scramUser, scramPassword = "alice", "wonderland"

// kgoTest is the tests of franz-go's client, built once.
var kgoTest = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "conformance-kgo-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kgo.test")
	if out, err := exec.Command("go", "test", "-c", "-o", path, kgoPackage).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests of %s: %w\n%s", kgoPackage, err, out)
	}
	return path, nil
})

func kgo(ctx context.Context, r *run, mode kgoMode) (o outcome, err error) {
	binary, err := kgoTest()
	if err != nil {
		return o, err
	}
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", kgoPackage)
	dir, err := list.Output()
	if err != nil {
		return o, fmt.Errorf("find %s: %w", kgoPackage, err)
	}
	options := kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}}
	replicas := 1
	if mode >= kgoCluster {
		replicas = clusterNodes
	}
	records := r.records
	if mode == kgoClusterShort {
		records = min(records, shortRecords)
	}
	env := []string{fmt.Sprintf("KGO_TEST_RF=%d", replicas), fmt.Sprintf("KGO_TEST_RECORDS=%d", records), "KGO_LOG_LEVEL=none"}
	switch mode {
	case kgoChaos:
		env = append(env, "KGO_TEST_CHAOS=1")
	case kgoSecure:
		cert, ca, err := certificate(r.scratch)
		if err != nil {
			return o, err
		}
		options.Listeners[0].TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		// Its tests of SCRAM have a listener of their own, and no TLS.
		options.Listeners = append(options.Listeners, kafka.Listener{Address: "127.0.0.1:0", SASL: &kafka.SASL{}})
		env = append(env, "KGO_TEST_TLS=ca:"+ca, fmt.Sprintf("KGO_TEST_SCRAM=%s:%s:512", scramUser, scramPassword))
	}
	if mode >= kgoCluster {
		c, err := serveCluster(ctx, r, "kgo")
		if err != nil {
			return o, err
		}
		c.move(rand.Uint64())
		o, err = runKgoCluster(ctx, r, c, mode == kgoClusterShort, binary, string(dir), env)
		if n := c.moved.Load(); n == 0 && err == nil {
			err = errors.New("no leader was moved")
		} else {
			fmt.Printf("%-11s %d times another node came to lead a partition\n", r.suite, n)
		}
		return o, errors.Join(err, c.stop())
	}
	s, err := serve(r, "kgo", options)
	if err != nil {
		return o, err
	}
	defer func() {
		if e := s.stop(); err == nil {
			err = e
		}
	}()
	var more []string
	if mode == kgoSecure {
		leave := slices.Sorted(maps.Keys(kgoNotOverTLS))
		more = append(more, "-test.skip", "^("+strings.Join(leave, "|")+")$")
		defer func() {
			for _, name := range leave {
				o.skipped = append(o.skipped, name+": left out")
			}
		}()
		if err := s.db.SetUser(ctx, scramUser, scramPassword); err != nil {
			return o, err
		}
		env = append(env, "KGO_TEST_SCRAM_SEEDS="+s.addr(1))
	}
	return runKgo(ctx, r, binary, string(dir), s.addr(0), env, more)
}

// lostToKgo is a test whose consumer passes over aborted transactions. Where the leader's epoch has changed before them,
// kgo takes that for a loss of records: it holds its position against the epoch of the last record that it
// returned. (docs/kafka.md)
const lostToKgo = "TestTxnEtl"

const (
	// shortRecords is how many records the short form moves at most.
	shortRecords = 300
	// shortSkips is what it leaves out beside lostToKgo: of the chains of groups, each of which reads what the one before has
	// written, all but one of each protocol and one that is balanced anew at once. Each holds one of four places
	// when it is left out, so there may be three.
	shortSkips = "|^TestGroupETL$/^sticky$|^TestGroupETL$/^cooperative-sticky$/^static$"
)

// runKgoCluster runs the tests while leaders move, and lostToKgo by itself while those of the coordinators do. The short
// form leaves that out.
func runKgoCluster(ctx context.Context, r *run, c *cluster, short bool, binary, dir string, env []string) (o outcome, err error) {
	if short {
		return runKgo(ctx, r, binary, dir, c.seeds(), env, []string{"-test.skip", "^" + lostToKgo + "$" + shortSkips})
	}
	if o, err = runKgo(ctx, r, binary, dir, c.seeds(), env, []string{"-test.skip", "^" + lostToKgo + "$"}); err != nil || r.pattern != "" {
		return o, err
	}
	c.coordinators.Store(true)
	alone := *r
	alone.pattern = "^" + lostToKgo + "$"
	more, err := runKgo(ctx, &alone, binary, dir, c.seeds(), env, nil)
	o.passed += more.passed
	o.failed, o.skipped = append(o.failed, more.failed...), append(o.skipped, more.skipped...)
	return o, err
}

// runKgo runs the tests in the binary against the servers at seeds.
func runKgo(ctx context.Context, r *run, binary, dir, seeds string, env, more []string) (o outcome, err error) {
	args := append([]string{"-test.v", "-test.timeout", r.timeout.String(), "-test.run", r.pattern}, more...)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = strings.TrimSpace(dir) // one of its tests reads its source
	cmd.Env = append(append(os.Environ(), env...), "KGO_SEEDS="+seeds)
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, r.verbose)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	o = parseGoTest(&out)
	if err != nil && ctx.Err() != nil {
		return o, fmt.Errorf("stopped: %w\n%s", ctx.Err(), tail(out.String(), 60))
	}
	if err != nil && len(o.failed) == 0 {
		return o, fmt.Errorf("%w\n%s", err, tail(out.String(), 60))
	}
	return o, nil
}

var testLine = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)

// parseGoTest counts the tests of the output of go test -v, top level only, and
// keeps what those that failed or were skipped have said.
func parseGoTest(out io.Reader) (o outcome) {
	said := make(map[string][]string)
	current := ""
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "=== "); ok {
			if fields := strings.Fields(rest); len(fields) == 2 {
				current, _, _ = strings.Cut(fields[1], "/")
			}
			continue
		}
		m := testLine.FindStringSubmatch(line)
		if m == nil {
			if text := strings.TrimSpace(line); text != "" && strings.Contains(text, "_test.go:") {
				said[current] = append(said[current], text)
			}
			continue
		}
		switch name := m[2]; m[1] {
		case "PASS":
			o.passed++
		case "FAIL":
			o.failed = append(o.failed, name+"\n    "+tail(strings.Join(said[name], "\n    "), 20))
		case "SKIP":
			o.skipped = append(o.skipped, name+": "+strings.Join(said[name], "; "))
		}
	}
	return o
}

// tail is the last n lines of a text.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
