// Package kafkafile writes a partition as the files that a Kafka broker keeps, and
// reads such files back to check them.
//
//	<topic>-<partition>/
//	  00000000000000000000.log         record batches back to back, as on the wire
//	  00000000000000000000.index       offset to position, 8 bytes an entry
//	  00000000000000000000.timeindex   timestamp to offset, 12 bytes an entry
//	  00000000000000000000.txnindex    aborted transactions, 34 bytes each; only where there are any
//	  00000000000000000420.snapshot    producers as they were at that offset
//	  leader-epoch-checkpoint          where each leader epoch begins
//	  partition.metadata               the topic's id
//
// All integers are big-endian. A batch is the same bytes here and there, so nothing
// is decoded but headers and the markers of transactions. The formats are Kafka's:
// storage/.../log in its sources (LogSegment, OffsetIndex, TimeIndex,
// TransactionIndex, ProducerStateManager), version 4.
//
// Memory is bounded by one batch, the buffers of four files and what the
// partition itself keeps of its producers.
package kafkafile
