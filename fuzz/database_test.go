package fuzz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// database is a whole database on a memory that crashes, used through the public
// API alone, and the model of what was said about it.
type database struct {
	t       *testing.T
	mem     *vfs.Mem
	faults  *vfs.Fault
	db      *embedlog.DB
	history []string

	model
	handles   map[string]*embedlog.Topic
	old       []*embedlog.Topic // of topics that were deleted
	producer  *embedlog.Producer
	sent      *sendLog
	txns      []*openTxn
	consumers []*reader
	hurt      bool // a fault was injected: errors are to be expected until it is reopened
}

// openTxn is a transaction that has not ended, and what the model has of it.
type openTxn struct {
	tx *embedlog.Txn
	m  *txnModel
}

// sendLog is filled by the callbacks of Producer.Send.
type sendLog struct {
	mu      sync.Mutex
	results map[string]sendResult
}

type sendResult struct {
	pos   embedlog.Position
	err   error
	calls int
}

var names = [...]string{"a", "b", "c"}
var groupNames = [...]string{"g", "h"}
var levels = [...]embedlog.Durability{embedlog.Durable, embedlog.OS, embedlog.Interval}

func (w *database) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.history, "\n"))
}

func (w *database) did(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%3d ", len(w.history))+fmt.Sprintf(format, args...))
}

