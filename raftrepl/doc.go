// Package raftrepl replicates the logs of a database on its peers: one Raft group for each
// partition, and one for the metadata. It runs github.com/hashicorp/raft over a transport of its own.
//
//	engine ── Cluster ── Node ──┬── group ── raft ── transport ══ TLS 1.3 ══ peers
//	                            └── calls ───────────────┘
//
// docs/replication.md is the design: what is durable where, invariants, what a crash does.
package raftrepl
