package faultproc

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// Journal is what is known of a partition from outside: what was begun, and what
// was acknowledged. It is fed with the lines of one life after another.
type Journal struct {
	appends map[string]*appended
	stored  []*appended // replicated entries by log index, from stored[0].index on

	deleted, deleting int64 // log start offset: acknowledged, and the furthest asked for
	cutting           uint64
	poisoned          bool
	compacts          bool             // records may be missing that have a later one with their key
	there             map[int64]bool   // what the last walk found, when it compacts
	newest            map[string]int64 // by key

	Committed, Epoch uint64 // replicated: to tell the next life
	Sequence         int32  // the idempotent producer's next one
	Retry            *Retry // its append whose outcome is not known

	// Acknowledged counts records, Lines what was fed in, over all lives.
	Acknowledged, Lines int
	// Opens, Ended count lives that got so far, Poisoned those that met a failed sync.
	Opens, Ended, Poisoned int
	// Hit counts the readers that met an error of the disk.
	Hit int
}

// Retry is an idempotent append to be repeated by the next life.
type Retry struct {
	ID       string
	N        int
	Sequence int32
}

type appended struct {
	id          string
	n           int
	base        int64 // -1: not known
	index       uint64
	epoch       uint64
	kind        string // "data", or another kind of entry
	acked, gone bool
	seen        int
}

// NewJournal returns the journal of a partition that does not exist yet.
func NewJournal() *Journal { return &Journal{appends: map[string]*appended{}} }

// Read feeds in what a child wrote. A line that its end is missing from was never written.
func (j *Journal) Read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := j.Add(line[:len(line)-1]); err != nil {
			return err
		}
	}
}

// Add feeds in one line. An error is a promise that was seen to be broken already.
func (j *Journal) Add(line string) error {
	var op string
	if _, err := fmt.Sscan(line, &op); err != nil {
		return fmt.Errorf("journal: %q: %w", line, err)
	}
	j.Lines++
	rest := line[len(op):]
	switch op {
	case "open":
		var start, end int64
		var next uint64
		if _, err := fmt.Sscan(rest, &start, &end, &next); err != nil {
			return fmt.Errorf("journal: %q: %w", line, err)
		}
		return j.opened(start, end, next)
	case "begin", "idem":
		a := &appended{base: -1, kind: "data"}
		var seq int32
		args := []any{&a.id, &a.n}
		if op == "idem" {
			args = append(args, &seq)
		}
		if _, err := fmt.Sscan(rest, args...); err != nil {
			return fmt.Errorf("journal: %q: %w", line, err)
		}
		if j.appends[a.id] == nil {
			j.appends[a.id] = a
		}
		if op == "idem" {
			j.appends[a.id].gone = false // a repetition of one that was not there
			j.Retry = &Retry{ID: a.id, N: a.n, Sequence: seq}
			j.Sequence = seq
		}
	case "ack":
		var id string
		var base int64
		if _, err := fmt.Sscan(rest, &id, &base); err != nil {
			return fmt.Errorf("journal: %q: %w", line, err)
		}
		return j.acked(id, base)
	case "fail":
		var id string
		fmt.Sscan(rest, &id)
		if a := j.appends[id]; a != nil && !a.acked {
			a.gone = true
		}
		if j.Retry != nil && j.Retry.ID == id {
			j.Retry = nil
		}
	case "unknown": // the append may be there or not, which is what "begin" says
	case "del":
		var to int64
		fmt.Sscan(rest, &to)
		j.deleting = max(j.deleting, to)
	case "deleted":
		var start int64
		fmt.Sscan(rest, &start)
		if start < j.deleted || start > j.deleting {
			return fmt.Errorf("deleting up to %d answers with log start offset %d; it was %d", j.deleting, start, j.deleted)
		}
		j.deleted = start
	case "store":
		a := &appended{base: -1}
		if _, err := fmt.Sscan(rest, &a.index, &a.epoch, &a.kind, &a.id, &a.n); err != nil {
			return fmt.Errorf("journal: %q: %w", line, err)
		}
		return j.store(a)
	case "stored":
		if j.poisoned {
			return fmt.Errorf("store is acknowledged after a failed sync")
		}
		for _, a := range j.stored {
			if !a.acked {
				j.Acknowledged += a.n
			}
			a.acked = true
		}
	case "commit":
		fmt.Sscan(rest, &j.Committed)
	case "epoch":
		fmt.Sscan(rest, &j.Epoch)
	case "cut":
		fmt.Sscan(rest, &j.cutting)
	case "cutdone":
		j.cutFrom(j.cutting)
		j.cutting = 0
	case "poisoned":
		j.poisoned = true
		j.Poisoned++
	case "compact":
		j.compacts = true
	case "hit":
		var n int
		fmt.Sscan(rest, &n)
		j.Hit += n
	case "end":
		j.Ended++
	default:
		// "bug": the child saw something that must not be.
		return fmt.Errorf("child: %s", line)
	}
	return nil
}

// opened is the beginning of a life. On a replicated partition the next log index
// decides what became of entries that were on their way in or out.
func (j *Journal) opened(start, end int64, next uint64) error {
	j.Opens++
	j.poisoned = false
	if start < j.deleted || start > j.deleting {
		return fmt.Errorf("open finds log start offset %d: it was moved to %d, and asked to move to %d", start, j.deleted, j.deleting)
	}
	if len(j.stored) == 0 {
		return nil
	}
	for _, a := range j.stored {
		if a.index >= next && a.acked && (j.cutting == 0 || a.index < j.cutting) {
			return fmt.Errorf("open ends at log index %d: entry %d (%s) was acknowledged", next, a.index, a.id)
		}
		if a.index < next && !a.acked {
			a.acked = true
			j.Acknowledged += a.n
		}
	}
	j.cutFrom(next)
	j.cutting = 0
	return nil
}

func (j *Journal) store(a *appended) error {
	if n := len(j.stored); n > 0 && j.stored[n-1].index+1 != a.index {
		return fmt.Errorf("entry %d is stored behind entry %d", a.index, j.stored[n-1].index)
	}
	j.stored = append(j.stored, a)
	j.appends[a.id] = a
	j.Epoch = max(j.Epoch, a.epoch)
	return nil
}

// cutFrom drops the entries from a log index on.
func (j *Journal) cutFrom(index uint64) {
	for n := len(j.stored); n > 0 && j.stored[n-1].index >= index; n-- {
		j.stored[n-1].gone = true
		j.stored = j.stored[:n-1]
	}
}

func (j *Journal) acked(id string, base int64) error {
	a := j.appends[id]
	if a == nil {
		return fmt.Errorf("append %s is acknowledged and was not begun", id)
	}
	if j.poisoned {
		return fmt.Errorf("append %s is acknowledged after a failed sync", id)
	}
	if a.base >= 0 && a.base != base {
		return fmt.Errorf("append %s is acknowledged at offset %d, and was at %d", id, base, a.base)
	}
	if !a.acked {
		j.Acknowledged += a.n
	}
	a.acked, a.base = true, base
	if j.Retry != nil && j.Retry.ID == id {
		j.Sequence = j.Retry.Sequence + int32(a.n)
		j.Retry = nil
	}
	return nil
}

// sink feeds lines in as a child's output is, for who works in the same process.
type sink struct {
	j   *Journal
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if err := s.j.Add(string(bytes.TrimSuffix(line, []byte("\n")))); err != nil && s.err == nil {
			s.err = err
		}
	}
	return len(p), nil
}
