package model

import "fmt"

// CheckPrefix judges what was found after a crash. The model has been told all
// that was sent; got is everything found from the log start on, markers included.
// It has to be a prefix of what was sent and to reach acked, the offset behind the
// last acknowledged record.
func (l *Log) CheckPrefix(acked int64, got []Record) error {
	sent := l.Read(l.start, l.End())
	for i, r := range got {
		if i >= len(sent) {
			return fmt.Errorf("%v was never sent: the log sent ends at %d", r, l.End())
		}
		if !r.Same(sent[i]) {
			return fmt.Errorf("found %v, sent was %v", r, sent[i])
		}
	}
	if end := l.start + int64(len(got)); end < acked {
		return fmt.Errorf("the log ends at %d, records below %d were acknowledged", end, acked)
	}
	return nil
}

// CheckCompacted judges what compaction has left. The model has been told all
// that was sent; got is everything found from the log start on, markers included.
//
//   - Nothing is invented, changed, moved or twice, and the order is kept.
//   - The last committed record of each key is there. If that is a tombstone it
//     may be missing, but then no record of the key before it may be left: an old
//     value would come back to life.
//   - What lies at the last stable offset or behind it is untouched.
//   - A record of a transaction that has ended has its marker: without it readers
//     would wait for the end, or take aborted records for good ones.
//
// Records without a key, records of aborted transactions and older ones of a key
// may be there or not.
func (l *Log) CheckCompacted(got []Record) error {
	left := make(map[int64]bool)
	last := int64(-1)
	for _, r := range got {
		if r.Offset <= last {
			return fmt.Errorf("%v comes behind offset %d", r, last)
		}
		if r.Offset < l.start || r.Offset >= l.End() || !r.Same(l.entries[r.Offset-l.first].Record) {
			return fmt.Errorf("%v was not sent", r)
		}
		last = r.Offset
		left[r.Offset] = true
	}
	stable := l.LastStable(l.End())
	newest := make(map[string]Record)    // key to its last committed record
	oldestLeft := make(map[string]int64) // key to the first offset that is left of it
	for _, r := range l.Read(l.start, l.End()) {
		if r.Offset >= stable && !left[r.Offset] {
			return fmt.Errorf("%v is missing, at or behind the last stable offset %d", r, stable)
		}
		if left[r.Offset] {
			if t, ok := l.txnOf(l.entries[r.Offset-l.first]); ok && t.marker >= 0 && !left[t.marker] {
				return fmt.Errorf("%v is there, the marker of its transaction at %d is not", r, t.marker)
			}
		}
		if r.Kind != Data || r.Key == nil || l.fate(r.Offset) != Commit {
			continue
		}
		newest[string(r.Key)] = r
		if _, ok := oldestLeft[string(r.Key)]; !ok && left[r.Offset] {
			oldestLeft[string(r.Key)] = r.Offset
		}
	}
	for key, r := range newest {
		if left[r.Offset] {
			continue
		}
		if r.Value != nil {
			return fmt.Errorf("%v, the last of its key, is missing", r)
		}
		if old, ok := oldestLeft[key]; ok {
			return fmt.Errorf("%v, a tombstone, is missing, and offset %d of its key is there", r, old)
		}
	}
	return nil
}
