package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/model"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// run drives a partition and the naive log with the same operations.
type run struct {
	t       testing.TB
	seed    uint64
	rnd     *rand.Rand
	fs      *vfs.Mem
	cfg     Config
	p       *Partition
	m       *model.Log
	epoch   int32
	clients []*runClient
	ops     []string // what was done, for a failure's report
	// What fetches that go on where they were use.
	places   [2]FetchPlace
	placedAt [2]int64
	lent     [][]byte
	batches  [][]byte
}

// runClient is a producer that mostly does the right thing.
type runClient struct {
	id          int64
	epoch       int16
	next        int32
	lastSeq     int32 // of its last batch, for retries
	lastCount   int
	txns, v2    bool
	coordinator int32
}

const runNow = 7_000 // the wall clock of a run, milliseconds

func (r *run) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("seed %d: %s\nlast operations: %q", r.seed, fmt.Sprintf(format, args...), r.ops[max(0, len(r.ops)-12):])
}

func (r *run) did(format string, args ...any) { r.ops = append(r.ops, fmt.Sprintf(format, args...)) }

func (r *run) open() {
	p, err := Open("", &Options{FS: r.fs, Config: r.cfg, Now: func() time.Time { return time.UnixMilli(runNow) }})
	if err != nil {
		r.fatalf("open: %v", err)
	}
	r.p = p
}

// Whatever is appended, repeated, refused, ended, deleted and restarted, readers,
// fetches and lookups of the partition answer as the naive log does.
func TestPartitionAgainstModel(t *testing.T) {
	base := rand.Uint64() >> 1
	var outcomes [7]int
	for i := range testcount.N(200) {
		runModel(t, base+uint64(i), 40, &outcomes)
	}
	if testcount.N(200) == 200 {
		for o, n := range outcomes {
			if n < 10 {
				t.Errorf("outcome %d came up %d times only: %v", o, n, outcomes)
			}
		}
	}
}

func runModel(t testing.TB, seed uint64, ops int, outcomes *[7]int) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	r := &run{t: t, seed: seed, rnd: rnd, fs: vfs.NewMem(), m: model.New(0)}
	r.cfg = Config{Log: log.Config{Level: log.Level(rnd.IntN(3)), SegmentBytes: 1<<10 + rnd.Int64N(4<<10), IndexIntervalBytes: 1 + rnd.IntN(1000), SegmentAge: -1}}
	if rnd.IntN(4) == 0 {
		r.cfg.Compression = compress.Snappy
	}
	for i := range 4 {
		r.clients = append(r.clients, &runClient{id: int64(i), txns: i > 0, v2: i == 3})
	}
	r.open()
	defer func() { r.p.Close() }()
	for range ops {
		switch n := rnd.IntN(20); {
		case n < 12:
			r.append(outcomes)
		case n < 15:
			r.endTxn(outcomes)
		case n == 15:
			to := rnd.Int64N(r.m.End() + 1)
			r.did("delete to %d", to)
			got, err := r.p.DeleteRecords(context.Background(), to)
			r.m.DeleteTo(to)
			if err != nil || got != r.m.Start() {
				r.fatalf("delete to %d: %d, %v; want %d", to, got, err, r.m.Start())
			}
		case n == 16:
			r.did("close")
			if err := r.p.Close(); err != nil {
				r.fatalf("close: %v", err)
			}
			r.fs = r.fs.AfterKill()
			r.open()
		case n == 17:
			r.did("kill")
			r.fs = r.fs.AfterKill()
			r.p.Close() // of the one that was killed: nothing it does arrives
			r.open()
		case n == 18:
			r.epoch += 1 + rnd.Int32N(3)
			r.did("leader epoch %d", r.epoch)
			if err := r.p.SetLeaderEpoch(r.epoch); err != nil {
				r.fatalf("leader epoch: %v", err)
			}
		case n == 19:
			level := log.Level(rnd.IntN(3))
			r.did("level %v", level)
			if err := r.p.SetLevel(level); err != nil {
				r.fatalf("level: %v", err)
			}
			r.cfg.Log.Level = level
		}
		if rnd.IntN(3) == 0 {
			r.compare()
		}
	}
	r.compare()
}

