package history

import (
	"fmt"
	"math"
)

// Options of Check. Nil is the defaults.
type Options struct {
	// Instances is how many cases of each kind a report holds. Zero means 8.
	Instances int
	// NoWriteWrite leaves the order of writes out of the search for cycles: only
	// who read from whom, and who did not, counts.
	NoWriteWrite bool
}

// BadHistoryError is the error for a history that no recorder makes: nothing can
// be said about it.
type BadHistoryError struct {
	Op      OpRef
	Problem string
}

func (e *BadHistoryError) Error() string {
	return fmt.Sprintf("history: operation %v: %s", e.Op, e.Problem)
}

// Check goes over a history and reports its anomalies. The error is one of the
// source, or a *BadHistoryError; an anomaly is none.
func Check(src Source, opts *Options) (*Report, error) {
	c := &checker{
		instances: 8,
		keyIDs:    map[Key]int32{},
		groupIDs:  map[string]int32{},
		member:    map[int32]int32{},
		report:    &Report{},
	}
	if opts != nil {
		c.noWW = opts.NoWriteWrite
		if opts.Instances > 0 {
			c.instances = opts.Instances
		}
	}
	if err := c.collect(src); err != nil {
		return nil, err
	}
	c.prove()
	for k := range c.keys {
		c.arrange(int32(k))
	}
	c.judgeWrites()
	c.judgeCommits()
	if err := c.follow(src); err != nil {
		return nil, err
	}
	c.judgeGroups()
	c.judgeCycles()

	for k := range kinds {
		if a := c.found[k]; a.Count > 0 {
			a.Kind = k
			c.report.Anomalies = append(c.report.Anomalies, a)
		}
	}
	f := &c.report.Figures
	f.Keys, f.Groups = len(c.keys), len(c.groups)
	if files, ok := src.(interface{ TornLines() []TornLine }); ok {
		c.report.Torn = files.TornLines()
	}
	return c.report, nil
}

// checker is what is known of a history. Keys, groups and operations have numbers.
type checker struct {
	instances int
	noWW      bool
	report    *Report
	found     [kinds]Anomaly

	keyIDs   map[Key]int32
	keys     []keyState
	groupIDs map[string]int32
	groups   []group
	member   map[int32]int32 // while collecting: the group that a process is in, -1 without
	ops      []opInfo
	edges    []edge
}

// keyState is what is known of a key.
type keyState struct {
	values values
	order  order
	lag    []step
	final  bool  // it was read to its end
	read   int64 // the highest offset that must be there, because a record was read at it
}

// opInfo is what is kept of an operation.
type opInfo struct {
	start, end int64
	process    int32
	kind       OpKind
	outcome    Outcome
	// Of the records that a transaction sent: how many a committed reader saw, and
	// how many of these are not lost; how many are lost.
	seen, kept, lost uint32
}

// happened says that the operation is known to have happened.
func (o *opInfo) happened() bool {
	return o.outcome == OK || o.outcome == Info && o.kind == OpTxn && o.seen > 0
}

func (c *checker) ref(op uint32) OpRef {
	o := &c.ops[op]
	return OpRef{int(op), o.process, o.kind, o.outcome, o.start, o.end}
}

func (c *checker) refs(ops ...uint32) []OpRef {
	var refs []OpRef
	for _, op := range ops {
		if op != none {
			refs = append(refs, c.ref(op))
		}
	}
	return refs
}

// add counts an anomaly, and returns its instance when there is room for one more.
func (c *checker) add(k Kind) *Instance {
	a := &c.found[k]
	a.Count++
	if len(a.First) >= c.instances {
		return nil
	}
	if a.First == nil {
		a.First = make([]Instance, 0, c.instances) // it never moves: who has an instance may fill it later
	}
	a.First = append(a.First, Instance{})
	return &a.First[len(a.First)-1]
}

func (c *checker) keyID(k Key) int32 {
	id, ok := c.keyIDs[k]
	if !ok {
		id = int32(len(c.keys))
		c.keyIDs[k] = id
		c.keys = append(c.keys, keyState{read: -1})
		c.keys[id].values.key = k
	}
	return id
}

func (c *checker) groupID(name string) int32 {
	if name == "" {
		return -1
	}
	id, ok := c.groupIDs[name]
	if !ok {
		id = int32(len(c.groups))
		c.groupIDs[name] = id
		c.groups = append(c.groups, group{name: name, keys: map[int32]*groupKey{}})
	}
	return id
}

