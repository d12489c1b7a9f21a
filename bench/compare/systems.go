package main

import "sync/atomic"

const ours = "embedlog"

// sink keeps the compiler from leaving out what is read.
var sink atomic.Uint32

// touch reads a byte of every cache line, as somebody who uses the value would at least.
func touch(b []byte) {
	var all byte
	for i := 0; i < len(b); i += 64 {
		all ^= b[i]
	}
	sink.Store(uint32(all))
}

func all(*workload) string { return "" }

// nobodyWaits is a store without a way to wait for the next record.
func nobodyWaits(w *workload) string {
	if w.kind == following {
		return "nobody can wait"
	}
	return ""
}

var systems = []*system{
	{ours, "Topic.Produce on one partition: OS level for what survives a kill, Durable (the default) for what survives a power cut; read and latency through Consumer.Records; where all is read its values are valid until the next, as pebble's and sqlite's", openOurs, all},
	{"jetstream", "nats-server v2.15.2, file storage, in-process connection; default sync (every 2 minutes), sync_always for what survives a power cut; 1,000 records are PublishAsync, all acknowledged", openNATS, all},
	{"tidwall", "tidwall/wal v1.2.1, NoSync or not; no checksums; one blob a record", openTidwall, nobodyWaits},
	{"pebble", "pebble v2.1.7, NoSync or Sync, memtable of 64 MiB; with NoSync it does not survive a kill, so it runs the append rows with less than they ask", openPebble, nobodyWaits},
	{"sqlite", "modernc.org/sqlite v1.60.1, WAL mode, synchronous OFF or FULL, one connection", openSQLite, nobodyWaits},
	{"raft-wal", "hashicorp/raft-wal v0.4.0; it always syncs", openRaftWAL, func(w *workload) string {
		if w.guarantee == process && w.kind == appending {
			return "always syncs"
		}
		return nobodyWaits(w)
	}},
}
