package main

import (
	"fmt"
	"hash/crc64"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/x/embedlog/log"
)

// replica is what a node's copy of a log holds.
type replica struct {
	first, next uint64 // indexes that are complete
	end         int64  // offset
	sums        []uint64
}

var sumTable = crc64.MakeTable(crc64.ECMA)

// readReplica reads the log in a directory that nobody has open.
func readReplica(dir string) (r replica, err error) {
	l, err := log.Open(dir, &log.Options{MustExist: true})
	if err != nil {
		return r, err
	}
	defer l.Close()
	if err := l.Err(); err != nil {
		return r, fmt.Errorf("damaged: %w", err)
	}
	l.Lock()
	r.next = l.NextIndex()
	l.Unlock()
	r.first, r.end = max(l.FirstCompleteIndex(), 1), l.EndOffset()
	for i := r.first; i < r.next; i++ {
		f, err := l.Entry(i)
		if err != nil {
			return r, fmt.Errorf("entry %d: %w", i, err)
		}
		head := fmt.Sprintf("%d %d %d %d %d ", f.Kind, f.Index, f.Epoch, f.Offset, f.NextOffset)
		r.sums = append(r.sums, crc64.Update(crc64.Checksum([]byte(head), sumTable), sumTable, f.Payload))
	}
	return r, nil
}

// differ says in which of their common entries two copies of a log differ; empty is in none. Logs of
// topics must end at the same offset, too.
func differ(a, b replica, topic bool) string {
	from, to := max(a.first, b.first), min(a.next, b.next)
	for i := from; i < to; i++ {
		if a.sums[i-a.first] != b.sums[i-b.first] {
			return fmt.Sprintf("entry %d differs (of %d to %d)", i, from, to-1)
		}
	}
	switch {
	case topic && a.end != b.end:
		return fmt.Sprintf("one ends at offset %d, the other at %d", a.end, b.end)
	case to < from || to == from && (a.next > 1 || b.next > 1):
		return fmt.Sprintf("entries %d to %d and %d to %d have none in common", a.first, a.next-1, b.first, b.next-1)
	}
	return ""
}

// compareReplicas compares all logs of the nodes' directories, and says which differ and how
// many entries were compared.
func compareReplicas(dirs []string) (problems []string, logs, entries int, err error) {
	names := map[string]string{"meta": "meta"}
	for _, dir := range dirs {
		topics, err := filepath.Glob(filepath.Join(dir, "topics", "*", "topic"))
		if err != nil {
			return nil, 0, 0, err
		}
		for _, file := range topics {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, 0, 0, err
			}
			name := filepath.Base(filepath.Dir(file))
			for line := range strings.Lines(string(text)) {
				if rest, ok := strings.CutPrefix(line, "name "); ok {
					name = strings.TrimSpace(rest)
				}
			}
			parts, err := filepath.Glob(filepath.Join(filepath.Dir(file), "[0-9]*"))
			if err != nil {
				return nil, 0, 0, err
			}
			for _, p := range parts {
				rel, err := filepath.Rel(dir, p)
				if err != nil {
					return nil, 0, 0, err
				}
				names[rel] = name + "/" + filepath.Base(p)
			}
		}
	}
	for _, rel := range slices.Sorted(maps.Keys(names)) {
		name := names[rel]
		var all []replica
		var of []int
		for i, dir := range dirs {
			r, err := readReplica(filepath.Join(dir, rel))
			if err != nil {
				problems = append(problems, fmt.Sprintf("%s: node %d: %v", name, i+1, err))
				continue
			}
			entries += len(r.sums)
			all, of = append(all, r), append(of, i+1)
		}
		logs++
		for i := 1; i < len(all); i++ {
			if d := differ(all[0], all[i], !strings.HasPrefix(name, "__") && name != "meta"); d != "" {
				problems = append(problems, fmt.Sprintf("%s: nodes %d and %d: %s", name, of[0], of[i], d))
			}
		}
	}
	return problems, logs, entries, nil
}
