package embedlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/x/embedlog/internal/invariant"
)

// fillForReuse makes a topic of 4 MiB in two partitions: much more than is read at
// once. Each value begins with its number within the partition.
func fillForReuse(t *testing.T, db *DB) (perPartition int) {
	t.Helper()
	topic := makeTopic(t, db, "t", &TopicConfig{Partitions: 2, Durability: OS})
	const batch = 100
	recs := make([]Record, batch)
	for n := 0; n < 2000; n += batch {
		for p := range int32(2) {
			for i := range recs {
				value := bytes.Repeat([]byte{byte(n + i)}, 1000)
				binary.BigEndian.PutUint32(value, uint32(n+i))
				recs[i] = Record{Key: []byte{byte(p)}, Value: value, Headers: []Header{{Key: "h", Value: value[:4]}}}
			}
			if _, err := topic.ProduceTo(context.Background(), p, recs...); err != nil {
				t.Fatal(err)
			}
		}
	}
	return 2000
}

func checkReused(t *testing.T, rec *Record) {
	t.Helper()
	want := bytes.Repeat([]byte{byte(rec.Offset)}, 1000)
	binary.BigEndian.PutUint32(want, uint32(rec.Offset))
	if !bytes.Equal(rec.Value, want) || !bytes.Equal(rec.Headers[0].Value, want[:4]) || !bytes.Equal(rec.Key, []byte{byte(rec.Partition)}) {
		t.Fatalf("%s/%d@%d: key %x, header %x, value %x...", rec.Topic, rec.Partition, rec.Offset, rec.Key, rec.Headers[0].Value, rec.Value[:8])
	}
}

// Each record is right while it is looked at, and what Poll returned stays so.
func TestReuseBuffers(t *testing.T) {
	ctx := context.Background()
	db, err := OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	total := 2 * fillForReuse(t, db)
	consumer := func() *Consumer {
		c, err := db.Consumer(&ConsumerConfig{Topics: []string{"t"}, ReuseBuffers: true})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := consumer()
	n := 0
	for rec, err := range c.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		checkReused(t, &rec)
		if n++; n == total {
			break
		}
	}
	c.Close()

	c = consumer()
	defer c.Close()
	var all []Record
	for len(all) < total {
		list, err := c.Poll(ctx, 333)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	for i := range all {
		checkReused(t, &all[i])
	}
}

// Reading everything allocates a small part of what is read.
func TestReuseBuffersAllocates(t *testing.T) {
	if invariant.On {
		t.Skip("the checks allocate on their own account")
	}
	db, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	total := 2 * fillForReuse(t, db)
	read := func(reuse bool) uint64 {
		c, err := db.Consumer(&ConsumerConfig{Topics: []string{"t"}, ReuseBuffers: reuse})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := 0
		for b, err := range c.Batches(context.Background()) {
			if err != nil {
				t.Fatal(err)
			}
			n += int(b.LastOffset-b.FirstOffset) + 1
			if n == total {
				break
			}
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if reused, fresh := read(true), read(false); reused > 2<<20 || fresh < 4<<20 {
		t.Errorf("%d bytes allocated with the buffers reused, %d without, want at most 2 MiB and at least 4 MiB", reused, fresh)
	}
}
