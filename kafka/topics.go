package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
)

// topicFor finds the topic of that name, to which whoever asks may do op. Otherwise
// it returns the code to answer with.
func (r *request) topicFor(op Operation, name string) (*engine.Topic, int16) {
	if !r.authorize(op, ResourceTopic, name) {
		return nil, codeTopicAuthorizationFailed
	}
	t, err := r.engine.Topic(name)
	return t, codeOf(err)
}

// topicByIDFor is topicFor for a topic's id.
func (r *request) topicByIDFor(op Operation, id [16]byte) (*engine.Topic, int16) {
	t, err := r.engine.TopicByID(id)
	switch {
	case errors.Is(err, embedlog.ErrUnknownTopic):
		return nil, codeUnknownTopicID
	case err != nil:
		return nil, codeOf(err)
	case !r.authorize(op, ResourceTopic, t.Name()):
		return nil, codeTopicAuthorizationFailed
	}
	return t, codeNone
}

// readablePartition is a partition of the topic that can be read, although it may
// be one that takes no records any more.
func readablePartition(t *engine.Topic, n int32) (*engine.Partition, error) {
	p, err := t.Partition(n)
	if err == nil && p.Err() != nil {
		_, err = p.ReadFrom(p.LogStart(), nil)
	}
	return p, err
}
