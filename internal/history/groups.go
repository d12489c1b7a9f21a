package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// group is what is known of a consumer group.
type group struct {
	name string
	keys map[int32]*groupKey
}

// groupKey is a group's position in one key, and what its members made of the records.
type groupKey struct {
	commits []commit // of all outcomes, and what was seen
	resets  []span   // when the position was moved on purpose
	// upto is the highest position that is known to have been committed.
	upto   int64
	upOp   uint32
	low    int64    // the lowest offset that a member polled
	done   []uint64 // a bit for each rank: a member polled it, and has not taken that back
	owners []uint32 // for each rank, the transaction that processed it, + 1
}

// commit is a position that was committed, or seen.
type commit struct {
	offset int64
	op     uint32
	seen   bool
	last   bool // seen by the final read
}

// span is a stretch of time.
type span struct{ start, end int64 }

func (c *checker) groupKey(group, key int32) *groupKey {
	g := c.groups[group].keys
	if g[key] == nil {
		g[key] = &groupKey{upto: -1, upOp: none, low: math.MaxInt64}
	}
	return g[key]
}

// collectGroup takes what an operation says of positions of groups.
func (c *checker) collectGroup(op *Op) error {
	self := uint32(len(c.ops) - 1)
	group := c.groupID(op.Group)
	switch op.Kind {
	case OpSubscribe, OpAssign:
		if op.Outcome != Fail {
			c.member[op.Process] = group
		}
	case OpCrash:
		delete(c.member, op.Process)
	case OpCommit, OpTxn, OpCommitted:
		if group < 0 && (len(op.Offsets) > 0 || op.Kind != OpTxn) {
			return c.bad("positions without a group")
		}
		for _, o := range op.Offsets {
			g := c.groupKey(group, c.keyID(o.Key))
			g.commits = append(g.commits, commit{o.Offset, self, op.Kind == OpCommitted, op.Final})
		}
	case OpReset:
		if group < 0 {
			return c.bad("positions without a group")
		}
		for _, k := range op.Keys {
			g := c.groupKey(group, c.keyID(k))
			g.resets = append(g.resets, span{op.Start, op.End})
		}
	case OpSeek:
		// A member that goes back may commit what it processes again.
		if g, ok := c.member[op.Process]; ok && g >= 0 {
			for _, o := range op.Offsets {
				gk := c.groupKey(g, c.keyID(o.Key))
				gk.resets = append(gk.resets, span{op.Start, op.End})
			}
		}
	}
	return nil
}

// resetBetween says that the position may have been moved on purpose in a time.
func (g *groupKey) resetBetween(start, end int64) bool {
	return slices.ContainsFunc(g.resets, func(s span) bool { return s.start <= end && s.end >= start })
}

// judgeCommits finds positions that went back.
func (c *checker) judgeCommits() {
	for i := range c.groups {
		name := c.groups[i].name
		for _, key := range sortedKeys(c.groups[i].keys) {
			g := c.groups[i].keys[key]
			slices.SortFunc(g.resets, func(a, b span) int { return cmp.Compare(a.start, b.start) })
			c.judgePositions(name, key, g)
			for _, m := range g.commits {
				if o := &c.ops[m.op]; (m.seen || o.happened()) && o.outcome != Fail && m.offset > g.upto {
					g.upto, g.upOp = m.offset, m.op
				}
			}
			g.commits = nil
		}
	}
}

