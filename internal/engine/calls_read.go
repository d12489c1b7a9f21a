package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	codec "github.com/x/embedlog/internal/wire"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Reading a partition that this node has no replica of: a goroutine asks the leader,
// who answers when there is something, or after readWait.
//
//	answer   0, big endian: log start, log end, high watermark, last stable, next (8 each),
//	         leader epoch (4), batches (4); then each batch, with its length before it
//
// The leader leaves out what a reader of that isolation does not see. The batches that
// are returned are parts of the answer.

const (
	serviceRead = "read"
	readWait    = 5 * time.Second
	readHead    = 1 + 5*8 + 2*4
	// maxReadBytes bounds what a peer may ask for at once, but for one larger batch.
	maxReadBytes  = 8 << 20
	defaultRemote = 256 << 10
)

type readCall struct {
	Topic     TopicID
	Partition int32
	Offset    int64
	MaxBytes  int
	Wait      time.Duration
	Isolation partition.Isolation
	Control   bool
}

// serveRead reads for a peer.
func (e *Engine) serveRead(ctx context.Context, _ int32, request []byte) ([]byte, error) {
	var c readCall
	if err := peerCodec.Decode(request, &c); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	p, err := e.partitionAsked(ctx, c.Topic, c.Partition)
	if err == nil {
		err = p.leads()
	}
	if err != nil {
		return nil, err
	}
	limit := min(max(c.MaxBytes, 1), maxReadBytes)
	r, err := p.ReadFrom(c.Offset, &partition.ReaderOptions{Isolation: c.Isolation, Control: c.Control, Reuse: true, ReadAhead: limit})
	if err != nil {
		return nil, err
	}
	answer := make([]byte, readHead, readHead+4<<10)
	count := uint32(0)
	for len(answer)-readHead < limit {
		batch, err := r.TryNext()
		if err == io.EOF && count == 0 && r.Offset() == c.Offset && c.Wait > 0 {
			waited, cancel := context.WithTimeout(ctx, min(c.Wait, 2*readWait))
			batch, err = r.Next(waited)
			cancel()
			c.Wait = 0
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				err = io.EOF
			}
		}
		if err == io.EOF || err != nil && count > 0 {
			break // the next one begins there and says so
		}
		if err != nil {
			return nil, err
		}
		answer = codec.AppendUvarintBytes(answer, batch)
		count++
	}
	if err := p.leads(); err != nil {
		return nil, err // what is behind the last batch may be known better elsewhere
	}
	b := p.bounds()
	answer[0] = answerOK
	for i, n := range [...]int64{b.LogStart, b.LogEnd, b.HighWatermark, b.LastStable, r.Offset()} {
		binary.BigEndian.PutUint64(answer[1+8*i:], uint64(n))
	}
	binary.BigEndian.PutUint32(answer[1+5*8:], uint32(b.LeaderEpoch))
	binary.BigEndian.PutUint32(answer[1+5*8+4:], count)
	return answer, nil
}

// readAnswer is an answer, decoded.
type readAnswer struct {
	bounds  Bounds
	next    int64
	batches []log.Batch // parts of the answer
}

// errMovedHere says that this node leads by now: who reads begins anew, with its own log.
var errMovedHere = fmt.Errorf("this node leads by now: %w", partition.ErrNotLeader)

var errReadAnswer = errors.New("malformed answer to a read")

