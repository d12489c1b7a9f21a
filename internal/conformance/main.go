// Command conformance runs other people's tests against the Kafka listener, each
// suite against a server of its own on loopback:
//
//	go run .                                # all suites but short ones, 20,000 records
//	go run . --suites kgo --records 500000  # one of them, as large as its authors run it
//
// It ends non-zero when a test fails, when one is skipped that is not declared
// (declared.go), and when one that is declared as skipped runs after all, so that
// docs/kafka.md stays true. A suite whose tool is missing fails; --missing=skip says
// so and goes on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// run is what the suites share.
type run struct {
	suite   string // the one that runs
	missing string // what a tool that is not there is: fail or skip
	records int
	timeout time.Duration
	pattern string // of the tests of the kgo suites; empty is all
	scratch string // removed at the end
	verbose io.Writer
}

// A suite runs against a server that it starts.
type suite struct {
	name, about string
	run         func(context.Context, *run) (outcome, error)
}

// outcome is what a suite's tests came to.
type outcome struct {
	passed  int
	failed  []string
	skipped []string // with the reason behind a colon
}

// errMissing is a tool that is not installed.
var errMissing = errors.New("is not installed")

var suites = []suite{
	{"kgo", "franz-go's own tests of its client", func(ctx context.Context, r *run) (outcome, error) { return kgo(ctx, r, kgoPlain) }},
	{"kgo-chaos", "the same while connections die at random", func(ctx context.Context, r *run) (outcome, error) { return kgo(ctx, r, kgoChaos) }},
	{"kgo-cluster", "the same against three nodes whose partitions' leaders move", func(ctx context.Context, r *run) (outcome, error) { return kgo(ctx, r, kgoCluster) }},
	{"kgo-cluster-short", "most of that, in a minute", func(ctx context.Context, r *run) (outcome, error) { return kgo(ctx, r, kgoClusterShort) }},
	{"kgo-secure", "the same over TLS, with SCRAM where it is tested", func(ctx context.Context, r *run) (outcome, error) { return kgo(ctx, r, kgoSecure) }},
	{"kcat", "kcat and the librdkafka that it is linked with", kcat},
	{"sarama", "rounds of IBM/sarama", saramaClient},
	{"kafkajs", "a script for kafkajs on Node.js", kafkajs},
	{"snippets", "the clients in five lines of docs/kafka.md: Go, Java, Python, Node.js, C", snippets},
}

func main() {
	if err := mainErr(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func mainErr() error {
	var names []string
	for _, s := range suites {
		names = append(names, s.name)
	}
	all := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.HasSuffix(name, "-short") })
	which := flag.String("suites", strings.Join(all, ","), "which suites, by comma")
	records := flag.Int("records", 20_000, "records that kgo's longer tests move")
	timeout := flag.Duration("timeout", 10*time.Minute, "how long one suite may take")
	missing := flag.String("missing", "fail", "what a tool that is not installed is: fail or skip")
	pattern := flag.String("run", "", "of the kgo suites only the tests that match, as in go test")
	verbose := flag.Bool("v", false, "print what the suites print")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: go run . [flags]\n\nsuites:\n")
		for _, s := range suites {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-11s %s\n", s.name, s.about)
		}
		fmt.Fprintf(flag.CommandLine.Output(), "\nflags:\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || *missing != "fail" && *missing != "skip" || *records < 1 {
		flag.Usage()
		os.Exit(2)
	}
	chosen := strings.Split(*which, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("no suite %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	scratch, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	r := &run{missing: *missing, records: *records, timeout: *timeout, pattern: *pattern, scratch: scratch, verbose: io.Discard}
	if *verbose {
		r.verbose = os.Stderr
	}
	var bad []string
	for _, s := range suites {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		began := time.Now()
		r.suite = s.name
		one, cancel := context.WithTimeout(ctx, r.timeout)
		o, err := s.run(one, r)
		cancel()
		if errors.Is(err, errMissing) && *missing == "skip" {
			fmt.Printf("%-11s not run: %v\n", s.name, err)
			continue
		}
		ok := o.report(s.name, time.Since(began), err, *pattern == "")
		if !ok {
			bad = append(bad, s.name)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(bad, ", "))
	}
	return nil
}

// report prints an outcome and says whether it is as declared. That all ran is asked only
// of a whole run.
func (o *outcome) report(name string, took time.Duration, err error, whole bool) (ok bool) {
	ok = err == nil && len(o.failed) == 0 && o.passed > 0
	fmt.Printf("%-11s %d passed, %d failed, %d skipped in %.0f s\n", name, o.passed, len(o.failed), len(o.skipped), took.Seconds())
	for _, f := range o.failed {
		fmt.Printf("  failed: %s\n", f)
	}
	want := declared[name]
	for _, s := range o.skipped {
		test, reason, _ := strings.Cut(s, ": ")
		if why, there := want[test]; there {
			fmt.Printf("  skipped as declared: %s: %s\n", test, why)
		} else {
			ok = false
			fmt.Printf("  skipped, and not declared: %s: %s\n", test, reason)
		}
	}
	for test := range want {
		if whole && !slices.ContainsFunc(o.skipped, func(s string) bool { return strings.HasPrefix(s, test+":") }) {
			ok = false
			fmt.Printf("  declared as skipped, and was not: %s\n", test)
		}
	}
	if err != nil {
		fmt.Printf("  %v\n", err)
	}
	return ok
}
