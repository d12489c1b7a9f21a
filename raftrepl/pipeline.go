package raftrepl

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// The library sends a follower at most MaxAppendEntries when it is told of new entries, and what is
// left over when it is told again, or after CommitTimeout. It does not look at what it has built when the
// transport returns, but for its last entry, so the transport adds what there is:
//
//	library's request   prev | entries 5 6 |
//	filled              prev | entries 5 6 7 8 9 |      up to fillBytes
//	further ones              9 | 10 11 12 |           only in a pipeline, up to where the log ended
//
// The library then goes on behind the last one. What it has not taken in yet is not sent, although it is stored:
// an answer to a change of members would not count for who gets a vote by it.

// fillBytes is up to what size requests are filled: a sync of a follower is shared by so many bytes at
// least, when there are as many.
const fillBytes = 1 << 20

// fill adds the entries up to last to a request that ends before it. It fails when the entries are not
// those of the request's term: another node leads by now, and its entries may have taken the place of those
// that the request has been built from.
func (s *logStore) fill(m *raft.AppendEntriesRequest, last uint64) error {
	n := 0
	term := m.PrevLogTerm
	for _, e := range m.Entries {
		n += len(e.Data)
		if e.Term < term || e.Term > m.Term {
			return errDeposed
		}
		term = e.Term
	}
	for next := m.PrevLogEntry + uint64(len(m.Entries)) + 1; next <= last && len(m.Entries) < s.inst.g.messageEntries; next++ {
		e := new(raft.Log)
		if !s.window.get(next, e) {
			if err := s.read(next, e); err != nil {
				return nil // the library finds out itself when it gets there
			}
		}
		if e.Term < term || e.Term > m.Term {
			return errDeposed
		}
		if term = e.Term; n+len(e.Data) > fillBytes && len(m.Entries) > 0 {
			return nil
		}
		n += len(e.Data)
		m.Entries = append(m.Entries, e)
	}
	return nil
}

var errDeposed = fmt.Errorf("entries of another term are in the log: %w", raft.ErrLeadershipLost)

// pipelineBytes is how much must have come while a message was under way for the next ones to be sent without
// waiting for answers. For a few records that costs more than it gains: what comes meanwhile is in the
// next message, and the answer has two goroutines more to pass.
const pipelineBytes = 32 << 10

// holds says whether the entries from index on have so many bytes, as far as they are in the cache.
func (s *logStore) holds(index uint64, bytes int) bool {
	var e raft.Log
	for s.window.get(index, &e) {
		if bytes -= len(e.Data); bytes <= 0 {
			return true
		}
		index++
	}
	return false
}

// instancePipeline sends what the library gives it and what is behind that, and lets the library
// see an answer when it is true here, too: see syncer.
type instancePipeline struct {
	raft.AppendPipeline
	t *instanceTransport
}

// AppendEntriesPipeline implements raft.Transport. The library asks after each message that was answered. Once
// there is a pipeline, it stays until something fails.
func (t *instanceTransport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	p, ok := t.trans.(piper)
	if !ok {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	if err := t.maySend(); err != nil {
		return nil, err
	}
	if progress, _ := t.progress(id); !t.inst.store.holds(progress.match+1, t.g.pipelineFrom) {
		return nil, raft.ErrPipelineReplicationNotSupported // not now
	}
	inner, err := p.pipeline(id, func(m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, sent time.Time, err error) error {
		if err = t.took(id, m, resp, err); err == nil {
			t.answered(id, m.Term, sent)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &instancePipeline{inner, t}, nil
}

// AppendEntries implements raft.AppendPipeline. The library takes what it returns for sent, and
// looks for the last entry in m. The answers are to requests of their own.
func (p *instancePipeline) AppendEntries(m *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	inst := p.t.inst
	last := inst.raft.LastIndex()
	next := *m
	for {
		if err := p.t.maySend(); err != nil {
			return nil, err
		}
		own := next
		if err := inst.store.fill(&own, last); err != nil {
			return nil, err
		}
		own.LeaderCommitIndex = min(own.LeaderCommitIndex, own.PrevLogEntry+uint64(len(own.Entries)))
		f, err := p.AppendPipeline.AppendEntries(&own, new(raft.AppendEntriesResponse))
		if err != nil {
			return nil, err
		}
		n := len(own.Entries)
		if n > 0 {
			m.Entries = own.Entries
		}
		if n == 0 || own.Entries[n-1].Index >= last || !inst.leads(m.Term) {
			return f, nil
		}
		end := own.Entries[n-1]
		next.PrevLogEntry, next.PrevLogTerm, next.Entries = end.Index, end.Term, nil
	}
}

// leads says whether this node leads in a term.
func (i *instance) leads(term uint64) bool {
	i.pmu.Lock()
	defer i.pmu.Unlock()
	return i.leading == term
}
