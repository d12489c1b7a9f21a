package history

import (
	"fmt"
	"slices"
)

// process is a process on the second walk.
type process struct {
	group   int32 // that it is a member of, or -1
	cursors []cursor
}

// cursor is where a process is in a key.
type cursor struct {
	next int64 // it has read up to here, or sought it; -1 when that is not known
	rank int   // visible records before next, or near it
	op   uint32
	// read says that it has polled there since it was put there: it is a reader of the
	// key, and can lag.
	read bool

	sent   int64 // where the last record lies that it sent, or -1
	sentOp uint32
	value  int64 // that it sent
}

// nowhere is a cursor of which only the sending side is known.
func (c *cursor) nowhere() { c.next, c.rank, c.op, c.read = -1, 0, none, false }

func (p *process) cursor(key int32) *cursor {
	for int(key) >= len(p.cursors) {
		p.cursors = append(p.cursors, cursor{next: -1, op: none, sent: -1, sentOp: none})
	}
	return &p.cursors[key]
}

// follow is the second walk. It goes along with each process and looks whether what
// it saw fits to the version orders.
func (c *checker) follow(src Source) error {
	processes := map[int32]*process{}
	f := follower{checker: c}
	for op, err := range src.Ops() {
		if err != nil {
			return err
		}
		if f.self == uint32(len(c.ops)) || c.ops[f.self].process != op.Process || c.ops[f.self].kind != op.Kind {
			return &BadHistoryError{OpRef{Index: int(f.self)}, "the second walk is not like the first"}
		}
		p := processes[op.Process]
		if p == nil {
			p = &process{group: -1}
			processes[op.Process] = p
		}
		f.op, f.p = op, p
		f.follow()
		f.self++
	}
	if f.self != uint32(len(c.ops)) {
		return &BadHistoryError{OpRef{Index: int(f.self)}, "the second walk is not like the first"}
	}
	return nil
}

// follower is at one operation of the second walk.
type follower struct {
	*checker
	op    *Op
	self  uint32
	p     *process
	saved []savedCursor
}

type savedCursor struct {
	key int32
	cursor
}

func (f *follower) follow() {
	op, p := f.op, f.p
	switch op.Kind {
	case OpCrash:
		*p = process{group: -1}
	case OpSubscribe:
		if op.Outcome == Fail {
			return
		}
		p.group = f.groupID(op.Group)
		for i := range p.cursors {
			p.cursors[i].nowhere()
		}
	case OpAssign:
		if op.Outcome == Fail {
			return
		}
		p.group = f.groupID(op.Group)
		for i := range p.cursors {
			if !slices.Contains(op.Keys, f.keys[i].values.key) {
				p.cursors[i].nowhere()
			}
		}
	case OpRebalance:
		for _, k := range op.Keys {
			p.cursor(f.keyID(k)).nowhere()
		}
	case OpSeek:
		if op.Outcome == Fail {
			return
		}
		for _, o := range op.Offsets {
			cur := p.cursor(f.keyID(o.Key))
			cur.nowhere()
			if op.Outcome == OK && o.Offset >= 0 {
				cur.next = o.Offset
			}
		}
	case OpSend, OpPoll, OpTxn:
		for _, run := range op.Sends {
			f.sends(run)
		}
		f.polls()
	}
}

// sends looks at the order of what a process sent to a key.
func (f *follower) sends(run Run) {
	if f.op.Retries {
		return
	}
	key := f.keyID(run.Key)
	v, order, cur := &f.keys[key].values, &f.keys[key].order, f.p.cursor(key)
	for _, r := range run.Records {
		row := v.find(r.Value)
		if row == none || !f.visible(v, row) {
			continue
		}
		at := f.first(v, row)
		if at < 0 {
			continue
		}
		within := f.op.Kind == OpTxn && cur.sentOp == f.self
		switch {
		case cur.sent < 0:
		case at < cur.sent: // the same place is for InconsistentOffsets
			kind := NonmonotonicSend
			if within {
				kind = IntNonmonotonicSend
			}
			if in := f.add(kind); in != nil {
				in.Key, in.Offsets, in.Values = run.Key, []int64{cur.sent, at}, []int64{cur.value, r.Value}
				in.Ops, in.Detail = f.refs(cur.sentOp), "the later of two sends lies before the earlier one"
				if cur.sentOp != f.self {
					in.Ops = append(in.Ops, f.ref(f.self))
				}
			}
		case within:
			from := order.rank(cur.sent+1, cur.rank)
			if n := order.rank(at, from) - from; n > 0 {
				if in := f.add(IntSendSkip); in != nil {
					in.Key, in.Offsets, in.Values = run.Key, []int64{cur.sent, at}, []int64{cur.value, r.Value}
					in.Ops, in.Detail = f.refs(f.self), fmt.Sprintf("%d records of others lie between two sends of a transaction", n)
				}
			}
		}
		cur.sent, cur.sentOp, cur.value = at, f.self, r.Value
	}
}

