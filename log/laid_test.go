package log

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// Large groups at Durable fill segments fast: the next one's file is laid while
// this one is written, and holds the same records after a crash.
func TestSpareIsLaid(t *testing.T) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem)
	var used atomic.Int32
	fault.OnOp(func(op vfs.Op, name string) {
		if op == vfs.OpRename && name == spareName {
			used.Add(1)
		}
	})
	cfg := Config{SegmentBytes: 256 << 10}
	l := openTest(t, fault, cfg)
	const n = 100
	value := strings.Repeat("x", 40<<10)
	for i := range n {
		appendTest(t, l, 1, fmt.Sprint(i, value))
		if i%3 == 2 {
			for l.laying.Load() {
				runtime.Gosched()
			}
		}
	}
	if used.Load() == 0 {
		t.Fatal("no segment began in a file that was laid for it")
	}
	check := func(l *Log) {
		t.Helper()
		got := contents(t, l)
		if len(got) != n {
			t.Fatalf("got %d records, want %d", len(got), n)
		}
		for i, v := range got {
			if v != fmt.Sprint(i, value) {
				t.Fatalf("record %d is another", i)
			}
		}
	}
	check(l)
	check(openTest(t, mem.AfterKill(), cfg))
	for seed := range uint64(20) {
		after := openTest(t, mem.AfterCrash(vfs.Random(seed)), cfg)
		if c := after.Recovered().Corruption; c != nil {
			t.Fatalf("seed %d: %v", seed, c)
		}
		check(after)
	}
}
