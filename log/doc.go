// Package log keeps one partition's bytes on disk. It knows offsets, log indexes
// and record batches, and nothing of topics, groups or replicas.
//
//	Stage... -> Write -> Sync              ReadFrom, Scan, ReadBefore, OffsetForTime
//	   |          |        |                          ^
//	   v          v        v                          |
//	+-----------------+-----------------+----------------------------+
//	| 000...000.log   | 000...420.log   | 000...913.log   (active)   |
//	| frame frame ... | frame frame ... | frame frame mark 0000000   |
//	+-----------------+-----------------+----------------------------+
//	  .index .timeindex: caches, rebuilt from the frames
//	  checkpoint: the log start offset, how far it was durable, the owner's state
//
// A frame holds one record batch, byte for byte Kafka's, or an entry of a
// replicator that has no offset. docs/format.md draws every byte.
//
// Writing goes in groups: frames are staged, which gives them their offsets, Write puts
// the group behind the end through a mapping or with one system call, and Sync makes it
// durable with one fdatasync. The records of large batches are written from where their
// owner has them, all else is gathered first. How often Sync is called is the caller's
// business; Config.Level says what the log does by itself.
//
// # What is always true
//
//   - Offsets and indexes have no gaps but those that compaction leaves, and epochs
//     never fall along the log.
//   - What Sync returned nil for is there after a power cut. What is damaged there is
//     a *CorruptionError, never cut off or skipped in silence.
//   - What was written and not synced is there after a kill, and wholly, partly at
//     its beginning, or not at all after a power cut.
//   - After a failed sync nothing more is written until the log is opened again, and
//     opening writes what is in doubt once more.
//   - At every level at most MaxUnsyncedBytes are not synced.
//   - Bytes that were read stay as they are while someone holds them, whatever
//     retention, compaction and truncation do.
//
// # Concurrency
//
// Any number of goroutines may read. Whoever writes holds the writer's lock, Lock
// or TryLock: the methods that say "writer" need it. A Reader belongs to one
// goroutine at a time. A log that is idle has no goroutine and no timer.
package log
