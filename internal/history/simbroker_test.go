package history

import (
	"math/rand/v2"
	"slices"
)

// bug is something that the simulated broker does wrong.
type bug int

const (
	noBug bug = iota
	losesAcknowledged
	forgetsTail
	duplicatesRetry
	showsAborted
	showsOpen
	passesOpen
	tearsTxn
	commitsBack
	reorders
	sharesOffset
	skipsAtRebalance
	skips
	goesBack
	skipsInside
	repeatsInside
	invents
	misplaces
	answersWrongOffset
	commitsOffsetsOfAborted
	losesOffsetsOfTxn
	takesLateWrites
	takesOldGeneration
	doesNotWaitForTxn
)

// broker is a Kafka in a page: logs with transactions and markers, and groups. It is
// called by one at a time.
type broker struct {
	rand   *rand.Rand
	bug    bug
	struck int // how often the bug did harm
	parts  []*simPart
	txns   map[int]*simTxn
	active []*simTxn // those that are not settled
	groups map[string]*simGroup
	late   []lateWrite
	ids    int
}

type simPart struct {
	key     Key
	entries []simEntry // the offset is the index
	sent    map[int64]int64
}

type simEntry struct {
	value  int64
	other  int64 // a second value at the same offset
	txn    int   // or 0
	marker bool
	gone   bool
}

type simTxn struct {
	id      int
	session int
	commit  bool
	ended   bool            // it was decided
	markers map[int]simMark // by partition
	touched []int
	group   string
	offsets map[int]int64 // by partition, pending
}

type simMark int

const (
	markCommit simMark = iota + 1
	markAbort
)

type simGroup struct {
	generation int
	members    []int32
	parts      []int
	owner      map[int]int32
	committed  map[int]int64
	before     map[int]int64 // an earlier position
}

// lateWrite is a request that the network holds back.
type lateWrite struct {
	session, part, txn int
	value              int64
}

func newBroker(r *rand.Rand, b bug, parts int) *broker {
	br := &broker{rand: r, bug: b, txns: map[int]*simTxn{}, groups: map[string]*simGroup{}}
	for i := range parts {
		topic := "a"
		if i >= parts/2 {
			topic = "b"
		}
		br.parts = append(br.parts, &simPart{key: Key{topic, int32(i % (parts / 2))}, sent: map[int64]int64{}})
	}
	return br
}

// strikes says whether a bug acts, in one of n chances.
func (b *broker) strikes(bug bug, n int) bool {
	if b.bug != bug || b.rand.IntN(n) > 0 {
		return false
	}
	b.struck++
	return true
}

func (b *broker) id() int { b.ids++; return b.ids }

// append writes a record, once however often it is sent, and returns its offset. It
// refuses (-1) one of a transaction that has ended.
func (b *broker) append(part, txn int, value int64) int64 {
	if txn > 0 {
		t := b.txns[txn]
		if t.ended {
			next := b.open(t.session)
			if b.bug != takesLateWrites || next == nil {
				return -1
			}
			b.struck++
			txn, t = next.id, next
		}
		t.touch(part)
	}
	p := b.parts[part]
	if at, ok := p.sent[value]; ok && !b.strikes(duplicatesRetry, 2) {
		return at
	}
	if b.strikes(misplaces, 40) {
		part = (part + 1) % len(b.parts)
		other := b.parts[part]
		other.entries = append(other.entries, simEntry{value: value, txn: txn})
		if txn > 0 {
			b.txns[txn].touch(part)
		}
		return int64(len(other.entries) - 1)
	}
	if last := len(p.entries) - 1; txn == 0 && last >= 0 && !p.entries[last].marker && p.entries[last].txn == 0 && b.strikes(sharesOffset, 20) {
		p.entries[last].other, p.sent[value] = value, int64(last)
		return int64(last)
	}
	p.entries = append(p.entries, simEntry{value: value, txn: txn})
	at := int64(len(p.entries) - 1)
	p.sent[value] = at
	if txn == 0 && b.strikes(losesAcknowledged, 40) {
		p.entries[at].gone = true
	}
	if b.strikes(answersWrongOffset, 40) {
		at++
	}
	return at
}

// open is the open transaction of a session, or nil.
func (b *broker) open(session int) *simTxn {
	for _, t := range b.active {
		if t.session == session && !t.ended {
			return t
		}
	}
	return nil
}

func (b *broker) begin(session int) *simTxn {
	t := &simTxn{id: b.id(), session: session, markers: map[int]simMark{}, offsets: map[int]int64{}}
	b.txns[t.id], b.active = t, append(b.active, t)
	return t
}

func (t *simTxn) touch(part int) {
	if !slices.Contains(t.touched, part) {
		t.touched = append(t.touched, part)
	}
}

// settled says that every partition has the marker of a transaction, and its group
// the positions.
func (t *simTxn) settled() bool { return t.ended && len(t.markers) == len(t.touched) && t.group == "" }

