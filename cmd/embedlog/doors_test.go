package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

// ranWith is what a command line came to.
type ranWith struct {
	stdout, stderr string
	code           int
}

// runHere runs one command line in this process.
func runHere(t *testing.T, stdin string, args ...string) ranWith {
	t.Helper()
	return runWithin(t.Context(), stdin, args...)
}

func runWithin(ctx context.Context, stdin string, args ...string) (r ranWith) {
	var out, errs bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs}
	err := a.execute(ctx, args)
	if r.code = exitCode(err); err != nil {
		var e *exitError
		if !errors.As(err, &e) || e.err != nil {
			errs.WriteString(oneLine(err) + "\n")
		}
	}
	r.stdout, r.stderr = out.String(), errs.String()
	return r
}

// serveKafka opens a database with a listener in this process.
func serveKafka(t *testing.T, dir string, listener kafka.Listener, super string) (*embedlog.DB, string) {
	t.Helper()
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	o := &kafka.Options{Listeners: []kafka.Listener{listener}}
	if super != "" {
		o.Authorizer = db.Authorizer(&embedlog.AuthorizerOptions{SuperUsers: []embedlog.Principal{{Type: "User", Name: super}}})
	}
	s, err := kafka.Serve(db, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // what still waits is of no more interest
		_ = s.Shutdown(ctx)
	})
	return db, s.Addrs()[0].String()
}

// step is one command line of the story.
type step struct {
	line  string // its words; {..} is one with spaces
	stdin string
	code  int
	// differs says that doors show it differently, and why. The exit code is the same.
	differs string
}

