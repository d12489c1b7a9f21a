package engine

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// toRepair is a closed database, and the directory of topic a's partition 0.
func toRepair(t *testing.T) (*vfs.Mem, string) {
	t.Helper()
	fsys := vfs.NewMem()
	e := small(t, fsys)
	top, err := e.Topic("a")
	must(t, err)
	dir := partitionDir(top.ID(), 0)
	must(t, e.Close())
	return fsys, dir
}

func flipByte(t *testing.T, fsys vfs.FS, name string, pos int64) {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
}

const firstSegment = "/00000000000000000000.log"

func TestRepairOfADatabase(t *testing.T) {
	for name, row := range map[string]struct {
		damage   func(t *testing.T, fsys vfs.FS, dir string)
		damaged  string // the name of what was not whole
		identity bool
		missing  bool
		orphans  int
		keeps    int // records of a/0 that are still there, of 4
	}{
		"whole":        {func(t *testing.T, fsys vfs.FS, dir string) {}, "", false, false, 0, 4},
		"a record":     {func(t *testing.T, fsys vfs.FS, dir string) { flipByte(t, fsys, dir+firstSegment, 128+48+70) }, "a/0", false, false, 0, 3},
		"checkpoint":   {damageCheckpoint, "a/0", false, false, 0, 4},
		"no partition": {removePartition, "a/0", false, true, 0, 0},
		"FORMAT":       {func(t *testing.T, fsys vfs.FS, dir string) { flipByte(t, fsys, formatName, 9) }, "", true, false, 0, 4},
		"no FORMAT":    {func(t *testing.T, fsys vfs.FS, dir string) { must(t, fsys.Remove(formatName)) }, "", true, false, 0, 4},
		"orphan, whole": {func(t *testing.T, fsys vfs.FS, dir string) {
			must(t, fsys.Mkdir("topics/"+newID().String()+orphanSuffix))
		}, "", false, false, 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			fsys, dir := toRepair(t)
			row.damage(t, fsys, dir)
			before := tree(fsys)
			dry, err := Repair(ctx, fsys, &RepairOptions{DryRun: true})
			must(t, err)
			if after := tree(fsys); after != before {
				t.Fatalf("a dry run changed the directory:\n%s\n%s", before, after)
			}
			calls := 0
			done, err := Repair(ctx, fsys, &RepairOptions{Progress: func(at, of int, path string) { calls++ }})
			must(t, err)
			if calls == 0 || dry.Logs != done.Logs || len(dry.Damaged) != len(done.Damaged) || dry.Identity != done.Identity || len(dry.Orphans) != len(done.Orphans) || dry.File != "" {
				t.Errorf("dry  %+v\ndone %+v", dry, done)
			}
			wantFile := row.damaged != "" || row.identity
			if (done.File != "") != wantFile || done.Identity != row.identity || len(done.Orphans) != row.orphans {
				t.Errorf("%+v", done)
			}
			if row.damaged == "" && len(done.Damaged) > 0 || row.damaged != "" && (len(done.Damaged) != 1 || done.Damaged[0].Name != row.damaged || done.Damaged[0].Missing != row.missing) {
				t.Errorf("%+v", done.Damaged)
			}
			if wantFile {
				b, err := readSmall(fsys, done.File)
				if err != nil || string(b) != done.String() || !strings.Contains(string(b), row.damaged) {
					t.Errorf("%s, %v", b, err)
				}
			}
			if again, err := Repair(ctx, fsys, nil); err != nil || len(again.Damaged) > 0 || again.Identity {
				t.Errorf("a second time: %+v, %v", again, err)
			}
			e := openEngine(t, fsys)
			top, err := e.Topic("a")
			must(t, err)
			got, err := committed(top.Partitions()[0])
			must(t, err)
			if len(got) != row.keeps {
				t.Errorf("%d records are left, want %d: %q", len(got), row.keeps, got)
			}
			mustAppend(t, top.Partitions()[0], "goes on")
			if row.damaged == "" {
				wantCommitted(t, top.Partitions()[1], "1", "3")
			}
		})
	}
}

func damageCheckpoint(t *testing.T, fsys vfs.FS, dir string) {
	info, err := fsys.Stat(dir + "/checkpoint")
	must(t, err)
	flipByte(t, fsys, dir+"/checkpoint", 20)
	flipByte(t, fsys, dir+"/checkpoint", info.Size/2+20)
}

func removePartition(t *testing.T, fsys vfs.FS, dir string) {
	infos, err := fsys.List(dir)
	must(t, err)
	for _, info := range infos {
		must(t, fsys.Remove(dir+"/"+info.Name))
	}
	must(t, fsys.Remove(dir))
}