// bg ends, so that a wait that nobody ends is a failure and not a hang.
func bg() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (w *database) open() {
	w.faults = vfs.NewFault(w.mem)
	o := &embedlog.Options{OffsetsRetention: -1}
	if os.Getenv("FUZZ_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	db, err := embedlog.OpenFS(w.faults, o)
	if err != nil {
		w.fatalf("open: %v", err)
	}
	w.db, w.hurt = db, false
	w.handles, w.sent = map[string]*embedlog.Topic{}, &sendLog{results: map[string]sendResult{}}
	w.old, w.txns, w.consumers, w.producer = nil, nil, nil, nil
}

// stop ends the run of the database in one of four ways, and compares what the next one finds.
func (w *database) stop(how int, seed uint64) {
	w.t.Helper()
	before := w.db
	switch how % 4 {
	case 0:
		w.did("reopen")
		if err := before.Close(); err != nil && !w.hurt {
			w.fatalf("close: %v", err)
		}
		w.mem = w.mem.AfterKill(vfs.Capacity(-1))
	case 1:
		w.did("kill")
		w.mem = w.mem.AfterKill(vfs.Capacity(-1))
		before.Close() // nothing that it does arrives
	case 2:
		w.did("power cut, everything lost that was not synced")
		w.mem = w.mem.AfterCrash(vfs.KeepNone, vfs.Capacity(-1))
		before.Close()
	case 3:
		w.did("power cut %d", seed)
		w.mem = w.mem.AfterCrash(vfs.Random(seed), vfs.Capacity(-1))
		before.Close()
	}
	power := how%4 > 1 || w.hurt && how%4 == 0
	w.takeSent(how%4 == 0)
	w.txnsGone()
	w.usedAfterClose(before)
	w.open()
	w.compare(!power)
}

// usedAfterClose uses handles of a database that is closed.
func (w *database) usedAfterClose(db *embedlog.DB) {
	if _, err := db.Consumer(&embedlog.ConsumerConfig{Topics: []string{"a"}}); err == nil {
		w.fatalf("a closed database makes a consumer")
	}
	for name, h := range w.handles {
		if _, err := h.Produce(bg(), embedlog.Record{}); err == nil {
			w.fatalf("a handle of topic %s of a closed database takes a record", name)
		}
	}
	for _, x := range w.txns {
		if err := x.tx.Commit(bg()); err == nil {
			w.fatalf("a transaction of a closed database commits")
		}
	}
	for _, c := range w.consumers {
		if _, err := c.c.Poll(bg(), 1); !errors.Is(err, embedlog.ErrClosed) {
			w.fatalf("a consumer of a closed database: %v", err)
		}
	}
}

// value is one that no other record has.
func (w *database) value(size int) string {
	w.count++
	return fmt.Sprintf("%d:%s", w.count, strings.Repeat("x", size))
}

func (w *database) topic(n int) (*topicModel, *embedlog.Topic) {
	m := w.topics[names[n%len(names)]]
	if m == nil {
		return nil, nil
	}
	h := w.handles[m.name]
	if h == nil {
		var err error
		if h, err = w.db.Topic(m.name); err != nil {
			w.fatalf("topic %s: %v", m.name, err)
		}
		w.handles[m.name] = h
	}
	return m, h
}

// expected says that an error is what a fault explains.
func (w *database) expected(err error) bool {
	return w.hurt && (errors.Is(err, embedlog.ErrNoSpace) || errors.Is(err, embedlog.ErrStorageFailed) ||
		errors.Is(err, embedlog.ErrUnknownOutcome) || errors.Is(err, embedlog.ErrConcurrentTransactions) || errors.Is(err, vfs.ErrNoSpace) ||
		errors.Is(err, context.DeadlineExceeded))
}

func (w *database) step(p *program) {
	switch op := p.next(); op % 24 {
	case 0:
		w.create(p)
	case 1:
		w.alter(p)
	case 2:
		w.deleteTopic(p)
	case 6:
		w.send(p)
	case 7:
		w.begin(p)
	case 8, 9:
		w.txnProduce(p)
	case 10:
		w.txnOffsets(p)
	case 11, 12:
		w.txnEnd(p)
	case 13:
		w.join(p)
	case 14, 15:
		w.read(p)
	case 16:
		w.leave(p)
	case 17:
		w.deleteRecords(p)
	case 18:
		w.reset(p)
	case 19:
		w.deleteGroup(p)
	case 20:
		w.maintain(p)
	case 21:
		w.fault(p)
	case 22, 23:
		how := p.next()
		w.stop(how, uint64(p.next())<<8|uint64(p.next()))
	default:
		w.produce(p)
	}
}

func (w *database) create(p *program) {
	name, parts, level, compacted := names[p.next()%len(names)], 1+p.next()%3, levels[p.next()%3], p.next()%3 == 0
	cfg := &embedlog.TopicConfig{Partitions: parts, Durability: level, SegmentBytes: 16 << 10, Retention: -1}
	if compacted {
		cfg.Cleanup, cfg.MinDirtyRatio = embedlog.Compact, 0.01
	}
	h, err := w.db.CreateTopic(bg(), name, cfg)
	w.did("create %s/%d %v compacted %v: %v", name, parts, level, compacted, err)
	there := w.topics[name]
	switch {
	case err == nil:
		if there != nil {
			w.fatalf("topic %s is created twice", name)
		}
		m := &topicModel{name: name, id: h.ID(), level: level, compacted: compacted}
		m.grow(parts)
		w.topics[name] = m
		w.handles[name] = h
	case there != nil && (errors.Is(err, embedlog.ErrTopicExists) || w.expected(err)):
	case w.expected(err):
		if errors.Is(err, embedlog.ErrUnknownOutcome) {
			w.unknownTopic = true
		}
	default:
		w.fatalf("create %s: %v", name, err)
	}
}

func (w *database) alter(p *program) {
	m, h := w.topic(p.next())
	what := p.next()
	if m == nil {
		return
	}
	if what%2 == 0 {
		level := levels[p.next()%3]
		w.settle()
		for i := range w.unsettled { // what still lingers, or waits for room, is appended at the level of then
			if s := &w.unsettled[i]; s.topic == m {
				s.durable = false
			}
		}
		err := h.Alter(bg(), map[string]string{"embedlog.durability": level.String()})
		w.did("%s becomes %v: %v", m.name, level, err)
		if err == nil {
			m.level, m.weak = level, m.weak || level != embedlog.Durable
		} else if !w.expected(err) {
			w.fatalf("alter: %v", err)
		} else {
			m.levelUnknown = true
		}
		return
	}
	total := len(m.parts) + p.next()%2
	err := h.AddPartitions(bg(), total)
	w.did("%s gets %d partitions: %v", m.name, total, err)
	switch {
	case err == nil:
		m.grow(total)
	case w.expected(err):
		m.more = max(m.more, total)
	case total == len(m.parts): // no change: refused
	default:
		w.fatalf("add partitions: %v", err)
	}
}

func (w *database) deleteTopic(p *program) {
	m, h := w.topic(p.next())
	if m == nil {
		return
	}
	err := w.db.DeleteTopic(bg(), m.name)
	w.did("delete %s: %v", m.name, err)
	if err != nil {
		if !w.expected(err) {
			w.fatalf("delete: %v", err)
		}
		m.maybeGone = m.maybeGone || errors.Is(err, embedlog.ErrUnknownOutcome)
		return
	}
	w.drop(m)
	delete(w.handles, m.name)
	w.old = append(w.old, h)
	for _, h := range w.old {
		if _, err := h.Produce(bg(), embedlog.Record{}); !errors.Is(err, embedlog.ErrUnknownTopic) {
			w.fatalf("a handle of a deleted topic: %v", err)
		}
	}
}

func (w *database) records(p *program, m *topicModel) []embedlog.Record {
	recs := make([]embedlog.Record, 1+p.next()%4)
	size := p.next() * 8
	for i := range recs {
		recs[i].Key = strconv.AppendInt(nil, int64(p.next()%4), 10)
		recs[i].Topic = m.name
		if v := w.value(size); !m.compacted || !strings.HasSuffix(v, "7:") {
			recs[i].Value = []byte(v)
		}
	}
	return recs
}

// produce appends without a transaction, in one of three ways.
func (w *database) produce(p *program) {
	m, h := w.topic(p.next())
	if m == nil {
		return
	}
	how, recs := p.next(), w.records(p, m)
	part := int32(how/4) % int32(len(m.parts))
	var pos []embedlog.Position
	var err error
	switch how % 4 {
	default:
		pos, err = h.Produce(bg(), recs...)
		w.did("produce %d to %s: %v %v", len(recs), m.name, pos, err)
	case 1:
		pos, err = h.ProduceTo(bg(), part, recs...)
		w.did("produce %d to %s/%d: %v %v", len(recs), m.name, part, pos, err)
	case 2, 3:
		w.settle()
		info := w.describe(m)
		expect := info.Partitions[part].LogEnd
		if how%4 == 3 {
			expect++
		}
		pos, err = h.ProduceAt(bg(), part, expect, recs...)
		w.did("produce %d to %s/%d at %d: %v %v", len(recs), m.name, part, expect, pos, err)
		if how%4 == 3 {
			if !errors.Is(err, embedlog.ErrUnexpectedOffset) && !w.expected(err) && !w.hurt {
				w.fatalf("an append that expected offset %d: %v", expect, err)
			}
			if errors.Is(err, embedlog.ErrUnexpectedOffset) {
				return
			}
		}
	}
	w.produced(m, recs, pos, err, nil)
}

// produced takes in what was answered to a call.
func (w *database) produced(m *topicModel, recs []embedlog.Record, pos []embedlog.Position, err error, tx *txnModel) {
	var each *embedlog.ProduceError
	errors.As(err, &each)
	if err != nil && !w.expected(err) {
		w.fatalf("produce: %v", err)
	}
	for i, r := range recs {
		e := err
		if each != nil {
			e = each.Errs[i]
		}
		x := &recordModel{value: string(r.Value), key: string(r.Key), tombstone: r.Value == nil, offset: -1, txn: tx}
		switch {
		case e == nil:
			x.acked, x.offset = true, pos[i].Offset
			x.durable = tx == nil && m.level == embedlog.Durable && !m.levelUnknown
			w.add(m.parts[pos[i].Partition], x)
		case errors.Is(e, embedlog.ErrUnknownOutcome) || tx != nil:
			w.maybe(m, x)
		}
	}
}

func (w *database) send(p *program) {
	m, _ := w.topic(p.next())
	if m == nil {
		return
	}
	if w.producer == nil {
		var err error
		if w.producer, err = w.db.Producer(&embedlog.ProducerConfig{Linger: 5 * time.Millisecond}); err != nil {
			w.fatalf("producer: %v", err)
		}
	}
	flush := p.next()
	log := w.sent
	for _, r := range w.records(p, m) {
		if r.Value == nil {
			continue
		}
		x := &recordModel{value: string(r.Value), key: string(r.Key), offset: -1}
		w.maybe(m, x)
		w.unsettled = append(w.unsettled, sentRecord{m, x, m.level == embedlog.Durable})
		err := w.producer.Send(bg(), r, func(pos embedlog.Position, err error) {
			log.mu.Lock()
			defer log.mu.Unlock()
			log.results[x.value] = sendResult{pos, err, log.results[x.value].calls + 1}
		})
		if err != nil {
			w.fatalf("send: %v", err)
		}
	}
	w.did("send to %s", m.name)
	if flush%2 == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		err := w.producer.Flush(ctx)
		w.did("flush: %v", err)
		if err != nil && !w.expected(err) {
			w.fatalf("flush: %v", err)
		}
		w.takeSent(err == nil)
	}
}

