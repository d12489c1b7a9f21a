package engine

// TopicPartitions are partitions of one topic.
type TopicPartitions struct {
	Topic      TopicID
	Partitions []int32 // ascending, without repetition, in what the engine returns
}
