package partition

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// keyed appends one record a word: "a1" is value 1 of key a, "7:a1" the same in a
// transaction of producer 7, "7C" and "7A" end it, "|" rolls, "a-" is a tombstone.
func keyed(t *testing.T, p *Partition, words string) {
	t.Helper()
	ctx, seq := context.Background(), map[int64]int32{}
	for w := range strings.FieldsSeq(words) {
		var err error
		id, rec, txn := int64(0), w, false
		if len(w) > 2 && w[1] == ':' {
			id, rec, txn = int64(w[0]-'0'), w[2:], true
		}
		switch {
		case w == "|":
			err = p.Roll(ctx)
		case w[1] == 'C' || w[1] == 'A':
			_, err = p.EndTransaction(ctx, int64(w[0]-'0'), 0, w[1] == 'C', 1, false)
		default:
			r := log.Record{Key: []byte(rec[:1]), Value: []byte(rec), Timestamp: 1000}
			if rec[1] == '-' {
				r.Value = nil
			}
			var o *AppendOptions
			if txn {
				o = &AppendOptions{Producer: &Producer{ID: id, Sequence: seq[id], Transactional: true}}
				seq[id]++
			}
			_, err = p.Append(ctx, []log.Record{r}, o)
		}
		if err != nil {
			t.Fatalf("%q: %s: %v", words, w, err)
		}
	}
}

func TestCompactKeepsTheLastOfEachKey(t *testing.T) {
	for _, row := range []struct {
		name, words, committed string
		compactions            int
	}{
		{"plain", "a1 b1 a2 | c1", "b1 a2 c1", 1},
		{"the active segment stays", "a1 | a2 a3", "a1 a2 a3", 1},
		{"committed", "a1 7:a2 7C | c1", "a2 c1", 1},
		{"aborted is no value", "a1 7:a2 7A | c1", "a1 c1", 1},
		{"aborted and committed of one producer", "7:a1 7C 7:a2 7A 7:b1 7C | c1", "a1 b1 c1", 1},
		{"undecided holds it back", "a1 a2 7:b1 | a3 | c1", "a1 a2", 1},
		{"below the undecided", "a1 a2 | 7:b1 | c1", "a2", 1},
		{"two producers, one open", "a1 7:a2 8:b1 7C | c1", "a1 a2", 1},
		{"again", "a1 7:a2 7A b1 | c1", "a1 b1 c1", 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			fs := vfs.NewMem()
			now := time.UnixMilli(5_000_000)
			cfg := Config{Log: log.Config{SegmentBytes: 1 << 20}}
			open := func(fs vfs.FS) *Partition {
				p, err := Open("", &Options{FS: fs, Config: cfg, Now: func() time.Time { return now }})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { p.Close() })
				return p
			}
			p := open(fs)
			keyed(t, p, row.words)
			// A reader that was told of the transactions before anything went goes on behind it.
			early, err := p.ReadFrom(0, &ReaderOptions{Isolation: ReadCommitted})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := early.TryNext(); err != nil {
				t.Fatal(err)
			}
			for range row.compactions {
				if _, err := p.Compact(context.Background(), log.CompactPolicy{DeleteRetention: time.Hour, Again: true}); err != nil {
					t.Fatal(err)
				}
				now = now.Add(2 * time.Hour)
			}
			if got := strings.Join(readAll(t, p, ReadCommitted), " "); got != row.committed {
				t.Errorf("committed: %q, want %q", got, row.committed)
			}
			for {
				if _, err := early.TryNext(); err != nil {
					break
				}
			}
			if want := p.LastStable(); early.Offset() != want {
				t.Errorf("a reader from before stands at %d, want %d", early.Offset(), want)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(readAll(t, open(fs.AfterKill()), ReadCommitted), " "); got != row.committed {
				t.Errorf("committed after reopening: %q, want %q", got, row.committed)
			}
		})
	}
}