// story has each command that goes through any door, at least once with an error.
var story = []step{
	{line: "topic create orders -p 4 -c retention.ms=86400000"},
	{line: "topic create prices -c cleanup.policy=compact --format json"},
	{line: "topic create orders", code: 1},
	{line: "topic create orders -p 9 --if-not-exists"},
	{line: "topic create bad/name", code: 2},
	{line: "topic create more -c retention.ms=soon -c segment.size=3", code: 2},
	{line: "topic list"},
	{line: "topic list -i --format json"},
	{line: "topic describe orders prices"},
	{line: "topic describe orders --format json"},
	{line: "topic describe nosuch", code: 5},
	{line: "topic alter orders -c segment.bytes=1048576 -d retention.ms --format json"},
	{line: "topic alter orders -c retention.ms=soon -c segment.size=3", code: 2},
	{line: "topic alter nosuch -c retention.ms=1", code: 5},
	{line: "topic add-partitions orders --total 6"},
	{line: "topic add-partitions orders --total 2", code: 2},
	{line: "topic add-partitions nosuch --total 2", code: 5},

	{line: "produce orders -K : --format json", stdin: "ann:450\nbob:200\ncid:\n"},
	{line: "produce orders -K : -Z -z zstd -H source:shop -p 3", stdin: "ann:1\nbob:2\ncid:\n"},
	{line: "produce orders -J", stdin: `{"key_base64":"/w==","value":{"a":1},"headers":[{"key":"h","value":null},{"key":"e","value":""}],"partition":2,"timestamp":"2026-11-22T15:04:05.123Z"}` + "\n"},
	{line: "produce prices -K : -p 0", stdin: "a:1\nb:2\nc:3\nd:4\ne:5\nf:6\ng:7\nh:8\n"},
	{line: "produce prices -p 7", stdin: "x\n", code: 5},
	{line: "produce prices", stdin: "no key\n", code: 2},
	{line: "produce nosuch", stdin: "x\n", code: 5},
	{line: "produce orders -K :", stdin: "a:1\nno separator\n", code: 1},

	{line: "consume prices --from-beginning -e"},
	{line: `consume prices -o 3 -p 0 -n 2 -f {%t/%p@%o %k=%v %h %K %V\n}`},
	{line: "consume prices -o -2 -e"},
	{line: "consume prices -o +6 -e"},
	{line: "consume prices -o @2026-11-22 -e"},
	{line: "consume prices -o 99 -e", code: 1},
	{line: "consume orders -p 3 -o start -e -J"},
	{line: "consume orders -p 2 -o start -n 1 -J"},
	{line: "consume orders -p 9 -o start", code: 5},
	{line: "consume -r {pri.*} -o start -e"},
	{line: "consume -r none.*", code: 5},
	{line: "consume nosuch -e", code: 5},
	{line: "consume prices --timeout-ms 50"},
	{line: "consume prices -g billing -n 3"},
	{line: "consume prices -g billing -n 2"},
	{line: "consume prices -g billing -e"},
	{line: "consume nosuch -g billing -e", code: 5},

	{line: "view list"},
	{line: "topic create shop-progress shop-spent-changelog -c cleanup.policy=compact"},
	{line: "produce shop-progress -J", stdin: `{"key":"task 0","value":"{\"definition\":\"view spent <- 1\",\"tasks\":1,\"positions\":[{\"topic\":\"prices\",\"partition\":0,\"offset\":3}],` +
		`\"views\":[{\"name\":\"spent\",\"changelog\":\"shop-spent-changelog\",\"key\":\"string\",\"value\":\"json\"}],\"changelogs\":[\"shop-spent-changelog\"]}"}` + "\n"},
	{line: "produce shop-spent-changelog -K : -Z", stdin: "ann:450\nbob:1\nann:451\nbob:\ncid:7\n"},
	{line: "view list"},
	{line: "view list --format json"},
	{line: "view describe shop"},
	{line: "view describe spent --format json"},
	{line: "view describe nosuch", code: 5},
	{line: "view get spent ann"},
	{line: "view get shop/spent ann --format json"},
	{line: "view get spent bob", code: 5},
	{line: "view get spent 1 --key-type many", code: 2},
	{line: "view scan spent"},
	{line: "view scan spent --from b --format json"},
	{line: "view watch spent -n 2"},
	{line: "topic delete shop-progress shop-spent-changelog"},

	{line: "group list", differs: "over an address the members are classic ones"},
	{line: "group describe billing"},
	{line: "group describe billing --members"},
	{line: "group describe billing --state", differs: "classic members make a group without an assignor of the server's"},
	{line: "group describe nosuch", code: 5},
	{line: "group reset-offsets billing --topic prices --to-offset 99"},
	{line: "group reset-offsets billing --topic prices:0 --shift-by -3 --execute"},
	{line: "group reset-offsets billing --topic prices --to-offset 2 --execute --format json"},
	{line: "group reset-offsets billing --all-topics --to-latest --export"},
	{line: "group reset-offsets billing --all-topics --to-datetime 2026-11-22"},
	{line: "group reset-offsets billing --topic nosuch --to-latest", code: 5},
	{line: "group reset-offsets billing --topic prices:7 --to-latest", code: 5},
	{line: "group reset-offsets nosuch --all-topics --to-latest", code: 5},
	{line: "group reset-offsets fresh --topic prices --to-earliest --execute"},
	{line: "group reset-offsets fresh --topic orders --shift-by 1", code: 2},
	{line: "consume prices -g billing -n 1"},
	{line: "group delete fresh"},
	{line: "group delete fresh", code: 5},

	{line: "group reset-offsets fresh --topic orders:3 --to-earliest --execute"},
	{line: "topic trim orders -p 3 --before 2"},
	{line: "group describe fresh"},
	{line: "topic trim orders -p 3 --before end --format json"},
	{line: "topic trim orders -p 9 --before end", code: 5},
	{line: "topic trim orders -p 0 --before 99", code: 1},
	{line: "group describe fresh"},
	{line: "consume orders -g fresh -e -f %v,", differs: "a client of the protocol hears of a jump with the record behind it, and there is none"},
	{line: "group delete billing fresh"},
	{line: "group list", differs: "over an address the members are classic ones"},

	{line: "user list"},
	{line: "user create alice", stdin: "wonderland\n"},
	{line: "user create alice", stdin: "wonderland\n", code: 1},
	{line: "user create bob --format json", stdin: "builder\n"},
	{line: "user set-password bob", stdin: "other\n"},
	{line: "user set-password carol", stdin: "other\n", code: 5},
	{line: "user list"},
	{line: "user list --format json"},
	{line: "user delete bob"},
	{line: "user delete bob", code: 5},
	{line: "user delete alice"},
	{line: "acl list"},
	{line: "acl add --principal User:alice -o read,describe-configs --topic ord --prefixed"},
	{line: "acl add --principal User:* -o all --topic secret --deny --host 10.0.0.1 --format json"},
	{line: "acl add --principal alice -o read --topic orders", code: 2},
	{line: "acl add --principal User:alice -o reed --topic orders", code: 2},
	{line: "acl list"},
	{line: "acl list --topic orders --about --format json"},
	{line: "acl delete --principal User:alice -o read"},
	{line: "acl delete --topic nosuch", code: 5},
	{line: "acl delete --all"},

	{line: "info", differs: "an address has no directory id, and nodes"},
	{line: "info orders"},
	{line: "info nosuch", code: 5},
	{line: "topic delete prices orders"},
	{line: "topic delete prices", code: 5},
	{line: "topic delete prices --if-exists"},
	{line: "topic list"},
}

// fields are the words of a line; {..} is one.
func fields(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		end := " "
		if line[0] == '{' {
			line, end = line[1:], "}"
		}
		word, rest, _ := strings.Cut(line, end)
		words, line = append(words, word), rest
	}
	return words
}

// varying is what no two databases have in common.
var varying = []struct {
	is   *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(` +[0-9.]+ ([KM]i)?B`), " SIZE"},
	{regexp.MustCompile(`"bytes":[0-9]+`), `"bytes":N`},
	{regexp.MustCompile(`\b[A-Za-z0-9_-]{22}\b`), "ID"},
	{regexp.MustCompile(` +SIZE`), " SIZE"},
}

