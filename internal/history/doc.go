// Package history records what clients of a log asked for and were told, and
// finds in it what a log in Kafka's sense must never do.
//
//	clients --- one Op each time ---> Writer --> file of JSON lines
//	                                                |
//	            Check <-- Files (several, one after the other), or a History in memory
//	              |
//	            Report: anomalies by kind, with the first instances; figures
//
// A history is a list of operations by processes. A process does one operation
// after the other; processes overlap in any way. Each operation ends in one of
// three ways: it happened (OK), it did not (Fail), or nobody knows (Info). What a
// log really did is never asked: only whether what its clients saw is possible.
//
// # Rules
//
// The rules are those of Jepsen's tests for Kafka, and some of our own; Kind says
// each of them in full. Every value is sent to a key (a partition) at most once,
// so a value names its writer. The places at which values were acknowledged and
// read make the version order of a key: offsets that were never seen, such as
// those of transaction markers and of aborted records, are no gaps.
//
// Some kinds are allowed: they come up in a correct log, because Kafka isolates
// neither writes nor reads of several partitions. They are counted all the same.
//
// Not modelled: retention, compaction and deletion of records. A history of a
// topic that loses records on purpose reports them as lost.
//
// # Size
//
// Check goes over the history twice and keeps some 50 bytes for each value sent,
// 40 for each operation, and nothing for a read. It needs no order between the
// operations of different processes, so files of several recorders are read one
// after the other. Times are used for commits of groups and for the lag only.
//
// # Kinds of observation to come
//
// Observations of a replicated log, and of views, fit as further kinds of
// operation. They need Op's Offsets and Keys, and a name for who was asked (a
// node, a view) beside Group: leader of an epoch (two leaders), a watermark
// (going back), a digest of a prefix (replicas that diverge), the version of a
// view with the digest of its rows (a view that is not the fold of its log).
package history
