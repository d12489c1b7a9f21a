//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/log"
)

// madeUp is a run that did not happen: who sent what, what was read, what lies on the disks.
type madeUp struct {
	ops     []history.Op
	moments []moment
	entries [nodes + 1][]string // payloads of the only log of the only topic
	missing int                 // the node that has no copy; 0 is none
	dirs    []string            // of the databases, if they are on the disk already
}

const madeUpSeconds = 60

// wellDone is one without fault: two topics of one partition, a record acknowledged in each every second, read by a member
// of a group and in the end, and a transaction over both.
func wellDone() *madeUp {
	m := &madeUp{moments: []moment{{at(0), true}}}
	subscribe := op(2, history.OpSubscribe, 0, 0)
	subscribe.Group, subscribe.Keys = goGroup, []history.Key{{Topic: "fast", Partition: -1}, {Topic: "safe", Partition: -1}}
	m.ops = append(m.ops, subscribe)
	for i := range madeUpSeconds {
		send, poll := op(1, history.OpSend, float64(i), float64(i)+0.5), op(2, history.OpPoll, float64(i)+0.5, float64(i)+0.6)
		send.Sends = []history.Run{run1("fast", int64(i), int64(i)), run1("safe", int64(i), int64(i))}
		poll.Polls = []history.Run{run1("fast", int64(i), int64(i)), run1("safe", int64(i), int64(i))}
		m.ops = append(m.ops, send, poll)
	}
	txn := op(3, history.OpTxn, madeUpSeconds, madeUpSeconds+1)
	txn.Sends = []history.Run{run1("fast", history.NoOffset, 1000), run1("safe", history.NoOffset, 1000)}
	final, done := op(4, history.OpPoll, madeUpSeconds+2, madeUpSeconds+3), op(4, history.OpFinal, madeUpSeconds+3, madeUpSeconds+4)
	final.Final = true
	for _, topic := range []string{"fast", "safe"} {
		run := history.Run{Key: history.Key{Topic: topic}}
		for i := range int64(madeUpSeconds) {
			run.Records = append(run.Records, history.Record{Offset: i, Value: i})
		}
		run.Records = append(run.Records, history.Record{Offset: madeUpSeconds, Value: 1000})
		final.Polls, done.Keys = append(final.Polls, run), append(done.Keys, run.Key)
	}
	m.ops = append(m.ops, txn, final, done)
	for n := 1; n <= nodes; n++ {
		m.entries[n] = []string{"a", "b", "c"}
	}
	return m
}

func op(process int32, kind history.OpKind, from, to float64) history.Op {
	return history.Op{Process: process, Kind: kind, Outcome: history.OK, Start: at(from).UnixNano(), End: at(to).UnixNano()}
}

func run1(topic string, offset, value int64) history.Run {
	return history.Run{Key: history.Key{Topic: topic}, Records: []history.Record{{Offset: offset, Value: value}}}
}

// sent is the operation that sent the i-th record of each topic, final the last read of a topic.
func (m *madeUp) sent(i int) *history.Op            { return &m.ops[1+2*i] }
func (m *madeUp) polled(i int) *history.Op          { return &m.ops[2+2*i] }
func (m *madeUp) final(topic int) *[]history.Record { return &m.ops[len(m.ops)-2].Polls[topic].Records }

// judge puts it on the disk, as a run would leave it, and judges that.
func (m *madeUp) judge(t *testing.T) (text string, bad []string) {
	t.Helper()
	dir := t.TempDir()
	e := evidence{partitions: 1, moments: m.moments, end: at(madeUpSeconds), window: 10 * time.Second, strict: true}
	// One file for each process: their operations overlap.
	writers := map[int32]*history.Writer{}
	for i := range m.ops {
		op := &m.ops[i]
		w := writers[op.Process]
		if w == nil {
			path := filepath.Join(dir, fmt.Sprintf("notes%d.jsonl", op.Process))
			var err error
			if w, err = history.OpenWriter(path); err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			writers[op.Process], e.notes = w, append(e.notes, path)
		}
		if err := w.Append(op); err != nil {
			t.Fatal(err)
		}
	}
	report, err := history.Check(history.OpenFiles(e.notes...), nil)
	e.verdict = verdictOf(report, err)
	if e.dirs = m.dirs; e.dirs == nil {
		e.dirs = m.write(t)
	}
	text, bad, err = e.judge()
	if err != nil {
		t.Fatal(err)
	}
	return text, bad
}

