package faultproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Check opens the partition in dir, compares what is there with the journal,
// appends, closes, and does it all again: the second open has nothing to do.
func (j *Journal) Check(dir string) error {
	for try := range 2 {
		p, err := partition.Open(dir, &partition.Options{Replicator: j.replicator()})
		if err != nil {
			return fmt.Errorf("open after the kill: %w", err)
		}
		err = j.compare(p)
		if rec := p.Recovered(); err == nil && try == 1 && !rec.Clean {
			err = fmt.Errorf("open after a close has to recover: %+v", rec)
		}
		if err == nil {
			err = j.write(p, try)
		}
		if err := errors.Join(err, p.Close()); err != nil {
			return err
		}
	}
	return nil
}

// replicator is one when the journal is of a replicated partition.
func (j *Journal) replicator() partition.Replicator {
	if len(j.stored) > 0 || j.Epoch > 0 {
		return follower{}
	}
	return nil
}

// compare checks an open partition against the journal. What it has seen must be
// seen again: from now on it counts as acknowledged, and what is not there as gone.
func (j *Journal) compare(p *partition.Partition) error {
	if c := p.Recovered().Corruption; c != nil {
		return fmt.Errorf("open reports damage: %w", c)
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("open partition cannot be written: %w", err)
	}
	start, end, next := p.LogStart(), p.LogEnd(), p.Log().NextIndex()
	if err := j.opened(start, end, next); err != nil {
		return err
	}
	for _, a := range j.appends {
		a.seen = 0
	}
	j.there, j.newest = map[int64]bool{}, map[string]int64{}
	if err := j.walk(p, start, end, next); err != nil {
		return err
	}
	for _, a := range j.appends {
		if a.kind != "data" || a.gone {
			continue
		}
		want := a.n
		if a.base >= 0 {
			want = int(min(max(a.base+int64(a.n)-start, 0), int64(a.n)))
		} else if a.acked {
			continue // an entry of a former life: the walk has compared it by its index
		}
		if j.compacts {
			if err := j.compacted(a, start); err != nil {
				return err
			}
		} else if a.acked && a.seen != want {
			return fmt.Errorf("append %s of %d records was acknowledged at offset %d; %d of %d are there (log is %d to %d)", a.id, a.n, a.base, a.seen, want, start, end)
		}
		if !a.acked && a.seen == 0 {
			a.gone = true
		}
	}
	j.deleted, j.deleting = start, start
	return nil
}

// compacted checks that of an acknowledged append only that is missing which has
// a later record with its key.
func (j *Journal) compacted(a *appended, start int64) error {
	for k := range a.n {
		offset := a.base + int64(k)
		if !a.acked || a.base < 0 || offset < start || j.there[offset] {
			continue
		}
		if last, ok := j.newest[string(key(a.id, k))]; !ok || last < offset {
			return fmt.Errorf("append %s: record %d, acknowledged at offset %d, is missing, and key %q has none after it (the newest is at %d)", a.id, k, offset, key(a.id, k), last)
		}
	}
	return nil
}

// walk reads all there is, in the order it lies.
func (j *Journal) walk(p *partition.Partition, start, end int64, next uint64) error {
	r, err := p.Log().ReadFrom(start)
	if err != nil {
		return fmt.Errorf("read from %d: %w", start, err)
	}
	at, last, index := start, map[string]int{}, uint64(0)
	for {
		f, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read at offset %d: %w", at, err)
		}
		if index != 0 && f.FirstIndex != index+1 {
			return fmt.Errorf("log index %d follows %d", f.Index, index)
		}
		index = f.Index
		if err := j.entry(f); err != nil {
			return err
		}
		if f.Kind != log.KindData {
			continue
		}
		for rec, err := range log.Batch(f.Payload).Records(0) {
			if err != nil {
				return fmt.Errorf("batch at offset %d: %w", f.Offset, err)
			}
			if rec.Offset < start {
				continue
			}
			if rec.Offset != at && !(j.compacts && rec.Offset > at) {
				return fmt.Errorf("offset %d follows %d", rec.Offset, at-1)
			}
			at = rec.Offset + 1
			if err := j.record(&rec, start, last); err != nil {
				return err
			}
		}
	}
	if at != end && !(j.compacts && at < end) {
		return fmt.Errorf("records end at offset %d, the log says %d", at, end)
	}
	if index != 0 && index+1 != next {
		return fmt.Errorf("entries end at log index %d, the next one is said to be %d", index, next)
	}
	return nil
}