// takeSent takes in what callbacks have told; all says that each must have been called.
func (w *database) takeSent(all bool) {
	w.sent.mu.Lock()
	defer w.sent.mu.Unlock()
	var left []sentRecord
	for _, s := range w.unsettled {
		r, ok := w.sent.results[s.rec.value]
		switch {
		case r.calls > 1:
			w.fatalf("the callback of %.20q was called %d times", s.rec.value, r.calls)
		case !ok && all:
			w.fatalf("the callback of %.20q was not called", s.rec.value)
		case !ok:
			left = append(left, s)
		case r.err == nil:
			if s.topic.gone {
				continue
			}
			s.rec.acked, s.rec.offset = true, r.pos.Offset
			s.rec.durable = s.durable && !s.topic.levelUnknown
			w.unmaybe(s.topic, s.rec)
			w.add(s.topic.parts[r.pos.Partition], s.rec)
		case errors.Is(r.err, embedlog.ErrUnknownOutcome):
		default:
			w.unmaybe(s.topic, s.rec)
		}
	}
	w.unsettled = left
}

func (w *database) deleteRecords(p *program) {
	m, h := w.topic(p.next())
	if m == nil {
		return
	}
	w.settle()
	part := int32(p.next() % len(m.parts))
	mp := m.parts[part]
	limit := w.describe(m).Partitions[part].HighWatermark
	if limit < mp.start {
		return
	}
	before := mp.start + int64(p.next())%(limit-mp.start+1)
	got, err := h.DeleteRecords(bg(), part, before)
	w.did("delete records of %s/%d below %d: %d %v", m.name, part, before, got, err)
	switch {
	case err == nil && got == before:
		mp.start = before
	case !w.expected(err):
		w.fatalf("delete records below %d: %d %v", before, got, err)
	default:
		mp.maybeStart = max(mp.maybeStart, before)
	}
}