// write puts the logs on the disk.
func (m *madeUp) write(t *testing.T) (dirs []string) {
	t.Helper()
	dir := t.TempDir()
	for n := 1; n <= nodes; n++ {
		db := filepath.Join(dir, fmt.Sprintf("node%d", n))
		dirs = append(dirs, db)
		writeLog(t, filepath.Join(db, "meta"), "made")
		if n == m.missing {
			continue
		}
		topic := filepath.Join(db, "topics", "id-of-fast")
		writeLog(t, filepath.Join(topic, "0"), m.entries[n]...)
		if err := os.WriteFile(filepath.Join(topic, "topic"), []byte("id id-of-fast\nname fast\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}

func writeLog(t *testing.T, dir string, payloads ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := log.Open(dir, &log.Options{Config: log.Config{Level: log.OS}})
	if err != nil {
		t.Fatal(err)
	}
	l.Lock()
	for _, p := range payloads {
		h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		if err := l.StageRecords(1, &h, []log.Record{{Value: []byte(p), Timestamp: 1000}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	l.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Each fault in a run that was well done is found, and named.
func TestJudgeCatches(t *testing.T) {
	equal := wellDone().write(t)
	for _, c := range []struct {
		what string
		do   func(*madeUp)
		text string // of the report
		bad  string // of what is wrong; empty is nothing
	}{
		{"nothing is wrong", func(*madeUp) {}, "no anomalies", ""},
		{"an acknowledged record is lost", func(m *madeUp) {
			r, p := m.final(0), m.polled(20)
			*r, p.Polls = append((*r)[:20:20], (*r)[21:]...), p.Polls[1:]
		}, "lost-write: 1", "anomalies of"},
		{"a record whose answer did not come is not there", func(m *madeUp) {
			r, p := m.final(0), m.polled(20)
			*r, p.Polls = append((*r)[:20:20], (*r)[21:]...), p.Polls[1:]
			m.sent(20).Sends[0].Records[0].Offset = history.Unanswered
		}, "no anomalies", ""},
		{"a record whose answer did not come is there", func(m *madeUp) {
			m.sent(20).Sends[0].Records[0].Offset = history.Unanswered
		}, "no anomalies", ""},
		{"a record that was refused is there", func(m *madeUp) {
			m.sent(20).Sends[0].Records[0].Offset = history.Refused
		}, "G1a: ", "anomalies of"},
		{"a record is there twice", func(m *madeUp) {
			*m.final(1) = append(*m.final(1), history.Record{Offset: 61, Value: 7})
		}, "duplicate: 1", "anomalies of"},
		{"two records of a producer change places", func(m *madeUp) {
			for i, other := range map[int]int64{30: 31, 31: 30} {
				m.sent(i).Sends[0].Records[0].Offset = other
				m.polled(i).Polls[0].Records[0].Value = other
				(*m.final(0))[i].Value = other
			}
		}, "nonmonotonic-send: 1", "anomalies of"},
		{"an offset held another record before", func(m *madeUp) {
			m.polled(30).Polls[0].Records[0].Value = 31
		}, "inconsistent-offsets: ", "anomalies of"},
		{"half of a transaction is there", func(m *madeUp) {
			*m.final(1) = (*m.final(1))[:madeUpSeconds]
		}, "torn-txn: 1", "anomalies of"},
		{"a reader leaves out a record", func(m *madeUp) {
			m.polled(30).Polls = m.polled(30).Polls[1:]
		}, "poll-skip: 1", "anomalies of"},
		{"one copy has another entry", func(m *madeUp) { m.entries[2] = []string{"a", "B", "c"} }, "1 problems", "fast/0: nodes 1 and 2: entry 2 differs"},
		{"one copy ends before", func(m *madeUp) { m.entries[3] = m.entries[3][:2] }, "1 problems", "fast/0: nodes 1 and 3: one ends at offset 3, the other at 2"},
		{"one copy is empty", func(m *madeUp) { m.entries[3] = nil }, "1 problems", "fast/0: nodes 1 and 3: "},
		{"one copy is not there", func(m *madeUp) { m.missing = 1 }, "1 problems", "fast/0: node 1: "},
		{"11 s without an acknowledgement in one partition", func(m *madeUp) {
			for i := 30; i < 40; i++ { // the last one before is at 29.5, the next one at 40.5
				m.sent(i).Sends[0].Records[0].Offset = history.Unanswered
			}
		}, "no anomalies", "fast/0: no acknowledgement for 11s from "},
		{"9 s without an acknowledgement", func(m *madeUp) {
			for i := 30; i < 38; i++ {
				m.sent(i).Sends[0].Records[0].Offset = history.Unanswered
			}
		}, "no anomalies", ""},
		{"11 s without one while there was no majority", func(m *madeUp) {
			for i := 30; i < 40; i++ {
				m.sent(i).Sends[0].Records[0].Offset = history.Unanswered
			}
			m.moments = append(m.moments, moment{at(33), false}, moment{at(39), true})
		}, "no anomalies", ""},
		{"a partition that took nothing", func(m *madeUp) {
			for i := range madeUpSeconds {
				m.sent(i).Sends[0].Records[0].Offset = history.Unanswered
			}
			m.ops[len(m.ops)-3].Outcome = history.Info // the transaction
		}, "no anomalies", "fast/0: nothing was acknowledged at all"},
		{"never a majority", func(m *madeUp) { m.moments[0].majority = false }, "no anomalies", "there never was a majority"},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "-"), func(t *testing.T) {
			m := wellDone()
			whole := m.entries
			c.do(m)
			if reflect.DeepEqual(m.entries, whole) && m.missing == 0 {
				m.dirs = equal
			}
			text, bad := m.judge(t)
			if !strings.Contains(text, c.text) {
				t.Errorf("the report lacks %q:\n%s", c.text, text)
			}
			if c.bad == "" && len(bad) > 0 || c.bad != "" && !strings.Contains(strings.Join(bad, "\n"), c.bad) {
				t.Errorf("wrong is %q, want %q\n%s", bad, c.bad, text)
			}
		})
	}
}

// Without times, what came late is reported and no failure.
func TestJudgeReportsTimes(t *testing.T) {
	begin := at(0)
	e := evidence{partitions: 1, moments: []moment{{begin, true}}, end: at(60), window: 10 * time.Second}
	seen := &observed{acks: map[history.Key][]time.Time{
		{Topic: "fast"}: times(1, 13, 20, 29, 38, 47, 56), {Topic: "safe"}: times(1, 9, 18, 27, 36, 45, 54),
	}}
	var b strings.Builder
	bad, late := e.times(&b, seen)
	if len(bad) > 0 || len(late) != 1 || !strings.HasPrefix(late[0], "fast/0: no acknowledgement for 12s from ") {
		t.Errorf("bad %q, late %q", bad, late)
	}
}

// What cannot be judged has not passed.
func TestJudgeNothing(t *testing.T) {
	m := wellDone()
	m.ops = append(m.ops, op(1, history.OpSend, 70, 71), op(1, history.OpSend, 1, 2))
	m.ops[len(m.ops)-1].Sends = []history.Run{run1("fast", 5, 4), run1("fast", 5, 4)}
	_, bad := m.judge(t)
	if len(bad) == 0 {
		t.Error("a history that contradicts itself was taken")
	}
	e := evidence{partitions: 1, moments: []moment{{at(0), true}}, end: at(60), window: time.Second}
	text, bad, err := e.judge()
	if err != nil || !strings.Contains(strings.Join(bad, "\n"), "no entries of replicas were compared") ||
		!strings.Contains(strings.Join(bad, "\n"), "fast/0: nothing was acknowledged at all") {
		t.Errorf("without any evidence: %q, %v\n%s", bad, err, text)
	}
}
