package embedlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/vfs"
)

// A Poll that meets damage behind records that it has collected gives those out;
// the next one reports the damage, as often as it is asked.
func TestPollGivesWhatLiesBeforeDamage(t *testing.T) {
	for _, max := range []int{1, 2, 3, 4, 5, 6, 100} {
		for _, group := range []string{"", "g"} {
			t.Run(fmt.Sprintf("max=%d/group=%s", max, group), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					db := damagedDB(t)
					cfg := ConsumerConfig{Assign: []Position{{Topic: "t", Partition: 0}, {Topic: "t", Partition: 1}}}
					if group != "" {
						cfg = ConsumerConfig{Group: group, Topics: []string{"t"}}
					}
					c := newConsumer(t, db, cfg)
					next := pollToDamage(t, c, max)
					if next[0] != 5 {
						t.Fatalf("%d records came before the damage, want 5", next[0])
					}
					if _, err := c.Poll(context.Background(), max); !errors.Is(err, ErrCorrupt) {
						t.Fatalf("asked again: %v", err)
					}
					if err := c.Seek(Position{Topic: "t", Offset: 6, LeaderEpoch: -1}); err != nil {
						t.Fatal(err)
					}
					next[0] = 6
					for next[0] < 10 || next[1] < 10 {
						list, err := c.Poll(context.Background(), max)
						if err != nil {
							t.Fatal(err)
						}
						inOrder(t, list, next)
					}
				})
			})
		}
	}
}

// The same where a batch has the right checksum and a record in it does not parse:
// what of the batch lies before it is given out, once.
func TestPollGivesWhatLiesBeforeABadRecord(t *testing.T) {
	for _, max := range []int{1, 2, 3, 4, 100} {
		t.Run(fmt.Sprintf("max=%d", max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConsumer(t, badRecordDB(t), ConsumerConfig{Assign: []Position{{Topic: "t", Partition: 0}}})
				if next := pollToDamage(t, c, max); next[0] != 3 {
					t.Fatalf("%d records came before the bad one, want 3", next[0])
				}
				_, err := c.Poll(context.Background(), max)
				if bad := (*ReadError)(nil); !errors.As(err, &bad) || bad.Offset != 3 || bad.Next != 5 {
					t.Fatalf("asked again: %+v", err)
				}
			})
		})
	}
}

// pollToDamage polls until an error comes, and returns where each partition stands.
func pollToDamage(t *testing.T, c *Consumer, max int) map[int32]int64 {
	t.Helper()
	next := map[int32]int64{}
	for range 100 {
		list, err := c.Poll(context.Background(), max)
		if err != nil && len(list) > 0 {
			t.Fatalf("records and an error: %v", err)
		}
		if bad := (*ReadError)(nil); errors.As(err, &bad) {
			if bad.Offset != next[0] {
				t.Fatalf("damage is told at offset %d, %d is next", bad.Offset, next[0])
			}
			return next
		}
		if err != nil {
			t.Fatal(err)
		}
		inOrder(t, list, next)
	}
	t.Fatal("no damage was told")
	return nil
}

func inOrder(t *testing.T, list []Record, next map[int32]int64) {
	t.Helper()
	for _, rec := range list {
		if rec.Offset != next[rec.Partition] {
			t.Fatalf("record %d of partition %d came, %d is next", rec.Offset, rec.Partition, next[rec.Partition])
		}
		next[rec.Partition]++
	}
}

// badRecordDB has batches of two, three and one records. The second record of the second
// batch, at offset 3, claims a length that it has not; all checksums are right.
func badRecordDB(t *testing.T) *DB {
	t.Helper()
	fs := vfs.NewMem()
	ctx := context.Background()
	db, err := OpenFS(fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	top, err := db.CreateTopic(ctx, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range [][]string{{"a", "b"}, {"c", "the bad one", "e"}, {"f"}} {
		var recs []Record
		for _, v := range values {
			recs = append(recs, Record{Value: []byte(v)})
		}
		if _, err := top.Produce(ctx, recs...); err != nil {
			t.Fatal(err)
		}
	}
	name := fmt.Sprintf("topics/%v/0/%020d.log", top.ID(), 0)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make([]byte, 1<<16)
	n, _ := f.ReadAt(all, 0)
	all = all[:n]
	const frameHeader, batchHeader, length = 48, 61, 128
	at := length // of the frame
	size := func() int { return frameHeader + int(binary.BigEndian.Uint32(all[at+8:])) }
	at += size()
	frame := all[at : at+size()]
	batch := frame[frameHeader:]
	value := bytes.Index(batch, []byte("the bad one"))
	// In front of it: length of the record, attributes, two deltas, no key, length.
	batch[value-6] = 2
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
	binary.BigEndian.PutUint32(frame, crc32.Checksum(frame[4:frameHeader+batchHeader], castagnoli))
	if _, err := f.WriteAt(frame, int64(at)); err != nil {
		t.Fatal(err)
	}
	if db, err = OpenFS(fs, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
