package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/x/embedlog/log"
)

// Isolation says which records a reader sees.
type Isolation uint8

const (
	// ReadUncommitted sees every record below the high watermark.
	ReadUncommitted Isolation = iota
	// ReadCommitted sees records below the last stable offset, and of transactions
	// only the committed ones.
	ReadCommitted
)

// AbortedTxn is a transaction whose records a reader of committed records leaves
// out: those of the producer from FirstOffset on, until it meets the marker.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// FetchRequest asks for record batches as they are stored.
type FetchRequest struct {
	// Offset is where to begin: the batch that holds it comes first, whole.
	Offset int64
	// MaxBytes bounds the batches together, but for the first one, which always
	// comes. Zero means 1 MiB.
	MaxBytes int
	// MinBytes is how much is waited for, until MaxWait is over or the context ends.
	// Zero answers at once, with nothing if there is nothing.
	MinBytes int
	MaxWait  time.Duration
	// Isolation bounds what is returned.
	Isolation Isolation
	// Place, when it is not nil, is where the caller's last fetch from this partition
	// ended: one that goes on there does not look for the place again. The fetch moves it.
	Place *FetchPlace
	// Memory returns so many bytes to read into, with anything in them: the batches are
	// parts of them, valid as long as the caller leaves them alone. Nil allocates.
	Memory func(n int) []byte
	// Batches is memory for the list of batches.
	Batches [][]byte
}

// FetchPlace is a place in a partition. Its zero value is none, and is ready to be
// used; it holds no file open. One goroutine at a time.
type FetchPlace struct {
	p *Partition
	r *log.Reader // stands where the last fetch ended
}

// take returns the reader when it stands at offset, else nil. What fails does not
// put it back: its place is not to be trusted then.
func (f *FetchPlace) take(p *Partition, offset int64) *log.Reader {
	r := f.r
	f.r = nil
	if f.p != p || r == nil || r.Offset() != offset {
		return nil
	}
	return r
}

// put keeps the reader.
func (f *FetchPlace) put(p *Partition, r *log.Reader) {
	r.Forget()
	f.p, f.r = p, r
}

// FetchResult is what Fetch found.
type FetchResult struct {
	// Batches are whole record batches in the order of their offsets. They stay
	// valid as long as they are held.
	Batches [][]byte
	// Next is the offset behind the last batch, where the next fetch begins.
	Next int64
	// Aborted are the transactions to leave out of Batches; nil with ReadUncommitted.
	Aborted                             []AbortedTxn
	HighWatermark, LastStable, LogStart int64
}

const defaultFetchBytes = 1 << 20

// frameRoom is for what batches have around them in the log: without it the last one
// that fits would be cut.
const frameRoom = 2 << 10

// Fetch returns batches from an offset on. It fails with an
// *OffsetOutOfRangeError outside of the log, and with a *log.CorruptionError at
// damage; what comes before that is returned first.
//
// That the wait ended with nothing new is no error; that ctx did is.
func (p *Partition) Fetch(ctx context.Context, q FetchRequest) (FetchResult, error) {
	if q.MaxBytes <= 0 {
		q.MaxBytes = defaultFetchBytes
	}
	var deadline context.Context
	var cancel context.CancelFunc
	for {
		res, size, err := p.fetch(&q)
		end := res.HighWatermark
		if q.Isolation == ReadCommitted {
			end = res.LastStable
		}
		// With MaxBytes of them nothing is gained by waiting.
		if err != nil || size >= q.MinBytes || q.MaxWait <= 0 || size > 0 && res.Next < end {
			if cancel != nil {
				cancel()
			}
			return res, err
		}
		if deadline == nil {
			deadline, cancel = context.WithTimeout(ctx, q.MaxWait)
		}
		// For more than was looked at: what came since counts.
		if err := p.waitFor(deadline, end+1, q.Isolation); err != nil {
			cancel()
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				return res, nil
			}
			return res, err
		}
	}
}

// outOfRange is the answer to an offset that the log does not have.
func (p *Partition) outOfRange(offset int64) error {
	return fmt.Errorf("fetch: %w", &OffsetOutOfRangeError{Offset: offset, LogStart: p.LogStart(), LogEnd: p.LogEnd()})
}

