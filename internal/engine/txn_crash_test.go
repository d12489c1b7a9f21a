package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/partition"
)

// txnWork is a workload of transactions and what is known of them from outside.
//
// A record's value is "transaction/number"; every transaction writes to several
// partitions of all levels.
type txnWork struct {
	t     *testing.T
	rng   *rand.Rand
	clock *testClock
	e     *Engine
	parts []*Partition
	sent  map[string]*sentTxn
	order []string
	// seen has the transactions of which a reader of committed records saw anything.
	seen map[string]bool
	log  []string
}

// sentTxn is one transaction.
type sentTxn struct {
	values  map[string]string // value to partition, of the writes that were acknowledged
	maybe   map[string]string // of those that were not
	outcome txnOutcome
	// group has committed offset in the transaction; "" has not.
	group  string
	offset int64
}

type txnOutcome uint8

const (
	txnUndecided txnOutcome = iota // nobody knows: no end was asked for, or it had no answer
	txnWasCommitted
	txnWasAborted
	txnNotCommitted // a commit that was not even begun, or failed cleanly
)

func (w *txnWork) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *txnWork) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

// open opens the database and finds the work's partitions.
func (w *txnWork) open(fs vfs.FS) error {
	e, err := Open("db", &Options{FS: fs, Now: w.clock.now})
	if err != nil {
		return err
	}
	w.e, w.parts = e, nil
	for _, name := range []string{"durable", "interval", "os"} {
		topic, err := e.Topic(name)
		if err != nil {
			return err
		}
		w.parts = append(w.parts, topic.Partitions()...)
	}
	return nil
}

// run does transactions until the file system fails.
func (w *txnWork) run(n int) error {
	producers := make([]*txnProducer, 3)
	for i := range producers {
		p := newTxnProducer(w.e, fmt.Sprint("p", i), i < 2)
		if p.v1 = i == 2 && w.rng.IntN(2) == 0; p.v1 {
			p.id = "v1"
		}
		producers[i] = p
		if err := p.init(); err != nil {
			return err
		}
	}
	open := make([]*sentTxn, len(producers))
	names := make([]string, len(producers))
	for range n {
		i := w.rng.IntN(len(producers))
		p := producers[i]
		if open[i] == nil {
			names[i] = fmt.Sprintf("t%d", len(w.order))
			open[i] = &sentTxn{values: map[string]string{}, maybe: map[string]string{}}
			w.sent[names[i]] = open[i]
			w.order = append(w.order, names[i])
		}
		tx := open[i]
		var err error
		switch w.rng.IntN(8) {
		case 0:
			err = p.end(false)
			w.note("%s: abort: %v", names[i], err)
			if err == nil {
				tx.outcome, open[i] = txnWasAborted, nil
			}
			if errors.Is(err, partition.ErrInvalidTxnState) { // nothing was written, in the first protocol
				err = nil
			}
		case 1, 2:
			if len(tx.values) == 0 {
				continue
			}
			err = p.end(true)
			w.note("%s: commit: %v", names[i], err)
			switch {
			case err == nil:
				tx.outcome, open[i] = txnWasCommitted, nil
			case !errors.Is(err, partition.ErrUnknownOutcome):
				tx.outcome = txnNotCommitted
			}
		case 3:
			w.look()
		case 4:
			if tx.group != "" || len(tx.values) == 0 { // its records say whether it is there
				continue
			}
			tx.group, tx.offset = "group of "+p.id, int64(len(w.order))
			err = p.commitOffset(tx.group, tx.offset)
			w.note("%s: %d for %s: %v", names[i], tx.offset, tx.group, err)
		default:
			part := w.parts[w.rng.IntN(len(w.parts))]
			v := fmt.Sprintf("%s/%d", names[i], len(tx.values)+len(tx.maybe))
			if err = p.produce(part, v); err == nil {
				tx.values[v] = part.String()
			} else {
				tx.maybe[v] = part.String()
			}
			w.note("%s: %s to %s: %v", names[i], v, part, err)
		}
		if err != nil {
			return err
		}
	}
	w.look()
	return nil
}

