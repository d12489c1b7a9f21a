package partition

import (
	"slices"
	"sort"
)

// No leader epoch and no offset, as Kafka's clients expect them.
const (
	noLeaderEpoch int32 = -1
	noOffset      int64 = -1
)

// leaderEpoch is a reign: every record from start to the next reign's start was
// written by one leader.
type leaderEpoch struct {
	epoch int32
	start int64
}

// leaderEpochs says which leader epoch wrote which offsets. Two replicas, or a
// consumer and its partition, find with it the last offset that they have in
// common (KIP-101, KIP-279, KIP-320).
//
// Epochs and starts both strictly grow along the list.
type leaderEpochs struct {
	list []leaderEpoch
}

// latest returns the newest epoch, noLeaderEpoch when there is none.
func (l *leaderEpochs) latest() int32 {
	if n := len(l.list); n > 0 {
		return l.list[n-1].epoch
	}
	return noLeaderEpoch
}

// assign notes that epoch begins at offset start. It reports whether the list
// changed: an epoch that is known, or older than a known one, changes nothing,
// so that it can be called for each batch.
//
// Epochs that began at start or behind it go: either they wrote nothing, or what
// they wrote has been cut off.
func (l *leaderEpochs) assign(epoch int32, start int64) bool {
	if epoch < 0 || start < 0 || epoch <= l.latest() {
		return false
	}
	l.truncateFromEnd(start)
	l.list = append(l.list, leaderEpoch{epoch, start})
	return true
}

// endOffset answers Kafka's OffsetForLeaderEpoch: the largest known epoch that is
// not above the one asked for, and the offset behind its last record.
//
//   - The latest epoch ends at the log end.
//   - An epoch below all known ones is answered with itself and the start of the
//     oldest: what it wrote is gone, a replica goes on from there.
//   - noLeaderEpoch, or an epoch above all known ones, is undefined: -1, -1.
func (l *leaderEpochs) endOffset(epoch int32, logEnd int64) (found int32, end int64) {
	if epoch < 0 || epoch > l.latest() {
		return noLeaderEpoch, noOffset
	}
	above := l.above(epoch)
	switch {
	case above == len(l.list):
		return epoch, logEnd
	case above == 0:
		return epoch, l.list[0].start
	}
	return l.list[above-1].epoch, l.list[above].start
}

// epochFor returns the epoch that wrote the record at offset. It does not know
// where the log ends. ok is false below the first reign.
func (l *leaderEpochs) epochFor(offset int64) (epoch int32, ok bool) {
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].start > offset })
	if i == 0 {
		return noLeaderEpoch, false
	}
	return l.list[i-1].epoch, true
}

// above is the index of the first epoch larger than the one given.
func (l *leaderEpochs) above(epoch int32) int {
	return sort.Search(len(l.list), func(i int) bool { return l.list[i].epoch > epoch })
}

// truncateFromEnd forgets the epochs that begin at end or behind it.
func (l *leaderEpochs) truncateFromEnd(end int64) {
	n := len(l.list)
	for n > 0 && l.list[n-1].start >= end {
		n--
	}
	l.list = l.list[:n]
}

// truncateFromStart forgets what lies below start, the new log start offset. The
// epoch that start falls into stays and begins there.
func (l *leaderEpochs) truncateFromStart(start int64) {
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].start > start })
	if i == 0 {
		return
	}
	l.list[i-1].start = start
	l.list = slices.Delete(l.list, 0, i-1)
}
