package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// The power fails at some file operation while records are written and a group
// reads them. Afterwards the group goes on at or before what it had processed, and
// reads everything that is there from then on: also where a topic that is not synced
// has lost records that the group had committed, and has got others since.
func TestGroupAfterCrash(t *testing.T) {
	seed := rand.Uint64()
	for run := range testcount.N(60) {
		for _, level := range []Durability{Durable, OS} {
			synctest.Test(t, func(t *testing.T) { groupCrash(t, seed, run, level) })
		}
	}
}

func groupCrash(t *testing.T, seed uint64, run int, level Durability) {
	const parts = 2
	rng := rand.New(rand.NewPCG(seed, uint64(run)))
	where := fmt.Sprintf("seed %d run %d level %v", seed, run, level)
	fs := vfs.NewMem(vfs.CrashAt(60 + rng.IntN(400)))
	options := &Options{MaintenanceInterval: -1}
	var acked, processed [parts]int64 // end of what was acknowledged, and of what was processed
	values := [parts]map[int64]string{}
	for p := range values {
		values[p] = map[int64]string{}
	}
	db, err := OpenFS(fs, options)
	if err == nil {
		crashUse(db, rng, level, &acked, &processed, values)
		db.Close()
	}
	after := fs.AfterCrash(vfs.Random(rng.Uint64()))
	db, err = OpenFS(after, options)
	if err != nil {
		t.Fatalf("%s: open after the crash: %v", where, err)
	}
	defer db.Close()
	ctx := context.Background()
	top, err := db.Topic("t")
	if errors.Is(err, ErrUnknownTopic) {
		return // it had not been made
	} else if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	// Others get the offsets of what was lost, before the group looks.
	var end [parts]int64
	info, err := top.Describe()
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for _, p := range info.Partitions {
		if level == Durable && p.Err == nil && p.HighWatermark < acked[p.Partition] {
			t.Fatalf("%s: partition %d ends at %d, %d was acknowledged", where, p.Partition, p.HighWatermark, acked[p.Partition])
		}
	}
	fresh := [parts]map[int64]bool{}
	for p := range int32(parts) {
		fresh[p] = map[int64]bool{}
		for range rng.IntN(30) {
			pos, err := top.ProduceTo(ctx, p, Record{Value: []byte("new")})
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			fresh[p][pos[0].Offset] = true
		}
		pos, err := top.ListOffsets(ctx, Latest)
		if err != nil {
			t.Fatal(err)
		}
		end[p] = pos[p].Offset
	}
	resets := 0
	c, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}, OnReset: func(_ context.Context, _ *Consumer, r Reset) {
		resets++
		if r.To > r.From {
			t.Errorf("%s: reset skips from %d to %d: %v", where, r.From, r.To, r.Cause)
		}
	}})
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	defer c.Close()
	short, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var next [parts]int64
	var begun [parts]bool
	for rec, err := range c.Records(short) {
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: %v", where, err)
			}
			break
		}
		p := rec.Partition
		if !begun[p] {
			begun[p], next[p] = true, rec.Offset
			if rec.Offset > processed[p] {
				t.Fatalf("%s: partition %d goes on at %d, processed up to %d", where, p, rec.Offset, processed[p])
			}
		}
		if rec.Offset != next[p] {
			t.Fatalf("%s: partition %d: offset %d, want %d", where, p, rec.Offset, next[p])
		}
		next[p]++
		if !fresh[p][rec.Offset] && string(rec.Value) != values[p][rec.Offset] && rec.Offset < acked[p] {
			t.Fatalf("%s: partition %d offset %d: %q, want %q", where, p, rec.Offset, rec.Value, values[p][rec.Offset])
		}
		delete(fresh[p], rec.Offset)
	}
	for p := range parts {
		if len(fresh[p]) > 0 {
			t.Fatalf("%s: partition %d: %d new records were skipped; read up to %d of %d, processed %d, %d resets", where, p, len(fresh[p]), next[p], end[p], processed[p], resets)
		}
	}
}

// crashUse writes and reads until the power fails or it is through.
func crashUse(db *DB, rng *rand.Rand, level Durability, acked, processed *[2]int64, values [2]map[int64]string) {
	ctx := context.Background()
	top, err := db.CreateTopic(ctx, "t", &TopicConfig{Partitions: 2, Durability: level})
	if err != nil {
		return
	}
	c, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}, CommitInterval: 100 * time.Millisecond})
	if err != nil {
		return
	}
	defer c.Close()
	for i := range 40 {
		p := int32(rng.IntN(2))
		var recs []Record
		for j := range 1 + rng.IntN(4) {
			recs = append(recs, Record{Value: fmt.Append(nil, i, ".", j)})
		}
		pos, err := top.ProduceTo(ctx, p, recs...)
		if err != nil {
			return
		}
		for j, at := range pos {
			values[p][at.Offset] = string(recs[j].Value)
			acked[p] = at.Offset + 1
		}
		if rng.IntN(3) > 0 {
			continue
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		n := rng.IntN(8)
		for rec, err := range c.Records(short) {
			if err != nil || n == 0 {
				break
			}
			n--
			processed[rec.Partition] = max(processed[rec.Partition], rec.Offset+1)
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
	}
}
