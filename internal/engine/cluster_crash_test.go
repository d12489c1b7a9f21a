package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// A node that crashes at any file operation, while it is opened or makes what was
// decided elsewhere, has it all when it is opened again, and nothing else.
func TestCrashWhileApplying(t *testing.T) {
	OneAtATime(t, 300)
	for k := 0; ; k += max(1, 4/testcount.N(4)) {
		crashed := false
		synctest.Test(t, func(t *testing.T) { crashed = crashWhileApplying(t, k) })
		if t.Failed() {
			t.Fatalf("k=%d", k)
		}
		if !crashed {
			if k < 100 {
				t.Errorf("it needs %d operations only", k)
			}
			return
		}
	}
}

func crashWhileApplying(t *testing.T, k int) (crashed bool) {
	p := newPeers(t, 3)
	p.quiet = true
	lead := p.open[1]
	p.create("old", 2, 3)
	p.agree()
	p.stop(3)
	mem := p.files[3].(*vfs.Mem).AfterKill(vfs.CrashAt(k), vfs.CrashByte(k%700))
	p.files[3] = mem
	if e, err := Open("node3", p.options(3)); err == nil {
		p.open[3] = e
	} else if !errors.Is(err, vfs.ErrCrashed) {
		t.Fatal(err)
	}
	for i, do := range []func() error{
		func() error { _, err := lead.CreateTopic(ctx, TopicSpec{Name: "a", Partitions: 2}); return err },
		func() error { return lead.AlterTopic(ctx, "old", map[string]string{"retention.ms": "9"}, nil) },
		func() error { return lead.AddPartitions(ctx, "a", 3) },
		func() error { return lead.DeleteTopic(ctx, "old") },
		func() error { return lead.Reassign(ctx, "a", 0, []int32{1, 2}) },
		func() error { _, err := lead.CreateTopic(ctx, TopicSpec{Name: "old", Partitions: 1}); return err },
	} {
		if err := do(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(5 * time.Second)
	if e := p.open[3]; e != nil {
		delete(p.open, 3)
		if err := e.Close(); err != nil && !errors.Is(err, vfs.ErrCrashed) {
			t.Fatal(err)
		}
	}
	crashed = mem.Crashed()
	switch k % 4 {
	case 0:
		p.files[3] = mem.AfterCrash(vfs.KeepNone)
	case 1:
		p.files[3] = mem.AfterCrash(vfs.KeepAll)
	case 2:
		p.files[3] = mem.AfterCrash(vfs.Random(uint64(k)))
	default:
		p.files[3] = mem.AfterKill()
	}
	p.start(3)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("k=%d", k)
			infos, _ := p.files[3].List("topics")
			for _, top := range infos {
				parts, _ := p.files[3].List("topics/" + top.Name)
				for _, part := range parts {
					t.Logf("topics/%s/%s", top.Name, part.Name)
				}
			}
		}
	})
	p.until("node 3 agrees", func() bool {
		a, err := p.open[3].Topic("a")
		if err != nil || len(lead.Info().Deleting) > 0 || !a.Partitions()[0].Elsewhere() {
			return false
		}
		infos, err := p.files[3].List("topics")
		return err == nil && len(infos) == 2 && slices.Equal(p.dirs(3, a.ID()), []string{"1", "2"})
	})
	p.agree()
	if orphans := p.orphans(3); len(orphans) > 0 {
		t.Errorf("moved aside: %v", orphans)
	}
	for _, top := range p.open[3].Topics() {
		for _, part := range top.Partitions() {
			var node int32
			p.until("a leader is known", func() bool {
				top, _ := p.open[3].Topic(top.Name())
				node, _ = top.Partitions()[part.ID()].Leader()
				return node > 0
			})
			at, err := p.open[node].Topic(top.Name())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := at.Partitions()[part.ID()].Append(ctx, []log.Record{{Value: []byte(fmt.Sprint(k))}}, nil); err != nil {
				t.Errorf("%s: %v", part, err)
			}
			if !part.Elsewhere() && part.HighWatermark() != 1 {
				t.Errorf("%s ends at %d", part, part.HighWatermark())
			}
		}
	}
	return crashed
}