func (w *database) maintain(p *program) {
	switch p.next() % 4 {
	case 0:
		w.settle()
		err := w.db.Sync(bg())
		w.did("sync: %v", err)
		if err == nil {
			w.allDurable()
		} else if !w.expected(err) {
			w.fatalf("sync: %v", err)
		}
	case 1:
		err := w.db.Compact(bg())
		w.did("compact: %v", err)
		if err != nil && !w.expected(err) {
			w.fatalf("compact: %v", err)
		}
	case 2:
		d := time.Duration(1+p.next()) * time.Second
		w.did("%v pass", d)
		time.Sleep(d)
	case 3:
		w.did("verify")
		report, err := w.db.Verify(bg())
		if !w.hurt && (err != nil || len(report.Problems) > 0) {
			w.fatalf("verify: %v %v", err, report.Problems)
		}
		if !w.hurt {
			w.compareLive()
		}
	}
}

func (w *database) fault(p *program) {
	w.hurt = true
	switch kind := p.next(); kind % 3 {
	case 0:
		w.did("the disk is full")
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpAppend, vfs.OpZero, vfs.OpAllocate, vfs.OpCreate, vfs.OpMkdir} {
			w.faults.Add(vfs.Rule{Op: op, Skip: kind / 3 % 8, Count: -1, Effect: vfs.Fail(vfs.ErrNoSpace)})
		}
	case 1:
		skip := p.next() % 8
		w.did("a sync fails after %d", skip)
		for _, op := range []vfs.Op{vfs.OpSync, vfs.OpDatasync} {
			w.faults.Add(vfs.Rule{Op: op, Glob: "*.log", Skip: skip, Effect: vfs.FailSync()})
		}
	case 2:
		w.did("the disk has room again")
		w.faults.Clear()
	}
}