// decodeRead reads an answer without its first byte. Each batch is one by its header and
// checksum, and they follow each other.
func decodeRead(b []byte, from int64) (a readAnswer, err error) {
	if len(b) < readHead-1 {
		return a, errReadAnswer
	}
	for i, to := range [...]*int64{&a.bounds.LogStart, &a.bounds.LogEnd, &a.bounds.HighWatermark, &a.bounds.LastStable, &a.next} {
		*to = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	a.bounds.LeaderEpoch = int32(binary.BigEndian.Uint32(b[5*8:]))
	count := binary.BigEndian.Uint32(b[5*8+4:])
	b = b[readHead-1:]
	if uint64(count) > uint64(len(b)) {
		return a, errReadAnswer
	}
	at := from
	for range count {
		batch, rest, ok := codec.CutBytes(b)
		if !ok {
			return a, errReadAnswer
		}
		h, err := log.ParseBatchHeader(batch)
		if err != nil {
			return a, fmt.Errorf("%w: %w", errReadAnswer, err)
		}
		if h.LastOffset() < at || h.Size() != len(batch) || !log.VerifyBatchCRC(batch) {
			return a, errReadAnswer
		}
		at = h.LastOffset() + 1
		a.batches, b = append(a.batches, batch), rest
	}
	if len(b) > 0 || a.next < at {
		return a, errReadAnswer
	}
	return a, nil
}

// readThere asks the leader for what comes next.
func (p *Partition) readThere(ctx context.Context, c readCall) (a readAnswer, err error) {
	c.Topic, c.Partition = p.topicID, p.id
	request, err := peerCodec.Append(nil, &c)
	if err != nil {
		return a, err
	}
	r := p.route("read")
	r.again, r.firm = true, true
	err = r.run(ctx, func(context.Context) error {
		now := p.Current()
		if now.repl == nil {
			return now.isElsewhere()
		}
		if err := now.leads(); err != nil {
			return err
		}
		return errMovedHere
	}, func(ctx context.Context, node int32) error {
		payload, err := p.engine.callPeer(ctx, node, serviceRead, request)
		if err == nil {
			a, err = decodeRead(payload, c.Offset)
		}
		return err
	})
	if err == nil {
		p.heardOf(a.bounds.LeaderEpoch)
	}
	return a, err
}

// Reader reads a partition's batches forward, from this node's replica or from the
// leader. One goroutine at a time; Close may be called by another.
type Reader struct {
	here  *partition.Reader
	there *remoteReader
}

// OpenReader returns a reader whose first batch is the one that holds offset. Where this
// node has no replica, or one that is not there yet, it reads from the leader; then ready
// is called, by any goroutine and with no lock held, when TryNext that said io.EOF may have
// something to say.
func (p *Partition) OpenReader(offset int64, o *partition.ReaderOptions, ready func()) (*Reader, error) {
	if p = p.Current(); p.Here() && (p.leads() == nil || offset <= p.LogEnd()) {
		r, err := p.ReadFrom(offset, o)
		if err != nil {
			return nil, err
		}
		return &Reader{here: r}, nil
	}
	r := &remoteReader{p: p, next: offset, ready: ready, isolation: partition.ReadUncommitted, max: defaultRemote}
	if o != nil {
		r.isolation, r.control = o.Isolation, o.Control
		if o.ReadAhead > 0 {
			r.max = o.ReadAhead
		}
	}
	r.ctx, r.cancel = context.WithCancel(p.engine.life)
	return &Reader{there: r}, nil
}

// Remote says that the leader is read, and ready is called.
func (r *Reader) Remote() bool { return r.there != nil }

// Waits says of a remote reader that it has nothing, and ready will be called.
func (r *Reader) Waits() bool {
	t := r.there
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asking && len(t.batches) == 0 && t.err == nil
}

// Offset is where the reader stands: the offset that the next batch starts at or holds.
func (r *Reader) Offset() int64 {
	if r.here != nil {
		return r.here.Offset()
	}
	r.there.mu.Lock()
	defer r.there.mu.Unlock()
	return r.there.next
}

// TryNext returns the next batch, or io.EOF when none is here yet.
func (r *Reader) TryNext() (log.Batch, error) {
	if r.here != nil {
		return r.here.TryNext()
	}
	return r.there.tryNext()
}

// Skip goes behind damage that a reader of this node's replica reported: see
// partition.Reader. For what the leader reported there is View.Behind.
func (r *Reader) Skip() (int64, error) {
	if r.here != nil {
		return r.here.Skip()
	}
	return -1, errors.New("skip at a leader's log")
}

// Close ends what the reader does in the background, without waiting for it.
func (r *Reader) Close() {
	if r != nil && r.there != nil {
		r.there.cancel()
	}
}

// remoteReader reads from the leader. While it has nothing a goroutine of its own asks.
type remoteReader struct {
	p         *Partition
	isolation partition.Isolation
	control   bool
	max       int
	ready     func()
	ctx       context.Context
	cancel    context.CancelFunc

	mu      sync.Mutex
	next    int64 // behind what tryNext has returned
	behind  int64 // behind what is in batches, when there are any
	batches []log.Batch
	err     error
	asking  bool
}

func (r *remoteReader) tryNext() (log.Batch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.batches) > 0 {
		b := r.batches[0]
		r.batches[0] = nil
		if r.batches = r.batches[1:]; len(r.batches) == 0 {
			r.next = r.behind
			r.askLocked() // while this one is used
		} else if h, err := b.Header(); err == nil {
			r.next = h.LastOffset() + 1
		}
		return b, nil
	}
	if err := r.err; err != nil {
		r.err = nil
		return nil, err
	}
	if err := r.p.engine.closedError(); err != nil {
		return nil, err
	}
	if r.p.gone.Load() {
		return nil, r.p.failed("read", fmt.Errorf("%w: %w", r.p.deleted(), log.ErrClosed))
	}
	r.askLocked()
	return nil, io.EOF
}

func (r *remoteReader) askLocked() {
	if r.asking || r.ctx.Err() != nil || !r.p.engine.calling.begin() {
		return
	}
	r.asking = true
	go r.ask(r.next)
}

// ask gets what comes next. That nobody leads for a while is no error of a reader's.
func (r *remoteReader) ask(offset int64) {
	defer r.p.engine.calling.done()
	var a readAnswer
	var err error
	for r.ctx.Err() == nil && !r.p.gone.Load() {
		a, err = r.p.readThere(r.ctx, readCall{Offset: offset, MaxBytes: r.max, Wait: readWait, Isolation: r.isolation, Control: r.control})
		if err == nil && a.next == offset && len(a.batches) == 0 || errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, errMovedHere) {
			continue
		}
		break
	}
	r.mu.Lock()
	r.asking = false
	switch {
	case r.ctx.Err() != nil || r.p.gone.Load():
	case err != nil:
		r.err = r.p.failed("read", err)
	default:
		r.batches, r.behind = a.batches, a.next
		if len(a.batches) == 0 {
			r.next = a.next
		}
	}
	r.mu.Unlock()
	r.ready()
}

// calling counts the goroutines that ask peers, so that Close waits for them.
type calling struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

func (c *calling) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running.Add(1)
	return true
}

func (c *calling) done() { c.running.Done() }

// close waits for those that are under way, whose contexts have ended.
func (c *calling) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
}