func (p *Partition) fetch(q *FetchRequest) (res FetchResult, size int, err error) {
	if p.closed.Load() {
		return res, 0, p.closedError()
	}
	stable := p.LastStable()
	hw := p.highWatermark.Load() // behind stable, which is never above it
	res = FetchResult{Batches: q.Batches[:0], Next: q.Offset, HighWatermark: hw, LastStable: stable, LogStart: p.LogStart()}
	if q.Offset < res.LogStart || q.Offset > p.LogEnd() {
		return res, 0, p.outOfRange(q.Offset)
	}
	end := hw
	if q.Isolation == ReadCommitted {
		end = stable
	}
	if q.Offset >= end {
		return res, 0, nil
	}
	var r *log.Reader
	if q.Place != nil {
		r = q.Place.take(p, q.Offset)
	}
	if r != nil {
		r.Into(q.Memory)
	} else if r, err = p.log.ReadFromInto(q.Offset, int64(q.MaxBytes+frameRoom), q.Memory); err != nil {
		return res, 0, p.readError(err, q.Offset)
	}
	for res.Next < end {
		r.Bound(int64(q.MaxBytes - size + frameRoom))
		var f *log.Frame
		if size > 0 {
			f, err = r.NextWithin(q.MaxBytes - size)
		} else {
			f, err = r.Next()
		}
		if err == io.EOF || err == log.ErrBeyond {
			break
		}
		if err != nil {
			if len(res.Batches) > 0 {
				break // the next fetch begins there and says so
			}
			return res, 0, p.readError(err, res.Next)
		}
		if f.Kind != log.KindData {
			continue
		}
		if f.Offset >= end {
			break
		}
		res.Batches = append(res.Batches, f.Payload)
		size += len(f.Payload)
		res.Next = f.NextOffset
	}
	if q.Isolation == ReadCommitted && len(res.Batches) > 0 {
		for _, a := range p.abortedIn(q.Offset, res.Next) {
			res.Aborted = append(res.Aborted, AbortedTxn{a.producerID, a.first})
		}
		if start := p.LogStart(); start > q.Offset {
			// The records were deleted while they were read, and with them what is known of
			// their transactions.
			return FetchResult{}, 0, p.outOfRange(q.Offset)
		}
	}
	if q.Place != nil && r.Offset() == res.Next {
		q.Place.put(p, r)
	}
	return res, size, nil
}

func (p *Partition) readError(err error, offset int64) error {
	if errors.Is(err, log.ErrOffsetGone) || errors.Is(err, log.ErrOffsetAhead) {
		return p.outOfRange(offset)
	}
	if d, ok := p.replicator.(DamageWatcher); ok && errors.Is(err, log.ErrCorrupt) {
		d.ReadFailed(err)
	}
	return fmt.Errorf("fetch: %w", err)
}

func (p *Partition) abortedIn(from, to int64) []abortedTxn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.txns.abortedIn(nil, from, to)
}

// Reader walks a partition's batches forward and waits for more at the end. One
// goroutine at a time.
type Reader struct {
	p         *Partition
	isolation Isolation
	r         *log.Reader
	next      int64 // the first offset that was not returned yet
	bound     int64 // below it nothing need be asked
	// aborted are the transactions that are open for the reader: producer id to the
	// offset of the marker that ends them. The marker itself may be gone by the time
	// the reader gets there: compaction drops those that it has left nothing of.
	aborted map[int64]int64
	known   int64 // aborted transactions are known below this offset
	list    []abortedTxn
	control bool
}

// ReaderOptions say how to read. Nil is everything below the high watermark.
type ReaderOptions struct {
	Isolation Isolation
	// Reuse lets the reader read into the same memory again: a batch is then valid
	// until the next call only.
	Reuse bool
	// Control returns control batches too.
	Control bool
	// ReadAhead bounds what is read from a file at once, for who has many readers.
	// Zero means 256 KiB; a batch that is larger is read whole.
	ReadAhead int
}