// settle does one thing that is left to do for a transaction that was decided.
func (b *broker) settle(t *simTxn) {
	for _, part := range t.touched {
		if t.markers[part] != 0 {
			continue
		}
		t.markers[part] = markAbort
		if t.commit {
			t.markers[part] = markCommit
			if len(t.touched) > 1 && part == t.touched[0] && b.strikes(tearsTxn, 4) {
				t.markers[part] = markAbort
			}
		}
		b.parts[part].entries = append(b.parts[part].entries, simEntry{marker: true, txn: t.id})
		return
	}
	if t.group != "" {
		if t.commit && !b.strikes(losesOffsetsOfTxn, 4) || !t.commit && b.strikes(commitsOffsetsOfAborted, 2) {
			b.commit(b.groups[t.group], t.offsets)
		}
		t.group = ""
	}
}

// work does one thing in the background; false when nothing is left but open transactions.
func (b *broker) work() bool {
	if len(b.late) > 0 && b.rand.IntN(4) == 0 {
		w := b.late[0]
		b.late = b.late[1:]
		b.append(w.part, w.txn, w.value)
		return true
	}
	b.active = slices.DeleteFunc(b.active, (*simTxn).settled)
	for _, t := range b.active {
		if t.ended {
			b.settle(t)
			return true
		}
	}
	if p := b.parts[b.rand.IntN(len(b.parts))]; b.bug == forgetsTail && b.rand.IntN(60) == 0 {
		for i := max(0, len(p.entries)-2); i < len(p.entries); i++ {
			if e := &p.entries[i]; !e.marker && e.txn == 0 && !e.gone {
				e.gone = true
				b.struck++
			}
		}
	}
	return len(b.late) > 0
}

// fetch returns up to n records from an offset on, and where to go on.
func (b *broker) fetch(part int, from int64, n int, committed bool) (records []Record, next int64) {
	p := b.parts[part]
	// What skips or repeats records does so to those that a reader would see.
	if from > 0 && b.strikes(goesBack, 40) {
		from = max(0, from-3)
	}
	skip := b.bug == skips && b.rand.IntN(40) == 0
	for next = from; next < int64(len(p.entries)) && len(records) < n; next++ {
		e := &p.entries[next]
		if e.marker || e.gone {
			continue
		}
		if e.txn > 0 && committed {
			switch b.txns[e.txn].markers[part] {
			case 0:
				if b.bug == showsOpen {
					b.struck++
					break
				}
				if b.bug != passesOpen {
					return records, next
				}
				b.struck++
				continue
			case markAbort:
				if !b.strikes(showsAborted, 3) {
					continue
				}
			}
		}
		if skip {
			skip = false
			b.struck++
			continue
		}
		r := Record{next, e.value}
		if e.other != 0 && b.rand.IntN(2) == 0 {
			r.Value = e.other
		}
		if b.strikes(invents, 100) {
			r.Value += 1 << 40
		}
		records = append(records, r)
	}
	if len(records) > 2 && b.strikes(skipsInside, 10) {
		records = slices.Delete(records, 1, 2)
	}
	if len(records) > 1 && b.strikes(repeatsInside, 10) {
		records = append(records, records[0])
	}
	return records, next
}

func (b *broker) group(name string, parts []int) *simGroup {
	g := b.groups[name]
	if g == nil {
		g = &simGroup{parts: parts, owner: map[int]int32{}, committed: map[int]int64{}, before: map[int]int64{}}
		b.groups[name] = g
	}
	return g
}

// join and leave begin a new generation.
func (b *broker) join(g *simGroup, p int32) {
	if !slices.Contains(g.members, p) {
		g.members = append(g.members, p)
	}
	b.rebalance(g)
}

func (b *broker) leave(g *simGroup, p int32) {
	g.members = slices.DeleteFunc(g.members, func(m int32) bool { return m == p })
	b.rebalance(g)
}

func (b *broker) rebalance(g *simGroup) {
	g.generation++
	clear(g.owner)
	for i, part := range g.parts {
		if len(g.members) > 0 {
			g.owner[part] = g.members[(i+g.generation)%len(g.members)]
		}
	}
}

// stable says that no transaction holds positions of a group that are not decided.
func (b *broker) stable(name string) bool {
	for _, t := range b.active {
		if t.group == name {
			return b.strikes(doesNotWaitForTxn, 1)
		}
	}
	return true
}

func (b *broker) commit(g *simGroup, offsets map[int]int64) {
	for part, at := range offsets {
		was, ok := g.committed[part]
		if older, known := g.before[part]; known && older < was && b.strikes(commitsBack, 10) {
			at = older
		}
		if ok {
			g.before[part] = was
		}
		g.committed[part] = at
	}
}

// position is where a group goes on in a partition.
func (b *broker) position(g *simGroup, part int) int64 {
	at := g.committed[part]
	if b.strikes(skipsAtRebalance, 4) {
		at++
	}
	return at
}
