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

	bytesUsed        = newGauge(prometheus.GaugeValue, "embedlog_bytes", "Bytes that all partitions take on the disk.")
	failedPartitions = newGauge(prometheus.GaugeValue, "embedlog_failed_partitions", "Partitions that take no records: damaged, or a sync failed.")
	retainedBytes    = newGauge(prometheus.CounterValue, "embedlog_retention_deleted_bytes_total", "Bytes that retention deleted.")
	evictedBytes     = newGauge(prometheus.CounterValue, "embedlog_evicted_bytes_total", "Bytes that were deleted before their time, for room below Options.MaxBytes.")
	compactions      = newGauge(prometheus.CounterValue, "embedlog_compactions_total", "Partitions that were compacted, each time.")
)
