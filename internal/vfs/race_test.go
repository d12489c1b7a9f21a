//go:build race

package vfs_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// TestRaceIsSeen runs a race in another process and wants the detector to report
// it: a load of a mapping's bytes that nothing orders after the store of them.
// A lock that both took by accident would hide such bugs from every test.
func TestRaceIsSeen(t *testing.T) {
	if how := os.Getenv("EMBEDLOG_RACE"); how != "" {
		race(t, how)
		return
	}
	for _, how := range []string{"store", "write", "vector", "store in another window"} {
		t.Run(how, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestRaceIsSeen$")
			c.Env = append(os.Environ(), "EMBEDLOG_RACE="+how)
			out, err := c.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "DATA RACE") {
				t.Fatalf("the race was not seen: %v\n%s", err, out)
			}
		})
	}
}

func race(t *testing.T, how string) {
	m := vfs.NewMem()
	f := create(t, m, "a", strings.Repeat("x", vfs.MapAlign))
	w, err := f.Map(0, 4096)
	must(t, err)
	other, err := f.Map(0, vfs.MapAlign)
	must(t, err)
	stored, loaded := make(chan bool), make(chan bool)
	sum := 0
	go func() {
		sum = int(w.Bytes()[5])
		close(loaded)
	}()
	go func() {
		switch how {
		case "store":
			w.Store(5, []byte("y"))
		case "write":
			f.WriteAt([]byte("y"), 5)
		case "vector":
			f.WritevAt([][]byte{[]byte("x"), []byte("y")}, 4)
		default:
			other.Store(5, []byte("y"))
		}
		close(stored)
	}()
	<-stored
	<-loaded
	t.Log(sum)
}
