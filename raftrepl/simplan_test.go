package raftrepl

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/x/embedlog/log"
)

// simPlan is what a seed decides of a run as a whole.
type simPlan struct {
	members int // that begin the group
	spare   int // nodes that may become members
	timing  Timing
	speed   string
	// scale is how much slower than the fast timing everything is. What is fixed in the code, such as
	// the pause before a failed instance begins again, is short or long beside it.
	scale   float64
	level   log.Level
	odd     bool // single messages have accidents
	compact bool // there are records that compaction drops, and it runs
	txns    bool
	behind  bool // followers often miss more than the leader keeps
	short   int  // entries in a message at most; 0 is as many as ever
}

// patientTiming is far slower than what anybody would use: much virtual time for little work.
var patientTiming = Timing{Heartbeat: 20 * time.Second, Election: 20 * time.Second, LeaderLease: 10 * time.Second, CommitTimeout: 20 * time.Second}

func planOf(rng *rand.Rand) simPlan {
	p := simPlan{members: 3, spare: rng.IntN(2), timing: FastTiming, speed: "fast"}
	if rng.IntN(3) == 0 {
		p.members, p.spare = 5, rng.IntN(2)
	}
	switch rng.IntN(3) {
	case 0:
		p.timing, p.speed = DefaultTiming, "default"
	case 1:
		p.timing, p.speed = patientTiming, "patient"
	}
	p.scale = float64(p.timing.Heartbeat) / float64(FastTiming.Heartbeat)
	switch rng.IntN(8) {
	case 0:
		p.level = log.OS
	case 1:
		p.level = log.Interval
	}
	for _, l := range []log.Level{log.Durable, log.Interval, log.OS} {
		if l.String() == *simOnly {
			p.level = l
		}
	}
	p.odd = rng.IntN(3) == 0
	p.compact = rng.IntN(3) == 0
	p.txns = rng.IntN(3) == 0
	p.behind = rng.IntN(4) == 0
	if *simShort {
		p.short = rng.IntN(4)
	}
	return p
}

func (p simPlan) String() string {
	text := fmt.Sprintf("%d members, %d more nodes, %s timing, %v", p.members, p.spare, p.speed, p.level)
	for _, is := range []struct {
		on   bool
		text string
	}{{p.odd, "odd messages"}, {p.compact, "compaction"}, {p.txns, "transactions"}, {p.behind, "installs"}, {p.short > 0, "short messages"}} {
		if is.on {
			text += ", " + is.text
		}
	}
	return text
}