func (w *database) run(p *program) {
	defer func() {
		w.db.Close()
		synctest.Wait()
	}()
	for len(p.rest) > 0 && len(w.history) < 120 {
		w.step(p)
	}
	w.stop(0, 0)
	for _, m := range w.topics {
		if err := w.db.DeleteTopic(bg(), m.name); err != nil {
			w.fatalf("delete at the end: %v", err)
		}
	}
}

func runDatabase(t *testing.T, b []byte) {
	synctest.Test(t, func(t *testing.T) {
		w := &database{t: t, mem: vfs.NewMem(vfs.MapBytes(0)), model: newModel()}
		w.open()
		// Two topics to begin with, so that short programs do something.
		w.create(&program{[]byte{0, 1, 0, 1}})
		w.create(&program{[]byte{1, 0, 1, 1}})
		w.run(&program{b})
	})
}

// TestDatabase plays random programs on a whole database. FUZZ_SEED repeats a run's;
// FUZZ_RUNS says how many.
func TestDatabase(t *testing.T) {
	seed, runs := rand.Uint64(), testcount.N(150)
	if s := os.Getenv("FUZZ_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	if s := os.Getenv("FUZZ_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
	}
	for i := range runs {
		rng := rand.New(rand.NewPCG(seed+uint64(i), 1))
		b := make([]byte, 40+rng.IntN(400))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		if !t.Run(fmt.Sprintf("FUZZ_SEED=%d", seed+uint64(i)), func(t *testing.T) { runDatabase(t, b) }) {
			return
		}
	}
}

// FuzzDatabase plays any program on a database, through the public API: whatever
// the power and the disk do, what was acknowledged is there as its level says,
// transactions are whole or not there, groups do not move back, and nothing is there
// that nobody wrote.
func FuzzDatabase(f *testing.F) {
	for _, seed := range [][]byte{
		// A topic is made, gets partitions, is deleted and made again; power cuts between.
		{0, 2, 1, 0, 0, 22, 2, 0, 0, 1, 2, 1, 1, 2, 2, 22, 3, 0, 7, 0, 2, 0, 1, 1, 22, 1, 0, 0},
		// Records at a level that a power cut takes back, read by a group that committed them.
		{13, 0, 1, 3, 1, 1, 3, 4, 0, 1, 2, 3, 14, 0, 7, 3, 16, 0, 22, 2, 0, 0, 3, 1, 1, 1, 1, 0, 1, 13, 0, 1, 14, 0, 7, 3},
		// Two transactions over two topics, one committed and one left open, then a kill.
		{7, 0, 7, 2, 8, 0, 0, 3, 4, 0, 1, 2, 3, 8, 1, 1, 1, 4, 0, 1, 8, 0, 1, 1, 4, 2, 3, 11, 0, 1, 22, 1, 0, 0},
		// The offsets of a consumer and of a group without members, with a transaction.
		{3, 0, 1, 3, 4, 0, 1, 2, 3, 13, 0, 0, 14, 0, 7, 4, 7, 0, 8, 0, 1, 0, 1, 1, 10, 0, 0, 0, 10, 0, 3, 0, 0, 1, 11, 0, 1, 20, 3, 22, 2, 0, 0},
		// A name that fences, and a transaction that times out.
		{7, 2, 8, 0, 0, 0, 1, 0, 7, 2, 8, 0, 0, 0, 1, 1, 8, 1, 0, 0, 1, 2, 20, 2, 90, 11, 1, 1, 11, 0, 1, 20, 3},
		// Send with and without flush, a full disk that heals, a sync that fails.
		{6, 0, 0, 3, 9, 0, 1, 2, 3, 6, 1, 1, 2, 9, 0, 1, 2, 21, 0, 3, 0, 1, 3, 255, 0, 1, 2, 3, 21, 2, 6, 0, 0, 0, 1, 0, 21, 1, 2, 3, 0, 1, 0, 1, 1, 22, 0, 0, 0},
		// Deleting records, resetting and deleting groups, compaction.
		{3, 0, 1, 3, 30, 0, 1, 2, 3, 17, 0, 0, 2, 18, 2, 0, 18, 0, 0, 0, 1, 22, 2, 0, 0, 19, 0, 20, 1, 20, 0, 22, 3, 1, 7},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) { runDatabase(t, b) })
}