func sortedKeys[V any](m map[int32]V) []int32 {
	keys := make([]int32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// judgePositions goes through what was committed and seen of one position, in the
// order in which it began. Each is compared with the highest position that had been
// answered before it began.
func (c *checker) judgePositions(name string, key int32, g *groupKey) {
	begun := slices.Clone(g.commits)
	slices.SortStableFunc(begun, func(a, b commit) int { return cmp.Compare(c.ops[a.op].start, c.ops[b.op].start) })
	answered := g.commits
	slices.SortStableFunc(answered, func(a, b commit) int { return cmp.Compare(c.ops[a.op].end, c.ops[b.op].end) })
	positions := make([]int64, 0, len(begun)) // that somebody committed, or may have
	for _, m := range begun {
		if !m.seen && c.ops[m.op].outcome != Fail {
			positions = append(positions, m.offset)
		}
	}
	slices.Sort(positions)

	// The markers of a transaction come after its answer, so that its positions are not
	// seen at once. They hold back whoever begins to process there.
	floor, seenFloor := commit{offset: -1, op: none}, commit{offset: -1, op: none}
	next, reset, since := 0, 0, int64(math.MinInt64) // what was answered before since does not count
	for _, m := range begun {
		o := &c.ops[m.op]
		if o.outcome != OK {
			continue
		}
		for ; reset < len(g.resets) && g.resets[reset].start <= o.end; reset++ {
			since = max(since, g.resets[reset].end)
			floor, seenFloor = commit{offset: -1, op: none}, commit{offset: -1, op: none}
		}
		for ; next < len(answered) && c.ops[answered[next].op].end < o.start; next++ {
			f := answered[next]
			fo := &c.ops[f.op]
			if fo.outcome != OK || fo.start <= since {
				continue
			}
			if f.offset > floor.offset {
				floor = f
			}
			if f.offset > seenFloor.offset && fo.kind != OpTxn {
				seenFloor = f
			}
		}
		below := floor
		if m.seen {
			below = seenFloor
		}
		if m.last {
			// By now the transactions without an answer have ended, too.
			for _, f := range answered {
				if fo := &c.ops[f.op]; !f.seen && fo.happened() && fo.start > since && f.offset > below.offset {
					below = f
				}
			}
		}
		if m.seen && reset == 0 && m.offset >= 0 {
			if _, ok := slices.BinarySearch(positions, m.offset); !ok {
				c.phantomCommit(name, key, m, begun)
				continue
			}
		}
		if m.offset < below.offset && !(m.seen && c.late(begun, m)) {
			if in := c.add(CommitRegress); in != nil {
				in.Key, in.Offsets, in.Ops = c.keys[key].values.key, []int64{below.offset, m.offset}, c.refs(below.op, m.op)
				in.Detail = fmt.Sprintf("the position of group %s went back from %d to %d", name, below.offset, m.offset)
			}
			floor, seenFloor = m, m
		}
	}
}

// late says that a position that was seen may be that of a commit without an answer,
// which came after later ones.
func (c *checker) late(commits []commit, m commit) bool {
	return slices.ContainsFunc(commits, func(w commit) bool {
		o := &c.ops[w.op]
		return !w.seen && w.offset == m.offset && o.outcome == Info && !o.happened() && o.start <= c.ops[m.op].end
	})
}

func (c *checker) phantomCommit(name string, key int32, m commit, commits []commit) {
	in := c.add(PhantomCommit)
	if in == nil {
		return
	}
	in.Key, in.Offsets, in.Ops = c.keys[key].values.key, []int64{m.offset}, c.refs(m.op)
	in.Detail = fmt.Sprintf("nobody committed position %d of group %s", m.offset, name)
	for _, w := range commits {
		if !w.seen && w.offset == m.offset {
			in.Detail = fmt.Sprintf("position %d of group %s was committed by an operation that failed", m.offset, name)
			in.Ops = append(c.refs(w.op), in.Ops...)
			return
		}
	}
}

// processed notes that a record at a rank was polled by a member of a group.
func (f *follower) processed(key int32, rank int, r Record) {
	group := f.p.group
	if f.op.Kind == OpTxn && f.op.Group != "" {
		group = f.groupID(f.op.Group)
	}
	if group < 0 {
		return
	}
	g := f.groupKey(group, key)
	g.low = min(g.low, r.Offset)
	if f.op.Kind == OpTxn && f.op.Outcome == Fail {
		return
	}
	if g.done == nil {
		g.done = make([]uint64, len(f.keys[key].order.offsets)/64+1)
	}
	g.done[rank/64] |= 1 << (rank % 64)
	if f.op.Kind != OpTxn || !f.ops[f.self].happened() {
		return
	}
	k := f.keys[key].values.key
	if !slices.ContainsFunc(f.op.Offsets, func(o Offset) bool { return o.Key == k && o.Offset > r.Offset }) {
		return
	}
	if g.owners == nil {
		g.owners = make([]uint32, len(f.keys[key].order.offsets))
	}
	was := g.owners[rank]
	g.owners[rank] = f.self + 1
	if was == 0 || was == f.self+1 {
		return
	}
	one, two := &f.ops[was-1], &f.ops[f.self]
	if g.resetBetween(min(one.start, two.start), max(one.end, two.end)) {
		return
	}
	if in := f.add(DoubleProcess); in != nil {
		in.Key, in.Offsets, in.Values, in.Ops = k, []int64{r.Offset}, []int64{r.Value}, f.refs(was-1, f.self)
		in.Detail = fmt.Sprintf("two transactions of group %s processed the same record", f.groups[group].name)
	}
}

// judgeGroups finds records that a group passed by.
func (c *checker) judgeGroups() {
	for i := range c.groups {
		for _, key := range sortedKeys(c.groups[i].keys) {
			g, o, k := c.groups[i].keys[key], &c.keys[key].order, &c.keys[key].values
			if len(g.resets) > 0 || g.low > g.upto {
				continue
			}
			end := o.rank(g.upto, 0)
			for rank := o.rank(g.low, 0); rank < end; rank++ {
				if rank/64 < len(g.done) && g.done[rank/64]&(1<<(rank%64)) != 0 {
					continue
				}
				if in := c.add(GroupSkip); in != nil {
					in.Key, in.Offsets, in.Values = k.key, []int64{o.offsets[rank]}, []int64{k.value[o.rows[rank]]}
					in.Ops = c.refs(k.op[o.rows[rank]], g.upOp)
					in.Detail = fmt.Sprintf("group %s committed position %d behind a record that no member processed", c.groups[i].name, g.upto)
				}
			}
		}
	}
}
