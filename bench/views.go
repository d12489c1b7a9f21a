package main

import (
	"fmt"

	"github.com/x/embedlog/bench/internal/nexmark"
)

// viewRows is the table of targets of package query: from the log to a view. What it is held against is the least that anybody does who
// makes something of the same log, in the same run: read and decode it.
func viewRows() []*row {
	var all []*row
	add := func(name string, r row) {
		r.suite, r.name = suiteViews, "views/"+name
		all = append(all, &r)
	}
	targets := map[string]float64{
		"q1": 1e6, "q2": 1e6, "q3": 400e3, "q4": 400e3, "q5": 200e3, "q7": 200e3, "q17": 500e3, "q18": 500e3, "q19": 500e3, "q20": 400e3,
	}
	load := rep{ValueBytes: eventBytes, Batch: 1000, Count: 1, Cores: 1}
	for _, q := range nexmark.Queries {
		add("query="+q.Name, row{
			against: "read and decode", measure: speed, target: targets[q.Name], stated: targets[q.Name] == 0,
			limit: side{fresh: true, setup: produceEvents(compact), run: readEvents(compact)}, load: load,
		})
	}
	add("query=q1/sink=topic", row{
		against: "read and decode", measure: speed, stated: true,
		limit: side{fresh: true, setup: produceEvents(compact), run: readEvents(compact)}, load: load,
	})
	add("query=q1/codec=json", row{
		against: "read and decode", measure: speed, stated: true,
		limit: side{fresh: true, setup: produceEvents(asJSON), run: readEvents(asJSON)}, load: rep{ValueBytes: 4 * eventBytes, Batch: 1000, Count: 1, Cores: 1},
	})
	two := load
	two.Count, two.Cores = 2, 2
	add("query=q17/partitions=2/cores=2", row{
		against: "one of each", measure: rate, target: 1.7,
		limit: side{fresh: true, setup: onOne(produceEvents(compact)), run: alone(runQuery("q17", compact, false))}, load: two,
	})
	add("decode/partitions=2/cores=2", row{
		against: "one of each", measure: rate, stated: true,
		limit: side{fresh: true, setup: onOne(produceEvents(compact)), run: alone(readEvents(compact))}, load: two,
	})
	for _, of := range []string{"latest", "groups"} {
		add("of="+of+"/keys=10K", row{
			against: "SQLite, 1,000 a transaction", measure: rate, target: 5,
			limit: side{fresh: true, setup: produceAmounts, run: amountsInSQLite(of)},
			load:  rep{ValueBytes: 2 * eventBytes, Batch: 1000, Count: 1, Cores: 1},
		})
	}
	for _, n := range []struct {
		rows   int
		name   string
		target float64
	}{{10_000, "10K", 1000}, {1_000_000, "1M", 3000}} {
		for _, how := range []string{"now", "written"} {
			add(fmt.Sprintf("get/rows=%s/sees=%s", n.name, how), row{
				against: "map, lock", measure: amount, unit: "ns", target: n.target,
				limit: side{fresh: true, run: getFromMap}, load: rep{ValueBytes: 100, Batch: 1000, Count: n.rows},
			})
		}
	}
	for _, from := range []struct {
		name   string
		target float64
	}{{"changelog", 400e3}, {"checkpoint", 1e6}} {
		add("restore/from="+from.name, row{
			against: "read and decode", measure: speed, target: from.target,
			limit: side{fresh: true, setup: fillView(noCheckpoint), run: readChangelog}, load: rep{ValueBytes: eventBytes, Batch: 1000, Cores: 1},
		})
	}
	add("checkpoint/rows=1M/stops", row{
		against: "read and decode", measure: amount, unit: "ms", target: 5,
		limit: side{fresh: true, setup: fillView(noCheckpoint), run: readChangelog}, load: rep{ValueBytes: eventBytes, Batch: 1000, Records: 1_000_000},
	})
	add("visible/level=os/rate=50K/p99", row{
		against: "seen by a consumer", measure: amount, unit: "us", target: 1000,
		limit: side{fresh: true, run: seenByConsumer}, load: rep{Level: "os", ValueBytes: 100, Batch: 1, Count: 1, Records: 50_000},
	})
	return all
}

// eventBytes is more than an event has on average, so that --mib bounds what a repetition writes.
const eventBytes = 230
