package engine

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func writeFile(t *testing.T, fs vfs.FS, name, text string) {
	t.Helper()
	if err := fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// made is a database with a topic of two partitions, closed.
func made(t *testing.T) (*vfs.Mem, TopicID) {
	t.Helper()
	fs := vfs.NewMem()
	e, err := Open("db", &Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	topic := mustTopic(t, e, "orders", 2)
	for _, p := range topic.Partitions() {
		mustAppend(t, p, "v")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return fs, topic.ID()
}

// What a directory is refused for changes nothing in it.
func TestOpenRefuses(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(t *testing.T, fs vfs.FS)
		want   error
		names  string // what the message must say
	}{
		{"a newer format", func(t *testing.T, fs vfs.FS) { writeFile(t, fs, "FORMAT", "format 2\nwhatever 3\n") }, log.ErrNewerFormat, "format 2"},
		{"a damaged FORMAT", func(t *testing.T, fs vfs.FS) { writeFile(t, fs, "FORMAT", "format 1\n") }, log.ErrCorrupt, "FORMAT"},
		{"an empty FORMAT", func(t *testing.T, fs vfs.FS) { writeFile(t, fs, "FORMAT", "") }, log.ErrCorrupt, "FORMAT"},
		{"FORMAT gone", func(t *testing.T, fs vfs.FS) { fs.Remove("FORMAT") }, log.ErrCorrupt, "FORMAT"},
		{"something else in it", func(t *testing.T, fs vfs.FS) {
			fs.Remove("FORMAT")
			writeFile(t, fs, "holiday.jpg", "x")
		}, ErrWrongDirectory, "holiday.jpg"},
		{"metadata gone", func(t *testing.T, fs vfs.FS) {
			infos, _ := fs.List("meta")
			for _, i := range infos {
				fs.Remove("meta/" + i.Name)
			}
		}, log.ErrCorrupt, "metadata"},
		{"metadata damaged", func(t *testing.T, fs vfs.FS) {
			f, err := fs.Open("meta/00000000000000000000.log")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("damage"), 200); err != nil {
				t.Fatal(err)
			}
		}, log.ErrCorrupt, "metadata"},
		{"topics gone", func(t *testing.T, fs vfs.FS) {
			if err := fs.Rename("topics", "meta/topics"); err != nil {
				t.Fatal(err)
			}
		}, log.ErrCorrupt, "topics"},
	} {
		t.Run(row.name, func(t *testing.T) {
			fs, _ := made(t)
			row.change(t, fs)
			before := tree(fs)
			e, err := Open("db", &Options{FS: fs})
			if err == nil {
				e.Close()
			}
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.names) || !strings.Contains(err.Error(), "open db") {
				t.Errorf("got %v, want %v that names %s", err, row.want, row.names)
			}
			if after := tree(fs); withoutIndexes(after) != withoutIndexes(before) {
				t.Errorf("it was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// withoutIndexes leaves out what is a cache: a log that is damaged gives it up.
func withoutIndexes(tree string) string {
	var b strings.Builder
	for line := range strings.Lines(tree) {
		if !strings.Contains(line, "index ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestOpenRefusesBadDefaults(t *testing.T) {
	fs := vfs.NewMem()
	_, err := Open("db", &Options{FS: fs, Defaults: map[string]string{"retention.ms": "soon", "no.such": "1"}})
	if !errors.Is(err, ErrInvalidSetting) || !strings.Contains(err.Error(), "retention.ms") || !strings.Contains(err.Error(), "no.such") {
		t.Error(err)
	}
	if tree(fs) != "" {
		t.Error("it left", tree(fs))
	}
}

func TestWrongDirectoryOfTheSystem(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/notes.txt", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wrong *WrongDirectoryError
	if _, err := Open(dir, nil); !errors.As(err, &wrong) || wrong.Found != "notes.txt" || wrong.Dir != dir {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
}

func TestSecondOpenSaysWhoHasIt(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var locked *vfs.LockedError
	if _, err := Open(dir, nil); !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Host == "" || !errors.Is(err, log.ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestLockTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		e, err := Open("db", &Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := Open("db", &Options{FS: fs, LockTimeout: time.Minute}); !errors.Is(err, log.ErrLocked) || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		go func() {
			time.Sleep(time.Second)
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}()
		second, err := Open("db", &Options{FS: fs, LockTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A partition whose files are gone is damage of that partition alone, and is not
// made anew.
func TestMissingPartition(t *testing.T) {
	for _, row := range []struct {
		name string
		gone func(fs vfs.FS, dir string)
	}{
		{"its directory", func(fs vfs.FS, dir string) {
			infos, _ := fs.List(dir)
			for _, i := range infos {
				fs.Remove(dir + "/" + i.Name)
			}
			fs.Remove(dir)
		}},
		{"its files", func(fs vfs.FS, dir string) {
			infos, _ := fs.List(dir)
			for _, i := range infos {
				fs.Remove(dir + "/" + i.Name)
			}
		}},
		{"its segments", func(fs vfs.FS, dir string) {
			fs.Remove(dir + "/00000000000000000000.log")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			fs, id := made(t)
			row.gone(fs, partitionDir(id, 1))
			before := tree(vfs.Sub(fs, topicDir(id)))
			for range 2 { // the second open must not take the first one's work for the partition
				e, err := Open("db", &Options{FS: fs})
				if err != nil {
					t.Fatal(err)
				}
				topic, err := e.Topic("orders")
				if err != nil {
					t.Fatal(err)
				}
				p := topic.Partitions()[1]
				_, appendErr := p.Append(ctx, []log.Record{{Value: []byte("x")}}, nil)
				_, fetchErr := p.Fetch(ctx, partition.FetchRequest{})
				_, readErr := p.ReadFrom(0, nil)
				for what, err := range map[string]error{"append": appendErr, "fetch": fetchErr, "read": readErr, "err": p.Err()} {
					var damage *log.CorruptionError
					if !errors.As(err, &damage) || what != "err" && !strings.Contains(err.Error(), what+" orders/1: ") {
						t.Errorf("%s: %v", what, err)
					}
				}
				if res, err := topic.Partitions()[0].Fetch(ctx, partition.FetchRequest{}); err != nil || len(res.Batches) != 1 {
					t.Errorf("its neighbour: %v", err)
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}
			if after := tree(vfs.Sub(fs, topicDir(id))); withoutIndexes(after) != withoutIndexes(before) {
				t.Errorf("it was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// What the metadata does not know is moved aside, whole, and said.
func TestOrphans(t *testing.T) {
	fs, id := made(t)
	other, otherID := made(t)
	// Another database's topic, a partition too many, and what is no topic at all.
	copyTree(t, other, topicDir(otherID), fs, topicDir(otherID))
	copyTree(t, other, partitionDir(otherID, 0), fs, partitionDir(id, 2))
	writeFile(t, fs, "topics/README", "mine")
	noFile := newID()
	copyTree(t, other, partitionDir(otherID, 0), fs, partitionDir(noFile, 0))
	lost := tree(vfs.Sub(other, topicDir(otherID)))
	var said bytes.Buffer
	e, err := Open("db", &Options{FS: fs, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Topics()) != 1 {
		t.Error(e.Topics())
	}
	if got := tree(vfs.Sub(fs, topicDir(otherID)+".orphan")); got != lost {
		t.Errorf("the orphan was\n%s\nand is\n%s", lost, got)
	}
	for _, name := range []string{topicDir(id) + "/2.orphan/checkpoint", topicDir(noFile) + ".orphan/0/checkpoint", "topics/README"} {
		if _, err := fs.Stat(name); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{otherID.String() + ".orphan", noFile.String() + ".orphan", "2.orphan"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%s is not said in\n%s", want, said.String())
		}
	}
	// The number is free for a partition, and a second orphan of one name gets another.
	if err := e.AddPartitions(ctx, "orders", 3); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	copyTree(t, other, topicDir(otherID), fs, topicDir(otherID))
	e = openEngine(t, fs)
	for _, suffix := range []string{".orphan", ".orphan-2"} {
		if got := tree(vfs.Sub(fs, topicDir(otherID)+suffix)); got != lost {
			t.Errorf("%s is\n%s", suffix, got)
		}
	}
	if topic, err := e.Topic("orders"); err != nil || len(topic.Partitions()) != 3 || topic.Partitions()[2].Err() != nil {
		t.Error(err)
	}
}

func copyTree(t *testing.T, from vfs.FS, dir string, to vfs.FS, as string) {
	t.Helper()
	if err := to.Mkdir(as); err != nil {
		t.Fatal(err)
	}
	infos, err := from.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.Dir {
			copyTree(t, from, dir+"/"+i.Name, to, as+"/"+i.Name)
			continue
		}
		f, err := from.Open(dir + "/" + i.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, i.Size)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		writeFile(t, to, as+"/"+i.Name, string(b))
	}
}

// A damaged topic file is a file for people: the metadata has it all.
func TestDamagedTopicFileIsMended(t *testing.T) {
	fs, id := made(t)
	writeFile(t, fs, topicDir(id)+"/topic", "rubbish")
	e := openEngine(t, fs)
	if err := checkDirs(e); err != nil {
		t.Error(err)
	}
	for _, p := range e.Topics()[0].Partitions() {
		if p.Err() != nil || p.LogEnd() != 1 {
			t.Error(p, p.Err(), p.LogEnd())
		}
	}
}

// The engine leaves nothing running, and Close may come at any time.
func TestCloseWhileCallsAreUnderWay(t *testing.T) {
	before := runtime.NumGoroutine()
	for round := range testcount.N(8) {
		fs := vfs.NewMem()
		e, err := Open("db", &Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		topic := mustTopic(t, e, "orders", 2)
		p := topic.Partitions()[0]
		var running sync.WaitGroup
		begun := make(chan struct{}, 100)
		loop := func(f func(i int) error) {
			running.Go(func() {
				for i := 0; ; i++ {
					err := f(i)
					if i == round%3 {
						begun <- struct{}{}
					}
					if errors.Is(err, log.ErrClosed) {
						return
					}
					if err != nil && !errors.Is(err, ErrTopicExists) && !errors.Is(err, ErrUnknownTopic) {
						t.Error(err)
						return
					}
				}
			})
		}
		loop(func(int) error {
			_, err := p.Append(ctx, []log.Record{{Value: []byte("v")}}, nil)
			return err
		})
		loop(func(i int) error {
			_, err := e.CreateTopic(ctx, TopicSpec{Name: fmt.Sprint("t", i%3), Partitions: 3})
			return err
		})
		loop(func(i int) error { return e.DeleteTopic(ctx, fmt.Sprint("t", i%3)) })
		loop(func(i int) error {
			return e.AlterTopic(ctx, "orders", map[string]string{"retention.ms": fmt.Sprint(i)}, nil)
		})
		loop(func(int) error { _, err := e.AllocateProducerID(ctx); return err })
		loop(func(int) error { e.Tick(ctx); return e.closedError() })
		for range 6 {
			<-begun
		}
		running.Go(func() {
			for {
				// It answers at once when appends overtake it.
				_, err := p.Fetch(ctx, partition.FetchRequest{Offset: p.LogEnd(), MinBytes: 1 << 30, MaxWait: time.Hour})
				if errors.Is(err, log.ErrClosed) {
					return
				}
				if err != nil {
					t.Error("a waiting fetch:", err)
					return
				}
			}
		})
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
		if _, err := e.CreateTopic(ctx, TopicSpec{Name: "late"}); !errors.Is(err, log.ErrClosed) {
			t.Error("create after close:", err)
		}
		r := newRun(fs.AfterKill(), nil)
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
		r.e.removeDeleted(ctx)
		if err := errors.Join(checkDirs(r.e), r.e.Close()); err != nil {
			t.Error(err)
		}
	}
	// Goroutines that are through may not have left yet; nothing else is there.
	for until := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
