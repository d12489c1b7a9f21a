package fuzz

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A program is the fuzzer's bytes, taken one by one.
type program struct{ rest []byte }

func (p *program) next() int {
	if len(p.rest) == 0 {
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return int(b)
}

// world is a partition on a memory that crashes, and what was said about it.
type world struct {
	t   *testing.T
	fs  *vfs.Mem
	p   *partition.Partition
	cfg partition.Config

	values  map[int64]string // by offset: acknowledged or, above acked, perhaps there
	start   int64            // log start offset that was acknowledged
	acked   int64            // offsets below it were acknowledged and survive a kill
	durable int64            // offsets below it survive a power cut
	sent    int              // records tried, for values that never repeat
	history []string
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.history, "\n"))
}

func (w *world) did(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

func (w *world) open() {
	p, err := partition.Open("", &partition.Options{FS: w.fs, Config: w.cfg})
	if err != nil {
		w.fatalf("open: %v", err)
	}
	if c := p.Recovered().Corruption; c != nil {
		w.fatalf("a crash was called damage: %v", c)
	}
	w.p = p
}

// append tries count records, as one batch, with the option to expect an offset
// that is right or wrong.
func (w *world) append(count, size, expect int) {
	recs := make([]log.Record, count)
	end := w.p.LogEnd()
	for i := range recs {
		w.sent++
		recs[i] = log.Record{Value: fmt.Appendf(nil, "%d:%s", w.sent, strings.Repeat("x", size)), Timestamp: int64(w.sent)}
	}
	var o *partition.AppendOptions
	if expect > 0 {
		o = &partition.AppendOptions{Expect: true, ExpectedOffset: end + int64(expect-1)}
	}
	res, err := w.p.Append(context.Background(), recs, o)
	w.did("append %d of %d bytes: %+v %v", count, size, res, err)
	switch {
	case expect > 1 && !errors.Is(err, partition.ErrUnexpectedOffset):
		w.fatalf("an append that expected offset %d at %d: %v", end+int64(expect-1), end, err)
	case errors.Is(err, partition.ErrUnexpectedOffset), errors.Is(err, partition.ErrRecordTooLarge), errors.Is(err, log.ErrNoSpace):
		if w.p.LogEnd() != end {
			w.fatalf("a refused append moved the end from %d to %d", end, w.p.LogEnd())
		}
		return
	case err != nil:
		w.fatalf("append: %v", err)
	case res.BaseOffset != end || res.LastOffset != end+int64(count)-1:
		w.fatalf("append at %d got offsets %d to %d", end, res.BaseOffset, res.LastOffset)
	}
	for i := range recs {
		w.values[end+int64(i)] = string(recs[i].Value)
	}
	w.acked = res.LastOffset + 1
	if w.p.Log().Level() == log.Durable {
		w.durable = w.acked
	}
}

// check reads everything there is: at least down to what must have survived, in
// order, and nothing that was never sent. The log then counts as what was found.
func (w *world) check(least int64) {
	w.t.Helper()
	start, end := w.p.LogStart(), w.p.HighWatermark()
	if start != w.start || end < least || end > w.acked {
		w.fatalf("the log holds %d to %d; it starts at %d, and has to reach %d and not %d", start, end, w.start, least, w.acked+1)
	}
	r, err := w.p.ReadFrom(start, nil)
	if err != nil {
		w.fatalf("read: %v", err)
	}
	next := start
	for {
		b, err := r.TryNext()
		if err == io.EOF {
			break
		}
		if err != nil {
			w.fatalf("read at %d: %v", next, err)
		}
		for rec, err := range b.Records(0) {
			if err != nil {
				w.fatalf("record at %d: %v", next, err)
			}
			if rec.Offset < start {
				continue // the batch that holds the log start offset comes whole
			}
			if rec.Offset != next || string(rec.Value) != w.values[next] {
				w.fatalf("offset %d holds %.20q, %.20q was sent there (expected offset %d)", rec.Offset, rec.Value, w.values[rec.Offset], next)
			}
			next++
		}
	}
	if next != end {
		w.fatalf("reading ended at %d, the high watermark is %d", next, end)
	}
	w.acked, w.durable = end, min(w.durable, end)
}

// run plays the program.
func (w *world) run(p *program) {
	for len(p.rest) > 0 && len(w.history) < 200 {
		switch op := p.next(); op % 12 {
		default:
			w.append(1+p.next()%5, p.next(), 0)
		case 4:
			w.append(1, p.next(), 1+p.next()%3)
		case 5:
			w.append(1+p.next()%3, p.next()*16, 0)
		case 6:
			w.did("sync: %v", w.p.Sync(context.Background()))
			w.durable = w.acked
		case 7:
			level := log.Level(p.next() % 3)
			if err := w.p.SetLevel(level); err != nil {
				w.fatalf("level %v: %v", level, err)
			}
			w.cfg.Log.Level = level
			w.did("level %v", level)
			if level == log.Durable {
				w.durable = w.acked
			}
		case 8:
			to := w.start + int64(p.next())%(w.acked-w.start+1)
			got, err := w.p.DeleteRecords(context.Background(), to)
			w.did("delete to %d: %d %v", to, got, err)
			if err != nil || got != to {
				w.fatalf("delete to %d: %d, %v", to, got, err)
			}
			w.start = to
			if w.durable < to {
				w.durable = to // what is deleted cannot be lost, and the end does not go below the start
			}
		case 9:
			if err := w.p.Close(); err != nil {
				w.fatalf("close: %v", err)
			}
			w.did("close")
			w.durable = w.acked
			w.fs = w.fs.AfterKill()
			w.open()
			w.check(w.acked)
		case 10:
			w.did("kill")
			w.fs = w.fs.AfterKill()
			w.p.Close() // of the one that was killed: nothing it does arrives
			w.open()
			w.check(w.acked)
		case 11:
			seed := uint64(p.next())<<8 | uint64(p.next())
			w.did("power cut %d", seed)
			w.fs = w.fs.AfterCrash(vfs.Random(seed))
			w.p.Close()
			w.open()
			w.check(w.durable)
			w.durable = w.acked // opening has synced what it shows
		}
	}
	w.check(w.acked)
}

// FuzzPartition plays any program on a partition: no crash loses what the level
// promised, nothing appears that was not sent, and the log can always go on.
func FuzzPartition(f *testing.F) {
	f.Add([]byte{0, 3, 10, 1, 2, 200, 11, 1, 2, 0, 1, 50, 10, 6, 11, 7, 7})
	f.Add([]byte{7, 2, 0, 4, 100, 0, 1, 90, 11, 3, 9, 7, 0, 5, 2, 250, 8, 3, 9, 11, 9, 9})
	f.Add([]byte{7, 1, 5, 2, 255, 5, 1, 255, 8, 200, 11, 0, 0, 4, 9, 2, 4, 9, 0, 10})
	f.Add(binary.BigEndian.AppendUint64(nil, 0x0003ff0503ff0b01))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &program{b}
		w := &world{t: t, fs: vfs.NewMem(), values: map[int64]string{}}
		w.cfg.Log = log.Config{
			Level: log.Level(p.next() % 3), SegmentBytes: int64(1+p.next()%8) << 10, IndexIntervalBytes: 1 + p.next()*4, SegmentAge: -1,
		}
		w.open()
		defer func() { w.p.Close() }()
		w.run(p)
	})
}