// append sends one batch to both and compares what they say.
func (r *run) append(outcomes *[7]int) {
	rnd := r.rnd
	b := model.Batch{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LeaderEpoch: r.p.LeaderEpoch()}
	for range 1 + rnd.IntN(4) {
		rec := model.Record{Timestamp: rnd.Int64N(10_000), Value: make([]byte, rnd.IntN(200))}
		for i := range rec.Value {
			rec.Value[i] = byte('a' + rnd.IntN(3))
		}
		if rnd.IntN(3) > 0 {
			rec.Key = []byte{byte(rnd.IntN(5))}
		}
		if rnd.IntN(4) == 0 {
			rec.Headers = []model.Header{{Key: "h", Value: rec.Key}}
		}
		b.Records = append(b.Records, rec)
	}
	o := &AppendOptions{}
	var c *runClient
	if rnd.IntN(4) > 0 {
		c = r.clients[rnd.IntN(len(r.clients))]
		b.ProducerID, b.ProducerEpoch, b.BaseSequence = c.id, c.epoch, c.next
		b.Transactional, b.TxnV2 = c.txns, c.v2
		switch rnd.IntN(10) {
		case 0: // a retry
			if c.lastCount > 0 {
				b.BaseSequence = c.lastSeq
				b.Records = slices.Repeat(b.Records[:1], c.lastCount)
			}
		case 1:
			b.BaseSequence += 1 + rnd.Int32N(5)
		case 2:
			b.ProducerEpoch += int16(rnd.IntN(3)) - 1
			b.ProducerEpoch = max(b.ProducerEpoch, 0)
			b.BaseSequence = 0
		case 3:
			b.Transactional = !b.Transactional
		}
		o.Producer = &Producer{ID: b.ProducerID, Epoch: b.ProducerEpoch, Sequence: b.BaseSequence, Transactional: b.Transactional, TxnV2: b.TxnV2}
	}
	expect := r.m.End()
	if rnd.IntN(6) == 0 {
		o.Expect = true
		expect += rnd.Int64N(2)
		o.ExpectedOffset = expect
	}
	base, last, want := r.m.AppendAt(expect, b)
	recs := make([]log.Record, len(b.Records))
	for i, x := range b.Records {
		recs[i] = log.Record{Timestamp: x.Timestamp, Key: x.Key, Value: x.Value}
		for _, h := range x.Headers {
			recs[i].Headers = append(recs[i].Headers, log.Header(h))
		}
	}
	var res Result
	var err error
	if rnd.IntN(3) > 0 {
		res, err = r.p.Append(context.Background(), recs, o)
	} else {
		h := log.BatchHeader{ProducerID: b.ProducerID, ProducerEpoch: b.ProducerEpoch, BaseSequence: b.BaseSequence}
		if b.Transactional {
			h.Attributes |= log.Transactional
		}
		enc, eerr := log.AppendBatch(nil, &h, recs)
		if eerr != nil {
			r.fatalf("encode: %v", eerr)
		}
		res, err = r.p.AppendBatch(context.Background(), enc, o)
	}
	got := outcomeOf(res, err)
	r.did("append %d of producer %d/%d seq %d txn %t at %d: outcome %d", len(recs), b.ProducerID, b.ProducerEpoch, b.BaseSequence, b.Transactional, base, want)
	if got != want {
		r.fatalf("append %+v: outcome %d, %v; want %d", o.Producer, got, err, want)
	}
	outcomes[want]++
	if err == nil && (res.BaseOffset != base || res.LastOffset != last) {
		r.fatalf("append got offsets %d to %d, want %d to %d", res.BaseOffset, res.LastOffset, base, last)
	}
	if c != nil && want == model.Appended {
		c.epoch, c.lastSeq, c.lastCount = b.ProducerEpoch, b.BaseSequence, len(recs)
		c.next = b.BaseSequence + int32(len(recs))
	}
}

func outcomeOf(res Result, err error) model.Outcome {
	var fenced *FencedError
	switch {
	case err == nil && res.Duplicate:
		return model.Duplicate
	case err == nil:
		return model.Appended
	case errors.As(err, &fenced) && fenced.Coordinator:
		return model.FencedCoordinator
	case errors.As(err, &fenced):
		return model.Fenced
	case errors.Is(err, ErrOutOfOrderSequence):
		return model.OutOfOrder
	case errors.Is(err, ErrInvalidTxnState):
		return model.InvalidTxn
	case errors.Is(err, ErrUnexpectedOffset):
		return model.Unexpected
	}
	return 255
}

