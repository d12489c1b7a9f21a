package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/vfs"
)

// checkpointed is a graph of two tasks with stores of several kinds: plain rows, rows with headers, groups, ordered ones.
type checkpointed struct {
	t      *testing.T
	db     *embedlogtest.DB
	orders *embedlog.Topic
	g      *Graph
	sums   *View[string, int64]
	tops   *View[string, []int64]
	counts *View[string, int64]
	want   map[string]int64 // of orders
}

func newCheckpointed(t *testing.T) *checkpointed {
	c := &checkpointed{t: t, db: embedlogtest.Open(t, &embedlogtest.Options{FakeClock: true}), want: map[string]int64{}}
	// Compaction takes tombstones away at once.
	for name, partitions := range map[string]int{"g-latest-changelog": 2, "g-sums-changelog": 2, "g-tops-changelog": 2, "g-tops-rows-changelog": 2, "g-progress": 2} {
		if _, err := c.db.EnsureTopic(t.Context(), name, &embedlog.TopicConfig{Partitions: partitions, Cleanup: embedlog.Compact, DeleteRetention: time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	c.open(time.Hour)
	return c
}

// open starts the graph with some interval of commits.
func (c *checkpointed) open(interval time.Duration) {
	var err error
	if c.orders, err = c.db.EnsureTopic(context.Background(), "orders", &embedlog.TopicConfig{Partitions: 2}); err != nil {
		c.t.Fatal(err)
	}
	c.g = NewGraph(c.db.DB, "g", &Options{CommitInterval: interval, CheckpointInterval: 1})
	c.g.checkpointAfter = 1
	latest := TableFrom(c.orders, codec.String, codec.Int64)
	c.counts = Add(c.g, "latest", latest)
	c.sums = Add(c.g, "sums", Sum(latest, func(_ string, n int64) int64 { return 2 * n }))
	c.tops = Add(c.g, "tops", TopN(latest, 2, func(_ string, n int64) int64 { return n }))
	if err := c.g.Start(context.Background()); err != nil {
		c.t.Fatal(err)
	}
}

// produce sets some keys, or deletes them where n is negative.
func (c *checkpointed) produce(from, to int, n int64) {
	c.t.Helper()
	var recs []embedlog.Record
	for i := from; i < to; i++ {
		rec := embedlog.Record{Key: fmt.Appendf(nil, "k%04d", i)}
		if n >= 0 {
			rec.Value = mustInt(n)
			c.want[string(rec.Key)] = n
		} else {
			delete(c.want, string(rec.Key))
		}
		recs = append(recs, rec)
	}
	if _, err := c.orders.Produce(context.Background(), recs...); err != nil {
		c.t.Fatal(err)
	}
}

// check compares all views with what was produced.
func (c *checkpointed) check() {
	c.t.Helper()
	s, err := c.g.Snapshot(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Release()
	collect := func(v *View[string, int64]) map[string]int64 {
		got := map[string]int64{}
		for row, err := range v.In(s).All() {
			if err != nil {
				c.t.Fatal(err)
			}
			got[row.Key] = row.Value
		}
		return got
	}
	doubled := map[string]int64{}
	for k, n := range c.want {
		doubled[k] = 2 * n
	}
	if got := collect(c.counts); !maps.Equal(got, c.want) {
		c.t.Errorf("the table has %d rows, want %d", len(got), len(c.want))
	}
	if got := collect(c.sums); !maps.Equal(got, doubled) {
		c.t.Errorf("there are sums of %d keys, want %d", len(got), len(c.want))
	}
	n := 0
	for row, err := range c.tops.In(s).All() {
		if n++; err != nil || len(row.Value) != 1 || row.Value[0] != c.want[row.Key] {
			c.t.Errorf("top of %s: %v, %v", row.Key, row.Value, err)
		}
	}
	if n != len(c.want) {
		c.t.Errorf("%d tops, want %d", n, len(c.want))
	}
}

// files are the checkpoints that are there.
func (c *checkpointed) files() (fs vfs.FS, names []string) {
	fs, _, err := c.db.StateDir()
	if err != nil {
		c.t.Fatal(err)
	}
	infos, err := fs.List(".")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, info := range infos {
		if strings.HasSuffix(info.Name, ".checkpoint") {
			names = append(names, info.Name)
		}
	}
	return fs, names
}

func (c *checkpointed) close() {
	c.t.Helper()
	if err := c.g.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// restored waits until the rows are there, and compares how many came from where.
func (c *checkpointed) restored(rows, records, refused int64) {
	c.t.Helper()
	c.check()
	if s := c.g.Stats(); s.RestoredRows != rows || s.RestoredRecords != records || s.CheckpointsRefused != refused {
		c.t.Errorf("%d rows from checkpoints, %d records from changelogs, %d refused; want %d, %d, %d", s.RestoredRows, s.RestoredRecords, s.CheckpointsRefused, rows, records, refused)
	}
}

// After a restart the changelogs are read from the checkpoint on, and not before it.
func TestRestartReadsWhatCameAfterTheCheckpoint(t *testing.T) {
	c := newCheckpointed(t)
	c.produce(0, 300, 5)
	c.produce(100, 200, -1)
	c.check()
	c.close() // one commit, in which each row is once; rows of four stores
	if _, names := c.files(); len(names) != 2 {
		t.Fatalf("checkpoints: %v", names)
	}
	c.open(time.Hour)
	c.restored(4*200, 0, 0)
	c.produce(0, 60, 7)
	c.produce(60, 80, -1)
	c.g.checkpointAfter = 1 << 40
	c.check()
	c.close()
	c.open(time.Hour)
	// Of the deleted ones and of those that have changed each store has a record; the ordered rows have two of those that have changed.
	c.restored(4*200, 4*80+60, 0)
	c.close() // what was read counts as well: a checkpoint is due
	c.open(time.Hour)
	c.restored(4*180, 0, 0)
	// While the graph runs, too, a kill away from its end.
	c.close()
	c.open(time.Millisecond)
	for i := int64(0); c.g.Stats().Checkpoints < 6; i++ {
		c.produce(0, 300, i)
		c.check()
	}
	c.db.Kill()
	c.open(time.Hour)
	c.check()
	if s := c.g.Stats(); s.RestoredRows == 0 || s.CheckpointsRefused != 0 {
		t.Errorf("after a kill: %+v", s)
	}
}

// A checkpoint that was written before rows were deleted does not bring them back when compaction has removed the tombstones.
func TestDeletedRowsStayDeleted(t *testing.T) {
	c := newCheckpointed(t)
	c.produce(0, 100, 5)
	c.check()
	c.close()
	c.open(time.Hour)
	c.produce(40, 60, -1)
	c.check()
	c.g.checkpointAfter = 1 << 40
	c.close() // without a checkpoint
	for range 2 {
		if err := c.db.Compact(t.Context(), "g-latest-changelog", "g-sums-changelog", "g-tops-changelog", "g-tops-rows-changelog"); err != nil {
			t.Fatal(err)
		}
		c.db.Advance(time.Second)
	}
	top, err := c.db.Topic("g-sums-changelog")
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range top.Scan(t.Context(), nil) {
		if err != nil || rec.Value == nil {
			t.Fatalf("a tombstone is left, and nothing is tested: %v", err)
		}
	}
	c.open(time.Hour)
	c.check()
	if s := c.g.Stats(); s.CheckpointsRefused == 0 {
		t.Error("the checkpoints were used")
	}
	c.close()
	c.open(time.Hour)
	c.check()
}

// What a checkpoint is not of is not used.
func TestCheckpointsAreRefused(t *testing.T) {
	c := newCheckpointed(t)
	c.produce(0, 50, 5)
	c.check()
	c.close()
	fs, names := c.files()
	whole := make([][]byte, len(names))
	for i, name := range names {
		whole[i] = readAll(t, fs, name)
	}
	change := func(f func(m *mark)) func([]byte) []byte {
		return func(b []byte) []byte {
			r, err := openCheckpoint(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			f(r.mark)
			w := &checkpointWriter{}
			if err := w.head(r.mark); err != nil {
				t.Fatal(err)
			}
			return append(w.buf, b[len(b)-int(r.left):]...)
		}
	}
	for name, damage := range map[string]func([]byte) []byte{
		"empty":                func([]byte) []byte { return nil },
		"cut":                  func(b []byte) []byte { return b[:len(b)-blockHeadBytes] },
		"longer":               func(b []byte) []byte { return append(b, 0) },
		"a bit of the head":    func(b []byte) []byte { b[headBytes+20] ^= 1; return b },
		"a bit of the rows":    func(b []byte) []byte { b[len(b)-100] ^= 1; return b },
		"of a later version":   change(func(m *mark) { m.Format++ }),
		"of another graph":     change(func(m *mark) { m.Graph = "h" }),
		"of another task":      change(func(m *mark) { m.Task++ }),
		"of another progress":  change(func(m *mark) { m.ProgressID = m.Stores[0].ID }),
		"of another changelog": change(func(m *mark) { m.Stores[1].ID = m.Stores[0].ID }),
		"another definition":   change(func(m *mark) { m.Progress = strings.Replace(m.Progress, "sum", "sun", 1) }),
		"fewer stores":         change(func(m *mark) { m.Stores = m.Stores[1:] }),
		"ahead of a changelog": change(func(m *mark) { m.Stores[0].Next += 1000 }),
		"ahead of progress":    change(func(m *mark) { m.ProgressNext += 1000 }),
		"rows are missing": func(b []byte) []byte { // as a whole, with all checksums right
			r, _ := openCheckpoint(bytes.NewReader(b), int64(len(b)))
			w := &checkpointWriter{f: new(buffer)}
			if err := errors.Join(w.head(r.mark), w.end()); err != nil {
				t.Fatal(err)
			}
			return w.f.(*buffer).Bytes()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range names {
				write(t, fs, names[i], damage(bytes.Clone(whole[i])))
			}
			c.t = t
			c.open(time.Hour)
			c.check()
			if s := c.g.Stats(); s.CheckpointsRefused != 2 {
				t.Errorf("refused: %d", s.CheckpointsRefused)
			}
			for _, name := range names { // its changelogs may grow until they fit it
				if _, err := fs.Open(name); !errors.Is(err, iofs.ErrNotExist) {
					t.Errorf("%s was refused and is left: %v", name, err)
				}
			}
			c.close()
			for i := range names { // or the next ones would be of what was read
				write(t, fs, names[i], whole[i])
			}
		})
	}
}

// A changelog that has lost rows stops the graph.
func TestChangelogsThatHaveLostRows(t *testing.T) {
	c := newCheckpointed(t)
	c.produce(0, 50, 5)
	c.check()
	c.close()
	top, err := c.db.Topic("g-sums-changelog")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Produce(t.Context(), embedlog.Record{Key: []byte("k0001")}, embedlog.Record{Key: []byte("k0002")}, embedlog.Record{Key: []byte("k0003")}); err != nil {
		t.Fatal(err)
	}
	c.open(time.Hour)
	_, _, err = c.sums.Get(t.Context(), "k0001")
	if lost := (*StateError)(nil); !errors.As(err, &lost) || !errors.Is(err, ErrState) || lost.Store != "sums" || lost.Rows >= lost.Want {
		t.Errorf("the graph says %v", err)
	}
	c.g.Close()
}

// buffer is a file that is written to.
type buffer struct{ bytes.Buffer }

func (b *buffer) Append(p []byte) (int, error) { return b.Write(p) }

func readAll(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(&fileReader{f: f})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	if err := fs.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Append(b)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Bytes of a file are a whole checkpoint, or an error that says so; what is read is written as it was.
func FuzzCheckpoint(f *testing.F) {
	w := &checkpointWriter{f: new(buffer)}
	err := w.head(&mark{Format: markFormat, Graph: "g", Stores: []storeMark{{Name: "a"}, {Name: "b"}}})
	for i := range 2 {
		for k := range 3 {
			err = errors.Join(err, w.row(i, fmt.Sprint("k", k), appendRow(nil, []byte("value"), []embedlog.Header{{Key: "h", Value: []byte("1")}})))
		}
		err = errors.Join(err, w.endStore(i))
	}
	if err = errors.Join(err, w.end()); err != nil {
		f.Fatal(err)
	}
	f.Add(w.f.(*buffer).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := openCheckpoint(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		again := &checkpointWriter{f: new(buffer)}
		if err := again.head(c.mark); err != nil {
			t.Fatal(err)
		}
		head := len(again.buf)
		err = c.blocks(func(b block) error {
			if err := b.each(func(key string, row []byte) error {
				var rec embedlog.Record
				if err := readRow(&rec, row); err != nil {
					return err
				}
				var second embedlog.Record
				if err := readRow(&second, appendRow(nil, rec.Value, rec.Headers)); err != nil || !bytes.Equal(rec.Value, second.Value) || len(rec.Headers) != len(second.Headers) {
					t.Errorf("a row is %q %v, and then %q %v, %v", rec.Value, rec.Headers, second.Value, second.Headers, err)
				}
				return nil
			}); err != nil {
				return err
			}
			again.keys, again.values, again.rows = b.keys, b.values, b.rows
			return again.block(b.store)
		})
		if err != nil {
			return
		}
		if err := again.end(); err != nil {
			t.Fatal(err)
		}
		if got := again.f.(*buffer).Bytes()[head:]; !bytes.HasSuffix(b, got) {
			t.Errorf("read and written again it is %q, and was %q", got, b)
		}
	})
}