// FuzzDamage flips bytes anywhere in a closed partition's files: opening and
// reading report damage or return what was written, never other records, and
// never panic.
func FuzzDamage(f *testing.F) {
	f.Add([]byte{0, 0, 60, 1, 1, 0, 200, 3})
	f.Add([]byte{1, 0, 9, 255, 2, 1, 30, 128, 3, 2, 2, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &program{b}
		w := &world{t: t, fs: vfs.NewMem(), values: map[int64]string{}}
		w.cfg.Log = log.Config{SegmentBytes: 2 << 10, IndexIntervalBytes: 200, SegmentAge: -1}
		w.open()
		for i := range 12 {
			w.append(1+i%3, 20*i, 0)
		}
		if err := w.p.Close(); err != nil {
			t.Fatal(err)
		}
		fs := w.fs.AfterKill()
		infos, err := fs.List(".")
		if err != nil {
			t.Fatal(err)
		}
		for len(p.rest) > 0 {
			info := infos[p.next()%len(infos)]
			pos, x := int64(p.next())<<8|int64(p.next()), p.next()
			if info.Size == 0 {
				continue
			}
			damage(t, fs, info.Name, pos%info.Size, byte(x))
		}
		part, err := partition.Open("", &partition.Options{FS: fs, Config: w.cfg})
		if err != nil {
			return // refused: that is an answer
		}
		defer part.Close()
		r, err := part.ReadFrom(part.LogStart(), nil)
		for err == nil {
			var batch log.Batch
			if batch, err = r.TryNext(); errors.Is(err, log.ErrCorrupt) {
				_, err = r.Skip()
				continue
			}
			if err != nil {
				break
			}
			for rec, rerr := range batch.Records(0) {
				if rerr != nil {
					break
				}
				if string(rec.Value) != w.values[rec.Offset] {
					t.Fatalf("offset %d holds %.20q, %.20q was written there", rec.Offset, rec.Value, w.values[rec.Offset])
				}
			}
		}
	})
}

// damage changes one byte of a file.
func damage(t *testing.T, fs vfs.FS, name string, pos int64, x byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
	b[0] ^= x
	if _, err := f.WriteAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
}
