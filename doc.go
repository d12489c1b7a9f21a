// Package embedlog is a log of records like Kafka's inside a Go program: topics
// with partitions and offsets, consumer groups, transactions, in a directory and
// without a server.
package embedlog
