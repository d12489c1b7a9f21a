package engine

import (
	"errors"
	"fmt"
)

// What a caller branches on. Those of partition and log are used as they are.
var (
	// ErrUnknownTopic is matched by *UnknownTopicError.
	ErrUnknownTopic = errors.New("embedlog: unknown topic")
	// ErrUnknownPartition is matched by *UnknownPartitionError.
	ErrUnknownPartition = errors.New("embedlog: unknown partition")
	// ErrTopicExists is matched by *TopicExistsError.
	ErrTopicExists = errors.New("embedlog: topic exists")
	// ErrInvalidTopic is matched by *InvalidTopicError.
	ErrInvalidTopic = errors.New("embedlog: invalid topic")
	// ErrWrongDirectory is matched by *WrongDirectoryError.
	ErrWrongDirectory = errors.New("embedlog: not a database directory")
)

// UnknownTopicError names a topic that there is not, or not any more.
type UnknownTopicError struct {
	Name    string  // empty when it was asked for by its id
	ID      TopicID // zero when it was asked for by its name
	Deleted bool    // it was there
}

func (e *UnknownTopicError) Error() string {
	what := fmt.Sprintf("topic %q", e.Name)
	if e.Name == "" && e.ID != (TopicID{}) {
		what = "topic id " + e.ID.String()
	}
	if e.Deleted {
		return what + " was deleted"
	}
	return what + " does not exist"
}

// Is matches ErrUnknownTopic.
func (e *UnknownTopicError) Is(target error) bool { return target == ErrUnknownTopic }

// UnknownPartitionError is a partition number that a topic does not have.
type UnknownPartitionError struct {
	Topic      string
	Partition  int32
	Partitions int // how many it has: they are numbered from 0
}

func (e *UnknownPartitionError) Error() string {
	return fmt.Sprintf("topic %q has no partition %d, only 0 to %d", e.Topic, e.Partition, e.Partitions-1)
}

// Is matches ErrUnknownPartition.
func (e *UnknownPartitionError) Is(target error) bool { return target == ErrUnknownPartition }

// TopicExistsError is a name that is taken.
type TopicExistsError struct {
	Name string
	ID   TopicID // of the topic that has it
}

func (e *TopicExistsError) Error() string {
	return fmt.Sprintf("topic %q exists (id %s)", e.Name, e.ID)
}

// Is matches ErrTopicExists.
func (e *TopicExistsError) Is(target error) bool { return target == ErrTopicExists }

// InvalidTopicError is a name, a number of partitions or a change that is not allowed.
type InvalidTopicError struct {
	Name   string
	Reason string
}

func (e *InvalidTopicError) Error() string { return fmt.Sprintf("topic %q: %s", e.Name, e.Reason) }

// Is matches ErrInvalidTopic.
func (e *InvalidTopicError) Is(target error) bool { return target == ErrInvalidTopic }

// WrongDirectoryError is a directory that holds something else than a database.
// Nothing in it was changed.
type WrongDirectoryError struct {
	Dir   string
	Found string // a name in it that is not ours
}

func (e *WrongDirectoryError) Error() string {
	return fmt.Sprintf("%s holds %q and no FORMAT file: it is not a database, and one is made in an empty directory only", e.Dir, e.Found)
}

// Is matches ErrWrongDirectory.
func (e *WrongDirectoryError) Is(target error) bool { return target == ErrWrongDirectory }

// ErrPeerUnreachable says that a peer could not be reached: the request was not sent.
var ErrPeerUnreachable = errors.New("embedlog: peer cannot be reached")
