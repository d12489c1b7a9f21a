package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"embedlog": main})
}

// Each script is a story, with the command as a process of its own. It begins
// without a database. EMBEDLOG_UPDATE_SCRIPTS=1 writes what came out into the
// scripts.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("EMBEDLOG_DATA", "data")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "waitgroup": waitGroup,
		},
		UpdateScripts:       os.Getenv("EMBEDLOG_UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// exits CODE args... runs embedlog with args and wants it to end with CODE. What
// it must never do is print a stack trace.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("embedlog", args[1:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	ts.Logf("exit code %d", got)
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// waitGroup GROUP waits until a member of the group has a partition.
func waitGroup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitgroup GROUP")
	}
	for range 1000 {
		if ts.Exec("embedlog", "group", "describe", args[0], "--members") == nil &&
			strings.Contains(ts.ReadFile("stdout"), "(0") {
			return
		}
	}
	ts.Fatalf("no member of group %s has a partition", args[0])
}
