package kafka

import (
	"github.com/x/embedlog/internal/engine"
)

// txnCode is the code for an error of the transaction coordinator. Clients of older
// versions do not know PRODUCER_FENCED. (KIP-588)
func txnCode(err error, knowsFenced bool) int16 {
	code := coordinatorCodeOf(err)
	if code == codeProducerFenced && !knowsFenced {
		return codeInvalidProducerEpoch
	}
	return code
}

// txnPart is a partition that is to be part of a transaction, and the answer for it.
type txnPart struct {
	topic     string
	partition int32
	code      *int16 // in the response
}

// addToTxn makes partitions part of a transaction, all of them or none, or, with
// verify, only says whether they are. A partition that cannot be has its own error,
// and the others say that they were not tried.
func (r *request) addToTxn(id string, producerID int64, epoch int16, parts []txnPart, verify bool) {
	var list []engine.TopicPartitions
	failed := false
	for i := range parts {
		p := &parts[i]
		topic, code := r.topicFor(OpWrite, p.topic)
		if code == codeNone {
			_, err := r.partition(topic, p.partition)
			code = codeOf(err)
		}
		if code == codeNone && topic.Internal() {
			code = codeTopicAuthorizationFailed // the coordinator adds those itself
		}
		if *p.code = code; code != codeNone {
			failed = true
			continue
		}
		if n := len(list); n == 0 || list[n-1].Topic != topic.ID() {
			list = append(list, engine.TopicPartitions{Topic: topic.ID()})
		}
		last := &list[len(list)-1]
		last.Partitions = append(last.Partitions, p.partition)
	}
	answer := func(code int16) {
		for i := range parts {
			if *parts[i].code == codeNone {
				*parts[i].code = code
			}
		}
	}
	switch {
	case failed:
		answer(codeOperationNotAttempted)
	case verify:
		for _, t := range list {
			for _, n := range t.Partitions {
				if err := r.engine.Txns().Verify(r.life, id, producerID, epoch, t.Topic, n); err != nil {
					answer(r.addCode(err))
					return
				}
			}
		}
	default:
		answer(r.addCode(r.engine.Txns().AddPartitions(r.life, id, producerID, epoch, list)))
	}
}

func (r *request) addCode(err error) int16 {
	return txnCode(err, r.version >= 2)
}
