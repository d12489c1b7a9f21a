package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

func TestReplicaNames(t *testing.T) {
	for _, test := range []struct {
		name string
		node int32
		life uint32
		ok   bool
	}{
		{"2", 2, 0, true}, {"2.1", 2, 1, true}, {"70000.4294967295", 70000, 1<<32 - 1, true},
		{"", -1, 0, false}, {"0", -1, 0, false}, {"2.", -1, 0, false}, {"2.0", -1, 0, false}, {"02.1", -1, 0, false},
		{"2.01", -1, 0, false}, {"2.4294967296", -1, 0, false}, {"2.1.1", -1, 0, false}, {"a", -1, 0, false},
	} {
		if node, life, ok := parseReplica(raft.ServerID(test.name)); node != test.node || life != test.life || ok != test.ok {
			t.Errorf("%q is node %d, life %d, %v", test.name, node, life, ok)
		}
	}
}

type damageKind struct {
	name string
	do   func(t testing.TB, fsys vfs.FS)
	// read says that only a reader of the place comes upon it.
	read bool
}

// damageKinds are what happens to the files of a replica. Each gets the directory of the log,
// and the offset of a record that is committed, in a segment before the last.
var damageKinds = []damageKind{
	{name: "a bit in a sealed segment", read: true, do: func(t testing.TB, fsys vfs.FS) { flip(t, fsys, segments(t, fsys)[1], 0.5) }},
	{name: "a bit in the active segment", read: true, do: func(t testing.TB, fsys vfs.FS) {
		s := segments(t, fsys)
		flip(t, fsys, s[len(s)-1], 0)
	}},
	{name: "a lost segment", read: true, do: func(t testing.TB, fsys vfs.FS) { remove(t, fsys, segments(t, fsys)[1]) }},
	{name: "the first segment lost", do: func(t testing.TB, fsys vfs.FS) { remove(t, fsys, segments(t, fsys)[0]) }},
	{name: "the last segment lost", do: func(t testing.TB, fsys vfs.FS) {
		s := segments(t, fsys)
		remove(t, fsys, s[len(s)-1])
	}},
	{name: "a truncated segment", read: true, do: func(t testing.TB, fsys vfs.FS) { cut(t, fsys, segments(t, fsys)[1]) }},
	{name: "all segments lost", do: func(t testing.TB, fsys vfs.FS) { remove(t, fsys, segments(t, fsys)...) }},
	{name: "the checkpoint lost", do: func(t testing.TB, fsys vfs.FS) { remove(t, fsys, named(t, fsys, "checkpoint")...) }},
	{name: "both copies of the checkpoint", do: func(t testing.TB, fsys vfs.FS) {
		for _, name := range named(t, fsys, "checkpoint") {
			rewrite(t, fsys, name, func(b []byte) []byte {
				for i := range b {
					b[i] ^= 1
				}
				return b
			})
		}
	}},
	{name: "an emptied directory", do: func(t testing.TB, fsys vfs.FS) { remove(t, fsys, named(t, fsys, "")...) }},
}

func named(t testing.TB, fsys vfs.FS, part string) (list []string) {
	t.Helper()
	infos, err := fsys.List(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if !i.Dir && strings.Contains(i.Name, part) {
			list = append(list, i.Name)
		}
	}
	slices.Sort(list)
	return list
}

func segments(t testing.TB, fsys vfs.FS) []string {
	t.Helper()
	list := slices.DeleteFunc(named(t, fsys, ".log"), func(n string) bool { return !strings.HasSuffix(n, ".log") })
	if len(list) < 4 {
		t.Fatalf("segments %v: too few to damage one", list)
	}
	return list
}

func remove(t testing.TB, fsys vfs.FS, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := fsys.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := fsys.SyncDir("."); err != nil {
		t.Fatal(err)
	}
}

// flip turns one bit over, behind the first bytes of what the file holds or in the middle of it.
func flip(t testing.TB, fsys vfs.FS, name string, where float64) {
	t.Helper()
	rewrite(t, fsys, name, func(b []byte) []byte {
		held := len(bytes.TrimRight(b, "\x00"))
		b[max(min(200, held/2), int(float64(held)*where))] ^= 4
		return b
	})
}

