// Package raftload starts clusters of three or more nodes, each a process of its own on
// loopback, and loads them: what bench and bench/compare measure of replication, the
// same for both.
//
//	bench process                         node processes, one for each node of each system
//	Cluster: start, kill, ask  --pipe-->  Serve: a Server, its operations
//	                                          |  TCP on loopback
//	                                          v
//	                                      the other nodes
//
// The load runs in the process of the node that leads, as it does in a program that has the
// log embedded. So no client's connection is in the figures, of any system.
package raftload