// stamp is a record's timestamp. One of now is of the run; others the story has given.
var stamp = regexp.MustCompile(`"timestamp":"([^"]*)"`)

func masked(s string) string {
	s = stamp.ReplaceAllStringFunc(s, func(found string) string {
		if at, err := time.Parse(time.RFC3339, stamp.FindStringSubmatch(found)[1]); err != nil || time.Since(at).Abs() > time.Hour {
			return found
		}
		return `"timestamp":T`
	})
	for _, v := range varying {
		s = v.is.ReplaceAllString(s, v.mask)
	}
	return s
}

// A command means the same and prints the same, whichever way it takes to the
// database: the story is told through each door, each to a database of its own.
// EMBEDLOG_TEST_BROKER=HOST:PORT tells it to a Kafka broker as well, which must have
// nothing in it and let everybody do everything, with an authorizer.
func TestDoorsAreAlike(t *testing.T) {
	through := map[string][]string{}
	dir := t.TempDir()
	through["dir"] = []string{"--data", filepath.Join(dir, "dir")}

	held, err := embedlog.Open(filepath.Join(dir, "held"), &embedlog.Options{Socket: true})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	through["socket"] = []string{"--data", filepath.Join(dir, "held")}

	_, address := serveKafka(t, filepath.Join(dir, "served"), kafka.Listener{Address: "127.0.0.1:0"}, "ANONYMOUS")
	through["address"] = []string{"--address", address}

	doors := []string{"dir", "socket", "address"}
	if broker := os.Getenv("EMBEDLOG_TEST_BROKER"); broker != "" {
		through["broker"], doors = []string{"--address", broker}, append(doors, "broker")
	}

	seen := make(map[string]bool)
	for _, s := range story {
		args := fields(s.line)
		seen[args[0]], seen[strings.Join(args[:min(2, len(args))], " ")] = true, true
		first := make(map[string]ranWith)
		for _, door := range doors {
			r := runHere(t, s.stdin, append(slices.Clone(args), append(through[door], "--yes")...)...)
			first[door] = r
			if r.code != s.code {
				t.Errorf("%s: %s: exit code %d, want %d; it says %s", door, s.line, r.code, s.code, r.stderr)
			}
			if want := first["dir"]; s.differs == "" && masked(r.stdout) != masked(want.stdout) {
				t.Errorf("%s: %s prints\n%s\nfrom a directory it is\n%s", door, s.line, r.stdout, want.stdout)
			}
			if s.differs == "" && (r.stderr == "") != (first["dir"].stderr == "") {
				t.Errorf("%s: %s says %q, from a directory it is %q", door, s.line, r.stderr, first["dir"].stderr)
			}
			if strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("%s: %s says much: %s", door, s.line, r.stderr)
			}
		}
	}
	for name, how := range reaches {
		if how == byAnyDoor && !seen[name] {
			t.Errorf("the story has no %q", name)
		}
	}
}

// Each command has its place in the table of who reaches what, and those that cannot
// be served by a door say so before they touch anything.
func TestReaches(t *testing.T) {
	known := make(map[string]bool)
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return // cobra's own
		}
		if !c.HasSubCommands() {
			known[words(c)] = true
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk((&app{}).root())
	if got, want := slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(reaches)); !slices.Equal(got, want) {
		t.Fatalf("commands\n%q\nin the table\n%q", got, want)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Skip("no unix sockets here")
	}
	defer listener.Close()
	args := map[string]string{"dump": "orders/0", "export": "orders out", "backup": "out", "restore": "out",
		"cluster add": "2 h:1", "cluster remove": "2", "cluster drain": "2", "cluster reassign": "orders/0 2", "cluster set-replication-factor": "orders 3",
		"cluster transfer-leadership": "orders/0", "cluster recover": "orders/0 --accept-loss", "cluster certs init": "shop", "cluster certs issue": "2", "view rebuild": "shop"}
	for name, how := range reaches {
		line := strings.Fields(name + " " + args[name])
		r := runHere(t, "", append(line, "--address", "127.0.0.1:1")...)
		switch {
		case how == byAnyDoor && strings.HasPrefix(r.stderr, "embedlog "+name+" works on the files"):
			t.Errorf("%s: %s", name, r.stderr)
		case how == byAnyDoor || name == "version" && how == byNone && r.code == exitUsage:
		case r.code != exitUsage || !strings.Contains(r.stderr, "--address"):
			t.Errorf("%s --address: exit code %d, %s", name, r.code, r.stderr)
		}
		if how == byFiles && name != "serve" {
			r := runHere(t, "", append(line, "--data", socket)...)
			if r.code != exitUsage || !strings.Contains(r.stderr, "is the socket of a program") {
				t.Errorf("%s --data SOCKET: exit code %d, %s", name, r.code, r.stderr)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("something was written")
	}
}
