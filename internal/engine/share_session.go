package engine

import (
	"errors"
	"math"
	"slices"
	"sync"
)

// Errors of share sessions. A member begins a new one.
var (
	ErrShareSessionNotFound = errors.New("embedlog: share session not found")
	ErrShareSessionEpoch    = errors.New("embedlog: invalid share session epoch")
	ErrShareSessionLimit    = errors.New("embedlog: too many share sessions")
)

// Epochs of a share session with a meaning of their own.
const (
	ShareSessionOpen  int32 = 0
	ShareSessionClose int32 = -1
)

const (
	maxShareSessions     = 2000
	maxShareSessionParts = 1_000_000
)

// ShareSessions remembers what members of share groups fetch from, so that they need
// not say it each time, and that their requests come in order.
//
//	0 --> 1 --> 2 --> ... --> 2^31-1 --> 1      each request says the number of requests before it
//	-1    ends the session
//
// All methods may be called from several goroutines.
type ShareSessions struct {
	most  int // partitions of all sessions together
	mu    sync.Mutex
	by    map[shareMemberOf]*shareSession
	parts int
}

type shareMemberOf struct{ group, member string }

type shareSession struct {
	owner any
	epoch int32 // that the next request is to have
	list  []topicPart
	index map[topicPart]int // in list
	most  int               // as long as list was since its memory was made
}

func (s *ShareSessions) init() {
	s.by, s.most = make(map[shareMemberOf]*shareSession), maxShareSessionParts
}

// Step takes the next request of a member into account: add is what it fetches from now on,
// too, forget what it does not any more. It returns all that it fetches from. With epoch
// ShareSessionOpen it begins a session that belongs to owner, in place of any other; with
// ShareSessionClose it ends it.
func (s *ShareSessions) Step(owner any, group, member string, epoch int32, add, forget []TopicPartitions) ([]TopicPartitions, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := shareMemberOf{group, member}
	x := s.by[key]
	switch {
	case epoch == ShareSessionOpen:
		s.dropLocked(key)
		if len(s.by) >= maxShareSessions {
			return nil, ErrShareSessionLimit
		}
		x = &shareSession{owner: owner, index: map[topicPart]int{}}
		s.by[key] = x
	case x == nil:
		return nil, ErrShareSessionNotFound
	case epoch == ShareSessionClose:
		s.dropLocked(key)
		return nil, nil
	case epoch != x.epoch:
		return nil, ErrShareSessionEpoch
	}
	if x.epoch = epoch + 1; epoch == math.MaxInt32 {
		x.epoch = 1
	}
	for _, t := range add {
		for _, p := range t.Partitions {
			at := topicPart{t.Topic, p}
			if _, has := x.index[at]; has {
				continue
			}
			if s.parts >= s.most {
				s.dropLocked(key)
				return nil, ErrShareSessionLimit
			}
			x.index[at] = len(x.list)
			x.list = append(x.list, at)
			x.most = max(x.most, len(x.list))
			s.parts++
		}
	}
	for _, t := range forget {
		for _, p := range t.Partitions {
			x.remove(topicPart{t.Topic, p}, &s.parts)
		}
	}
	return x.all(), nil
}

func (x *shareSession) remove(at topicPart, parts *int) {
	i, has := x.index[at]
	if !has {
		return
	}
	last := len(x.list) - 1
	x.list[i] = x.list[last]
	x.index[x.list[i]] = i
	x.list = x.list[:last]
	delete(x.index, at)
	*parts--
	x.shrink()
}

// shrink gives memory back that the session does not need any more: what all of them
// have together is bounded by what is in them.
func (x *shareSession) shrink() {
	const few = 64
	if len(x.list) >= x.most/2 || x.most <= few {
		return
	}
	x.list, x.most = slices.Clone(x.list), len(x.list)
	x.index = make(map[topicPart]int, len(x.list))
	for i, at := range x.list {
		x.index[at] = i
	}
}

// all is what the session fetches from. Each time another partition comes first, so that
// none of them waits for ever for the others.
func (x *shareSession) all() (list []TopicPartitions) {
	for i := range x.list {
		at := x.list[(i+int(x.epoch)%len(x.list))%len(x.list)]
		if n := len(list); n == 0 || list[n-1].Topic != at.topic {
			list = append(list, TopicPartitions{Topic: at.topic})
		}
		last := &list[len(list)-1]
		last.Partitions = append(last.Partitions, at.partition)
	}
	return list
}

func (s *ShareSessions) dropLocked(key shareMemberOf) {
	if x := s.by[key]; x != nil {
		s.parts -= len(x.list)
		delete(s.by, key)
	}
}

func (s *ShareSessions) end(group, member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(shareMemberOf{group, member})
}

// endOf ends the sessions that belong to an owner, and returns whose they were.
func (s *ShareSessions) endOf(owner any) (list []shareMemberOf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, x := range s.by {
		if x.owner == owner {
			list = append(list, key)
			s.dropLocked(key)
		}
	}
	return list
}

// Disconnected ends the sessions of an owner that is gone, such as a connection, and takes back
// what their members had.
func (s *Shares) Disconnected(owner any) {
	for _, x := range s.Sessions.endOf(owner) {
		s.Release(x.group, x.member)
	}
}
