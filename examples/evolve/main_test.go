package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const want = `1. broadcast: every listener gets every report
   display heard 6
   archive heard 6
2. retain: one who comes later gets them all, one who was there what is new
   newcomer heard 7
   display heard 1
3. evolve: a function makes warnings of reports
   s1: 31 degrees in the kitchen
4. recast: after a restart the views are what they were, and go on
   s1 in the kitchen: 25
   s2 in the kitchen: 24
   s3 in the cellar: 11
   mean of the cellar: 11
   mean of the kitchen: 24.5
   the cellar gets warm:
   s1 in the kitchen: 25
   s2 in the kitchen: 24
   s3 in the cellar: 35
   mean of the cellar: 35
   mean of the kitchen: 24.5
`

func TestEvolve(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	if err := start(context.Background(), &out, ""); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if out.String() != want {
		t.Errorf("it printed\n%s", &out)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// until cancels when something is written.
type until struct {
	bytes.Buffer
	what   string
	cancel func()
}

func (u *until) Write(b []byte) (int, error) {
	if strings.Contains(string(b), u.what) {
		u.cancel()
	}
	return u.Buffer.Write(b)
}

func TestEvolveOffersItsViews(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the path of a test's directory may be too long for a socket here")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := filepath.Join(t.TempDir(), "db")
	found := false
	out := &until{what: "view watch", cancel: func() {
		_, err := os.Stat(filepath.Join(dir, "sock"))
		found = err == nil
		cancel()
	}}
	if err := start(ctx, out, dir); err != nil || !found {
		t.Errorf("%v, a socket: %v\n%s", err, found, out)
	}
}
