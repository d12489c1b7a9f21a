package main

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

//go:embed snippets
var snippetFiles embed.FS

// snippetsIn is where the blocks are, seen from here.
const snippetsIn = "../../docs/kafka.md"

// A language is one block of the section, and how it becomes a program.
type language struct {
	fence, client string   // of the block; how the line above names the client, before its version
	tools         []string // that must be there
	file          string   // in snippets/, with SNIPPET where the block goes
	as            string   // what it is called in its directory
	// prepare are commands run in the directory before, VERSION being that of the text.
	prepare [][]string
	command []string
	endless bool // it goes on until it is killed
}

var languages = []language{
	{fence: "go", client: "franz-go", tools: []string{"go"}, file: "snippet.go.txt", as: "main.go",
		command: []string{"go", "run", "DIR/main.go"}},
	{fence: "java", client: "kafka-clients", tools: []string{"mvn", "javac", "java"}, file: "Snippet.java", as: "Snippet.java",
		prepare: [][]string{
			{"mvn", "-q", "-B", "-f", "DIR/pom.xml", "dependency:copy-dependencies", "-DoutputDirectory=DIR/lib"},
			{"javac", "-cp", "DIR/lib/*", "-d", "DIR", "DIR/Snippet.java"},
		},
		command: []string{"java", "-cp", "DIR" + string(os.PathListSeparator) + "DIR/lib/*", "Snippet"}},
	{fence: "python", client: "confluent-kafka", tools: []string{"python3"}, file: "snippet.py", as: "snippet.py",
		prepare: [][]string{
			{"python3", "-m", "venv", "DIR/venv"},
			{"DIR/venv/bin/pip", "install", "-q", "--disable-pip-version-check", "confluent-kafka==VERSION"},
		},
		command: []string{"DIR/venv/bin/python", "DIR/snippet.py"}},
	{fence: "js", client: "kafkajs", tools: []string{"node", "npm"}, file: "snippet.mjs", as: "snippet.mjs",
		prepare: [][]string{{"npm", "install", "--prefix", "DIR", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "kafkajs@VERSION"}},
		command: []string{"node", "DIR/snippet.mjs"}, endless: true},
	{fence: "c", client: "librdkafka", tools: []string{"cc", "pkg-config"}, file: "snippet.c", as: "snippet.c",
		// Whichever librdkafka is installed: it prints its version.
		prepare: [][]string{{"sh", "-c", "pkg-config --exists rdkafka && cc -Wall -Werror -o DIR/snippet DIR/snippet.c $(pkg-config --cflags --libs rdkafka)"}},
		command: []string{"DIR/snippet"}},
}

// snippets runs the blocks of docs/kafka.md, "Clients in five lines", each against a
// server of its own. A block prints the record that it has produced and consumed.
func snippets(ctx context.Context, r *run) (o outcome, err error) {
	doc, err := os.ReadFile(snippetsIn)
	if err != nil {
		return o, err
	}
	blocks, err := findBlocks(string(doc))
	if err != nil {
		return o, err
	}
	if len(blocks) != len(languages) {
		return o, fmt.Errorf("%s has %d blocks, and there are %d languages", snippetsIn, len(blocks), len(languages))
	}
	var missing []string
	for i, l := range languages {
		b := blocks[i]
		if b.fence != l.fence || b.client != l.client {
			return o, fmt.Errorf("%s: block %d is %s in %s, want %s in %s", snippetsIn, i+1, b.client, b.fence, l.client, l.fence)
		}
		switch err := l.run(ctx, r, b); {
		case errors.Is(err, errMissing):
			tool := strings.TrimSuffix(err.Error(), " "+errMissing.Error())
			missing = append(missing, fmt.Sprintf("%s (for %s)", tool, l.client))
		case err != nil:
			o.failed = append(o.failed, fmt.Sprintf("%s %s: %v", l.client, b.version, err))
		default:
			o.passed++
		}
	}
	if missing != nil && (r.missing != "skip" || o.passed+len(o.failed) == 0) {
		return o, fmt.Errorf("%s %w", strings.Join(missing, ", "), errMissing)
	}
	for _, m := range missing {
		fmt.Printf("%-11s not run: %s %v\n", "snippets", m, errMissing)
	}
	return o, nil
}

type block struct{ fence, client, version, text string }

// aboveBlock is the line above a block: Go, franz-go 1.22.2:
var aboveBlock = regexp.MustCompile(`^[A-Za-z.]+, ([a-z-]+) ([0-9.]+[0-9])[:,]`)

