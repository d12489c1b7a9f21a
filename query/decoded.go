package query

import (
	"reflect"
	"sync"

	"github.com/x/embedlog"
)

// What several graphs read of one topic, with the same codecs, is decoded once: the first task that comes to a batch decodes it, and
// leaves the rows for the others. That is for those that go along together. One that is far behind decodes by itself.

// decodedKept is how many batches of a partition wait for others at most.
const decodedKept = 8

// decodedKey says which sources decode alike.
type decodedKey struct {
	db         *embedlog.DB
	topic      string // its id
	key, value any    // codecs
}

var decodings = struct {
	sync.Mutex
	m map[decodedKey]any // *decoding
}{m: map[decodedKey]any{}}

// decoding is a topic as it is decoded with two codecs, in all graphs of the process.
type decoding[K, V any] struct {
	mu      sync.Mutex
	tasks   int           // that read it; under the lock of decodings
	readers map[int32]int // of a partition
	batches map[int32][]*decodedBatch[K, V]
}

// decodedBatch is a batch whose rows are there when ready is closed.
type decodedBatch[K, V any] struct {
	first, last int64
	epoch       int32
	left        int // readers that have not had it
	ready       chan struct{}
	rows        []delta[K, V]
	errs        []error // of the rows; nil where all could be decoded
	whole       bool    // or decoding it has failed: then each one sees for itself
}

// joinDecoding has a task of a source take part, for the partitions that it reads. It returns nil where codecs cannot be compared.
func joinDecoding[K, V any](s *source, partitions []int32) (d *decoding[K, V], leave func()) {
	k := decodedKey{s.topic.DB(), s.topic.ID().String(), s.key, s.value}
	for _, c := range []any{s.key, s.value} {
		if c == nil || !reflect.ValueOf(c).Comparable() {
			return nil, func() {}
		}
	}
	decodings.Lock()
	defer decodings.Unlock()
	d, ok := decodings.m[k].(*decoding[K, V])
	if !ok {
		d = &decoding[K, V]{readers: map[int32]int{}, batches: map[int32][]*decodedBatch[K, V]{}}
		decodings.m[k] = d
	}
	d.tasks++
	d.count(partitions, 1)
	return d, func() {
		decodings.Lock()
		defer decodings.Unlock()
		d.count(partitions, -1)
		if d.tasks--; d.tasks == 0 {
			delete(decodings.m, k)
		}
	}
}

func (d *decoding[K, V]) count(partitions []int32, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range partitions {
		if d.readers[p] += n; d.readers[p] < 2 {
			delete(d.batches, p) // nobody else wants them
		}
	}
}

// find is the batch as somebody has decoded it, or decodes it now. mine says that the caller has to: nobody has. nil: there is nobody to share with.
func (d *decoding[K, V]) find(b *embedlog.Batch) (e *decodedBatch[K, V], mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	readers := d.readers[b.Partition]
	if readers < 2 {
		return nil, false
	}
	list := d.batches[b.Partition]
	for i, e := range list {
		if e.first == b.FirstOffset && e.last == b.LastOffset && e.epoch == b.LeaderEpoch {
			if e.left--; e.left == 0 {
				d.batches[b.Partition] = append(list[:i:i], list[i+1:]...)
			}
			return e, false
		}
	}
	e = &decodedBatch[K, V]{first: b.FirstOffset, last: b.LastOffset, epoch: b.LeaderEpoch, left: readers - 1, ready: make(chan struct{})}
	if len(list) == decodedKept {
		list = list[1:len(list):len(list)]
	}
	d.batches[b.Partition] = append(list, e)
	return e, true
}

// fill decodes the batch's records with f.
func (e *decodedBatch[K, V]) fill(b *embedlog.Batch, f func(*delta[K, V], *embedlog.Record) error) {
	defer close(e.ready) // also when f panics
	for rec, err := range records(b) {
		if err != nil {
			return
		}
		n := len(e.rows)
		e.rows = append(e.rows, delta[K, V]{})
		err = f(&e.rows[n], rec)
		if err != nil && e.errs == nil {
			e.errs = make([]error, n)
		}
		if e.errs != nil {
			e.errs = append(e.errs, err)
		}
	}
	e.whole = true
}