// A transaction of which compaction left nothing is forgotten, so that its producer's
// later ones are seen although its marker is gone.
func TestCompactForgetsAbortedTransactions(t *testing.T) {
	now := time.UnixMilli(5_000_000)
	p, err := Open("", &Options{FS: vfs.NewMem(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	keyed(t, p, "x1 7:a1 7A 7:b1 7C | c1")
	early, err := p.ReadFrom(0, &ReaderOptions{Isolation: ReadCommitted, Reuse: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := early.TryNext(); err != nil { // it has seen the list by now
		t.Fatal(err)
	}
	for range 3 {
		if _, err := p.Compact(context.Background(), log.CompactPolicy{DeleteRetention: time.Hour, Again: true}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * time.Hour)
	}
	controls := 0
	r, err := p.ReadFrom(0, &ReaderOptions{Control: true})
	if err != nil {
		t.Fatal(err)
	}
	for b, err := r.TryNext(); err == nil; b, err = r.TryNext() {
		if h, err := log.ParseBatchHeader(b); err != nil {
			t.Fatal(err)
		} else if h.Attributes.Has(log.Control) && h.Count > 0 {
			controls++
		}
	}
	if controls != 1 {
		t.Fatalf("%d markers are left, want only the one of the committed transaction", controls)
	}
	res, err := p.Fetch(context.Background(), FetchRequest{Isolation: ReadCommitted})
	if err != nil || len(res.Aborted) != 0 {
		t.Errorf("fetch: aborted %v, error %v, want none: nothing is left of it", res.Aborted, err)
	}
	if got := strings.Join(readAll(t, p, ReadCommitted), " "); got != "x1 b1 c1" {
		t.Errorf("committed: %q, want %q", got, "x1 b1 c1")
	}
	var rest []string
	for b, err := early.TryNext(); err == nil; b, err = early.TryNext() {
		for rec, err := range b.Records(0) {
			if err != nil {
				t.Fatal(err)
			}
			rest = append(rest, string(rec.Value))
		}
	}
	if got := strings.Join(rest, " "); got != "b1 c1" {
		t.Errorf("a reader from before goes on with %q, want %q", got, "b1 c1")
	}
}

// The last batch of a producer is kept, empty if need be: without the checkpoint its
// sequence is read from there.
func TestCompactKeepsProducers(t *testing.T) {
	fs := vfs.NewMem()
	p := openTest(t, fs, Config{})
	ctx := context.Background()
	send := func(p *Partition, seq int32) (Result, error) {
		return p.Append(ctx, record(fmt.Sprint("v", seq)), &AppendOptions{Producer: &Producer{ID: 7, Sequence: seq}})
	}
	for seq := range int32(4) {
		if _, err := send(p, seq); err != nil {
			t.Fatal(err)
		}
	}
	keyed(t, p, "k9 | z1")
	report, err := p.Compact(ctx, log.CompactPolicy{})
	if err != nil || report.RecordsKept >= report.RecordsRead {
		t.Fatalf("compact: %+v, %v", report, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove("checkpoint"); err != nil {
		t.Fatal(err)
	}
	p = openTest(t, fs, Config{})
	if res, err := send(p, 3); err != nil || !res.Duplicate {
		t.Errorf("sequence 3 again: %+v, %v, want a duplicate", res, err)
	}
	if _, err := send(p, 9); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("sequence 9: %v, want out of order", err)
	}
	if _, err := send(p, 4); err != nil {
		t.Errorf("sequence 4: %v", err)
	}
}

func TestRetainMovesTheLogStart(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	keyed(t, p, "a1 7:a2 7A | b1 b2 | c1")
	deleted, freed, err := p.Retain(context.Background(), log.RetentionPolicy{Bytes: 1})
	if err != nil || deleted != 2 || p.LogStart() != 5 || freed < 2*4096 {
		t.Fatalf("retain: %d deleted, %d bytes, log start %d, %v; want 2, two blocks, 5", deleted, freed, p.LogStart(), err)
	}
	if list := p.abortedIn(0, 100); len(list) != 0 {
		t.Errorf("aborted %v is remembered below the log start", list)
	}
	oldest, err := p.Log().Oldest()
	if err != nil || oldest.BaseOffset != 5 || oldest.EndOffset != 6 || !oldest.Active || oldest.MaxTimestamp != 1000 {
		t.Errorf("oldest segment %+v, %v", oldest, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := p.Retain(ctx, log.RetentionPolicy{Bytes: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
