package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
)

// turnBit turns one bit over in a file that may be open: in the same file, as a disk does it.
func turnBit(t *testing.T, fsys vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err = f.ReadAt(b[:], at); err == nil {
		b[0] ^= 16
		_, err = f.WriteAt(b[:], at)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// metaTopics is how many topics there are before the damage.
const metaTopics = 5

// metaDamage is what happens to the metadata's files of a node that runs.
type metaDamage struct {
	name string
	do   func(t *testing.T, fsys vfs.FS)
	// found says that whoever reads all of it comes upon it while the node runs. The others are found
	// when it is killed and started again.
	found bool
}

var metaDamages = []metaDamage{
	{"a bit of a frame's header", func(t *testing.T, fsys vfs.FS) { turnBit(t, fsys, named(t, fsys, ".log")[0], segmentHeader+9) }, true},
	{"a bit of a command", func(t *testing.T, fsys vfs.FS) { turnBit(t, fsys, named(t, fsys, ".log")[0], segmentHeader+900) }, true},
	{"a bit of the segment's header", func(t *testing.T, fsys vfs.FS) { turnBit(t, fsys, named(t, fsys, ".log")[0], 30) }, false},
	{"the segment lost", func(t *testing.T, fsys vfs.FS) { remove(t, fsys, named(t, fsys, ".log")...) }, false},
	{"the checkpoint lost", func(t *testing.T, fsys vfs.FS) { remove(t, fsys, named(t, fsys, "checkpoint")...) }, false},
	{"all files lost", func(t *testing.T, fsys vfs.FS) { remove(t, fsys, named(t, fsys, "")...) }, false},
}

// The metadata of a node that runs is damaged, of one that follows and of the one that leads it: it never tells anything that was not
// decided; when it comes upon the damage it stops for the metadata and says so with an error that matches ErrCorrupt,
// and what to do; the others go on, and what it led they lead. Done as its words say, another node has its place.
func TestMetadataIsDamagedWhileItRuns(t *testing.T) {
	for _, leads := range []bool{false, true} {
		for _, damage := range metaDamages {
			t.Run(fmt.Sprintf("%s, it leads %t", damage.name, leads), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { metadataIsDamaged(t, damage, leads) })
			})
		}
	}
}

