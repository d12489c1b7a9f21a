package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// A consumer that has caught up, and whose reader goes away, ends quietly and in
// order, although it has nothing to write: what `consume t --from-beginning | head -1`
// needs. Without the watch it would run for ever, and the test would be killed.
func TestConsumeEndsWithItsReader(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a closed pipe is found at the next write there")
	}
	for _, args := range [][]string{
		{"consume", "t", "--from-beginning"},
		{"consume", "t", "-g", "g"},
		{"consume", "t", "-J"}, // nothing was ever printed
	} {
		t.Run(args[len(args)-1], func(t *testing.T) {
			dir := t.TempDir()
			must(t, dir, nil, "topic", "create", "t")
			must(t, dir, []byte("one\ntwo\n"), "produce", "t")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := command(t, dir, args...)
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = w, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			defer killLate(cmd).Stop()
			if args[len(args)-1] != "-J" {
				if line, err := bufio.NewReader(r).ReadString('\n'); line != "one\n" {
					t.Fatalf("%q, %v", line, err)
				}
			}
			r.Close()
			if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			must(t, dir, nil, "verify") // nobody holds the directory
		})
	}
}

// killLate ends a process that would never end, so that the test fails with what it
// printed instead of being killed itself.
func killLate(cmd *exec.Cmd) *time.Timer {
	return time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
}

// What is watched is the other side of a pipe, and nothing else.
func TestWhileRead(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, w := range map[string]io.Writer{"buffer": new(bytes.Buffer), "file": file} {
		if ctx, stop := whileRead(t.Context(), w); ctx != t.Context() {
			t.Errorf("%s is watched", name)
			stop()
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, stop := whileRead(t.Context(), w)
	defer stop()
	if readerGone(w) || ctx.Err() != nil {
		t.Fatal("the reader is there")
	}
	r.Close()
	if runtime.GOOS == "windows" {
		return
	}
	<-ctx.Done()
	if context.Cause(ctx) != errReaderGone {
		t.Fatalf("cause %v", context.Cause(ctx))
	}
}