func (r *run) endTxn(outcomes *[7]int) {
	c := r.clients[1+r.rnd.IntN(len(r.clients)-1)]
	m := model.Marker{
		Commit: r.rnd.IntN(2) == 0, ProducerID: c.id, ProducerEpoch: c.epoch, CoordinatorEpoch: c.coordinator,
		TxnV2: c.v2, LeaderEpoch: r.p.LeaderEpoch(), Timestamp: runNow,
	}
	if c.v2 && r.rnd.IntN(4) > 0 {
		m.ProducerEpoch++
	}
	switch r.rnd.IntN(8) {
	case 0:
		m.ProducerEpoch = max(m.ProducerEpoch-1, 0)
	case 1:
		m.CoordinatorEpoch += int32(r.rnd.IntN(3)) - 1
	}
	base, want := r.m.EndTxn(m)
	res, err := r.p.EndTransaction(context.Background(), m.ProducerID, m.ProducerEpoch, m.Commit, m.CoordinatorEpoch, m.TxnV2)
	r.did("end %+v at %d: outcome %d", m, base, want)
	if got := outcomeOf(res, err); got != want || err == nil && res.BaseOffset != base {
		r.fatalf("marker %+v: outcome %d at %d, %v; want %d at %d", m, got, res.BaseOffset, err, want, base)
	}
	outcomes[want]++
	if want == model.Appended {
		c.coordinator = max(c.coordinator, m.CoordinatorEpoch)
		if m.ProducerEpoch > c.epoch {
			c.epoch, c.next, c.lastCount = m.ProducerEpoch, 0, 0
		}
	}
}

// records decodes batches, from an offset on.
func (r *run) records(batch []byte, from int64) (list []model.Record) {
	h, err := log.ParseBatchHeader(batch)
	if err != nil || !log.VerifyBatchCRC(batch) {
		r.fatalf("batch: %v", err)
	}
	for rec, err := range log.Batch(batch).Records(0) {
		if err != nil {
			r.fatalf("records: %v", err)
		}
		x := model.Record{Offset: rec.Offset, Timestamp: rec.Timestamp, Key: rec.Key, Value: rec.Value}
		if h.Attributes.Has(log.Control) {
			mark, _, err := parseMarker(&rec)
			if err != nil {
				r.fatalf("marker: %v", err)
			}
			x.Key, x.Value, x.Kind = nil, nil, model.Abort
			if mark.commit {
				x.Kind = model.Commit
			}
		}
		for _, hd := range rec.Headers {
			x.Headers = append(x.Headers, model.Header(hd))
		}
		if x.Offset >= from {
			list = append(list, x)
		}
	}
	return list
}

func (r *run) same(what string, got, want []model.Record) {
	r.t.Helper()
	if !slices.EqualFunc(got, want, model.Record.Same) {
		r.fatalf("%s: got %v\nwant %v", what, got, want)
	}
}

