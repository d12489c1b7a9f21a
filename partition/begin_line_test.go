package partition

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// lineRig is one caller with a line, whose partition's writer can be held.
type lineRig struct {
	t       *testing.T
	fault   *vfs.Fault
	p       *Partition
	line    Line
	writers sync.WaitGroup
	held    bool
	under   []*lineAppend // begun and not ended, the oldest first
	all     []*lineAppend
}

type lineAppend struct {
	value   string
	batch   []byte
	options *AppendOptions
	b       Begun
	res     Result
	err     error
}

func newLineRig(t *testing.T, cfg Config) *lineRig {
	fault := vfs.NewFault(vfs.NewMem())
	return &lineRig{t: t, fault: fault, p: openTest(t, fault, cfg)}
}

func (l *lineRig) hold() {
	if !l.held {
		l.p.turn.Lock()
		l.held = true
	}
}

func (l *lineRig) letGo() {
	if l.held {
		l.held = false
		l.p.turn.Unlock()
	}
}

// begin begins an append of one record; with a producer's id it has that sequence.
func (l *lineRig) begin(value string, id int64, sequence int32) *lineAppend {
	l.t.Helper()
	h := log.BatchHeader{ProducerID: id, ProducerEpoch: -1, BaseSequence: -1}
	if id >= 0 {
		h.ProducerEpoch, h.BaseSequence = 0, sequence
	}
	batch, err := log.AppendBatch(nil, &h, record(value))
	if err != nil {
		l.t.Fatal(err)
	}
	a := &lineAppend{value: value, batch: batch}
	if a.b, err = l.p.BeginBatch(a.batch, a.options, &l.line, l.writers.Go); err != nil {
		l.t.Fatal(err)
	}
	l.under, l.all = append(l.under, a), append(l.all, a)
	return a
}

// finish ends the oldest as the engine does: what was not tried, or found no room, is
// tried again before anything else.
func (l *lineRig) finish() *lineAppend {
	l.letGo()
	a := l.under[0]
	l.under = l.under[1:]
	<-a.b.Done()
	a.res, a.err = a.b.Finish()
	if errors.Is(a.err, ErrLineBroken) {
		a.res, a.err = l.p.AppendBatch(context.Background(), a.batch, a.options)
	}
	if errors.Is(a.err, log.ErrNoSpace) {
		l.fault.Clear() // room was made
		a.res, a.err = l.p.AppendBatch(context.Background(), a.batch, a.options)
	}
	return a
}

// leave gives the oldest up.
func (l *lineRig) leave() *lineAppend {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	a := l.under[0]
	l.under = l.under[1:]
	a.res, a.err = a.b.Leave(ended)
	clear(a.batch) // the caller's again
	return a
}

func (l *lineRig) full() {
	l.fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: vfs.Full(0)})
}

// values is what is in the log.
func (l *lineRig) values() string {
	l.t.Helper()
	return strings.Join(readAll(l.t, l.p, ReadUncommitted), " ")
}

func (l *lineRig) want(values string) {
	l.t.Helper()
	for len(l.under) > 0 {
		l.finish()
	}
	l.letGo()
	l.writers.Wait()
	if got := l.values(); got != values {
		l.t.Errorf("the log has %q, want %q", got, values)
	}
}

// Appends of one caller get their places in the order of their beginning, also when
// one has to be tried again.
func TestLineKeepsOrder(t *testing.T) {
	rows := []struct {
		name string
		run  func(l *lineRig)
		want string
	}{
		{"no failure", func(l *lineRig) { l.hold(); l.begin("a", -1, 0); l.begin("b", -1, 0) }, "a b"},
		{"no room for a group", func(l *lineRig) { l.hold(); l.full(); l.begin("a", -1, 0); l.begin("b", -1, 0) }, "a b"},
		{"no room, and others begun behind it", func(l *lineRig) {
			l.full()
			a := l.begin("a", -1, 0)
			l.writers.Wait() // it has failed by now
			if len(a.b.Done()) != 1 {
				l.t.Error("the append is still under way")
			}
			l.begin("b", -1, 0)
			l.begin("c", -1, 0)
			l.writers.Wait() // there is room for those
		}, "a b c"},
		{"begun while one behind the failure is under way", func(l *lineRig) {
			l.full()
			l.begin("a", -1, 0)
			l.writers.Wait()
			l.begin("b", -1, 0)
			l.writers.Wait()
			l.finish()
			l.begin("c", -1, 0) // b was not tried yet
			l.writers.Wait()
		}, "a b c"},
		{"a line that was broken is whole when all have ended", func(l *lineRig) {
			l.full()
			l.begin("a", -1, 0)
			l.finish()
			b := l.begin("b", -1, 0)
			<-b.b.Done()
			if b.b.r.err != nil {
				l.t.Errorf("behind a line that has ended: %v", b.b.r.err)
			}
			b.b.r.done <- struct{}{}
		}, "a b"},
		{"one that was left before its turn", func(l *lineRig) {
			l.hold()
			l.begin("a", -1, 0)
			l.begin("b", -1, 0)
			if a := l.leave(); !errors.Is(a.err, context.Canceled) || errors.Is(a.err, ErrUnknownOutcome) {
				l.t.Errorf("left: %v", a.err)
			}
			l.begin("c", -1, 0)
		}, "b c"},
		{"all of a group left", func(l *lineRig) {
			l.hold()
			l.begin("a", -1, 0)
			l.begin("b", -1, 0)
			l.leave()
			l.leave()
			l.begin("c", -1, 0)
		}, "c"},
		{"left when it had failed", func(l *lineRig) {
			l.full()
			l.begin("a", -1, 0)
			l.writers.Wait()
			if a := l.leave(); !errors.Is(a.err, log.ErrNoSpace) {
				l.t.Errorf("left: %v", a.err)
			}
			l.begin("b", -1, 0)
			l.writers.Wait()
		}, "b"},
		{"a sequence gap lets nothing pass", func(l *lineRig) {
			l.hold()
			l.begin("a", 7, 0)
			l.begin("x", 7, 2)
			l.begin("b", 7, 1)
			l.begin("c", 7, 2)
		}, "a b c"},
		{"sent twice", func(l *lineRig) {
			l.hold()
			l.begin("a", 7, 0)
			l.begin("a", 7, 0)
			l.begin("b", 7, 1)
		}, "a b"},
		{"sent twice without room", func(l *lineRig) {
			l.hold()
			l.full()
			l.begin("a", 7, 0)
			l.begin("a", 7, 0)
			l.begin("b", 7, 1)
			l.begin("b", 7, 1)
		}, "a b"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			l := newLineRig(t, Config{})
			row.run(l)
			l.want(row.want)
		})
	}
}

