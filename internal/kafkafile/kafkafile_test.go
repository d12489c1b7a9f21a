package kafkafile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

var ctx = context.Background()

var someID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xff}

// fill makes a partition of many kinds of batches: codecs, producers, transactions
// that commit, abort and stay open, leader epochs, timestamps that go back.
func fill(t *testing.T, appends int, seed uint64) *partition.Partition {
	t.Helper()
	p, err := partition.Open("", &partition.Options{FS: vfs.NewMem(), Config: partition.Config{Log: log.Config{SegmentBytes: 32 << 10}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	r := rand.New(rand.NewPCG(seed, 0))
	sequences := make(map[int64]int32)
	inTxn := make(map[int64]bool)
	for i := range appends {
		var recs []log.Record
		for range 1 + r.IntN(8) {
			recs = append(recs, log.Record{Timestamp: int64(1000*i - r.IntN(20_000) + 50_000), Key: fmt.Append(nil, r.IntN(50)), Value: []byte(strings.Repeat("v", r.IntN(300)))})
		}
		c := p.Config()
		c.Compression = compress.Codec(r.IntN(5))
		if err := p.SetConfig(c); err != nil {
			t.Fatal(err)
		}
		var o *partition.AppendOptions
		if id := int64(r.IntN(6)); id < 4 {
			o = &partition.AppendOptions{Producer: &partition.Producer{ID: id, Sequence: sequences[id], Transactional: id < 3}}
			sequences[id] += int32(len(recs))
			inTxn[id] = id < 3
		}
		if _, err := p.Append(ctx, recs, o); err != nil {
			t.Fatal(err)
		}
		if id := int64(r.IntN(6)); inTxn[id] {
			if _, err := p.EndTransaction(ctx, id, 0, r.IntN(2) == 0, 5, false); err != nil {
				t.Fatal(err)
			}
			delete(inTxn, id)
		}
		if r.IntN(40) == 0 {
			if err := p.SetLeaderEpoch(p.LeaderEpoch() + 1 + int32(r.IntN(2))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

// committed is what a Kafka client with read_committed gets from the files: it
// leaves out what the .txnindex says was aborted.
func committed(t *testing.T, dir vfs.FS) (recs []string) {
	t.Helper()
	type batch struct {
		h    log.BatchHeader
		recs []log.Record
	}
	var batches []batch
	c := checker{newestEpoch: -1, stopped: ctx.Err}
	c.onBatch = func(b []byte, h *log.BatchHeader) error {
		x := batch{h: *h}
		for rec, err := range log.Batch(slices.Clone(b)).Records(0) {
			if err != nil {
				return err
			}
			x.recs = append(x.recs, rec)
		}
		batches = append(batches, x)
		return nil
	}
	if err := c.check(dir); err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		out := b.h.Attributes.Has(log.Control)
		for _, a := range c.aborted {
			out = out || b.h.Attributes.Has(log.Transactional) && b.h.ProducerID == a.producerID && b.h.BaseOffset >= a.first && b.h.BaseOffset < a.marker
		}
		for _, rec := range b.recs {
			if !out {
				recs = append(recs, fmt.Sprintf("%d %d %s %s", rec.Offset, rec.Timestamp, rec.Key, rec.Value))
			}
		}
	}
	return recs
}

func read(t *testing.T, p *partition.Partition, level partition.Isolation) (recs []string) {
	t.Helper()
	r, err := p.ReadFrom(p.LogStart(), &partition.ReaderOptions{Isolation: level})
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := r.TryNext()
		if err == io.EOF {
			return recs
		}
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range b.Records(0) {
			if err != nil {
				t.Fatal(err)
			}
			recs = append(recs, fmt.Sprintf("%d %d %s %s", rec.Offset, rec.Timestamp, rec.Key, rec.Value))
		}
	}
}

func TestExportedFilesPassKafkasChecks(t *testing.T) {
	for _, row := range []struct {
		segment  int64
		interval int
	}{{0, 0}, {8 << 10, 1000}, {2000, 1}, {1, 4096}} {
		t.Run(fmt.Sprintf("segment=%d/interval=%d", row.segment, row.interval), func(t *testing.T) {
			p := fill(t, 400, uint64(row.segment+1))
			for id := range int64(3) { // nothing open: the last stable offset is the end
				p.EndTransaction(ctx, id, 0, false, 5, false)
			}
			dir := vfs.NewMem()
			steps := 0
			rep, err := Export(ctx, p, dir, "orders", 3, someID, &Options{SegmentBytes: row.segment, IndexIntervalBytes: row.interval, Progress: func(at, end int64) { steps++ }})
			if err != nil {
				t.Fatal(err)
			}
			got, err := Check(ctx, dir, "orders-3")
			if err != nil {
				t.Fatal(err)
			}
			if got.TopicID != someID || got.Segments != rep.Segments || got.Batches != rep.Batches || got.Records != rep.Records || got.Bytes != rep.Bytes ||
				got.AbortedTxns != rep.AbortedTxns || got.Snapshots != rep.Segments || got.End != p.HighWatermark() || rep.End != got.End {
				t.Errorf("wrote %+v\nread  %+v", rep, got)
			}
			if row.segment == 0 && got.Segments != 1 || row.segment == 1 && int64(got.Segments) != got.Batches || got.IndexEntries == 0 && row.segment != 1 || got.TimeEntries == 0 || got.AbortedTxns == 0 || steps == 0 {
				t.Errorf("%+v, %d steps", got, steps)
			}
			want := read(t, p, partition.ReadCommitted)
			if have := committed(t, vfs.Sub(dir, "orders-3")); !slices.Equal(have, want) {
				t.Errorf("%d committed records in the files, %d in the partition", len(have), len(want))
			}
		})
	}
}

// The producers in the last snapshot are those that the partition knows.
func TestSnapshotIsThePartitionsProducers(t *testing.T) {
	p := fill(t, 200, 9)
	dir := vfs.NewMem()
	rep, err := Export(ctx, p, dir, "t", 0, someID, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := readFile(dir, "t-0/"+fileName(rep.End, snapshotSuffix))
	if err != nil {
		t.Fatal(err)
	}
	var got []partition.ProducerState
	open := 0
	for e := b[snapshotHeaderBytes:]; len(e) >= snapshotEntryBytes; e = e[snapshotEntryBytes:] {
		i := func(at, n int) (v int64) {
			for _, x := range e[at : at+n] {
				v = v<<8 | int64(x)
			}
			return v << (64 - 8*n) >> (64 - 8*n)
		}
		s := partition.ProducerState{ProducerID: i(0, 8), Epoch: int16(i(8, 2)), LastSequence: int32(i(10, 4)), LastOffset: i(14, 8), CoordinatorEpoch: int32(i(34, 4)), TxnFirstOffset: i(38, 8)}
		if s.TxnFirstOffset >= 0 {
			open++
		}
		got = append(got, s)
	}
	want := p.Producers()
	for i := range want {
		want[i].LastTimestamp = 0 // a broker's is of the marker too
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if open == 0 || open != rep.Open {
		t.Errorf("%d open transactions, %d reported", open, rep.Open)
	}
}

func TestEmptyAndTrimmed(t *testing.T) {
	empty, err := partition.Open("", &partition.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	dir := vfs.NewMem()
	if _, err := Export(ctx, empty, dir, "empty", 0, someID, nil); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(ctx, dir, "empty-0"); err != nil || r.Segments != 1 || r.Batches != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	p := fill(t, 100, 3)
	start, err := p.DeleteRecords(ctx, 150)
	if err != nil || start != 150 {
		t.Fatal(start, err)
	}
	if _, err := Export(ctx, p, dir, "trimmed", 1, someID, nil); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(ctx, dir, "trimmed-1"); err != nil || r.Start > 150 || r.End != p.HighWatermark() {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Export(ctx, p, dir, "trimmed", 1, someID, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := Export(ctx, p, dir, "x", 1, someID, &Options{SegmentBytes: -1, IndexIntervalBytes: -1}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("both bad options: %v", err)
	}
}

func TestCompacted(t *testing.T) {
	p := fill(t, 400, 5)
	for id := range int64(3) {
		p.EndTransaction(ctx, id, 0, true, 5, false)
	}
	l := p.Log()
	l.Lock()
	err := l.Roll()
	l.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	rep, err := l.Compact(ctx, log.CompactPolicy{Upto: p.LastStable()})
	if err != nil || rep.RecordsKept == 0 || rep.RecordsKept >= rep.RecordsRead/2 {
		t.Fatal(rep, err)
	}
	dir := vfs.NewMem()
	if _, err := Export(ctx, p, dir, "c", 0, someID, &Options{SegmentBytes: 4096, IndexIntervalBytes: 100}); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(ctx, dir, "c-0"); err != nil || r.Records == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	want := read(t, p, partition.ReadCommitted)
	if have := committed(t, vfs.Sub(dir, "c-0")); !slices.Equal(have, want) {
		t.Errorf("%d committed records in the files, %d in the partition", len(have), len(want))
	}
}

// Stopped at any operation it leaves nothing that could be taken for an export, and
// the next one succeeds.
func TestCrashAtEachOperation(t *testing.T) {
	p := fill(t, 30, 2)
	for k := 0; ; k++ {
		dir := vfs.NewMem(vfs.CrashAt(k))
		_, err := Export(ctx, p, dir, "t", 0, someID, &Options{SegmentBytes: 4096})
		if !dir.Crashed() {
			if err != nil {
				t.Fatal(err)
			}
			if k < 20 {
				t.Fatalf("only %d operations", k)
			}
			return
		}
		after := dir.AfterCrash(vfs.Random(uint64(k)))
		if _, err := after.Stat("t-0"); err == nil {
			if _, err := Check(ctx, after, "t-0"); err != nil {
				t.Fatalf("k=%d: it has its name and is not whole: %v", k, err)
			}
			continue
		}
		if _, err := Export(ctx, p, after, "t", 0, someID, nil); err != nil {
			t.Fatalf("k=%d: again: %v", k, err)
		}
	}
}

func TestCancelledLeavesNothing(t *testing.T) {
	p := fill(t, 30, 2)
	stop, cancel := context.WithCancel(ctx)
	cancel()
	dir := vfs.NewMem()
	if _, err := Export(stop, p, dir, "t", 0, someID, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if infos, err := dir.List("."); err != nil || len(infos) != 0 {
		t.Errorf("%v, %v", infos, err)
	}
}

// The checks find what is wrong: any byte of any file.
func TestCheckFindsDamage(t *testing.T) {
	p := fill(t, 60, 4)
	pristine := vfs.NewMem()
	if _, err := Export(ctx, p, pristine, "t", 0, someID, &Options{SegmentBytes: 16 << 10, IndexIntervalBytes: 500}); err != nil {
		t.Fatal(err)
	}
	infos, err := pristine.List("t-0")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]bool)
	for _, info := range infos {
		kinds[info.Name[strings.LastIndex(info.Name, ".")+1:]] = true
		step := max(info.Size/97, 1)
		for pos := int64(0); pos < info.Size; pos += step {
			if strings.HasSuffix(info.Name, txnIndexSuffix) && pos%txnEntryBytes >= 17 && pos%txnEntryBytes < 18 ||
				strings.HasSuffix(info.Name, txnIndexSuffix) && (pos%txnEntryBytes >= 26 || pos%txnEntryBytes >= 10 && pos%txnEntryBytes < 18) {
				continue // first offset and last stable offset: no other bytes tell them
			}
			if info.Name == metadataName && pos >= int64(len("version: 0\ntopic_id: ")) {
				continue // another id
			}
			dir := pristine.AfterKill()
			f, err := dir.Open("t-0/" + info.Name)
			if err != nil {
				t.Fatal(err)
			}
			var b [1]byte
			f.ReadAt(b[:], pos)
			b[0] ^= 0x55
			f.WriteAt(b[:], pos)
			f.Close()
			if _, err := Check(ctx, dir, "t-0"); err == nil {
				t.Fatalf("%s byte %d of %d: not found", info.Name, pos, info.Size)
			}
		}
	}
	for _, kind := range []string{"log", "index", "timeindex", "txnindex", "snapshot"} {
		if !kinds[kind] {
			t.Errorf("no .%s", kind)
		}
	}
}