// entry compares one frame of a replicated partition with what was stored at its index.
func (j *Journal) entry(f *log.Frame) error {
	if len(j.stored) == 0 || f.Index < j.stored[0].index {
		return nil
	}
	i := f.Index - j.stored[0].index
	if i >= uint64(len(j.stored)) {
		return fmt.Errorf("log index %d was never stored, or taken back", f.Index)
	}
	a := j.stored[i]
	if a.kind != f.Kind.String() || a.epoch != f.Epoch {
		return fmt.Errorf("log index %d holds %v of epoch %d; stored was %s of epoch %d", f.Index, f.Kind, f.Epoch, a.kind, a.epoch)
	}
	if f.Kind != log.KindData && string(f.Payload) != a.id {
		return fmt.Errorf("log index %d holds %q, stored was %q", f.Index, f.Payload, a.id)
	}
	if f.Kind == log.KindData {
		for rec, err := range log.Batch(f.Payload).Records(0) {
			if err != nil {
				return fmt.Errorf("batch at log index %d: %w", f.Index, err)
			}
			if !bytes.HasPrefix(rec.Value, []byte(a.id+"/")) {
				return fmt.Errorf("log index %d holds %.40q, stored was %q", f.Index, rec.Value, a.id)
			}
		}
	}
	return nil
}

func (j *Journal) record(rec *log.Record, start int64, last map[string]int) error {
	id, k, n, err := parseValue(rec.Value)
	if err != nil {
		return fmt.Errorf("offset %d: %w", rec.Offset, err)
	}
	a := j.appends[id]
	if a == nil {
		return fmt.Errorf("offset %d holds append %s, which was never begun", rec.Offset, id)
	}
	if a.gone {
		return fmt.Errorf("offset %d holds append %s, which failed or was taken back", rec.Offset, id)
	}
	if n != a.n || k >= n {
		return fmt.Errorf("offset %d holds record %d of %d, append %s has %d", rec.Offset, k, n, id, a.n)
	}
	base := rec.Offset - int64(k)
	if a.base >= 0 && a.base != base {
		return fmt.Errorf("append %s lies at offset %d; acknowledged was %d", id, base, a.base)
	}
	if j.compacts {
		j.there[rec.Offset], j.newest[string(rec.Key)] = true, rec.Offset
		if !bytes.Equal(rec.Key, key(id, k)) {
			return fmt.Errorf("offset %d has key %q, sent was %q", rec.Offset, rec.Key, key(id, k))
		}
	} else if a.base < 0 && a.seen == 0 && k != 0 && base >= start {
		return fmt.Errorf("offset %d holds record %d of append %s, whose first is missing", rec.Offset, k, id)
	}
	a.base, a.acked = base, true
	a.seen++
	name, number := worker(id)
	if was, ok := last[name]; ok && (number < was || number == was && k == 0) {
		return fmt.Errorf("offset %d holds append %s, behind number %d of the same worker", rec.Offset, id, was)
	}
	last[name] = number
	return nil
}

// write appends to what was checked, in a way that the next check expects.
func (j *Journal) write(p *partition.Partition, try int) error {
	id := fmt.Sprintf("check%d.%d.0s", j.Opens, try)
	out := &sink{j: j}
	if j.replicator() != nil {
		w := &raftWork{work: work{out: out, p: p}, epoch: j.Epoch}
		if err := w.store([]string{id}, []string{"data"}); err != nil {
			return fmt.Errorf("store after the kill: %w", err)
		}
		return out.err
	}
	w := &work{out: out, p: p}
	if err := w.append(context.Background(), id, 3, nil); err != nil {
		return fmt.Errorf("append after the kill: %w", err)
	}
	return out.err
}
