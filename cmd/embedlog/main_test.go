package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"embedlog": main})
}

// Each script is a story, with the command as a process of its own. It begins
// without a database. EMBEDLOG_UPDATE_SCRIPTS=1 writes what came out into the
// scripts.
func TestScripts(t *testing.T) {
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits, "waitgroup": waitGroup, "consumed": consumed,
		"damage": damage, "hold": hold, "release": release, "viewing": viewingScript, "unview": unviewScript, "await": awaitScript,
	}
	maps.Copy(commands, serveScript)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("EMBEDLOG_DATA", "data")
			return nil
		},
		Cmds:                commands,
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

// consumed GROUP TOPIC waits until the group has committed all of the topic.
func consumed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: consumed GROUP TOPIC")
	}
	for range 1000 {
		ts.Check(ts.Exec("embedlog", "group", "describe", args[0], "--format", "json"))
		var g sock.Group
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &g))
		behind := 0
		for _, o := range g.Offsets {
			if o.Topic == args[1] && o.Lag != 0 && o.LogEnd > 0 {
				behind++
			}
		}
		if behind == 0 {
			return
		}
	}
	ts.Fatalf("group %s does not get to the end of %s", args[0], args[1])
}

// damage TOPIC/PARTITION flips a byte of the first record batch.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage TOPIC/PARTITION")
	}
	found, err := (&app{data: ts.MkAbs("data")}).findLogs(args)
	ts.Check(err)
	name := filepath.Join(found[0].path, "00000000000000000000.log")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	ts.Check(err)
	var b [1]byte
	const place = 260 // behind the segment's header and the frame's, in the batch
	_, err = f.ReadAt(b[:], place)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b[:], place)
	ts.Check(err)
	ts.Check(f.Close())
}

// hold DIR opens a database without a socket, as a program would; release closes it.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	db, err := embedlog.Open(ts.MkAbs(args[0]), nil)
	ts.Check(err)
	held.Store(ts.MkAbs(args[0]), db)
}

func release(ts *testscript.TestScript, neg bool, args []string) {
	db, ok := held.LoadAndDelete(ts.MkAbs(args[0]))
	if !ok {
		ts.Fatalf("%s is not held", args[0])
	}
	ts.Check(db.(*embedlog.DB).Close())
}

var held sync.Map // directory to *embedlog.DB
