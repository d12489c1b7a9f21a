package main

import (
	"strings"
	"testing"
)

// Both sides of every row about views run, and count what they did: the sides themselves fail when a view has not all of it. What the
// queries compute is tested where they are, in internal/nexmark.
func TestViewRows(t *testing.T) {
	for _, r := range viewRows() {
		if strings.Contains(r.name, "/query=") && !strings.Contains(r.name, "=q1/") && !strings.Contains(r.name, "/partitions=") && !strings.HasSuffix(r.name, "=q20") {
			continue // the same with another query
		}
		if strings.Contains(r.name, "/get/rows=1M") {
			continue // the same with more rows
		}
		t.Run(strings.TrimPrefix(r.name, "views/"), func(t *testing.T) {
			for name, s := range map[string]side{"limit": r.limit, "ours": ours[r.name]} {
				one := r.load
				one.Dir, one.Bytes, one.Records = t.TempDir(), 12<<20, 1000
				if strings.Contains(r.name, "checkpoint") {
					one.Records = 5000 // fewer are not worth one
				}
				if one.Count > 2 {
					one.Count = 100
				}
				if s.setup != nil {
					if err := s.setup(&one); err != nil {
						t.Fatalf("%s: set up: %v", name, err)
					}
				}
				want, times := one.Records, 1
				if strings.Contains(r.name, "/get/") {
					want = int64(gets(&one))
				} else if strings.Contains(r.name, "=q1/sink") {
					times = 2 // what is left behind is not in the way
				}
				for range times {
					if res, err := s.run(&one); err != nil || res.Records != want || res.Elapsed <= 0 {
						t.Fatalf("%s: %d records of %d in %v, error %v", name, res.Records, want, res.Elapsed, err)
					}
				}
			}
		})
	}
}