func cut(t testing.TB, fsys vfs.FS, name string) {
	t.Helper()
	rewrite(t, fsys, name, func(b []byte) []byte { return b[:len(b)/3] })
}

func rewrite(t testing.TB, fsys vfs.FS, name string, f func([]byte) []byte) {
	t.Helper()
	in, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := in.Info()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size)
	if _, err := in.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := fsys.Remove(name); err != nil {
		t.Fatal(err)
	}
	out, err := fsys.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = out.WriteAt(f(b), 0); err == nil {
		err = out.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
}

// A node whose files are damaged has no part in its group: it does not start, or stops when it comes upon
// the damage. Given up, it comes back as another replica, and is the same as the others in the end.
func TestDamagedReplicaComesBackAsAnother(t *testing.T) {
	for _, kind := range damageKinds {
		t.Run(kind.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newTestCluster(t, 3).start()
				defer c.stop()
				l := c.leader()
				for i := range 60 {
					l.mustAppend(fmt.Sprintf("%d %s", i, strings.Repeat("x", 300)))
				}
				c.settle()
				n := c.node(l.id%3 + 1) // a follower
				n.stop()
				kind.do(t, n.fs)
				why := n.tryStart()
				if why == nil && kind.read {
					// Nobody reads the place until somebody has to.
					for n.g.Damaged() == nil {
						r, err := n.p.ReadFrom(0, nil)
						for err == nil {
							_, err = r.TryNext()
						}
						if !errors.Is(err, log.ErrCorrupt) {
							t.Fatalf("reading a damaged log: %v", err)
						}
						time.Sleep(time.Millisecond)
					}
				}
				if why == nil {
					if why = n.g.Damaged(); why == nil {
						t.Fatalf("the replica runs with %s: %+v", kind.name, n.g.Status())
					}
					if s := n.g.Status(); s.Leader != -1 || !strings.Contains(s.Reason, why.Error()) {
						t.Errorf("status of a damaged replica: %+v", s)
					}
					n.up = false
					n.g.Stop()
					n.p.Close()
					n.v.Close()
				}
				if !errors.Is(why, log.ErrCorrupt) && !errors.Is(why, engine.ErrReplicaLost) {
					t.Fatalf("why it does not take part: %v", why)
				}
				t.Logf("%v", why)
				l.mustAppend("meanwhile")

				// A crash before the files are removed: they do not run any more.
				v, err := OpenVotesIn(n.votes, "raft")
				if err != nil {
					t.Fatal(err)
				}
				if err := v.Renew(testLog); err != nil {
					t.Fatal(err)
				}
				v.Close()
				if err := n.tryStart(); err == nil {
					if n.g.Damaged() == nil && kind.name != "an emptied directory" {
						t.Fatal("the files of a replica that was given up run")
					}
					n.kill()
				}
				// And one after: the directory is empty.
				if kind.name != "an emptied directory" {
					n.fs = vfs.NewMem()
					n.vfs = n.fs
				}
				n.start()
				n.kill()
				n.start()
				l = c.settle()
				c.same()
				voter := func() bool {
					for _, m := range l.g.Status().Members {
						if m.Node == n.id && m.Voter && m.InSync {
							return true
						}
					}
					return false
				}
				for i := 0; !voter(); i++ {
					if i == 1000 {
						t.Fatalf("the new replica has no vote: %+v", l.g.Status())
					}
					time.Sleep(20 * time.Millisecond)
				}
				if len(l.g.Status().Members) != 3 {
					t.Errorf("members %+v", l.g.Status().Members)
				}
				if got := n.values(); len(got) != 61 || got[60] != "meanwhile" {
					t.Errorf("the new replica has %d records", len(got))
				}
				// It counts: with it a majority is left when another one goes.
				c.node(n.id%3 + 1).stop()
				c.leader().mustAppend("two of three")
				if err := c.leader().g.Transfer(context.Background(), n.id); err == nil {
					c.leader().mustAppend("led by the new one")
				}
			})
		})
	}
}