// ReadFrom returns a reader whose first batch is the one that holds offset. Behind
// the high watermark it waits: after a restart a replica learns only by and by how
// much of its log is committed.
func (p *Partition) ReadFrom(offset int64, o *ReaderOptions) (*Reader, error) {
	if p.closed.Load() {
		return nil, p.closedError()
	}
	r, err := p.log.ReadFrom(offset)
	if err != nil {
		return nil, p.readError(err, offset)
	}
	out := &Reader{p: p, r: r, next: offset, known: offset}
	if o != nil {
		out.isolation, out.control = o.Isolation, o.Control
		if o.Reuse {
			r.Reuse()
		}
		if o.ReadAhead > 0 {
			r.Bound(int64(o.ReadAhead))
		}
	}
	return out, nil
}

// Offset is where the reader stands: the offset that the next batch starts at or holds.
func (r *Reader) Offset() int64 { return r.next }

// Next returns the next batch, waiting for one as long as ctx allows.
func (r *Reader) Next(ctx context.Context) (log.Batch, error) {
	for {
		b, err := r.TryNext()
		if err != io.EOF {
			return b, err
		}
		if err := r.p.waitFor(ctx, r.next+1, r.isolation); err != nil {
			return nil, err
		}
	}
}

// TryNext returns the next batch, or io.EOF when none is readable yet. It fails
// with an *OffsetOutOfRangeError when what comes next was deleted.
func (r *Reader) TryNext() (log.Batch, error) {
	for {
		if r.p.closed.Load() {
			return nil, r.p.closedError()
		}
		if r.next >= r.bound {
			if r.bound = r.p.bound(r.isolation); r.next >= r.bound {
				return nil, io.EOF
			}
		}
		f, err := r.r.Next()
		if err == io.EOF {
			return nil, io.EOF
		}
		if err != nil {
			var bad *log.CorruptionError
			if errors.As(err, &bad) && bad.EndOffset >= 0 && bad.EndOffset <= r.next {
				// The damage lies in front of what is asked for: the log came upon it as it looked
				// for the place.
				if _, err := r.r.Skip(); err == nil {
					continue
				}
			}
			return nil, r.p.readError(err, r.next)
		}
		if f.Kind != log.KindData || f.NextOffset <= r.next {
			continue
		}
		skip := false
		if r.isolation == ReadCommitted {
			if skip, err = r.skips(f); err != nil {
				return nil, err
			}
		}
		// Looked at last: what was known of the transactions of deleted records is gone.
		if r.p.LogStart() > r.next {
			return nil, r.p.outOfRange(r.next)
		}
		r.next = max(r.next, f.NextOffset)
		if skip {
			continue
		}
		if !r.control && batchAttributes(f.Payload).Has(log.Control) {
			continue
		}
		return log.Batch(f.Payload), nil
	}
}

// Skip goes behind the damage that Next reported with a *log.CorruptionError. It
// returns the offset there.
func (r *Reader) Skip() (int64, error) {
	offset, err := r.r.Skip()
	if err == nil {
		r.next = max(r.next, offset)
	}
	return offset, err
}

// skips says whether a reader of committed records leaves the batch out.
func (r *Reader) skips(f *log.Frame) (bool, error) {
	if f.NextOffset > r.known {
		// Everything below the bound is decided, so one look serves up to there.
		r.list = r.p.abortedIn(r.known, r.bound)
		r.known = r.bound
		if r.aborted == nil && len(r.list) > 0 {
			r.aborted = make(map[int64]int64)
		}
	}
	if len(r.list) == 0 && len(r.aborted) == 0 {
		return false, nil
	}
	h, err := log.ParseBatchHeader(f.Payload)
	if err != nil {
		return false, err
	}
	for i := 0; i < len(r.list); {
		if r.list[i].first <= h.LastOffset() {
			r.aborted[r.list[i].producerID] = r.list[i].marker
			r.list = append(r.list[:i], r.list[i+1:]...)
			continue
		}
		i++
	}
	if h.ProducerID < 0 || !h.Attributes.Has(log.Transactional) {
		return false, nil
	}
	if h.Attributes.Has(log.Control) {
		delete(r.aborted, h.ProducerID)
		return false, nil
	}
	marker, ok := r.aborted[h.ProducerID]
	return ok && h.LastOffset() < marker, nil
}

func batchAttributes(batch []byte) log.Attributes {
	const at = 21 // of the attributes in a record batch
	return log.Attributes(batch[at])<<8 | log.Attributes(batch[at+1])
}