// findBlocks finds the blocks of the section.
func findBlocks(doc string) (list []block, err error) {
	_, section, ok := strings.Cut(doc, "\n## Clients in five lines\n")
	if !ok {
		return nil, errors.New("the section is not there")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var now block
	inside := false
	for line := range strings.Lines(section) {
		fence, fenced := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fenced && inside:
			list, now, inside = append(list, now), block{}, false
		case fenced:
			if now.fence, inside = fence, true; now.client == "" {
				return nil, fmt.Errorf("no client and version above a block in %s", fence)
			}
		case inside:
			now.text += line
		default:
			if m := aboveBlock.FindStringSubmatch(line); m != nil {
				now.client, now.version = m[1], m[2]
			}
		}
	}
	return list, nil
}

const snippetAddress, snippetPrints = "localhost:9092", "ann=450"

func (l *language) run(ctx context.Context, r *run, b block) (err error) {
	for _, tool := range l.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s %w", tool, errMissing)
		}
	}
	if l.fence == "c" && exec.CommandContext(ctx, "pkg-config", "--exists", "rdkafka").Run() != nil {
		return fmt.Errorf("librdkafka's development files %w", errMissing)
	}
	if l.fence == "go" { // built in this module, so that is the version
		mod, err := os.ReadFile("go.mod")
		if err != nil || !strings.Contains(string(mod), l.client+" v"+b.version+"\n") {
			return fmt.Errorf("go.mod has another version (%v)", err)
		}
	}
	dir := filepath.Join(r.scratch, "snippet-"+l.fence)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	s, err := serve(r, "snippet", kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		return err
	}
	defer func() {
		if e := s.stop(); err == nil {
			err = e
		}
	}()
	orders, err := s.db.CreateTopic(ctx, "orders", nil)
	if err != nil {
		return err
	}
	if !strings.Contains(b.text, snippetAddress) {
		return fmt.Errorf("the block does not say %s", snippetAddress)
	}
	text := strings.ReplaceAll(b.text, snippetAddress, s.addr(0))
	if err := l.write(dir, text, b.version); err != nil {
		return err
	}
	fill := strings.NewReplacer("DIR", dir, "VERSION", b.version)
	for _, command := range l.prepare {
		if out, err := l.cmd(ctx, fill, command).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, tail(string(out), 10))
		}
	}
	if err := l.watch(l.cmd(ctx, fill, l.command), r); err != nil {
		return err
	}
	return stored(ctx, orders)
}

// write puts the program and what it is built with into the directory.
func (l *language) write(dir, text, version string) error {
	frame, err := snippetFiles.ReadFile("snippets/" + l.file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, l.as), []byte(strings.Replace(string(frame), "SNIPPET\n", text, 1)), 0o600); err != nil {
		return err
	}
	if l.fence != "java" {
		return nil
	}
	pom, err := snippetFiles.ReadFile("snippets/pom.xml")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(strings.Replace(string(pom), "VERSION", version, 1)), 0o600)
}

func (l *language) cmd(ctx context.Context, fill *strings.Replacer, words []string) *exec.Cmd {
	filled := make([]string, len(words))
	for i, w := range words {
		filled[i] = fill.Replace(w)
	}
	return exec.CommandContext(ctx, filled[0], filled[1:]...)
}

// watch runs the program until it has printed the record and ended. One that goes on
// is killed then.
func (l *language) watch(cmd *exec.Cmd, r *run) error {
	var errs lockedText
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	printed, killed := false, false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(r.verbose, lines.Text())
		if printed = printed || lines.Text() == snippetPrints; printed && l.endless && !killed {
			killed = true
			_ = cmd.Process.Kill() // Wait says what became of it
		}
	}
	err = cmd.Wait()
	fmt.Fprint(r.verbose, errs.String())
	switch {
	case !printed:
		return fmt.Errorf("it did not print %s (%v)\n%s", snippetPrints, err, tail(errs.String(), 20))
	case err != nil && !killed:
		return fmt.Errorf("%w\n%s", err, tail(errs.String(), 20))
	}
	return nil
}

// lockedText is what a process writes while it is read.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *lockedText) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *lockedText) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// stored wants the record to be there for Go code, too, and nothing else.
func stored(ctx context.Context, orders *embedlog.Topic) error {
	n := 0
	for rec, err := range orders.Scan(ctx, nil) {
		if err != nil {
			return err
		}
		if got := string(rec.Key) + "=" + string(rec.Value); got != snippetPrints {
			return fmt.Errorf("the topic has %s", got)
		}
		n++
	}
	if n != 1 {
		return fmt.Errorf("the topic has %d records, want 1", n)
	}
	return nil
}
