package history

import (
	"fmt"
	"iter"
	"slices"
)

// Key is what has an order: one partition of a topic.
type Key struct {
	Topic     string
	Partition int32 // -1 in a subscription: all of the topic
}

func (k Key) String() string { return fmt.Sprintf("%s/%d", k.Topic, k.Partition) }

// Record is a value and its offset in the partition. A value is sent to a key at
// most once in a history. The offset of a sent record may be one of the constants
// below; that of a polled one is always an offset.
type Record struct {
	Offset, Value int64
}

// What stands in the place of the offset of a sent record that has none.
const (
	NoOffset   int64 = -1 // it shares the outcome of its operation; where it lies was not said
	Unanswered int64 = -2 // whether it was written is not known. Not in transactions, which end as one
	Refused    int64 = -3 // it was not written, and never will be. Not in transactions
)

// Run is records of one key, in the order in which they were sent or polled.
type Run struct {
	Key     Key
	Records []Record
}

// Offset is a position in a key: the offset of the next record.
type Offset struct {
	Key    Key
	Offset int64
}

// OpKind says what an operation is.
type OpKind uint8

const (
	OpSend      OpKind = iota + 1 // records sent outside transactions: each is written or not by itself
	OpPoll                        // records polled outside transactions
	OpTxn                         // a transaction: records sent, records polled, positions of Group committed
	OpAssign                      // from now on the process reads Keys and no others
	OpSubscribe                   // from now on Group decides what the process reads
	OpSeek                        // the process goes to Offsets; -1 is a place that is not known
	OpRebalance                   // Keys came to the process or left it
	OpCommit                      // Offsets committed for Group outside transactions
	OpReset                       // somebody moves the positions of Group in Keys on purpose, back or forth
	OpCommitted                   // somebody asked for Group's committed Offsets; -1 is none
	OpCrash                       // the process begins anew: nothing it knew still holds
	OpFinal                       // Keys have been read from start to end, by polls with Final, when nobody sent any more
)

var kindNames = []string{"", "send", "poll", "txn", "assign", "subscribe", "seek", "rebalance", "commit", "reset", "committed", "crash", "final"}

func (k OpKind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("OpKind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Outcome says how an operation ended.
type Outcome uint8

const (
	OK    Outcome = iota + 1 // it happened
	Fail                     // it did not happen, and never will
	Info                     // nobody knows: it may have happened, or happen later
	Begun                    // only in files: it begins now; without another line it is Info
)

var outcomeNames = []string{"", "ok", "fail", "info", "begin"}

func (o Outcome) String() string {
	if o == 0 || int(o) >= len(outcomeNames) {
		return fmt.Sprintf("Outcome(%d)", uint8(o))
	}
	return outcomeNames[o]
}

// Op is one operation of a process, with what came of it.
type Op struct {
	// Process did it: one client, doing one thing after the other. Numbers are free,
	// and the same in all files of a history.
	Process int32
	Kind    OpKind
	Outcome Outcome
	// Start and End are when it was begun and answered, in nanoseconds of a clock
	// that all processes share.
	Start, End int64

	Sends []Run // of OpSend, OpTxn
	Polls []Run // of OpPoll, OpTxn; what was polled holds, however the operation ended
	// Group of OpTxn, OpSubscribe, OpCommit, OpReset, OpCommitted.
	Group string
	// Offsets of OpTxn and OpCommit (committed), OpCommitted (seen), OpSeek (gone to).
	Offsets []Offset
	// Keys of OpAssign, OpSubscribe, OpRebalance, OpReset, OpFinal. In OpPoll and
	// OpTxn: those that a rebalance moved meanwhile.
	Keys []Key

	Uncommitted bool // what it polled may be of open and aborted transactions (read_uncommitted)
	Retries     bool // sent by a producer that is not idempotent: records may come twice, and out of order
	Final       bool // polls that are part of the final read
}

// Clone is a copy that shares no memory but strings.
func (op *Op) Clone() *Op {
	c := *op
	c.Sends, c.Polls = cloneRuns(op.Sends), cloneRuns(op.Polls)
	c.Offsets, c.Keys = slices.Clone(op.Offsets), slices.Clone(op.Keys)
	return &c
}

func cloneRuns(runs []Run) []Run {
	c := slices.Clone(runs)
	for i := range c {
		c[i].Records = slices.Clone(c[i].Records)
	}
	return c
}

// Source is a history that can be gone over more than once. The operations of a
// process come in its order; an error ends the walk. An operation is valid until
// the next one is asked for.
type Source interface {
	Ops() iter.Seq2[*Op, error]
}

// History is a Source in memory.
type History []Op

// Ops implements Source.
func (h History) Ops() iter.Seq2[*Op, error] {
	return func(yield func(*Op, error) bool) {
		for i := range h {
			if !yield(&h[i], nil) {
				return
			}
		}
	}
}
