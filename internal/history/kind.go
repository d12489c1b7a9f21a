package history

import "fmt"

// Kind is a kind of anomaly.
type Kind uint8

// The kinds. A committed reader is one whose polls are not Uncommitted. A write is
// known to have happened when its operation is OK, or is a transaction without an
// answer of which a committed reader saw a record. A visible record is one whose
// write is known to have happened, or that a committed reader saw, but not one whose
// write failed.
const (
	// InconsistentOffsets: one offset of a key holds two values, as sends or polls say.
	InconsistentOffsets Kind = iota
	// Duplicate: one value lies at two offsets of its key. Not when its producer Retries.
	Duplicate
	// LostWrite: a write is known to have happened, lies below what somebody read,
	// and nobody ever saw it; or the final read did not see a visible record.
	LostWrite
	// Unseen: acknowledged, and nobody saw it, in a key that was not read to its end:
	// the history cannot say whether it is lost.
	Unseen
	// Phantom: a record was polled that nobody sent to that key.
	Phantom
	// AbortedRead (G1a): a committed reader saw a record whose transaction was
	// aborted; or anybody saw one that was refused outside a transaction.
	AbortedRead
	// PrecommittedRead: a transaction polled, committed, what it was sending itself.
	PrecommittedRead
	// TornTxn: committed readers saw a part of a transaction, and another part is lost.
	TornTxn
	// IntPollSkip: within one operation, the records polled of a key leave out visible
	// ones between them. Not in keys that were rebalanced meanwhile.
	IntPollSkip
	// IntNonmonotonicPoll: within one operation, the records polled of a key go back
	// or come again. Not in keys that were rebalanced meanwhile.
	IntNonmonotonicPoll
	// PollSkip: an operation of a process begins behind visible records that its last
	// one had not polled. Not after a rebalance, a subscription or a crash; after a
	// seek, what counts is where it went.
	PollSkip
	// NonmonotonicPoll: an operation begins at or before where the last one of the
	// process ended. Not after a rebalance, a subscription or a crash; after a seek,
	// what counts is where it went. A transaction that failed has not moved the process.
	NonmonotonicPoll
	// IntNonmonotonicSend: within one transaction, a later send to a key lies before
	// an earlier one.
	IntNonmonotonicSend
	// IntSendSkip: between two sends of a transaction to a key lies a record of
	// somebody else. Allowed: writes interleave.
	IntSendSkip
	// NonmonotonicSend: a process's later send to a key lies before its earlier one.
	// Not across a crash, nor when it Retries.
	NonmonotonicSend
	// CommitRegress: a group's committed position went back, as commits that followed
	// each other or somebody who asked say; nobody had reset it, nor had a member sought.
	// Who asks may not see what a transaction has committed, until the final read.
	CommitRegress
	// PhantomCommit: a group's position is one that nobody committed, or only a
	// transaction that failed.
	PhantomCommit
	// DoubleProcess: two transactions that happened polled the same record and
	// committed the position of the same group behind it.
	DoubleProcess
	// GroupSkip: a group committed a position behind a visible record that no member
	// polled, but in transactions that failed, though a member had polled one before it.
	GroupSkip
	// G0: a cycle of transactions, each of which wrote to some key before the next.
	// Allowed: writes are not isolated.
	G0
	// G1c: a cycle of transactions, each of which polled, committed, what the one before had sent.
	G1c
	// G1cWW: as G1c, with an order of writes between some of them. Allowed: without
	// isolation of writes it is no wonder.
	G1cWW
	// GSingle: a cycle with one anti-dependency: a transaction read up to a record
	// and not the next one, which another wrote. Allowed: readers have no snapshot of
	// several keys.
	GSingle
	// G2: a cycle with several anti-dependencies. Allowed, as GSingle.
	G2

	kinds // how many
)

var kindInfo = [kinds]struct {
	name    string
	allowed bool
}{
	InconsistentOffsets: {"inconsistent-offsets", false},
	Duplicate:           {"duplicate", false},
	LostWrite:           {"lost-write", false},
	Unseen:              {"unseen", false},
	Phantom:             {"phantom", false},
	AbortedRead:         {"G1a", false},
	PrecommittedRead:    {"precommitted-read", false},
	TornTxn:             {"torn-txn", false},
	IntPollSkip:         {"int-poll-skip", false},
	IntNonmonotonicPoll: {"int-nonmonotonic-poll", false},
	PollSkip:            {"poll-skip", false},
	NonmonotonicPoll:    {"nonmonotonic-poll", false},
	IntNonmonotonicSend: {"int-nonmonotonic-send", false},
	IntSendSkip:         {"int-send-skip", true},
	NonmonotonicSend:    {"nonmonotonic-send", false},
	CommitRegress:       {"commit-regress", false},
	PhantomCommit:       {"phantom-commit", false},
	DoubleProcess:       {"double-process", false},
	GroupSkip:           {"group-skip", false},
	G0:                  {"G0", true},
	G1c:                 {"G1c", false},
	G1cWW:               {"G1c-ww", true},
	GSingle:             {"G-single", true},
	G2:                  {"G2", true},
}

func (k Kind) String() string {
	if k >= kinds {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kindInfo[k].name
}

// Allowed reports whether a correct log shows anomalies of the kind, too.
func (k Kind) Allowed() bool { return k < kinds && kindInfo[k].allowed }