// polls looks at what an operation polled.
func (f *follower) polls() {
	op := f.op
	f.saved = f.saved[:0]
	for _, k := range op.Keys {
		f.p.cursor(f.keyID(k)).nowhere()
	}
	for _, run := range op.Polls {
		key := f.keyID(run.Key)
		// Where a rebalance fell among the polls of the operation is not known.
		moved := slices.Contains(op.Keys, run.Key)
		cur := f.p.cursor(key)
		if !slices.ContainsFunc(f.saved, func(s savedCursor) bool { return s.key == key }) {
			f.saved = append(f.saved, savedCursor{key, *cur})
		}
		for _, r := range run.Records {
			f.record(key, cur, r, moved)
		}
	}
	f.dependencies()
	if op.Outcome == OK {
		f.lag()
	}
	for _, s := range f.saved {
		cur := f.p.cursor(s.key)
		switch {
		case op.Outcome == Fail:
			// Who aborts goes back, and polls the same again.
			sent := *cur
			*cur = s.cursor
			cur.sent, cur.sentOp, cur.value = sent.sent, sent.sentOp, sent.value
		case op.Outcome == Info || slices.Contains(op.Keys, f.keys[s.key].values.key):
			cur.nowhere()
		}
	}
}

// record looks at one polled record.
func (f *follower) record(key int32, cur *cursor, r Record, moved bool) {
	k := &f.keys[key]
	v := &k.values
	rank := k.order.rank(r.Offset, cur.rank)
	if cur.next >= 0 && !moved {
		f.place(k, cur, r, rank)
	}
	row, exact := none, rank < len(k.order.offsets) && k.order.offsets[rank] == r.Offset
	if exact && v.value[k.order.rows[rank]] == r.Value {
		row = k.order.rows[rank]
	} else {
		row = v.find(r.Value)
	}
	f.writer(v, row, r)
	if exact {
		f.processed(key, rank, r)
		cur.rank = rank + 1
	} else {
		cur.rank = rank
	}
	cur.next, cur.op, cur.read = r.Offset+1, f.self, true
}

// place compares a record with where the process was.
func (f *follower) place(k *keyState, cur *cursor, r Record, rank int) {
	within := cur.op == f.self
	if r.Offset < cur.next {
		kind := NonmonotonicPoll
		if within {
			kind = IntNonmonotonicPoll
		}
		if in := f.add(kind); in != nil {
			in.Key, in.Offsets, in.Values = k.values.key, []int64{cur.next, r.Offset}, []int64{r.Value}
			in.Ops = f.pair(cur.op)
			in.Detail = fmt.Sprintf("a process that was to go on at offset %d polled offset %d", cur.next, r.Offset)
		}
		return
	}
	from := k.order.rank(cur.next, cur.rank)
	if rank <= from {
		return
	}
	kind := PollSkip
	if within {
		kind = IntPollSkip
	}
	if in := f.add(kind); in != nil {
		in.Key, in.Offsets = k.values.key, []int64{cur.next, r.Offset}
		for _, row := range k.order.rows[from:min(rank, from+f.instances)] {
			in.Values = append(in.Values, k.values.value[row])
		}
		in.Ops = f.pair(cur.op)
		in.Detail = fmt.Sprintf("a process that was to go on at offset %d polled offset %d and skipped %d records, of which these are the first values", cur.next, r.Offset, rank-from)
	}
}

// pair is an earlier operation and this one.
func (f *follower) pair(op uint32) []OpRef {
	if op == f.self {
		return f.refs(op)
	}
	return f.refs(op, f.self)
}

// writer looks at who sent a record that was polled. A value is reported once.
func (f *follower) writer(v *values, row uint32, r Record) {
	op := v.op[row]
	switch outcome := f.outcome(v, row); {
	case outcome == 0:
		if in := f.once(v, row, Phantom); in != nil {
			in.Key, in.Offsets, in.Values, in.Ops = v.key, []int64{r.Offset}, []int64{r.Value}, f.refs(f.self)
			in.Detail = "a record was polled that nobody sent"
			for i := range f.keys {
				other := &f.keys[i].values
				if at := other.find(r.Value); other != v && at != none && other.op[at] != none {
					in.Detail = fmt.Sprintf("a record was polled that was sent to %v", other.key)
					in.Ops = append(f.refs(other.op[at]), in.Ops...)
				}
			}
		}
	case op == f.self && !f.op.Uncommitted:
		if in := f.add(PrecommittedRead); in != nil {
			in.Key, in.Offsets, in.Values, in.Ops = v.key, []int64{r.Offset}, []int64{r.Value}, f.refs(f.self)
			in.Detail = "a transaction polled a record that it was sending itself"
		}
	case outcome == Fail && (!f.op.Uncommitted || f.ops[op].kind == OpSend):
		if in := f.once(v, row, AbortedRead); in != nil {
			in.Key, in.Offsets, in.Values, in.Ops = v.key, []int64{r.Offset}, []int64{r.Value}, f.refs(op, f.self)
			in.Detail = "a record was polled whose write failed"
		}
	}
}

// reported marks a value whose polls are anomalies of which one is enough.
const reported uint8 = 1 << 7

func (f *follower) once(v *values, row uint32, k Kind) *Instance {
	if v.flags[row]&reported != 0 {
		return nil
	}
	v.flags[row] |= reported
	return f.add(k)
}

// lag keeps the worst lag.
func (f *follower) lag() {
	if f.op.Final {
		return
	}
	fig := &f.report.Figures
	for key := range f.p.cursors {
		cur := &f.p.cursors[key]
		if !cur.read {
			continue
		}
		if lag := f.keys[key].behind(cur.next, f.op.Start); lag > fig.Lag {
			fig.Lag, fig.LagKey, fig.LagProcess = lag, f.keys[key].values.key, f.op.Process
		}
	}
}
