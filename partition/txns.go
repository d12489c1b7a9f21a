package partition

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/x/embedlog/log"
)

// marker is the control record that ends a transaction.
type marker struct {
	commit           bool
	coordinatorEpoch int32
}

// parseMarker reads the record of a control batch. ok is false for a control
// record that ends no transaction.
func parseMarker(rec *log.Record) (m marker, ok bool, err error) {
	t, epoch, err := log.ParseControl(rec)
	if err != nil || t != log.ControlCommit && t != log.ControlAbort {
		return marker{}, false, err
	}
	return marker{commit: t == log.ControlCommit, coordinatorEpoch: epoch}, true, nil
}

// txnStep is what a batch does to a transaction.
type txnStep struct {
	kind       txnStepKind
	producerID int64
	first      int64 // first offset of the transaction
	marker     int64 // offset of the marker that ends it
}

type txnStepKind uint8

const (
	txnUnchanged txnStepKind = iota
	txnBegins
	txnCommits
	txnAborts
)

// openTxn is a transaction whose end is not in the log.
type openTxn struct {
	producerID int64
	first      int64
}

// endedTxn is a transaction whose marker is in the log and was not visible when
// last looked at.
type endedTxn struct {
	first, marker int64
}

// abortedTxn is one that readers of committed records leave out: the records of
// the producer from first to the marker.
type abortedTxn struct {
	producerID int64
	first      int64
	marker     int64
	// lastStable is the last stable offset right behind the marker. Every
	// transaction that began below it ended at this marker or before, so a search
	// for those below an offset stops at the first one that has it there or higher.
	lastStable int64
}

// txns are the transactions of a partition.
//
//	offset   0    10     20       30      40        50
//	         |    a---------------A                        a: marker at 30
//	         |           b--------------------B            b: marker at 42
//	                              ^hw=35
//	last stable offset = 20: a is decided and its marker is visible, b's is not
//
// A transaction holds the last stable offset down from its first record until
// its marker is below the high watermark. If it let go when the marker is
// written, a reader could be shown records whose commit is lost with the leader,
// or be told too late that they were aborted.
type txns struct {
	open    []openTxn    // sorted by first
	ended   []endedTxn   // sorted by marker
	aborted []abortedTxn // sorted by marker
	// unstable is the smallest first offset in open and ended; math.MaxInt64 when both are empty.
	unstable int64
}

func newTxns() txns { return txns{unstable: math.MaxInt64} }

// apply takes in one step. Steps come in the order of the log.
func (t *txns) apply(s txnStep) {
	switch s.kind {
	case txnBegins:
		t.open = append(t.open, openTxn{s.producerID, s.first})
		t.unstable = min(t.unstable, s.first)
	case txnCommits, txnAborts:
		i, found := slices.BinarySearchFunc(t.open, s.first, func(o openTxn, first int64) int { return cmp.Compare(o.first, first) })
		if !found {
			return
		}
		t.open = slices.Delete(t.open, i, i+1)
		// It moves from one list to the other: unstable stays as it is.
		t.ended = append(t.ended, endedTxn{s.first, s.marker})
		if s.kind == txnAborts {
			stable := s.marker + 1
			if len(t.open) > 0 {
				stable = t.open[0].first
			}
			t.aborted = append(t.aborted, abortedTxn{s.producerID, s.first, s.marker, stable})
		}
	}
}

// advance lets go of the transactions whose markers lie below the high watermark.
// It reports whether the last stable offset may have moved.
func (t *txns) advance(highWatermark int64) bool {
	n := sort.Search(len(t.ended), func(i int) bool { return t.ended[i].marker >= highWatermark })
	if n == 0 {
		return false
	}
	t.ended = slices.Delete(t.ended, 0, n)
	t.findUnstable()
	return true
}

func (t *txns) findUnstable() {
	t.unstable = math.MaxInt64
	if len(t.open) > 0 {
		t.unstable = t.open[0].first
	}
	for i := range t.ended {
		t.unstable = min(t.unstable, t.ended[i].first)
	}
}

// lastStable is the offset that readers of committed records may read up to, as
// of the last call of advance. A transaction that began below the log start holds
// back no more than what is still there.
func (t *txns) lastStable(logStart, highWatermark int64) int64 {
	return max(min(highWatermark, t.unstable), min(logStart, highWatermark))
}

// firstUndecided is the first offset of the oldest transaction without a marker,
// whether visible or not. Compaction stops there. ok is false when none is open.
func (t *txns) firstUndecided() (offset int64, ok bool) {
	if len(t.open) == 0 {
		return noOffset, false
	}
	return t.open[0].first, true
}

// abortedIn appends to dst the aborted transactions that a reader of the offsets
// [from, to) has to know, in the order of their markers. A reader leaves out the
// records of a producer from the first offset on until it meets the marker.
func (t *txns) abortedIn(dst []abortedTxn, from, to int64) []abortedTxn {
	i := sort.Search(len(t.aborted), func(i int) bool { return t.aborted[i].marker >= from })
	for ; i < len(t.aborted); i++ {
		a := t.aborted[i]
		if a.first < to {
			dst = append(dst, a)
		}
		if a.lastStable >= to {
			break
		}
	}
	return dst
}

// trim forgets the aborted transactions that lie wholly below offset: the log
// start, or where compaction has dropped all that was aborted.
func (t *txns) trim(offset int64) {
	n := sort.Search(len(t.aborted), func(i int) bool { return t.aborted[i].marker >= offset })
	t.aborted = slices.Delete(t.aborted, 0, n)
}
