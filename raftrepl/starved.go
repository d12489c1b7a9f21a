package raftrepl

import "time"

// When the disks of a majority are full, who has stored more than the others wins each election, and cannot commit
// even the first entry of its term: the others have no room for what lies before it, and each attempt ends their
// instances. Nobody leads then, and nobody can delete anything.
//
//	A  371 372 373 374   leads, and is not followed
//	B  371 372           no room for 373
//	C  371 372           no room for 373
//
// So who found no room for an entry grants no pre-vote to who has it, for a while: B or C is elected by the other
// one, the first entry of a term has the log's reserve, and A takes its tail back. It is a while only, because
// a longer log may be needed: where B has 373, C cannot follow it, but A can. To refuse a vote is always safe.

// starvedFor is how long, in election timeouts: replicas pause less when their instances end.
const starvedFor = 20

// noRoom notes that there was no room for an entry, or for the log that a leader sends.
func (g *Group) noRoom() { g.roomless.Store(time.Now().Add(2 * longRestart).UnixNano()) }

// Full implements engine.Fuller. It stays for longer than the pause in which nothing is tried.
func (g *Group) Full() bool { return time.Now().UnixNano() < g.roomless.Load() }

func (g *Group) starve(index uint64) {
	g.starved.Store(index)
	g.starvedTill.Store(time.Now().Add(max(starvedFor*g.cfg.Timing.Election, 2*longRestart)).UnixNano())
}

// starvedBy says whether a log that ends at an index has what this replica found no room for.
func (g *Group) starvedBy(end uint64) bool {
	if time.Now().UnixNano() >= g.starvedTill.Load() {
		return false
	}
	last, _ := g.p.LastEntry()
	return end > last && end >= g.starved.Load()
}
