package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
)

// To a client it is final that a topic is not there: it gives up, or makes another one. A node of a cluster may not have
// heard of it yet. So before a request is told so, the node catches up with the metadata, once for the request;
// where it cannot, the answer is one that clients try again.

// metadataPatience is how long a request waits for that. Those behind it on its connection wait, too.
const metadataPatience = 2 * time.Second

// know returns when this node has all of the metadata that was committed before it was called first. Otherwise the
// error is one that the client hears as something to try again.
func (r *request) know() error {
	if r.engine.Cluster() == nil || r.knew {
		return r.unsure
	}
	r.knew = true
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.ctx, metadataPatience)
	defer cancel()
	if err := r.engine.KnowMetadata(ctx); err != nil {
		again := embedlog.ErrNotLeader
		if ofCoordinators[r.key] {
			again = embedlog.ErrCoordinatorLoading
		}
		r.unsure = fmt.Errorf("%w: this node cannot catch up with the metadata: %v", again, err)
	}
	r.waited(began)
	return r.unsure
}

// knowOnce is for a list of all topics: it may lack those that were made a moment ago on other nodes, as anywhere,
// but not those that were made while this node did not run.
func (r *request) knowOnce() {
	if !r.srv.current.Load() && r.know() == nil {
		r.srv.current.Store(true)
	}
}

// ofCoordinators are the requests of groups and transactions, whose clients take NOT_LEADER_OR_FOLLOWER for
// nonsense.
var ofCoordinators = map[int16]bool{8: true, 9: true, 24: true, 28: true, 47: true, 69: true, 77: true, 90: true, 91: true, 92: true}

// unknown says of an error that it may be so only because this node has not heard of it yet.
func unknown(err error) bool {
	return errors.Is(err, embedlog.ErrUnknownTopic) || errors.Is(err, embedlog.ErrUnknownPartition)
}

// topic finds a topic by its name.
func (r *request) topic(name string) (*engine.Topic, error) {
	t, err := r.engine.Topic(name)
	if unknown(err) && r.engine.Cluster() != nil {
		if err := r.know(); err != nil {
			return nil, err
		}
		return r.engine.Topic(name)
	}
	return t, err
}

// topicByID finds a topic by its id.
func (r *request) topicByID(id engine.TopicID) (*engine.Topic, error) {
	t, err := r.engine.TopicByID(id)
	if unknown(err) && r.engine.Cluster() != nil {
		if err := r.know(); err != nil {
			return nil, err
		}
		return r.engine.TopicByID(id)
	}
	return t, err
}

// partition finds a partition of a topic that was found before.
func (r *request) partition(t *engine.Topic, n int32) (*engine.Partition, error) {
	p, err := t.Partition(n)
	if unknown(err) && r.engine.Cluster() != nil {
		if err := r.know(); err != nil {
			return nil, err
		}
		if now, err := r.engine.TopicByID(t.ID()); err == nil {
			return now.Partition(n)
		}
	}
	return p, err
}

// topicFor finds the topic of that name, to which whoever asks may do op. Otherwise
// it returns the code to answer with.
func (r *request) topicFor(op Operation, name string) (*engine.Topic, int16) {
	if !r.authorize(op, ResourceTopic, name) {
		return nil, codeTopicAuthorizationFailed
	}
	t, err := r.topic(name)
	return t, codeOf(err)
}

// topicByIDFor is topicFor for a topic's id.
func (r *request) topicByIDFor(op Operation, id [16]byte) (*engine.Topic, int16) {
	t, err := r.topicByID(id)
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
func (r *request) readablePartition(t *engine.Topic, n int32) (*engine.Partition, error) {
	p, err := r.partition(t, n)
	if err == nil && p.Err() != nil {
		_, err = p.ReadFrom(p.LogStart(), nil)
	}
	return p, err
}
