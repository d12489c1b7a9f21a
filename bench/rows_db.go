package main

import "fmt"

// dbRows is the table of targets of the public API. What it is held against is what
// it stands on, measured in the same run: a partition, a log, channels, files.
func dbRows() []*row {
	var all []*row
	add := func(name string, r row) {
		r.suite, r.name = suiteDB, "db/"+name
		all = append(all, &r)
	}
	for _, batch := range []int{1, 1000} {
		add(fmt.Sprintf("produce/level=os/batch=%d/value=100B", batch), row{
			against: "Partition.Append", measure: rate, target: 1 / 1.3, pause: true,
			limit: side{run: appendOurs}, load: rep{Level: "os", ValueBytes: 100, Batch: batch, Goroutines: 1},
		})
	}
	for _, reuse := range []bool{false, true} {
		buffers := ""
		if reuse {
			buffers = "/buffers=reused"
		}
		load := rep{ValueBytes: 100, Batch: 1000, Goroutines: 1, Reuse: reuse}
		add("read/how=records"+buffers+"/value=100B", row{
			against: "Consumer.Batches", measure: rate, target: 0.5,
			limit: side{fresh: true, prepare: produceAll, run: readBatches}, load: load,
		})
		add("read/how=batches"+buffers+"/value=100B", row{
			against: "log.Reader", measure: rate, target: 0.8,
			limit: side{fresh: true, prepare: produceAll, run: readLog}, load: load,
		})
	}
	add("latency/level=os/value=100B/p50", row{
		against: "channel round trip", measure: latency, target: 5,
		limit: side{run: channelRoundTrip}, load: rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 50_000},
	})
	add("latency/level=os/value=100B/p99", row{
		against: "channel round trip", measure: tail, target: 20,
		limit: side{run: channelRoundTrip}, load: rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 50_000},
	})
	// As a device or a session produces: the limit's writers stay with their file, too.
	add("produce/level=durable/goroutines=64/partitions=4/keys=own/value=100B", row{
		against: "4 files, 16 writers each", measure: rate, target: 0.7, timed: true, roomBytes: 64 << 20,
		limit: side{run: fourFiles}, load: rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 64, Count: 4, OneKey: true},
	})
	// As a request handler does: what one partition waits for, all soon wait for.
	add("produce/level=durable/goroutines=64/partitions=4/keys=any/value=100B", row{
		against: "4 files, 16 writers each", measure: rate, stated: true, timed: true, roomBytes: 64 << 20,
		limit: side{run: fourFiles}, load: rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 64, Count: 4},
	})
	for _, goroutines := range []int{1, 16} {
		add(fmt.Sprintf("txn/partitions=1/offsets=1/goroutines=%d", goroutines), row{
			against: "3 syncs in sequence", measure: rate, stated: true, timed: true, roomBytes: 64 << 20,
			limit: side{run: threeSyncs}, load: rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: goroutines},
		})
	}
	for _, how := range []struct {
		after  string
		target float64
	}{{"close", 1000}, {"kill", 5000}} {
		add("open/partitions=1000/after="+how.after, row{
			against: "read their names", measure: amount, unit: "ms", target: how.target,
			limit: side{fresh: true, prepare: makeDirs, run: listDirs}, load: rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 1, Count: 1000},
		})
	}
	add("idle/partitions=1000", row{
		against: "empty process", measure: amount, unit: "MiB", target: 64,
		limit: limitIdle(), load: rep{ValueBytes: 100, Batch: 1, Goroutines: 1, Count: 1000},
	})
	return all
}
