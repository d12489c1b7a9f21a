package model

import (
	"cmp"
	"slices"
)

// Txn is a transaction and how it went.
type Txn struct {
	ProducerID int64
	First      int64 // its first record
	Marker     int64 // -1 while it is open
}

type txn struct {
	producerID int64
	first      int64
	marker     int64
	kind       Kind
}

// txns finds all transactions of the log, in the order in which they began.
func (l *Log) txns() (all []txn) {
	for _, b := range l.batches {
		if !b.transactional {
			continue
		}
		open := slices.IndexFunc(all, func(t txn) bool { return t.producerID == b.producerID && t.marker < 0 })
		switch {
		case b.kind == Data && open < 0:
			all = append(all, txn{producerID: b.producerID, first: b.base, marker: -1})
		case b.kind != Data && open >= 0:
			all[open].marker, all[open].kind = b.base, b.kind
		}
	}
	return all
}

// LastStable is the last stable offset under a high watermark: no record below it
// is of a transaction whose end a reader cannot see yet.
func (l *Log) LastStable(highWatermark int64) int64 {
	stable := highWatermark
	for _, t := range l.txns() {
		if t.marker < 0 || t.marker >= highWatermark {
			stable = min(stable, t.first)
		}
	}
	return max(stable, min(l.start, highWatermark))
}

// Committed returns what a reader of committed records sees from an offset on.
func (l *Log) Committed(from, highWatermark int64) (list []Record) {
	for _, r := range l.Read(from, l.LastStable(highWatermark)) {
		if r.Kind == Data && l.fate(r.Offset) != Abort {
			list = append(list, r)
		}
	}
	return list
}

// fate is how the transaction of the record at offset went: Data while it is open,
// Commit also for a record of no transaction.
func (l *Log) fate(offset int64) Kind {
	e := l.entries[offset-l.first]
	if t, ok := l.txnOf(e); ok {
		return t.kind
	}
	return Commit
}

// txnOf finds the transaction that a record belongs to.
func (l *Log) txnOf(e entry) (txn, bool) {
	if e.transactional && e.Kind == Data {
		for _, t := range l.txns() {
			if t.producerID == e.producerID && t.first <= e.Offset && (t.marker < 0 || e.Offset < t.marker) {
				return t, true
			}
		}
	}
	return txn{}, false
}

// Aborted lists the aborted transactions that overlap [from, to), by marker.
func (l *Log) Aborted(from, to int64) (list []Txn) {
	for _, t := range l.txns() {
		if t.kind == Abort && t.marker >= from && t.first < to {
			list = append(list, Txn{t.producerID, t.first, t.marker})
		}
	}
	slices.SortFunc(list, func(a, b Txn) int { return cmp.Compare(a.Marker, b.Marker) })
	return list
}