func TestRepairOfTheMetadata(t *testing.T) {
	fsys, dir := toRepair(t)
	// The commands after the damage make a state, or they do not: either is said.
	flipByte(t, fsys, metaName+firstSegment, 128+48+70)
	flipByte(t, fsys, dir+firstSegment, 128+48+70)
	if _, err := Open("db", &Options{FS: fsys}); !errors.Is(err, log.ErrCorrupt) {
		t.Fatal(err)
	}
	r, err := Repair(ctx, fsys, nil)
	if len(r.Damaged) == 0 || r.Damaged[0].Name != "metadata" {
		t.Fatalf("%+v, %v", r, err)
	}
	if err != nil && !strings.Contains(err.Error(), "metadata") {
		t.Error(err)
	}
}

func TestRepairRefuses(t *testing.T) {
	empty := vfs.NewMem()
	if _, err := Repair(ctx, empty, nil); !errors.Is(err, ErrWrongDirectory) {
		t.Errorf("an empty directory: %v", err)
	}
	if infos, _ := empty.List("."); len(infos) > 0 {
		t.Errorf("and made %v", infos)
	}
	fsys := vfs.NewMem()
	e := small(t, fsys)
	if _, err := Repair(ctx, fsys, nil); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("an open database: %v", err)
	}
	must(t, e.Close())
	f, err := fsys.Open(formatName)
	must(t, err)
	_, err = f.WriteAt([]byte("format 7"), 0)
	must(t, err)
	must(t, f.Close())
	if _, err := Repair(ctx, fsys, nil); !errors.Is(err, log.ErrNewerFormat) {
		t.Errorf("a newer format: %v", err)
	}
	if _, err := fsys.Stat("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// A repair that is killed at each operation, and then repeated.
func TestCrashOfARepair(t *testing.T) {
	fsys, dir := toRepair(t)
	flipByte(t, fsys, dir+firstSegment, 128+48+70)
	must(t, fsys.Remove(formatName))
	image := fsys.AfterKill()
	for k := 0; ; k++ {
		crashing := vfs.NewMem(vfs.CrashAt(opsOfCopy(t, image) + k))
		copyDir(t, image, crashing, ".")
		_, err := Repair(ctx, crashing, nil)
		if !crashing.Crashed() {
			must(t, err)
			if k < 10 {
				t.Errorf("only %d operations", k)
			}
			return
		}
		after := crashing.AfterCrash(vfs.Random(uint64(k)))
		if _, err := Repair(ctx, after, nil); err != nil {
			t.Fatalf("k=%d: again: %v", k, err)
		}
		e, err := Open("db", &Options{FS: after})
		if err != nil {
			t.Fatalf("k=%d: %v", k, err)
		}
		top, err := e.Topic("a")
		must(t, err)
		if got, err := committed(top.Partitions()[0]); err != nil || len(got) != 3 {
			t.Fatalf("k=%d: %q, %v", k, got, err)
		}
		must(t, e.Close())
	}
}

func opsOfCopy(t *testing.T, from vfs.FS) int {
	probe := vfs.NewMem()
	copyDir(t, from, probe, ".")
	return probe.Ops()
}

// copyDir copies a tree, durably.
func copyDir(t *testing.T, from, to vfs.FS, dir string) {
	t.Helper()
	infos, err := from.List(dir)
	must(t, err)
	for _, info := range infos {
		name := joinPath(dir, info.Name)
		if info.Dir {
			must(t, to.Mkdir(name))
			copyDir(t, from, to, name)
			continue
		}
		f, err := from.Open(name)
		must(t, err)
		b := make([]byte, info.Size)
		if n, err := f.ReadAt(b, 0); n < len(b) {
			t.Fatal(err)
		}
		must(t, f.Close())
		g, err := to.Create(name)
		must(t, err)
		_, err = g.WriteAt(b, 0)
		must(t, err)
		must(t, g.Sync())
		must(t, g.Close())
	}
	must(t, to.SyncDir(dir))
}

// A node's directory is not repaired: others count on what would be cut.
func TestRepairLeavesNodesAlone(t *testing.T) {
	ctx := t.Context()
	fsys, _ := toRepair(t)
	id, _, err := readIdentity(fsys)
	if err != nil {
		t.Fatal(err)
	}
	id.node = 2
	if err := replaceFile(fsys, ".", formatName, id.encode()); err != nil {
		t.Fatal(err)
	}
	before, err := fsys.List(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(ctx, fsys, nil); !errors.Is(err, ErrInvalidNode) || !strings.Contains(err.Error(), "fetched again") {
		t.Errorf("repair of a node: %v", err)
	}
	if after, err := fsys.List("."); err != nil || !slices.Equal(after, before) {
		t.Errorf("the directory was %v and is %v: %v", before, after, err)
	}
	if _, err := Repair(ctx, fsys, &RepairOptions{DryRun: true}); err != nil {
		t.Errorf("a look at a node: %v", err)
	}
}