// compare asks both everything that readers can ask.
func (r *run) compare() {
	start, end := r.m.Start(), r.m.End()
	stable := r.m.LastStable(end)
	if r.p.LogStart() != start || r.p.HighWatermark() != end || r.p.LogEnd() != end || r.p.LastStable() != stable {
		r.fatalf("log start %d, last stable %d, high watermark %d, log end %d; want %d, %d, %d",
			r.p.LogStart(), r.p.LastStable(), r.p.HighWatermark(), r.p.LogEnd(), start, stable, end)
	}
	from := start + r.rnd.Int64N(end-start+1)
	r.same("read uncommitted", r.read(from, &ReaderOptions{Control: true}), r.m.Read(from, end))
	r.same("read committed", r.read(from, &ReaderOptions{Isolation: ReadCommitted, Reuse: true}), r.m.Committed(from, end))
	r.fetchAll(from, ReadUncommitted, end)
	r.fetchAll(from, ReadCommitted, stable)
	for _, bad := range []int64{start - 1, end + 1} {
		if _, err := r.p.Fetch(context.Background(), FetchRequest{Offset: bad}); !errors.Is(err, ErrOffsetOutOfRange) {
			r.fatalf("fetch at %d of %d to %d: %v", bad, start, end, err)
		}
		if _, err := r.p.ReadFrom(bad, nil); !errors.Is(err, ErrOffsetOutOfRange) {
			r.fatalf("read from %d of %d to %d: %v", bad, start, end, err)
		}
	}
	ms := r.rnd.Int64N(10_500)
	found, ok, err := r.p.OffsetForTime(ms)
	var want *model.Record
	for _, rec := range r.m.Read(start, end) {
		if rec.Kind == model.Data && rec.Timestamp >= ms {
			want = &rec
			break
		}
	}
	if err != nil || ok != (want != nil) || ok && (found.Offset != want.Offset || found.Timestamp != want.Timestamp) {
		r.fatalf("offset for time %d: %+v %t %v, want %v", ms, found, ok, err, want)
	}
	for e := int32(-1); e <= r.epoch+1; e++ {
		gotEpoch, gotEnd := r.p.EpochEnd(e)
		wantEpoch, wantEnd := r.m.EndOfEpoch(e)
		if gotEpoch != wantEpoch || gotEnd != wantEnd {
			r.fatalf("end of epoch %d: %d at %d, want %d at %d", e, gotEpoch, gotEnd, wantEpoch, wantEnd)
		}
	}
	for o := start; o < end; o += 1 + r.rnd.Int64N(20) {
		if e, ok := r.p.EpochOf(o); !ok || e != r.m.EpochAt(o) {
			r.fatalf("epoch of offset %d: %d %t, want %d", o, e, ok, r.m.EpochAt(o))
		}
	}
}

func (r *run) read(from int64, o *ReaderOptions) (list []model.Record) {
	rd, err := r.p.ReadFrom(from, o)
	if err != nil {
		r.fatalf("read from %d: %v", from, err)
	}
	for {
		b, err := rd.TryNext()
		if err == io.EOF {
			return list
		}
		if err != nil {
			r.fatalf("read: %v", err)
		}
		list = append(list, r.records(slices.Clone([]byte(b)), from)...)
	}
}

// lend is memory for a fetch, and takeBack spoils what was lent: nobody may look at
// it any more.
func (r *run) lend(n int) []byte {
	b := bytes.Repeat([]byte{0xaa}, n)
	r.lent = append(r.lent, b)
	return b
}

func (r *run) takeBack() {
	for _, b := range r.lent {
		for i := range b {
			b[i] = 0x55
		}
	}
	r.lent = nil
}

// fetchAll walks the log as a client does, leaving out itself what was aborted. Half
// of the time it goes on where an earlier walk ended, whatever became of the log since.
func (r *run) fetchAll(from int64, i Isolation, end int64) {
	placed := r.rnd.IntN(2) == 0
	if at := r.placedAt[i]; placed && at >= from && at <= end && r.rnd.IntN(2) == 0 {
		from = at
	}
	defer func() {
		if placed {
			r.placedAt[i] = end
		}
	}()
	var list []model.Record
	next := from
	for next < end {
		q := FetchRequest{Offset: next, MaxBytes: 1 + r.rnd.IntN(3000), Isolation: i}
		if placed {
			q.Place, q.Memory, q.Batches = &r.places[i], r.lend, r.batches
		}
		res, err := r.p.Fetch(context.Background(), q)
		if err != nil || len(res.Batches) == 0 || res.Next <= next || res.LastStable > res.HighWatermark {
			r.fatalf("fetch %+v: %+v, %v", q, res, err)
		}
		size := 0
		for _, b := range res.Batches {
			size += len(b)
		}
		if size > q.MaxBytes && len(res.Batches) > 1 {
			r.fatalf("fetch of %d bytes at most returned %d in %d batches", q.MaxBytes, size, len(res.Batches))
		}
		var aborted []AbortedTxn
		if i == ReadCommitted {
			for _, a := range r.m.Aborted(next, res.Next) {
				aborted = append(aborted, AbortedTxn{a.ProducerID, a.First})
			}
		}
		if !slices.Equal(res.Aborted, aborted) {
			r.fatalf("fetch %d to %d: aborted %v, want %v", next, res.Next, res.Aborted, aborted)
		}
		for _, b := range res.Batches {
			list = append(list, r.records(slices.Clone(b), from)...)
		}
		next = res.Next
		if placed {
			r.batches = res.Batches
			r.takeBack()
		}
	}
	r.same("fetch", list, r.m.Read(from, end))
}
