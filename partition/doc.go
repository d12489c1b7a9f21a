// Package partition is one partition as the unit of order: who may append, what
// is visible, who is waiting. The bytes are package log's.
//
//	Append, AppendBatch          EndTransaction        Fetch, ReadFrom
//	        |                          |                      ^
//	        v                          v                      |
//	   +---------------- one group at a time -----------+     |
//	   | check: expected offset, producer, transaction  |     |
//	   | stage: offsets, epoch, append time             |     |
//	   | write and sync the whole group                 |     |
//	   | move the high watermark ------------------------> wake readers
//	   +------------------------------------------------+
//
//	log start offset   last stable offset   high watermark   log end offset
//	      |                    |                  |                |
//	------#####################*******************.................|
//	      readable by all      read uncommitted   not acknowledged yet
//
// Appends are combined: whoever finds nobody writing writes at once, the others
// form a group that the first of them writes when its turn comes. There is no
// goroutine of the partition's own.
//
// # What is always true
//
//   - log start <= last stable <= high watermark <= log end. The high watermark
//     never goes back while the partition is open.
//   - An append that returned nil lies below the high watermark, and is as safe as
//     the level says. One that failed is not in the log, unless its error matches
//     ErrUnknownOutcome: then it may be, now or after a restart.
//   - Offsets have no gaps. Records of one append lie side by side.
//   - A producer's batch is there once, however often it is sent, as long as it is
//     one of the producer's last five.
//   - A reader of committed records never sees one whose transaction is undecided or
//     aborted.
//
// # After a crash
//
// The state of producers, transactions and leader epochs is a function of the
// batches. A checkpoint of the log carries a snapshot of it; Open replays what
// lies behind. On a replica the snapshot is of committed batches only, because
// what is not committed may be taken back.
//
// # Concurrency
//
// All methods of a Partition may be called from several goroutines; a Reader
// belongs to one at a time. The caller's records and batches are not looked at
// any more once the call has returned, whatever it returned.
//
// With a Replicator the order is the same, but a group is proposed instead of
// written, and the high watermark moves when a majority has it: see Replicator.
package partition
