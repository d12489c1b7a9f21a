// Package takeover kills the nodes that compute views, and looks at what the others answer.
//
//	producer ──> orders ──> graph at node 1, 2, 3: the owner of a task runs it, the others stand by
//	                          │ killed, cut off, closed, leadership taken, started again
//	                          v
//	at every node: views and sinks are what the records in the log come to, each counted once;
//	meanwhile whoever reads has his own records, and no row goes back
//
// It does so twice: in one process, over a network and disks in memory and in virtual time, many times with
// other seeds; and with processes, sockets and files, which are ended by SIGKILL. The package is tests alone:
//
//	go test ./internal/takeover                                            a few seeds, a few kills
//	go test ./internal/takeover -run Simulation -takeover.seed 4711        one seed again
//	go test ./internal/takeover -run Simulation -takeover.from 1000 -takeover.runs 1000 -timeout 0
//	go test ./internal/takeover -run Kill -takeover.kills 100 -timeout 0
package takeover