// After a failed sync nothing is acknowledged, and nothing that was begun is said to be refused
// that may be there.
func TestLineAndAFailedSync(t *testing.T) {
	l := newLineRig(t, Config{})
	l.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Effect: vfs.FailSync()})
	l.hold()
	l.begin("a", -1, 0)
	l.begin("b", -1, 0)
	for range 2 {
		if a := l.finish(); !errors.Is(a.err, ErrUnknownOutcome) || !errors.Is(a.err, log.ErrStorageFailed) {
			t.Errorf("%s: %v, want an unknown outcome", a.value, a.err)
		}
	}
	l.begin("c", -1, 0)
	if a := l.finish(); !errors.Is(a.err, log.ErrStorageFailed) || errors.Is(a.err, ErrUnknownOutcome) {
		t.Errorf("c: %v, want a plain failure", a.err)
	}
	l.writers.Wait()
}

// Whatever happens to them, what is acknowledged is there once, in the order of its beginning, what
// is refused is not there, and what is unknown is there at most once, in its place.
func TestLineAgainstModel(t *testing.T) {
	for seed := range uint64(testcount.N(300)) {
		runLine(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func runLine(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 11))
	l := newLineRig(t, Config{Log: log.Config{SegmentBytes: 1 << 12}, MaxBatchBytes: 1 << 10})
	idempotent := rnd.IntN(2) == 0
	var script []string
	sequence := int32(0)
	for i := range 60 {
		switch n := rnd.IntN(20); {
		case n < 3:
			script = append(script, "hold")
			l.hold()
		case n < 5:
			script = append(script, "let go")
			l.letGo()
		case n < 7:
			script = append(script, "full")
			l.full()
		case n < 8 && !idempotent && len(l.under) > 0: // a gap in the sequence would be all that follows
			a := l.leave()
			script = append(script, "leave "+a.value, fmt.Sprint(a.err))
		case n < 12 && len(l.under) > 0:
			a := l.finish()
			script = append(script, "finish "+a.value)
		case len(l.under) < 8:
			value := fmt.Sprint("v", i)
			script = append(script, "begin "+value)
			if idempotent {
				l.begin(value, 7, sequence)
				sequence++
			} else {
				l.begin(value, -1, 0)
			}
		}
	}
	for len(l.under) > 0 {
		l.finish()
	}
	l.letGo()
	l.writers.Wait()
	got := readAll(t, l.p, ReadUncommitted)
	at := 0
	for _, a := range l.all {
		there := at < len(got) && got[at] == a.value
		unknown := errors.Is(a.err, ErrUnknownOutcome)
		switch {
		case there && a.err == nil && a.res.BaseOffset != int64(at):
			t.Errorf("%s is at offset %d, its caller was told %d", a.value, at, a.res.BaseOffset)
		case there && a.err != nil && !unknown:
			t.Errorf("%s is there, its caller was told: %v", a.value, a.err)
		case !there && a.err == nil:
			t.Errorf("%s is not at its place, offset %d", a.value, at)
		case idempotent && a.err != nil:
			t.Errorf("%s: %v", a.value, a.err)
		}
		if there {
			at++
		}
	}
	if at != len(got) {
		t.Errorf("the log has %d records that are not in their order", len(got)-at)
	}
	if t.Failed() {
		t.Logf("idempotent %v\n%s\nthe log: %s", idempotent, strings.Join(script, "\n"), strings.Join(slices.Clone(got), " "))
	}
}
