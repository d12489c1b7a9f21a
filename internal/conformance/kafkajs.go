package main

import (
	"bufio"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/x/embedlog/kafka"
)

//go:embed kafkajs/package.json kafkajs/run.mjs
var kafkajsFiles embed.FS

// kafkajs installs the client and runs the script, which prints a line for each of
// its checks: ok NAME, or not ok NAME: why.
func kafkajs(ctx context.Context, r *run) (o outcome, err error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return o, fmt.Errorf("%s %w", tool, errMissing)
		}
	}
	dir := filepath.Join(r.scratch, "kafkajs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return o, err
	}
	for _, name := range []string{"package.json", "run.mjs"} {
		b, err := kafkajsFiles.ReadFile("kafkajs/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return o, err
		}
	}
	install := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return o, fmt.Errorf("npm install: %w\n%s", err, tail(string(out), 10))
	}
	s, err := serve(r, "kafkajs", kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		return o, err
	}
	defer func() {
		if e := s.stop(); err == nil {
			err = e
		}
	}()
	cmd := exec.CommandContext(ctx, "node", "run.mjs", s.addr(0))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(r.verbose, "%s", out)
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	ended := false
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "not ok "); ok {
			o.failed = append(o.failed, name)
		} else if strings.HasPrefix(line, "ok ") {
			o.passed++
		}
		ended = ended || line == "end"
	}
	if err == nil && !ended {
		err = fmt.Errorf("the script did not come to its end")
	}
	if err != nil && len(o.failed) == 0 {
		return o, fmt.Errorf("%w\n%s", err, tail(string(out), 30))
	}
	return o, nil
}
