// Package engine is the broker without a network: topics, their partitions,
// consumer groups and transactions in one directory. Two doors lead to it, the
// root package for Go code and the Kafka listener, and neither has a state of its
// own. docs/engine.md has the design.
//
//	    CreateTopic, AlterTopic, ...           Topic, Partition
//	              |                                   |
//	   directories, durable first             one atomic pointer,
//	              |                            no lock is held
//	command --> meta log --> apply ---publish--> topics by name, id
//	                                                  |
//	                            topics/<id>/<n>: partition.Partition
//
// # What is always true
//
//   - The metadata is a function of the commands in meta/: apply has no clock, no
//     randomness and does no I/O.
//   - A topic exists from the moment its command is durable. Its directories were
//     durable before, so one that is missing later is damage.
//   - A topic's id is never used again: nothing of a deleted topic can be taken for
//     part of one that has its name later.
//   - Nothing is deleted that the metadata does not say was deleted or never was.
//
// # Concurrency
//
// All methods may be called from several goroutines. Who reads or writes a
// partition holds no lock of the engine. Lock order: admin (one change of topics at
// a time), then metaLog.mu, then the partitions' own. Close may be called while
// calls are under way: they end with an error that matches log.ErrClosed.
package engine