// look reads every partition as a reader of committed records.
func (w *txnWork) look() {
	for _, part := range w.parts {
		values, _ := committed(part)
		for _, v := range values {
			name, _, _ := strings.Cut(v, "/")
			w.seen[name] = true
		}
	}
}

// check compares what is there after a recovery with what is known.
func (w *txnWork) check() {
	w.t.Helper()
	found := make(map[string][]string) // transaction: value in partition
	for _, part := range w.parts {
		values, err := committed(part)
		if err != nil {
			w.fatal("read %s: %v", part, err)
		}
		if part.LastStable() != part.HighWatermark() {
			w.fatal("%s: a transaction is still open: last stable %d, high watermark %d, %+v", part, part.LastStable(), part.HighWatermark(), part.Producers())
		}
		for _, v := range values {
			name, _, _ := strings.Cut(v, "/")
			found[name] = append(found[name], v+" in "+part.String())
		}
	}
	offsets := make(map[string]int64)
	for _, name := range w.order {
		tx := w.sent[name]
		if tx.group != "" && len(found[name]) > 0 {
			offsets[tx.group] = tx.offset
		}
		var whole, all []string
		for v, part := range tx.values {
			whole = append(whole, v+" in "+part)
		}
		all = slices.Clone(whole)
		for v, part := range tx.maybe {
			all = append(all, v+" in "+part)
		}
		got := found[name]
		for _, l := range [][]string{whole, all, got} {
			slices.Sort(l)
		}
		isWhole, isNone := slices.Equal(got, whole) || slices.Equal(got, all), len(got) == 0
		switch {
		case !isWhole && !isNone:
			w.fatal("%s: %q is there of %q", name, got, all)
		case tx.outcome == txnWasCommitted && !isWhole:
			w.fatal("%s was committed and is not there", name)
		case (tx.outcome == txnWasAborted || tx.outcome == txnNotCommitted) && !isNone:
			w.fatal("%s was not committed and is there: %q", name, got)
		case w.seen[name] && !isWhole:
			w.fatal("%s was seen by a reader and is not there", name)
		}
		delete(found, name)
	}
	if len(found) > 0 {
		w.fatal("nobody wrote %v", found)
	}
	for _, id := range []string{"p0", "p1", "p2", "v1"} {
		group := "group of " + id
		got, err := committedOffset(w.e, group)
		if want := offsets[group]; err != nil || got != want {
			w.fatal("%s has committed %d, %v, want %d", group, got, err, want)
		}
	}
	if undecidedOffsets(w.e) {
		w.fatal("offsets wait for a transaction, and none is open")
	}
}

// goOn does one more transaction, with every id.
func (w *txnWork) goOn() {
	w.t.Helper()
	for _, id := range []string{"p0", "p1", "p2", "v1"} {
		p := newTxnProducer(w.e, id, id == "p0")
		if err := p.init(); err != nil {
			w.fatal("%s: %v", id, err)
		}
		name := fmt.Sprintf("t%d", len(w.order))
		tx := &sentTxn{values: map[string]string{}, outcome: txnWasCommitted}
		w.sent[name], w.order = tx, append(w.order, name)
		for _, part := range w.parts {
			v := fmt.Sprintf("%s/%d", name, len(tx.values))
			if err := p.produce(part, v); err != nil {
				w.fatal("%s: %v", id, err)
			}
			tx.values[v] = part.String()
		}
		tx.group, tx.offset = "group of "+id, int64(len(w.order))
		if err := p.commitOffset(tx.group, tx.offset); err != nil {
			w.fatal("%s: %v", id, err)
		}
		if err := p.end(true); err != nil {
			w.fatal("%s: %v", id, err)
		}
	}
}

