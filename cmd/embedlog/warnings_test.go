package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestWarnings(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out}
	l := slog.New(&warnings{a: a}).With("topic", "orders")
	l.Info("not shown")
	l.Warn("consumer tries again", "error", errors.New("embedlog: disk\nfull"), "empty", "")
	if want := "warning: consumer tries again; topic: orders; error: disk; full\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	a.quiet = true
	l.Error("not shown with -q")
	if out.Len() > 0 {
		t.Errorf("-q printed %q", out.String())
	}
}

// timeout(1) sends its signal twice, microseconds apart: that is no impatience, and
// what was read is acknowledged and said, as after one.
func TestSignalTwiceAtOnce(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, nil, "topic", "create", "orders")
	cmd := command(t, dir, "produce", "orders", "--format", "json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "one\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("got %v, want exit code %d", err, exitInterrupted)
	}
	if want := "embedlog: interrupted: 1 line acknowledged\n"; stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
}
