package embedlog

import (
	"encoding/binary"
	"sync/atomic"
)

// KeyPartition is the partition that a key belongs to, of so many: Kafka's rule,
// so that a key has the same partition number here as with a Kafka client that
// partitions by default. partitions is at least 1.
func KeyPartition(key []byte, partitions int) int32 {
	return int32((murmur2(key) & 0x7fffffff) % uint32(partitions))
}

// murmur2 is the 32-bit MurmurHash2 of Austin Appleby with Kafka's seed
// (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := seed ^ uint32(len(data))
	for len(data) >= 4 {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

// ManualPartitioner sends each record to the partition that it names. It is for
// ProducerConfig.Partitioner.
func ManualPartitioner(rec *Record, partitions int) int32 { return rec.Partition }

// stickyBytes is how much goes to one partition before keyless records move on to
// the next: enough that they share batches, little enough that partitions grow
// alike. Kafka's batch.size is the same.
const stickyBytes = 16 << 10

// sticky chooses partitions for records without a key: the same one until it got
// its share, then the next. All partitions get the same number of bytes, whatever
// the sizes of records. It may be used from several goroutines.
type sticky struct{ sent atomic.Uint64 }

// next is the partition, of so many, for size bytes that stay together.
func (s *sticky) next(size, partitions int) int32 {
	if partitions == 1 {
		return 0
	}
	end := s.sent.Add(uint64(size))
	return int32((end - uint64(size)) / stickyBytes % uint64(partitions))
}