// recover opens what a crash left, lets the time of what is open pass, and checks.
func (w *txnWork) recover(fs vfs.FS) {
	w.t.Helper()
	if err := w.open(fs); err != nil {
		w.fatal("open: %v", err)
	}
	defer w.e.Close()
	w.look()
	w.clock.advance(time.Minute)
	w.e.Tick(ctx)
	w.check()
	w.goOn()
	w.check()
}

func newTxnWork(t *testing.T, seed uint64) *txnWork {
	return &txnWork{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), clock: newTestClock(),
		sent: make(map[string]*sentTxn), seen: make(map[string]bool),
		log: []string{fmt.Sprintf("seed %d", seed)},
	}
}

// txnTestDB is a database with the topics that the work needs.
func txnTestDB(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	e, err := Open("db", &Options{FS: fs})
	must(t, err)
	txnTestTopics(t, e)
	must(t, e.Close())
	return fs
}

// A crash at every operation on a file, with several choices of what it leaves,
// and now and then a second crash while the first is recovered from. Four
// workloads take turns. EMBEDLOG_TXN_ROUNDS=n does it n times, each time with others.
func TestTransactionsCrashEverywhere(t *testing.T) {
	rounds := uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("EMBEDLOG_TXN_ROUNDS"), 10, 32); err == nil {
		rounds = n
	}
	base := txnTestDB(t)
	crashes, recoveries := 0, 0
	for round := range rounds {
		whole := 0 // workloads that came to their end
		for k := 0; whole < 4; k++ {
			w := newTxnWork(t, round<<32|uint64(k%4))
			fs := base.AfterCrash(vfs.KeepAll, vfs.CrashAt(k))
			err := w.open(fs)
			if err == nil {
				err = w.run(20)
				w.e.Close()
			}
			if !fs.Crashed() {
				if err != nil {
					w.fatal("without a crash: %v", err)
				}
				whole++
				continue
			}
			whole = 0
			w.note("crash at operation %d", k)
			crashes++
			keep := []vfs.Choice{vfs.KeepNone, vfs.KeepAll, vfs.Random(uint64(k) | round<<32)}[(k+k/4)%3]
			again := w.after()
			if k%8 == int(round%8) {
				cut := fs.AfterCrash(keep, vfs.CrashAt(k%200))
				if again.open(cut) == nil {
					again.look()
					again.e.Close()
				}
				again.note("crash at operation %d of the recovery", k%200)
				again.recover(cut.AfterCrash(vfs.Random(uint64(k))))
				again = w.after()
				recoveries++
			}
			again.recover(fs.AfterCrash(keep))
			recoveries++
		}
	}
	t.Logf("%d crash points, %d recoveries", crashes, recoveries)
}

// after is the same past, to go on from it another way.
func (w *txnWork) after() *txnWork {
	c := *w
	c.log, c.order = slices.Clone(w.log), slices.Clone(w.order)
	c.sent, c.seen = maps.Clone(w.sent), maps.Clone(w.seen)
	c.clock = newTestClock()
	return &c
}

// Every operation on a file fails once; the database goes on with what still works,
// and is then killed or loses its power.
func TestTransactionsWithErrorsEverywhere(t *testing.T) {
	base := txnTestDB(t)
	for _, op := range []vfs.Op{vfs.OpDatasync, vfs.OpSync, vfs.OpWrite, vfs.OpStore, vfs.OpZero, vfs.OpAllocate, vfs.OpCreate, vfs.OpSyncDir} {
		hits := 0
		for k := 0; ; k++ {
			seed := uint64(op)<<32 | uint64(k%3)
			w := newTxnWork(t, seed)
			w.note("%v %d fails", op, k)
			mem := base.AfterCrash(vfs.KeepAll)
			effect := vfs.Fail(nil)
			if op == vfs.OpDatasync || op == vfs.OpSync {
				effect = vfs.FailSync()
			}
			fs := vfs.NewFault(mem, vfs.Rule{Op: op, Skip: k, Effect: effect})
			err := w.open(fs)
			if err == nil {
				w.e.Tick(ctx)
				err = w.run(16)
				w.e.Tick(ctx)
				w.look()
				w.e.Close()
			}
			if fs.Hits() == 0 {
				if err != nil {
					w.fatal("without a fault: %v", err)
				}
				break
			}
			hits++
			w.note("%v", err)
			keep := []vfs.Choice{vfs.KeepNone, vfs.KeepAll, vfs.Random(uint64(k))}[k%3]
			w.recover(mem.AfterCrash(keep))
		}
		t.Logf("%v: %d points", op, hits)
	}
}

