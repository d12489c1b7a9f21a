package prom

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/views"
)

// Metrics is a prometheus.Collector for one database. Its methods may be called
// from several goroutines.
type Metrics struct {
	db      atomic.Pointer[embedlog.DB]
	counted []prometheus.Collector

	produceRecords, produceBytes, produceErrors *prometheus.CounterVec
	produceSeconds                              *prometheus.HistogramVec
	fetchBytes, fetchErrors                     *prometheus.CounterVec
	fsyncErrors                                 *prometheus.CounterVec
	fsyncSeconds                                *prometheus.HistogramVec
	commits, commitErrors, rebalances           *prometheus.CounterVec
	commitSeconds                               prometheus.Histogram
	members                                     *prometheus.GaugeVec
}

// seconds are the buckets of times: from what memory takes to what a bad disk does.
var seconds = []float64{1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// New makes the metrics of one database: give Hooks to its options and the open
// database to Watch.
func New() *Metrics {
	m := &Metrics{}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.counted = append(m.counted, c)
		return c
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
		m.counted = append(m.counted, h)
		return h
	}
	m.produceRecords = counter("embedlog_produce_records_total", "Records that were acknowledged.", "topic")
	m.produceBytes = counter("embedlog_produce_bytes_total", "Bytes of keys and values of those records.", "topic")
	m.produceErrors = counter("embedlog_produce_errors_total", "Appends that failed or whose outcome is not known.", "topic")
	m.produceSeconds = histogram("embedlog_produce_seconds", "Time of an append, until it is as safe as the topic's durability says.", "topic")
	m.fetchBytes = counter("embedlog_fetch_bytes_total", "Bytes of record batches that were fetched.", "topic")
	m.fetchErrors = counter("embedlog_fetch_errors_total", "Fetches that failed.", "topic")
	m.fsyncSeconds = histogram("embedlog_fsync_seconds", "Time of a sync of records to the disk; many appends share one.", "topic")
	m.fsyncErrors = counter("embedlog_fsync_errors_total", "Syncs that failed: the partition takes no records until the database is opened again.", "topic")
	m.commits = counter("embedlog_group_commits_total", "Commits of offsets.", "group")
	m.commitErrors = counter("embedlog_group_commit_errors_total", "Commits of offsets that failed.", "group")
	m.commitSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "embedlog_group_commit_seconds", Help: "Time of a commit of offsets.", Buckets: seconds})
	m.rebalances = counter("embedlog_group_rebalances_total", "Times that a group got another assignment.", "group")
	m.members = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "embedlog_group_members", Help: "Members of a group at its last assignment."}, []string{"group"})
	m.counted = append(m.counted, m.commitSeconds, m.members)
	return m
}

// Hooks are what the options of the database get. next are hooks of the program's
// own, which are called, too; nil is none.
func (m *Metrics) Hooks(next *embedlog.Hooks) *embedlog.Hooks {
	var also embedlog.Hooks
	if next != nil {
		also = *next
	}
	return &embedlog.Hooks{
		OnProduce: func(topic string, partition int32, records int, bytes int64, d time.Duration, err error) {
			if err != nil {
				m.produceErrors.WithLabelValues(topic).Inc()
			} else {
				m.produceRecords.WithLabelValues(topic).Add(float64(records))
				m.produceBytes.WithLabelValues(topic).Add(float64(bytes))
			}
			m.produceSeconds.WithLabelValues(topic).Observe(d.Seconds())
			if also.OnProduce != nil {
				also.OnProduce(topic, partition, records, bytes, d, err)
			}
		},
		OnFetch: func(topic string, partition int32, batches int, bytes int64, d time.Duration, err error) {
			if err != nil {
				m.fetchErrors.WithLabelValues(topic).Inc()
			}
			m.fetchBytes.WithLabelValues(topic).Add(float64(bytes))
			if also.OnFetch != nil {
				also.OnFetch(topic, partition, batches, bytes, d, err)
			}
		},
		OnFsync: func(topic string, partition int32, d time.Duration, err error) {
			if err != nil {
				m.fsyncErrors.WithLabelValues(topic).Inc()
			}
			m.fsyncSeconds.WithLabelValues(topic).Observe(d.Seconds())
			if also.OnFsync != nil {
				also.OnFsync(topic, partition, d, err)
			}
		},
		OnCommit: func(group string, offsets int, d time.Duration, err error) {
			m.commits.WithLabelValues(group).Inc()
			if err != nil {
				m.commitErrors.WithLabelValues(group).Inc()
			}
			m.commitSeconds.Observe(d.Seconds())
			if also.OnCommit != nil {
				also.OnCommit(group, offsets, d, err)
			}
		},
		OnRebalance: func(group string, epoch int32, members int) {
			m.rebalances.WithLabelValues(group).Inc()
			m.members.WithLabelValues(group).Set(float64(members))
			if also.OnRebalance != nil {
				also.OnRebalance(group, epoch, members)
			}
		},
	}
}

