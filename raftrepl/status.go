package raftrepl

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
)

// Status implements engine.ReplicatedLog.
func (g *Group) Status() engine.LogStatus {
	g.mu.Lock()
	inst, reason, p := g.inst, g.reason, g.p
	g.mu.Unlock()
	st := engine.LogStatus{Leader: -1, Epoch: -1, Reason: reason}
	if inst == nil {
		if p != nil {
			if group, ok := p.Group(); ok {
				c, _ := decodeMembers(group.Members)
				st.Members = g.members(c, nil)
			}
		}
		return st
	}
	st.Leader, st.Epoch = g.leaderOf(inst)
	c := inst.raft.GetConfiguration().Configuration()
	leads := inst.raft.State() == raft.Leader
	var of *instance
	if leads {
		of = inst
	}
	st.Members = g.members(c, of)
	st.Reason = g.why(inst, c, st.Leader)
	return st
}

// members describes them, with what the leader knows of them where this node is it.
func (g *Group) members(c raft.Configuration, leader *instance) (list []engine.MemberStatus) {
	for _, s := range c.Servers {
		m := engine.MemberStatus{Node: memberNode(s.ID), Voter: s.Suffrage == raft.Voter, Lag: -1, Contact: -1}
		if leader != nil {
			last, _ := leader.store.LastIndex()
			group, _ := leader.store.p.Group()
			if m.Node == g.cfg.Self {
				m.InSync, m.Lag, m.Contact = true, 0, 0
			} else if p, ok := g.gate.progress(s.ID); ok {
				m.Lag, m.Contact = int64(last-min(p.match, last)), time.Since(p.contact)
				m.InSync = p.match+inSyncEntries > group.Index && m.Contact < 2*g.cfg.Timing.Heartbeat
			}
		}
		list = append(list, m)
	}
	return list
}

// why says in words what keeps the group, or this node, from taking part.
func (g *Group) why(inst *instance, c raft.Configuration, leader int32) string {
	self := g.self
	mine := raft.Server{}
	for _, s := range c.Servers {
		if s.ID == self {
			mine = s
		}
	}
	switch {
	case inst.hangs():
		return fmt.Sprintf("the disk has been at one write for %v", inst.store.hung().Round(time.Millisecond))
	case g.doubt.is():
		return "after an unclean stop this replica may have lost records that it had acknowledged: it has no vote until a leader has brought it up to date. When so many have that nobody can be elected, `embedlog cluster recover` decides that they go on"
	case leader > 0:
		return ""
	case len(c.Servers) == 0 && g.cfg.ID.IsMeta():
		return fmt.Sprintf("this node is in no cluster yet: it waits until one lets it in (`embedlog cluster add %d HOST:PORT` on a node of it)", g.cfg.Self)
	case len(c.Servers) == 0:
		return "the log is in no group yet: it waits to be made a member"
	case mine.ID == "":
		return "this node is not a member"
	case mine.Suffrage != raft.Voter:
		return "no leader is known; this node has no vote"
	}
	var others []string
	g.gate.mu.Lock()
	for _, s := range c.Servers {
		if how, ok := g.gate.asked[s.ID]; ok {
			others = append(others, fmt.Sprintf("node %d: %s", memberNode(s.ID), how))
		}
	}
	g.gate.mu.Unlock()
	if len(others) == 0 {
		return "no leader is known; an election is about to begin"
	}
	return "no leader is known, and there is no majority of votes: " + strings.Join(others, "; ")
}