// collect is the first walk. It learns who sent and who saw what where.
func (c *checker) collect(src Source) error {
	processes := map[int32]bool{}
	for op, err := range src.Ops() {
		if err != nil {
			return err
		}
		if len(c.ops) >= math.MaxInt32 {
			return c.bad("more operations than can be counted")
		}
		c.ops = append(c.ops, opInfo{start: op.Start, end: op.End, process: op.Process, kind: op.Kind, outcome: op.Outcome})
		processes[op.Process] = true
		if op.Kind == 0 || op.Kind > OpFinal || op.Outcome == 0 || op.Outcome > Info {
			return c.bad("a kind or an outcome that is none")
		}
		f := &c.report.Figures
		f.Ops.add(op.Outcome)
		f.Kinds[op.Kind].add(op.Outcome)
		f.Processes = len(processes)
		if len(op.Sends) > 0 && op.Kind != OpSend && op.Kind != OpTxn || len(op.Polls) > 0 && op.Kind != OpPoll && op.Kind != OpTxn {
			return c.bad("records in an operation that has none")
		}
		for _, run := range op.Sends {
			if err := c.collectSends(op, run); err != nil {
				return err
			}
		}
		for _, run := range op.Polls {
			if err := c.collectPolls(op, run); err != nil {
				return err
			}
		}
		if err := c.collectGroup(op); err != nil {
			return err
		}
		if op.Kind == OpFinal && op.Outcome == OK {
			for _, k := range op.Keys {
				c.keys[c.keyID(k)].final = true
			}
		}
	}
	return nil
}

// bad is the error for the operation that was taken last.
func (c *checker) bad(format string, args ...any) error {
	var ref OpRef
	if n := len(c.ops); n > 0 {
		ref = c.ref(uint32(n - 1))
	}
	return &BadHistoryError{ref, fmt.Sprintf(format, args...)}
}

func (c *checker) collectSends(op *Op, run Run) error {
	self := uint32(len(c.ops) - 1)
	k := &c.keys[c.keyID(run.Key)]
	v := &k.values
	high := NoOffset
	for _, r := range run.Records {
		if r.Offset < Refused || r.Offset < NoOffset && op.Kind == OpTxn {
			return c.bad("value %d was sent to %v with offset %d", r.Value, run.Key, r.Offset)
		}
		if len(v.value) >= math.MaxInt32 {
			return c.bad("more values in %v than can be counted", run.Key)
		}
		row := v.row(r.Value)
		if v.op[row] != none {
			return c.bad("value %d was sent to %v before, by operation %v", r.Value, run.Key, c.ref(v.op[row]))
		}
		v.op[row], v.sent[row] = self, r.Offset
		if op.Retries {
			v.flags[row] |= retries
		}
		o := c.outcome(v, row)
		c.report.Figures.Sent.add(o)
		if o == OK {
			high = max(high, r.Offset)
		}
	}
	if high >= 0 {
		k.lag = append(k.lag, step{op.End, high})
	}
	return nil
}

func (c *checker) collectPolls(op *Op, run Run) error {
	k := &c.keys[c.keyID(run.Key)]
	v := &k.values
	flags := seenCommitted
	if op.Final {
		flags |= seenFinal
	}
	if op.Uncommitted {
		flags = seenUncommitted
	}
	high := NoOffset
	for _, r := range run.Records {
		if r.Offset < 0 {
			return c.bad("value %d was polled from %v at offset %d", r.Value, run.Key, r.Offset)
		}
		if len(v.value) >= math.MaxInt32 {
			return c.bad("more values in %v than can be counted", run.Key)
		}
		v.polled(v.row(r.Value), r.Offset, flags)
		high = max(high, r.Offset)
	}
	c.report.Figures.Polled += len(run.Records)
	if op.Final {
		c.report.Figures.Final += len(run.Records)
	}
	if high >= 0 && !op.Uncommitted {
		k.lag = append(k.lag, step{op.End, high})
	}
	return nil
}

// outcome is how the sending of one record ended, or 0 when nobody sent it.
func (c *checker) outcome(v *values, row uint32) Outcome {
	if v.op[row] == none {
		return 0
	}
	op := &c.ops[v.op[row]]
	if op.kind == OpTxn {
		return op.outcome
	}
	switch at := v.sent[row]; at {
	case NoOffset:
		return op.outcome
	case Unanswered:
		return Info
	case Refused:
		return Fail
	default:
		return OK
	}
}

// visible says that a record is known to have been written, and not taken back.
func (c *checker) visible(v *values, row uint32) bool {
	switch c.outcome(v, row) {
	case OK:
		return true
	case Info:
		if op := &c.ops[v.op[row]]; op.kind == OpTxn {
			return op.seen > 0
		}
		return v.flags[row]&(seenCommitted|seenUncommitted) != 0
	}
	return false
}

// prove finds the transactions that happened though nobody said so.
func (c *checker) prove() {
	for k := range c.keys {
		v := &c.keys[k].values
		for row, op := range v.op {
			if op != none && v.flags[row]&seenCommitted != 0 && c.ops[op].kind == OpTxn {
				c.ops[op].seen++
			}
		}
	}
	for i := range c.ops {
		if o := &c.ops[i]; o.kind == OpTxn && o.outcome == Info && o.seen > 0 {
			c.report.Figures.Proven++
		}
	}
}
