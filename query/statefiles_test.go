package query

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
)

// Files of topics that are gone are removed, and no others: not of graphs that do not run.
func TestStateFiles(t *testing.T) {
	ctx, fs := context.Background(), vfs.NewMem()
	open := func() *embedlog.DB {
		t.Helper()
		db, err := embedlog.OpenFS(fs, nil)
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	run := func(name string) *Graph {
		t.Helper()
		m := &mended{t: t, db: db}
		m.factor.Store(1)
		m.name, m.checkpointAfter = name, 1
		m.start(false, &Options{CommitInterval: time.Millisecond, CheckpointInterval: 1})
		m.put(20)
		if err := m.g.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		return m.g
	}
	list := func() (names []string) {
		t.Helper()
		files, _, err := db.StateDir()
		if err != nil {
			t.Fatal(err)
		}
		infos, err := files.List(".")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range infos {
			names = append(names, f.Name)
		}
		return names
	}
	has := func(g *Graph) (n int) {
		t.Helper()
		for _, name := range list() {
			if strings.HasPrefix(name, g.progress.ID().String()+"-") {
				n++
			}
		}
		return n
	}
	a := run("a")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if has(a) != 2 {
		t.Fatalf("the checkpoints of two tasks: %v", list())
	}
	files, _, err := db.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	gone := embedlog.TopicID{1}.String()
	for _, name := range []string{"other", "AQ-0.checkpoint", gone + "-0.other"} {
		f, err := files.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := files.Mkdir(gone + "-7.store/sub"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{gone + "-0.checkpoint", gone + "-1.checkpoint.tmp", gone + "-7.store/sub/1.sst"} {
		f, err := files.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open()
	defer func() { db.Close() }()
	b := run("b") // a does not run
	if got := has(a); got != 2 {
		t.Errorf("a has %d files", got)
	}
	if got := strings.Join(list(), " "); strings.Contains(got, gone+"-0.checkpoint") || strings.Contains(got, gone+"-1") || strings.Contains(got, gone+"-7") ||
		!strings.Contains(got, "other") || !strings.Contains(got, "AQ-0.checkpoint") || !strings.Contains(got, gone+"-0.other") {
		t.Errorf("after the start: %s", got)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if has(b) == 0 {
		t.Errorf("no checkpoint: %v", list())
	}
	// The old generation's files go with it.
	again := run("b")
	if err := again.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	if has(b) != 0 || has(a) != 2 {
		t.Errorf("after a rebuild: %v", list())
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
