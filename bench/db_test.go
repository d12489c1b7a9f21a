package main

import (
	"strings"
	"testing"
)

// Both sides of every row about the public API run, count what they did, and find
// it there: the sides themselves fail when they do not.
func TestDatabaseRows(t *testing.T) {
	for _, r := range dbRows() {
		if strings.Contains(r.name, "/open/") || strings.Contains(r.name, "/idle/") {
			continue // they take a process and seconds
		}
		t.Run(strings.TrimPrefix(r.name, "db/"), func(t *testing.T) {
			for name, s := range map[string]side{"limit": r.limit, "ours": ours[r.name]} {
				one := r.load
				one.Dir, one.Bytes, one.Records = t.TempDir(), 12<<20, 2000
				if r.timed {
					one.Records = 640
				}
				if s.prepare != nil {
					if err := s.prepare(&one); err != nil {
						t.Fatalf("%s: prepare: %v", name, err)
					}
				}
				res, err := s.run(&one)
				if err != nil || res.Records != one.Records {
					t.Errorf("%s: %d records of %d, error %v", name, res.Records, one.Records, err)
				}
			}
		})
	}
}

// The rows that open and idle do what they say with fewer partitions.
func TestDatabaseOpens(t *testing.T) {
	r := rep{Dir: t.TempDir(), Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 1, Count: 3}
	if err := fillDB(&r); err != nil {
		t.Fatal(err)
	}
	res, err := openDB(&r)
	if err != nil || res.Note != "" || res.Value <= 0 {
		t.Errorf("open: %+v, error %v", res, err)
	}
	more := r
	more.Count = 4 // one more than there are
	if res, err := openDB(&more); err != nil || res.Note == "" {
		t.Errorf("a partition too few goes unnoticed: %+v, error %v", res, err)
	}
}