func metadataIsDamaged(t *testing.T, damage metaDamage, leads bool) {
	ctx := context.Background()
	c := newDBCluster(t, 3)
	c.maintenance = -1
	defer c.net.Close()
	for _, n := range c.nodes {
		c.start(n)
	}
	create := func(n *dbNode, name string) error {
		_, err := n.db.CreateTopic(ctx, name, &embedlog.TopicConfig{Partitions: 1, ReplicationFactor: 3})
		if errors.Is(err, embedlog.ErrTopicExists) {
			return nil
		}
		return err
	}
	produce := func(n *dbNode, name string) error {
		top, err := n.db.Topic(name)
		if err == nil {
			_, err = top.Produce(ctx, embedlog.Record{Value: []byte("x")})
		}
		return err
	}
	for i := range metaTopics {
		c.until("make a topic", func() error { return create(c.nodes[0], fmt.Sprintf("topic-%d", i)) })
	}
	for i := range metaTopics {
		name := fmt.Sprintf("topic-%d", i)
		c.until("a record", func() error { return produce(c.nodes[0], name) })
		c.until("all have it", func() error { return c.well(name, 1) })
	}
	metaLeader := func() *dbNode {
		var node int32
		c.until("the metadata is led", func() error {
			if node, _ = c.nodes[0].db.Engine().MetaLeader(); node < 1 {
				return errors.New("nobody leads it")
			}
			return nil
		})
		return c.nodes[node-1]
	}
	sick := metaLeader()
	if !leads {
		sick = c.nodes[sick.id%3]
	}
	var well []*dbNode
	for _, n := range c.nodes {
		if n != sick {
			well = append(well, n)
		}
	}
	damage.do(t, vfs.Sub(sick.disk, "meta"))
	status := func() string { return sick.db.Cluster().Status()[0].Reason }
	asWasDecided := func(when string) {
		t.Helper()
		for i := range metaTopics {
			if _, err := sick.db.Topic(fmt.Sprintf("topic-%d", i)); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		if list := sick.db.Engine().Topics(); len(list) > metaTopics+2 {
			t.Errorf("%s: it knows of %d topics", when, len(list))
		}
	}
	wantWords := func(text string) {
		t.Helper()
		for _, words := range []string{"metadata", "another number", "empty directory", "--join", "embedlog cluster add", "embedlog cluster drain", "embedlog cluster remove"} {
			if !strings.Contains(text, words) {
				t.Errorf("it does not say %q: %s", words, text)
			}
		}
	}
	c.until("the others make a topic", func() error { return create(well[0], "meanwhile") })
	if damage.found {
		report, err := sick.db.Verify(ctx)
		if err != nil {
			t.Fatal(err)
		}
		bad := false
		for _, p := range report.Problems {
			bad = bad || p.Topic == "" && errors.Is(p.Err, embedlog.ErrCorrupt)
		}
		if !bad {
			t.Fatalf("a look at all finds %v", report.Problems)
		}
		c.until("it has stopped", func() error {
			if !strings.Contains(status(), "is damaged, and has stopped") {
				return fmt.Errorf("status %q", status())
			}
			return nil
		})
		wantWords(status())
		asWasDecided("damaged")
		before := time.Now()
		err = create(sick, "not-here")
		if !errors.Is(err, embedlog.ErrCorrupt) || errors.Is(err, embedlog.ErrUnknownOutcome) {
			t.Errorf("a change of the metadata at the damaged node: %v", err)
		} else {
			wantWords(err.Error())
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("it says so after %v", took)
		}
		c.until("the others lead all", func() error {
			for _, s := range sick.db.Cluster().Status() {
				if s.Leader == sick.id {
					return fmt.Errorf("it leads %s/%d", s.Topic, s.Partition)
				}
			}
			return nil
		})
		// Nobody gives it back, though it is the preferred leader.
		epochs := func() (list []int32) {
			for _, s := range well[0].db.Cluster().Status()[1:] {
				list = append(list, s.Epoch)
			}
			return list
		}
		led := epochs()
		if time.Sleep(70 * time.Second); !slices.Equal(epochs(), led) {
			t.Errorf("leaders have changed: epochs %v were %v", epochs(), led)
		}
		c.until("records go on there", func() error { return produce(sick, "topic-3") })
	}
	for _, n := range well {
		c.until("the others make topics", func() error { return create(n, fmt.Sprint("later-", n.id)) })
	}
	// The power goes, or it is stopped, as it was told to be.
	if damage.found {
		if err := sick.db.Close(); err != nil {
			t.Logf("closed with %v", err)
		}
	} else {
		c.cut(sick, 7)
	}
	err := c.tryStart(sick)
	if err == nil {
		t.Error("it starts with damaged metadata")
		sick.db.Close()
		return
	}
	t.Log(err)
	wantWords(err.Error())
	// What the words say.
	c.nodes = well
	c.replaceNode(sick.id, 4)
	for i := range metaTopics {
		c.until("all have all", func() error {
			return c.well(fmt.Sprintf("topic-%d", i), map[bool]int{true: 2, false: 1}[damage.found && i == 3])
		})
	}
	c.until("the new one makes a topic", func() error { return create(c.nodes[2], "in-the-end") })
	for _, n := range c.nodes {
		if err := n.db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The directory of a node that does not run is looked at by a repair that writes nothing: what is whole is said to be, what is
// damaged is listed with what becomes of it, and what other nodes have is not missed.
func TestLookAtTheDirectoryOfANode(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, n *dbNode, topic string)
		logs []string // those that are said not to be whole
		say  string
	}{
		"whole": {do: func(*testing.T, *dbNode, string) {}},
		"a bit of a partition": {
			do: func(t *testing.T, n *dbNode, topic string) {
				fsys := vfs.Sub(n.disk, topic+"/0")
				flip(t, fsys, segments(t, fsys)[1], 0.5)
			},
			logs: []string{"orders/0"}, say: "fetched again",
		},
		"a lost partition": {
			do: func(t *testing.T, n *dbNode, topic string) {
				fsys := vfs.Sub(n.disk, topic+"/0")
				remove(t, fsys, named(t, fsys, "")...)
			},
			logs: []string{"orders/0"}, say: "it is missing",
		},
		"a bit of the metadata": {
			do: func(t *testing.T, n *dbNode, _ string) {
				turnBit(t, vfs.Sub(n.disk, "meta"), named(t, vfs.Sub(n.disk, "meta"), ".log")[0], segmentHeader+9)
			},
			logs: []string{"metadata"}, say: "embedlog cluster drain",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				c := newDBCluster(t, 3)
				c.maintenance = -1
				defer c.net.Close()
				for _, n := range c.nodes {
					c.start(n)
				}
				c.until("make a topic", func() error {
					_, err := c.nodes[0].db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, ReplicationFactor: 3, SegmentBytes: 4 << 10})
					return err
				})
				c.until("fill it", func() error { return fillOrders(c.nodes[0].db, 0, 60) })
				c.until("all have all", func() error { return c.well("orders", 60) })
				c.until("one goes", func() error { return c.nodes[0].db.Cluster().Reassign(ctx, "orders", 1, []int32{1, 2}) })
				n := c.nodes[2]
				_, dir := partitionFS(t, n, "orders", 1)
				c.until("it is gone", func() error {
					if _, err := n.disk.Stat(dir); err == nil {
						return errors.New("it is there")
					}
					return nil
				})
				for _, n := range c.nodes {
					if err := n.db.Close(); err != nil {
						t.Error(err)
					}
				}
				test.do(t, n, strings.TrimSuffix(dir, "/1"))
				before := contents(t, n.disk, ".")
				r, err := engine.Repair(ctx, n.disk, &engine.RepairOptions{DryRun: true})
				if err != nil {
					t.Errorf("it ends with %v", err)
				}
				var logs []string
				for _, d := range r.Damaged {
					logs = append(logs, d.Name)
				}
				text := r.String()
				if !slices.Equal(logs, test.logs) || !strings.Contains(text, test.say) || r.Node != 3 {
					t.Errorf("not whole are %v of node %d, want %v; it says\n%s", logs, r.Node, test.logs, text)
				}
				if strings.Contains(text, "set aside") || strings.Contains(text, "it holds") {
					t.Errorf("it says that something was done:\n%s", text)
				}
				if after := contents(t, n.disk, "."); !maps.Equal(after, before) {
					t.Error("it has changed the directory")
				}
			})
		})
	}
}

// contents are the files below a directory.
func contents(t *testing.T, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	infos, err := fsys.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		name := path.Join(dir, info.Name)
		if info.Dir {
			maps.Copy(all, contents(t, fsys, name))
			continue
		}
		f, err := fsys.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size)
		if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		f.Close()
		all[name] = string(b)
	}
	return all
}