// Watch makes db the database whose offsets, sizes and lag are collected.
func (m *Metrics) Watch(db *embedlog.DB) { m.db.Store(db) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.counted {
		c.Describe(out)
	}
	for _, g := range gauges {
		out <- g.desc
	}
}

// Collect implements prometheus.Collector. A database that is closed has no
// offsets, sizes and lag.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.counted {
		c.Collect(out)
	}
	db := m.db.Load()
	if db == nil {
		return
	}
	s := db.Stats()
	if len(s.Topics) == 0 && s.Partitions == 0 {
		if err := db.Sync(context.Background()); errors.Is(err, embedlog.ErrClosed) {
			return
		}
	}
	send := func(g *gauge, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(g.desc, g.kind, value, labels...)
	}
	send(bytesUsed, float64(s.Bytes))
	send(failedPartitions, float64(s.Failed))
	send(evictedBytes, float64(s.Maintenance.EvictedBytes))
	send(retainedBytes, float64(s.Maintenance.RetainedBytes))
	send(compactions, float64(s.Maintenance.Compactions))
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if p.Elsewhere {
				continue // the nodes that have it say so
			}
			n := strconv.Itoa(int(p.Partition))
			send(logStart, float64(p.LogStart), t.Name, n)
			send(lastStable, float64(p.LastStable), t.Name, n)
			send(highWatermark, float64(p.HighWatermark), t.Name, n)
			send(durableOffset, float64(p.DurableOffset), t.Name, n)
			send(partitionBytes, float64(p.Bytes), t.Name, n)
		}
	}
	m.collectLag(db, send)
	collectViews(db, send)
}

// collectViews has the graphs of views that run in this process.
func collectViews(db *embedlog.DB, send func(*gauge, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, graph := range views.Of(db).Graphs() {
		g := graph.Info(ctx)
		up := 0.0
		if g.State == sock.ViewRunning {
			up = 1
		}
		send(viewUp, up, g.Graph)
		send(viewRecords, float64(g.Records), g.Graph)
		send(viewLate, float64(g.Late), g.Graph)
		send(viewDeadLetters, float64(g.DeadLetters), g.Graph)
		send(viewRestarts, float64(g.Restarts), g.Graph)
		for _, v := range g.Views {
			if v.Rows >= 0 {
				send(viewRows, float64(v.Rows), g.Graph, v.View)
			}
		}
		for _, p := range g.Positions {
			n := strconv.Itoa(int(p.Partition))
			if p.Lag >= 0 {
				send(viewLag, float64(p.Lag), g.Graph, p.Topic, n)
			}
			if p.BehindMS >= 0 {
				send(viewBehind, float64(p.BehindMS)/1000, g.Graph, p.Topic, n)
			}
		}
	}
}

func (m *Metrics) collectLag(db *embedlog.DB, send func(*gauge, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	groups, err := db.Groups(ctx)
	if err != nil {
		return // closed: the next collection has it or not
	}
	for _, g := range groups {
		info, err := db.DescribeGroup(ctx, g.Group)
		if err != nil {
			continue // deleted meanwhile
		}
		for _, p := range info.Partitions {
			if p.Lag >= 0 {
				send(groupLag, float64(p.Lag), info.Group, p.Topic, strconv.Itoa(int(p.Partition)))
			}
		}
	}
}
