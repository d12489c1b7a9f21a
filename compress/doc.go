// Package compress holds the five codecs of a Kafka record batch, all built in,
// with bounds on what they may expand to.
//
//	batch := header | codec(records)
//
//	none    as it is
//	gzip    RFC 1952, one or more members
//	snappy  snappy-java's blocks of 32 KiB behind a header of 16 bytes; bare
//	        snappy is read as well
//	lz4     one LZ4 frame of independent blocks; dependent blocks are read as well
//	zstd    RFC 8878
//
// What is written is what the Java client writes, because that is what every
// Kafka client can read.
//
// # Bytes from outside
//
// Sizes that the data claims are added up and compared with the caller's bound
// before memory is taken: a snappy or lz4 block is measured first, a zstd frame
// by its header where it has a size, and the rest grows as it really expands.
// Bytes never panic. The result is the same on every platform.
//
// # Concurrency
//
// All functions may be called from any goroutine. Encoders and decoders are
// pooled, work in the caller's goroutine, and leave none behind.
package compress
