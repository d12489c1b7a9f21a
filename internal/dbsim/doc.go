// Package dbsim is a simulation of whole databases that replicate each other: 3 or 5 of them, each
// with its package raftrepl, over a network and disks in memory, in virtual time.
//
//	clients at every node --- through the Go door --> embedlog.DB ── raftrepl ══ simnet ══ other nodes
//	   producers, transactions, copiers,                  |
//	   groups, readers, an administrator              vfs.Fault ── vfs.Mem
//	        |                                             ^
//	        v                                        a seed decides: crashes, power cuts, cuts of the network,
//	   history.Check, and what holds at the end      loss, delay, failed syncs, full disks, moves of replicas
//
// What must hold is said in judge_test.go. The package is tests alone:
//
//	go test ./internal/dbsim                                     a few seeds
//	go test ./internal/dbsim -db.seed 4711                       one of them again
//	go test ./internal/dbsim -db.from 1000 -db.runs 1000 -timeout 0
//
// A seed decides what clients and faults do and when. What goroutines do between two of these moments is the
// scheduler's choice, so a seed that failed may have to run some times to fail again.
package dbsim
