package main

import (
	"fmt"
	"slices"
	"time"
)

// A measure is how a row compares its two sides.
type measure int

const (
	rate    measure = iota // records per second; the ratio ours/limit is at least the target
	latency                // p50; the ratio ours/limit is at most the target
	tail                   // p99; the ratio ours/limit is at most the target
	amount                 // Value of ours alone is at most the target; the limit is shown beside it
	growth                 // Value of ours less that of the limit is at most the target
	speed                  // records per second of ours are at least the target; the ratio to the limit is shown beside it
)

// A suite is a table: the rows of one subcommand.
type suite int

const (
	suiteLog suite = iota
	suiteDB
	suiteViews
	suiteKafka // in a table of its own: see kafka.go
	suiteRaft  // the same: see raft.go
)

// A row is one line of the table.
type row struct {
	suite     suite
	name      string // key=value, after what is done; what ours is registered under
	against   string // what the limit is
	measure   measure
	unit      string // of Value
	target    float64
	stated    bool // there is no target: the figure is what is asked for
	pause     bool // show the longest pauses
	steady    bool // and ours may pause no longer than the limit's longest of the run + pauseSlack
	limit     side
	load      rep   // the part of the repetition that the row decides
	timed     bool  // bound by --seconds; else by the records that fit into --mib
	roomBytes int64 // what a timed row may write at most; 0 is no bound
	once      bool  // one repetition is enough: nothing in it is noise
}

// pauseSlack is what ours may add to the longest pause of the limit.
const pauseSlack = 5 * time.Millisecond

// ours holds our side of the rows, by name: files ours_*.go register it.
var ours = map[string]side{}

// register adds our side of a row. A name that no row has is a caller's mistake
// that TestRows finds.
func register(name string, s side) {
	if _, taken := ours[name]; taken {
		panic("bench: two sides are registered for " + name)
	}
	ours[name] = s
}

// value sizes that most rows come in
var sizes = []struct {
	name  string
	bytes int
}{{"100B", 100}, {"1KiB", 1024}}

// rows is all there are.
func rows() []*row { return slices.Concat(logRows(), dbRows(), viewRows()) }

// logRows is the table of targets of a partition and its log.
func logRows() []*row {
	var all []*row
	add := func(name string, r row) {
		r.name = name
		all = append(all, &r)
	}
	for _, size := range sizes {
		add("append/level=os/goroutines=1/batch=1/value="+size.name, row{
			against: "mapped", measure: rate, target: 0.65, pause: true, steady: true,
			limit: limitMapped(), load: rep{Level: "os", ValueBytes: size.bytes, Batch: 1, Goroutines: 1},
		})
	}
	for i, size := range sizes {
		add("append/level=os/goroutines=1/batch=1000/value="+size.name, row{
			against: "mapped", measure: rate, target: []float64{0.8, 0.5}[i], pause: true,
			limit: limitMapped(), load: rep{Level: "os", ValueBytes: size.bytes, Batch: 1000, Goroutines: 1},
		})
	}
	for _, goroutines := range []int{8, 64} {
		add(fmt.Sprintf("append/level=os/goroutines=%d/batch=1/value=100B", goroutines), row{
			against: "our frames, mutex", measure: rate, target: 0.85, pause: true,
			limit: limitMutex(), load: rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: goroutines},
		})
	}
	add("append/level=interval/every=100ms/goroutines=1/batch=1/value=100B", row{
		against: "pwrite a record", measure: rate, target: 3, timed: true,
		limit: limitPwrite(), load: rep{Level: "interval", ValueBytes: 100, Batch: 1, Goroutines: 1},
	})
	durable := func(name string, target float64, goroutines, batch int, room int64) {
		add(name, row{
			against: "pwrite+fdatasync", measure: rate, target: target, timed: true, roomBytes: room,
			limit: limitDurable(), load: rep{Level: "durable", ValueBytes: 100, Batch: batch, Goroutines: goroutines},
		})
	}
	durable("append/level=durable/goroutines=1/batch=1/value=100B", 0.95, 1, 1, 16<<20)
	durable("append/level=durable/goroutines=64/batch=1/value=100B", 0.9, 64, 1, 64<<20)
	durable("append/level=durable/goroutines=1/batch=1000/value=100B", 0.8, 1, 1000, 256<<20)
	durable("append/level=durable/goroutines=1/batch=1000/value=100B/segment=recycled", 1, 1, 1000, 256<<20)

	scan := func(size string, bytes, batch int, read string, target float64) {
		add(fmt.Sprintf("scan/batch=%d/value=%s/read=%s", batch, size, read), row{
			against: "mapped scan", measure: rate, target: target,
			limit: limitScan(), load: rep{ValueBytes: bytes, Batch: batch, Goroutines: 1},
		})
	}
	scan("100B", 100, 1000, "copied", 0.5)
	scan("100B", 100, 1000, "mapped", 0.7)
	scan("1KiB", 1024, 1000, "copied", 0.4)
	scan("1KiB", 1024, 1000, "mapped", 0.65)
	scan("100B", 100, 1, "copied", 0.3)
	scan("100B", 100, 1, "mapped", 0.3)

	add("wake/level=os/value=100B", row{
		against: "mapped + channel", measure: latency, target: 2,
		limit: limitWake(), load: rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 50_000},
	})
	for _, level := range []string{"os", "interval", "durable"} {
		for _, how := range []struct {
			after  string
			target float64
			scan   int64
		}{{"close", 15, 0}, {"kill", 60, unsyncedBytes}} {
			add(fmt.Sprintf("open/size=2GiB/level=%s/after=%s", level, how.after), row{
				against: "read its end", measure: amount, unit: "ms", target: how.target,
				limit: limitOpen(how.scan), load: rep{Level: level, ValueBytes: 1024, Batch: 1000, Goroutines: 1, Bytes: 2 << 30},
			})
		}
	}
	for _, partitions := range []struct {
		count  int
		target float64
	}{{100, 8}, {1000, 64}} {
		add(fmt.Sprintf("idle/partitions=%d", partitions.count), row{
			against: "empty process", measure: amount, unit: "MiB", target: partitions.target,
			limit: limitIdle(), load: rep{Count: partitions.count},
		})
	}
	add("binary", row{
		against: "empty program", measure: growth, unit: "MB", target: 3, once: true,
		limit: limitBinary(), load: rep{},
	})
	return all
}

// frameHeaderBytes is the header of a frame that the limits write.
const frameHeaderBytes = 24

// unsyncedBytes is the most that a kill can leave unsynced, at every level.
const unsyncedBytes = 32 << 20

// repetition completes the row's load with what the flags say.
func (r *row) repetition(c config) rep {
	one := r.load
	frame := int64(frameHeaderBytes + keyBytes + one.ValueBytes)
	if r.timed {
		one.Time, one.Bytes = c.seconds, r.roomBytes
	} else if one.Bytes == 0 {
		one.Bytes = c.bytes
		if one.Records > 0 {
			one.Bytes = one.Records * frame
		}
	}
	if one.Records == 0 && one.Batch > 0 {
		one.Records = one.Bytes / frame / int64(one.Batch) * int64(one.Batch)
	}
	// Whole pages, so that the file that holds it can be mapped to its end.
	one.Bytes = (one.Bytes + pageBytes - 1) &^ (pageBytes - 1)
	return one
}

const pageBytes = 64 << 10
