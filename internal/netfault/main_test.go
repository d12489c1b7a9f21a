//go:build linux

package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestHarmTime(t *testing.T) {
	for _, c := range []struct{ time, within, after, want time.Duration }{
		{2 * time.Minute, 0, time.Hour, 2 * time.Minute},
		{2 * time.Minute, 225 * time.Second, 10 * time.Second, 2 * time.Minute},
		{2 * time.Minute, 225 * time.Second, 30 * time.Second, 2 * time.Minute},
		{2 * time.Minute, 225 * time.Second, 60 * time.Second, 90 * time.Second},
		{2 * time.Minute, 225 * time.Second, 200 * time.Second, leastHarm},
	} {
		config := config{time: c.time, within: c.within}
		if got := config.harmTime(c.after); got != c.want {
			t.Errorf("-for %v -within %v, begun after %v: %v, want %v", c.time, c.within, c.after, got, c.want)
		}
	}
}

// What a machine lacks is said in words.
func TestLacks(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if why := lacks(); why != "it takes root, for network namespaces and mounts" && why != "ip is missing" {
		t.Errorf("without any tool it lacks %q", why)
	}
}

// Every kind is dealt before any comes again.
func TestDeck(t *testing.T) {
	d := &deck{rnd: rand.New(rand.NewPCG(7, 1))}
	for range 3 {
		seen := map[string]bool{}
		for range kinds {
			seen[d.next().name] = true
		}
		if len(seen) != len(kinds) {
			t.Errorf("%d kinds of %d", len(seen), len(kinds))
		}
	}
	for _, f := range kinds {
		for range 100 {
			long, quiet := lasts(f, d.rnd)
			stop := f.name == "stop the leader" || f.name == "stop a node"
			if long < time.Second || quiet < 0 || !stop && (long+quiet < 5*time.Second || long+quiet > 11*time.Second) || stop && long > 15*time.Second {
				t.Errorf("%s lasts %v, and then it is quiet for %v", f.name, long, quiet)
			}
		}
	}
}
