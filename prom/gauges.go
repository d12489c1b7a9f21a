package prom

import "github.com/prometheus/client_golang/prometheus"

// gauge is a metric that is read when somebody collects.
type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

var gauges []*gauge

func newGauge(kind prometheus.ValueType, name, help string, labels ...string) *gauge {
	g := &gauge{prometheus.NewDesc(name, help, labels, nil), kind}
	gauges = append(gauges, g)
	return g
}

var (
	logStart       = newGauge(prometheus.GaugeValue, "embedlog_log_start_offset", "Offset of the first record there is.", "topic", "partition")
	lastStable     = newGauge(prometheus.GaugeValue, "embedlog_last_stable_offset", "Offset below which every transaction has ended.", "topic", "partition")
	highWatermark  = newGauge(prometheus.GaugeValue, "embedlog_high_watermark", "Offset below which records are acknowledged.", "topic", "partition")
	durableOffset  = newGauge(prometheus.GaugeValue, "embedlog_durable_offset", "Offset below which records survive a power cut.", "topic", "partition")
	partitionBytes = newGauge(prometheus.GaugeValue, "embedlog_partition_bytes", "Bytes that a partition takes on the disk.", "topic", "partition")
	groupLag       = newGauge(prometheus.GaugeValue, "embedlog_consumer_group_lag", "Records between a group's committed offset and the end.", "group", "topic", "partition")

	viewLag         = newGauge(prometheus.GaugeValue, "embedlog_view_lag", "Records that a graph of views has not read yet.", "graph", "topic", "partition")
	viewBehind      = newGauge(prometheus.GaugeValue, "embedlog_view_behind_seconds", "How long ago the first record was produced that a graph of views has not read yet.", "graph", "topic", "partition")
	viewRows        = newGauge(prometheus.GaugeValue, "embedlog_view_rows", "Rows of a view.", "graph", "view")
	viewUp          = newGauge(prometheus.GaugeValue, "embedlog_view_up", "1 while a graph of views runs, 0 while it is restored, or when it has stopped.", "graph")
	viewRecords     = newGauge(prometheus.CounterValue, "embedlog_view_records_total", "Records that a graph of views has read.", "graph")
	viewLate        = newGauge(prometheus.CounterValue, "embedlog_view_late_total", "Rows that were left out of windows that were over.", "graph")
	viewDeadLetters = newGauge(prometheus.CounterValue, "embedlog_view_dead_letters_total", "Records that a graph of views could not decode.", "graph")
	viewRestarts    = newGauge(prometheus.CounterValue, "embedlog_view_restarts_total", "Times that a part of a graph of views began again from its last commit.", "graph")

	bytesUsed        = newGauge(prometheus.GaugeValue, "embedlog_bytes", "Bytes that all partitions take on the disk.")
	failedPartitions = newGauge(prometheus.GaugeValue, "embedlog_failed_partitions", "Partitions that take no records: damaged, or a sync failed.")
	retainedBytes    = newGauge(prometheus.CounterValue, "embedlog_retention_deleted_bytes_total", "Bytes that retention deleted.")
	evictedBytes     = newGauge(prometheus.CounterValue, "embedlog_evicted_bytes_total", "Bytes that were deleted before their time, for room below Options.MaxBytes.")
	compactions      = newGauge(prometheus.CounterValue, "embedlog_compactions_total", "Partitions that were compacted, each time.")
)
