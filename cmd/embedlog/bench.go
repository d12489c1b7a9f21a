package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog"
)

func (a *app) bench() *cobra.Command {
	var b benching
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, in a database made for that",
		Long: `bench makes a database beside --data, so on the same disk, measures producing
and consuming in a group, and removes it. It is a first impression of the
machine; docs and bench/ have the careful figures.`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case b.records < 1 || b.size < 1 || b.partitions < 1 || b.singles < 1:
				return usagef("--records, --size, --partitions and --singles are at least 1")
			case b.size > 1<<20-1024:
				return usagef("--size is below 1 MiB, the largest record by default")
			}
			b.a = a
			return b.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&b.records, "records", 200_000, "records to produce and consume")
	f.IntVar(&b.size, "size", 100, "bytes of a value")
	f.IntVar(&b.partitions, "partitions", 4, "partitions of the topic")
	f.IntVar(&b.singles, "singles", 500, "records produced one by one, each waited for")
	return cmd
}

type benching struct {
	a                                  *app
	records, size, partitions, singles int
	rows                               []benchRow
}

// benchRow is one line of the result, and of --format json.
type benchRow struct {
	What    string  `json:"what"`
	Level   string  `json:"durability"`
	Records int     `json:"records"`
	Seconds float64 `json:"seconds"`
	PerSec  float64 `json:"records_per_second"`
	MiBSec  float64 `json:"mib_per_second"`
	P50     float64 `json:"p50_microseconds,omitempty"`
	P99     float64 `json:"p99_microseconds,omitempty"`
}

func (b *benching) run(ctx context.Context) (err error) {
	parent, err := filepath.Abs(b.a.data)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(parent), "embedlog-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, level := range []embedlog.Durability{embedlog.Durable, embedlog.OS} {
		if err := b.level(ctx, db, level); err != nil {
			return err
		}
	}
	if b.a.asJSON() {
		for _, r := range b.rows {
			if err := b.a.json(r); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable("WHAT", "DURABILITY", ">RECORDS", ">RECORDS/S", ">MIB/S", ">P50", ">P99")
	for _, r := range b.rows {
		t.add(r.What, r.Level, r.Records, fmt.Sprintf("%.0f", r.PerSec), fmt.Sprintf("%.1f", r.MiBSec), micros(r.P50), micros(r.P99))
	}
	b.a.note("values of %s, 16-byte keys, %s", bytesText(int64(b.size)), plural(b.partitions, "partition"))
	return b.a.show(t)
}

func micros(us float64) string {
	switch {
	case us == 0:
		return "-"
	case us < 10:
		return fmt.Sprintf("%.1f µs", us)
	case us < 1000:
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

func (b *benching) level(ctx context.Context, db *embedlog.DB, level embedlog.Durability) error {
	name := "bench-" + level.String()
	topic, err := db.CreateTopic(ctx, name, &embedlog.TopicConfig{Partitions: b.partitions, Durability: level})
	if err != nil {
		return err
	}
	rec := embedlog.Record{Topic: name, Key: make([]byte, 16), Value: make([]byte, b.size)}
	key := func(i int) {
		copy(rec.Key, fmt.Sprintf("%016d", i))
	}

	latencies := make([]time.Duration, 0, b.singles)
	start := time.Now()
	for i := range b.singles {
		key(i)
		begun := time.Now()
		if _, err := topic.Produce(ctx, rec); err != nil {
			return err
		}
		latencies = append(latencies, time.Since(begun))
	}
	b.add("produce, one by one", level, b.singles, time.Since(start), latencies)

	p, err := db.Producer(nil)
	if err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	start = time.Now()
	for i := range b.records {
		key(i)
		if err := p.Send(ctx, rec, func(_ embedlog.Position, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		}); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	if err := errors.Join(p.Flush(ctx), p.Close()); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	b.add("produce", level, b.records, time.Since(start), nil)

	return b.consume(ctx, db, name, level)
}

// consume reads the topic as an application does, as the only member of a group, whose
// joining and last commit count.
func (b *benching) consume(ctx context.Context, db *embedlog.DB, name string, level embedlog.Durability) error {
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: name, Topics: []string{name}})
	if err != nil {
		return err
	}
	total, n := b.records+b.singles, 0
	start := time.Now()
	for rec, err := range c.Records(ctx) {
		if err != nil {
			return errors.Join(err, c.Close())
		}
		if n++; n == total {
			c.Mark(rec) // nothing comes behind it to ask for
			break
		}
	}
	if err := c.Close(); err != nil {
		return err
	}
	b.add("consume in a group", level, total, time.Since(start), nil)
	return nil
}

func (b *benching) add(what string, level embedlog.Durability, n int, d time.Duration, latencies []time.Duration) {
	r := benchRow{What: what, Level: level.String(), Records: n, Seconds: d.Seconds()}
	r.PerSec = float64(n) / r.Seconds
	r.MiBSec = r.PerSec * float64(b.size+16) / (1 << 20)
	if len(latencies) > 0 {
		slices.Sort(latencies)
		at := func(q float64) float64 {
			return float64(latencies[int(q*float64(len(latencies)-1))].Nanoseconds()) / 1000
		}
		r.P50, r.P99 = at(0.5), at(0.99)
	}
	b.rows = append(b.rows, r)
}