// Transactions from many goroutines, on few ids: each is there whole or not at all, and in
// each partition in the order of its producer.
func TestTransactionsAtTheSameTime(t *testing.T) {
	fs := txnTestDB(t)
	w := newTxnWork(t, 1)
	must(t, w.open(fs))
	const producers, each = 8, 20
	results := make(chan *sentTxn, producers*each)
	failed := make(chan error, producers)
	for i := range producers {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			p := newTxnProducer(w.e, fmt.Sprint("c", i), i%2 == 0)
			err := p.init()
			for n := 0; n < each && err == nil; n++ {
				tx := &sentTxn{values: map[string]string{}, maybe: map[string]string{}, outcome: txnWasAborted}
				commit := rng.IntN(3) > 0
				for range 1 + rng.IntN(4) {
					part := w.parts[rng.IntN(len(w.parts))]
					v := fmt.Sprintf("t%d/%d", i*each+n, len(tx.values))
					tx.values[v] = part.String()
					if err = p.produce(part, v); err != nil {
						break
					}
				}
				if err == nil {
					err = p.end(commit)
				}
				if commit {
					tx.outcome = txnWasCommitted
				}
				results <- tx
			}
			failed <- err
		}()
	}
	for left := producers; left > 0; {
		select {
		case err := <-failed:
			must(t, err)
			left--
		default:
			w.look()
		}
	}
	close(results)
	for tx := range results {
		for v := range tx.values {
			name, _, _ := strings.Cut(v, "/")
			w.sent[name], w.order = tx, append(w.order, name)
			break
		}
	}
	w.check()
	must(t, w.e.Close())
	w.recover(fs)
}

// A marker that cannot be written is written when the partition is there again; until
// then the transaction is neither forgotten nor followed by another of its id.
func TestMarkerWaitsForItsPartition(t *testing.T) {
	for _, local := range []bool{true, false} {
		mem := txnTestDB(t)
		probe, err := Open("db", &Options{FS: mem})
		must(t, err)
		topic, err := probe.Topic("os")
		must(t, err)
		dir := "topics/" + topic.ID().String() + "/1/"
		must(t, probe.Close())
		fs := vfs.NewFault(mem)
		w := newTxnWork(t, 1)
		must(t, w.open(fs))
		broken := w.parts[5]
		p := newTxnProducer(w.e, "ann", local)
		must(t, p.init())
		must(t, p.produce(w.parts[0], "t0/0"))
		must(t, p.produce(broken, "t0/1"))
		w.sent["t0"], w.order = &sentTxn{values: map[string]string{"t0/0": "durable/0", "t0/1": "os/1"}, outcome: txnWasCommitted}, []string{"t0"}
		// What is there can be synced, nothing can be added.
		for _, op := range []vfs.Op{vfs.OpStore, vfs.OpWrite, vfs.OpZero, vfs.OpAppend} {
			fs.Add(vfs.Rule{Op: op, Glob: dir + "*", Count: -1, Effect: vfs.Fail(nil)})
		}
		must(t, p.end(true))
		wantCommitted(t, w.parts[0], "t0/0")
		wantCommitted(t, broken)
		if d, err := w.e.Txns().Describe("ann"); err != nil || d.State != "PrepareCommit" {
			t.Errorf("%+v, %v", d, err)
		}
		again := newTxnProducer(w.e, "ann", local)
		if err := again.init(); !errors.Is(err, ErrConcurrentTransactions) {
			t.Errorf("the next transaction: %v", err)
		}
		w.e.Close()
		w.recover(mem.AfterKill())
	}
}
