package history

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// forged are histories that show exactly the anomalies that their row names; beside
// each kind lie histories that nearly show it.
var forged = []struct{ name, script, want string }{
	{"nothing at all", ``, ""},
	{"sent and polled", `
		1 send ok a 0=10 1=11
		2 assign ok a
		2 poll ok a 0=10
		2 poll ok a 1=11`, ""},
	{"offsets may be sparse: markers and aborted records take some", `
		1 txn ok send a 0=10 1=11
		1 txn fail send a 3=12
		1 txn ok send a 7=13 8=14
		2 poll ok a 0=10 1=11
		2 poll ok a 7=13 8=14`, ""},

	{"inconsistent: two sends", `
		1 send ok a 0=10
		3 send ok a 0=11
		2 poll ok a 0=10
		4 poll ok a 0=11`, "inconsistent-offsets"},
	{"inconsistent: a poll differs from the answer", `
		1 send ok a 0=10 1=11
		2 poll ok a 0=11 1=10`, "inconsistent-offsets:2 duplicate:2"},
	{"inconsistent: another value takes the place of one that was acknowledged", `
		1 send ok a 0=10
		3 send ok a 0=11
		2 poll ok a 0=11`, "inconsistent-offsets lost-write"},
	{"inconsistent: a record that nobody sent takes a place", `
		1 send ok a 0=10
		2 poll ok a 0=10
		3 poll ok a 0=99`, "inconsistent-offsets phantom"},
	{"same offset in two partitions", `
		1 send ok a 0=10 a/1 0=11
		2 poll ok a 0=10 a/1 0=11`, ""},
	{"the place of an aborted record may be taken: its machine had lost its power", `
		1 txn fail send a 0=10
		3 send ok a 0=11
		4 poll ok uncommitted a 0=10
		2 poll ok a 0=11`, ""},

	{"duplicate: polled twice", `
		1 send ok a 0=10
		2 poll ok a 0=10 1=10`, "duplicate"},
	{"duplicate: two readers, two places", `
		1 send info a ?=10
		2 poll ok a 0=10
		3 poll ok a 5=10`, "duplicate"},
	{"duplicate: acknowledged elsewhere", `
		1 send ok a 4=10
		2 poll ok a 3=10`, "duplicate"},
	{"duplicate by who retries", `
		1 send ok retries a 1=10
		2 poll ok a 0=10 1=10`, ""},
	{"one value in two keys is two records", `
		1 send ok a 0=10 b 5=10
		2 poll ok a 0=10 b 5=10`, ""},

	{"lost: below what was read", `
		1 send ok a 0=10 1=11
		2 poll ok a 1=11`, "lost-write"},
	{"lost: the final read has the say, whatever was read", `
		1 send ok a 0=10 1=11
		2 poll ok final a 0=10
		2 final ok a`, "lost-write"},
	{"lost: seen before, gone in the end", `
		1 send ok a 0=10 1=11
		3 poll ok a 0=10 1=11
		2 poll ok final a 0=10
		2 final ok a`, "lost-write"},
	{"lost: without an answer, but another record of the transaction was seen", `
		1 txn info send a 0=10 b 0=20
		3 txn ok send a 1=11
		2 poll ok a 1=11
		2 poll ok b 0=20`, "lost-write torn-txn"},
	{"not lost: without an answer, and nothing of the transaction was seen", `
		1 txn info send a 0=10 b 0=20
		3 send ok a 3=11
		2 poll ok a 3=11`, ""},
	{"not lost: outside transactions each record is for itself", `
		1 send ok a !=10 b 0=20
		3 send ok a 1=11
		2 poll ok final a 1=11 b 0=20
		2 final ok a b`, ""},
	{"not lost: refused", `
		1 send ok a x=10 0=11
		2 poll ok final a 0=11
		2 final ok a`, ""},
	{"not lost: seen by readers of the uncommitted alone, and committed", `
		1 send ok a 0=10 1=11
		2 poll ok uncommitted a 0=10 1=11`, ""},

	{"unseen: acknowledged above what was read", `
		1 send ok a 0=10 1=11
		2 poll ok a 0=10`, "unseen"},
	{"unseen: acknowledged without an offset", `
		1 send ok a 0=10 ?=11
		2 poll ok a 0=10`, "unseen"},
	{"not unseen: nobody knows", `
		1 send ok a 0=10 !=11
		2 poll ok a 0=10`, ""},

	{"phantom", `
		2 poll ok a 0=10
		3 poll ok a 0=10`, "phantom"},
	{"phantom: sent to another partition", `
		1 send ok a 0=10
		2 poll ok a 0=10 a/1 3=10`, "phantom"},
	{"no phantom: its send is further down", `
		2 poll ok a 0=10
		1 send info a ?=10`, ""},

	{"G1a: aborted transaction", `
		1 txn fail send a 0=10
		2 poll ok a 0=10`, "G1a"},
	{"G1a: refused record, whoever reads", `
		1 send ok a x=10
		2 poll ok uncommitted a 0=10`, "G1a"},
	{"G1a: whoever does not see it has skipped nothing", `
		1 txn fail send a 1=10
		1 txn ok send a 0=9 3=11
		3 poll ok a 0=9 1=10 3=11
		2 poll ok a 0=9 3=11`, "G1a"},
	{"no G1a: readers of the uncommitted", `
		1 txn fail send a 0=10
		2 poll ok uncommitted a 0=10`, ""},
	{"no G1a: no answer", `
		1 txn info send a 0=10
		2 poll ok a 0=10`, ""},

	{"precommitted", `
		1 txn ok send a 0=10 poll a 0=10`, "precommitted-read"},
	{"not precommitted: reads the uncommitted", `
		1 txn ok uncommitted send a 0=10 poll a 0=10`, ""},
	{"not precommitted: of the transaction before", `
		1 txn ok send a 0=10
		1 txn ok send a 2=11 poll a 0=10
		2 poll ok a 2=11`, ""},

	{"torn: acknowledged", `
		1 txn ok send a 0=10 b 0=20
		2 poll ok final a 0=10
		2 final ok a b`, "lost-write torn-txn"},
	{"torn: without an answer and without offsets", `
		1 txn info send a ?=10 b ?=20
		2 poll ok final a 0=10
		2 final ok a b`, "lost-write torn-txn"},
	{"torn: several", `
		1 txn ok send a 0=10 b 0=20
		1 txn ok send a 2=11 b 2=21
		1 txn ok send a 4=12 b 4=22
		2 poll ok final a 0=10 2=11 4=12
		2 final ok a b`, "lost-write:3 torn-txn:3"},
	{"not torn: lost as a whole", `
		1 txn ok send a 0=10 b 0=20
		2 final ok a b`, "lost-write:2"},
	{"not torn: the rest was not read yet", `
		1 txn info send a ?=10 b ?=20
		2 poll ok final a 0=10
		2 final ok a`, "unseen"},
	{"not torn: the rest came later", `
		1 txn ok send a 0=10 b 0=20
		3 poll ok a 0=10
		2 poll ok final a 0=10 b 0=20
		2 final ok a b`, ""},

	{"int-poll-skip", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10 2=12`, "int-poll-skip"},
	{"no int-poll-skip: rebalanced meanwhile", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10 2=12 moved a`, ""},
	{"int-poll-skip: rebalanced was another key", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10 2=12 moved b`, "int-poll-skip"},
	{"int-poll-skip between two polls of a transaction", `
		1 send ok a 0=10 1=11 2=12 b 0=20
		3 poll ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10 b 0=20 a 2=12`, "int-poll-skip"},
	{"no int-poll-skip: what lies between was aborted", `
		1 send ok a 0=10
		1 txn fail send a 1=11
		1 send ok a 3=12
		3 poll ok uncommitted a 0=10 1=11 3=12
		2 txn ok poll a 0=10 3=12`, ""},
	{"int-nonmonotonic-poll: goes back", `
		1 send ok a 0=10 1=11
		2 txn ok poll a 1=11 0=10`, "int-nonmonotonic-poll"},
	{"int-nonmonotonic-poll: comes again", `
		1 send ok a 0=10
		2 poll ok a 0=10 0=10`, "int-nonmonotonic-poll"},
	{"no int-nonmonotonic-poll: rebalanced meanwhile", `
		1 send ok a 0=10 1=11
		2 txn ok poll a 1=11 0=10 moved a`, ""},

	{"poll-skip", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 assign ok a
		2 poll ok a 0=10
		2 poll ok a 2=12`, "poll-skip"},
	{"poll-skip: assigned again, so it goes on", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 assign ok a b
		2 poll ok a 0=10
		2 assign ok a
		2 poll ok a 2=12`, "poll-skip"},
	{"no poll-skip: assigned to another key and back", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 poll ok a 0=10
		2 assign ok b
		2 assign ok a
		2 poll ok a 2=12`, ""},
	{"no poll-skip: rebalanced", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 subscribe ok in=g a
		2 poll ok a 0=10
		2 rebalance ok a
		2 poll ok a 2=12`, ""},
	{"poll-skip: subscribed, but not rebalanced", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 subscribe ok in=g a
		2 poll ok a 0=10
		2 rebalance ok b
		2 poll ok a 2=12`, "poll-skip"},
	{"no poll-skip: sought there", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 poll ok a 0=10
		2 seek ok a 2
		2 poll ok a 2=12`, ""},
	{"no poll-skip: sought a place nobody knows", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 poll ok a 0=10
		2 seek ok a -1
		2 poll ok a 2=12`, ""},
	{"poll-skip: sought, and not there", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 seek ok a 1
		2 poll ok a 2=12`, "poll-skip"},
	{"no poll-skip: crashed", `
		1 send ok a 0=10 1=11 2=12
		3 poll ok a 0=10 1=11 2=12
		2 poll ok a 0=10
		2 crash ok
		2 poll ok a 2=12`, ""},
	{"no poll-skip: the transaction failed, and its records are polled again", `
		1 send ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10
		2 txn fail poll a 1=11
		2 txn ok poll a 1=11 2=12`, ""},
	{"poll-skip: the transaction failed, and its records were left out", `
		1 send ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10
		2 txn fail poll a 1=11
		2 txn ok poll a 2=12`, "poll-skip"},
	{"no poll-skip: nobody knows whether the transaction happened", `
		1 send ok a 0=10 1=11 2=12
		2 txn ok poll a 0=10
		2 txn info poll a 1=11
		2 txn ok poll a 2=12`, ""},
	{"nonmonotonic-poll", `
		1 send ok a 0=10 1=11
		2 assign ok a
		2 poll ok a 0=10 1=11
		2 poll ok a 1=11`, "nonmonotonic-poll"},
	{"no nonmonotonic-poll: sought back", `
		1 send ok a 0=10 1=11
		2 poll ok a 0=10 1=11
		2 seek ok a 0
		2 poll ok a 0=10`, ""},
	{"nonmonotonic-poll: the seek failed", `
		1 send ok a 0=10 1=11
		2 poll ok a 0=10 1=11
		2 seek fail a 0
		2 poll ok a 0=10`, "nonmonotonic-poll"},
	{"no nonmonotonic-poll: another process", `
		1 send ok a 0=10 1=11
		2 poll ok a 0=10 1=11
		3 poll ok a 1=11`, ""},

	{"int-nonmonotonic-send", `
		1 txn ok send a 1=10 0=11
		2 poll ok a 0=11 1=10`, "int-nonmonotonic-send"},
	{"int-nonmonotonic-send: only polls know the offsets", `
		1 txn info send a ?=10 ?=11
		2 poll ok a 0=11 1=10`, "int-nonmonotonic-send"},
	{"no int-nonmonotonic-send: aborted", `
		1 txn fail send a 1=10 0=11`, ""},
	{"int-send-skip", `
		1 txn ok send a 0=10 2=11
		3 send ok a 1=12
		2 poll ok a 0=10 1=12 2=11`, "int-send-skip"},
	{"no int-send-skip: a marker lies between", `
		1 txn ok send a 0=10 2=11
		2 poll ok a 0=10 2=11`, ""},
	{"nonmonotonic-send", `
		1 send ok a 1=10
		1 send ok a 0=11
		2 poll ok a 0=11 1=10`, "nonmonotonic-send"},
	{"nonmonotonic-send within a batch", `
		1 send ok a 1=10 0=11
		2 poll ok a 0=11 1=10`, "nonmonotonic-send"},
	{"no nonmonotonic-send: who retries", `
		1 send ok retries a 1=10
		1 send ok retries a 0=11
		2 poll ok a 0=11 1=10`, ""},
	{"no nonmonotonic-send: crashed", `
		1 send info a ?=10
		1 crash ok
		1 send ok a 0=11
		2 poll ok a 0=11 1=10`, ""},
	{"no nonmonotonic-send: another key", `
		1 send ok a 1=10
		1 send ok b 0=11
		1 send ok a 2=12
		2 poll ok a 1=10 2=12 b 0=11`, ""},

	{"commit-regress: commits", `
		1 commit ok in=g a 7
		2 commit ok in=g a 5`, "commit-regress"},
	{"commit-regress: transaction", `
		1 txn ok in=g commit a 7
		2 txn ok in=g commit a 5`, "commit-regress"},
	{"commit-regress: seen", `
		1 commit ok in=g a 5
		1 commit ok in=g a 7
		9 committed ok in=g a 5`, "commit-regress"},
	{"commit-regress: nothing left", `
		1 commit ok in=g a 7
		9 committed ok in=g a -1`, "commit-regress"},
	{"commit-regress: once for each fall", `
		1 commit ok in=g a 7
		1 commit ok in=g a 5
		1 commit ok in=g a 6
		1 commit ok in=g a 2`, "commit-regress:2"},
	{"commit-regress: a transaction that happened though nobody said so", `
		3 send ok a 0=10 1=11
		1 txn ok in=g poll a 0=10 commit a 1
		1 txn info in=g send b ?=20 poll a 1=11 commit a 2
		2 poll ok b 0=20
		9 committed ok final in=g a 1`, "commit-regress"},
	{"no commit-regress: that transaction may end later", `
		3 send ok a 0=10 1=11
		1 txn ok in=g poll a 0=10 commit a 1
		1 txn info in=g send b ?=20 poll a 1=11 commit a 2
		2 poll ok b 0=20
		9 committed ok in=g a 1`, ""},
	{"commit-regress: a transaction, in the end", `
		1 txn ok in=g commit a 5
		1 txn ok in=g commit a 7
		9 committed ok final in=g a 5`, "commit-regress"},
	{"no commit-regress: the markers of a transaction come after its answer", `
		1 txn ok in=g commit a 5
		1 txn ok in=g commit a 7
		9 committed ok in=g a 5`, ""},
	{"no commit-regress: reset", `
		1 commit ok in=g a 7
		9 reset ok in=g a
		2 commit ok in=g a 5`, ""},
	{"commit-regress: the reset was of another key", `
		1 commit ok in=g a 7
		9 reset ok in=g b
		2 commit ok in=g a 5`, "commit-regress"},
	{"commit-regress: after the reset", `
		9 reset ok in=g a
		1 commit ok in=g a 7
		2 commit ok in=g a 5`, "commit-regress"},
	{"no commit-regress: the member sought back", `
		1 subscribe ok in=g a
		1 commit ok in=g a 7
		1 seek ok a 0
		1 commit ok in=g a 5`, ""},
	{"commit-regress: somebody else sought", `
		1 subscribe ok in=g a
		2 assign ok a
		1 commit ok in=g a 7
		2 seek ok a 0
		1 commit ok in=g a 5`, "commit-regress"},
	{"no commit-regress: at the same time", `
		1 commit ok in=g a 7 from=1 to=5
		2 commit ok in=g a 5 from=4 to=9`, ""},
	{"no commit-regress: failed", `
		1 commit fail in=g a 7
		2 commit ok in=g a 5`, ""},
	{"no commit-regress: a commit without an answer came late", `
		1 commit info in=g a 5
		1 commit ok in=g a 7
		9 committed ok in=g a 5`, ""},
	{"no commit-regress: another group", `
		1 commit ok in=g a 7
		2 commit ok in=h a 5`, ""},
	{"phantom-commit: nobody", `
		1 commit ok in=g a 5
		9 committed ok in=g a 6`, "phantom-commit"},
	{"phantom-commit: aborted", `
		1 txn fail in=g commit a 5
		9 committed ok in=g a 5`, "phantom-commit"},
	{"no phantom-commit: without an answer", `
		1 txn info in=g commit a 5
		9 committed ok in=g a 5`, ""},
	{"no phantom-commit: reset", `
		9 reset ok in=g a
		9 committed ok in=g a 3`, ""},

	{"double-process", `
		3 send ok a 0=10
		1 txn ok in=g send b 0=20 poll a 0=10 commit a 1
		2 txn ok in=g send b 1=21 poll a 0=10 commit a 1
		4 poll ok b 0=20 1=21`, "double-process"},
	{"double-process: one without an answer, but seen", `
		3 send ok a 0=10
		1 txn info in=g send b ?=20 poll a 0=10 commit a 1
		2 txn ok in=g send b 1=21 poll a 0=10 commit a 1
		4 poll ok b 0=20 1=21`, "double-process"},
	{"no double-process: one failed", `
		3 send ok a 0=10
		1 txn fail in=g send b 0=20 poll a 0=10 commit a 1
		2 txn ok in=g send b 2=21 poll a 0=10 commit a 1
		4 poll ok b 2=21`, ""},
	{"no double-process: one without an answer, and not seen", `
		3 send ok a 0=10
		1 txn info in=g send b ?=20 poll a 0=10 commit a 1
		2 txn ok in=g send b 2=21 poll a 0=10 commit a 1
		4 poll ok b 2=21`, ""},
	{"no double-process: two groups", `
		3 send ok a 0=10
		1 txn ok in=g send b 0=20 poll a 0=10 commit a 1
		2 txn ok in=h send b 1=21 poll a 0=10 commit a 1
		4 poll ok b 0=20 1=21`, ""},
	{"no double-process: outside transactions it is at least once", `
		3 send ok a 0=10
		1 subscribe ok in=g a
		1 poll ok a 0=10
		2 subscribe ok in=g a
		2 poll ok a 0=10
		2 commit ok in=g a 1`, ""},
	{"no double-process: the first did not commit its position", `
		3 send ok a 0=10
		1 txn ok in=g send b 0=20 poll a 0=10
		2 txn ok in=g send b 1=21 poll a 0=10 commit a 1
		4 poll ok b 0=20 1=21`, ""},
	{"no double-process: reset between", `
		3 send ok a 0=10
		1 txn ok in=g send b 0=20 poll a 0=10 commit a 1
		9 reset ok in=g a
		2 txn ok in=g send b 1=21 poll a 0=10 commit a 1
		4 poll ok b 0=20 1=21`, ""},

	{"group-skip", `
		3 send ok a 0=10 1=11 2=12
		4 poll ok a 0=10 1=11 2=12
		1 subscribe ok in=g a
		1 poll ok a 0=10
		1 commit ok in=g a 1
		1 rebalance ok a
		1 poll ok a 2=12
		1 commit ok in=g a 3`, "group-skip"},
	{"group-skip: polled by a transaction that failed", `
		3 send ok a 0=10 1=11 2=12
		1 txn ok in=g poll a 0=10 commit a 1
		1 txn fail in=g poll a 1=11 commit a 2
		2 txn ok in=g poll a 2=12 commit a 3`, "group-skip"},
	{"no group-skip: another member polled it", `
		3 send ok a 0=10 1=11 2=12
		1 subscribe ok in=g a
		2 subscribe ok in=g a
		1 poll ok a 0=10
		2 poll ok a 1=11
		1 rebalance ok a
		1 poll ok a 2=12
		1 commit ok in=g a 3`, ""},
	{"no group-skip: not committed", `
		3 send ok a 0=10 1=11 2=12
		4 poll ok a 0=10 1=11 2=12
		1 subscribe ok in=g a
		1 poll ok a 0=10
		1 rebalance ok a
		1 poll ok a 2=12
		1 commit ok in=g a 1`, ""},
	{"no group-skip: the group began behind it", `
		3 send ok a 0=10 1=11 2=12
		4 poll ok a 0=10 1=11 2=12
		1 subscribe ok in=g a
		1 poll ok a 2=12
		1 commit ok in=g a 3`, ""},
	{"no group-skip: a member sought", `
		3 send ok a 0=10 1=11 2=12
		4 poll ok a 0=10 1=11 2=12
		1 subscribe ok in=g a
		1 poll ok a 0=10
		1 seek ok a 2
		1 poll ok a 2=12
		1 commit ok in=g a 3`, ""},

	{"G0", `
		1 txn ok send a 0=10 b 1=20
		2 txn ok send a 1=11 b 0=21
		3 poll ok a 0=10 1=11 b 0=21 1=20`, "G0"},
	{"no G0: the same order", `
		1 txn ok send a 0=10 b 0=20
		2 txn ok send a 1=11 b 1=21
		3 poll ok a 0=10 1=11 b 0=20 1=21`, ""},
	{"no G0: outside transactions", `
		1 send ok a 0=10 b 1=20
		2 send ok a 1=11 b 0=21
		3 poll ok a 0=10 1=11 b 0=21 1=20`, ""},
	{"no G0: one failed", `
		1 txn ok send a 0=10 b 1=20
		2 txn fail send a 1=11 b 0=21
		3 poll ok a 0=10 b 1=20`, ""},
	{"G1c", `
		1 txn ok send a 0=10 poll b 0=20
		2 txn ok send b 0=20 poll a 0=10`, "G1c"},
	{"G1c of three", `
		1 txn ok send a 0=10 poll c 0=30
		2 txn ok send b 0=20 poll a 0=10
		3 txn ok send c 0=30 poll b 0=20`, "G1c"},
	{"no G1c: reads the uncommitted", `
		1 txn ok uncommitted send a 0=10 poll b 0=20
		2 txn ok send b 0=20 poll a 0=10`, ""},
	{"no G1c: one way", `
		1 txn ok send a 0=10
		2 txn ok send b 0=20 poll a 0=10
		3 txn ok poll b 0=20`, ""},
	{"G1c-ww: reads from whom it wrote before", `
		1 txn ok send a 0=10 poll b 0=21
		2 txn ok send a 1=11 b 0=21
		3 poll ok a 0=10 1=11`, "G1c-ww"},
	{"G1c-ww: writes before whom it read from", `
		1 txn ok send a 1=10 b 0=20
		2 txn ok send a 0=11 poll b 0=20
		3 poll ok a 0=11 1=10`, "G1c-ww"},
	{"G-single: saw one record of a transaction and not the other", `
		1 txn ok send a 0=10 b 0=20
		3 txn ok send b 1=21 a 1=11
		2 poll ok a 0=10 1=11 b 0=20
		4 poll ok a 0=10 1=11 b 0=20 1=21`, "G-single"},
	{"no G-single: saw both", `
		1 txn ok send a 0=10 b 0=20
		3 txn ok send b 1=21 a 1=11
		2 poll ok a 0=10 1=11 b 0=20 1=21`, ""},
	{"G2: two readers, each without the other's write", `
		5 txn ok send a 0=10 b 0=20
		1 txn ok send a 1=11 poll b 0=20
		2 txn ok send b 1=21 poll a 0=10
		4 poll ok a 0=10 1=11 b 0=20 1=21`, "G2"},
	{"no G2: one after the other", `
		5 txn ok send a 0=10 b 0=20
		1 txn ok send a 1=11 poll b 0=20
		2 txn ok send b 1=21 poll a 0=10 1=11
		4 poll ok a 0=10 1=11 b 0=20 1=21`, ""},
}

func TestForgedHistories(t *testing.T) {
	shown := map[Kind]bool{}
	for _, row := range forged {
		t.Run(row.name, func(t *testing.T) {
			h := parseScript(t, row.script)
			r := check(t, h, nil)
			if got := found(r); got != row.want {
				t.Errorf("found %q, want %q\n%v", got, row.want, r)
			}
			for _, a := range r.Anomalies {
				shown[a.Kind] = true
				for _, in := range a.First {
					if in.Detail == "" || len(in.Ops) == 0 || a.Kind == TornTxn && len(in.Values) == 0 {
						t.Errorf("%v: instance %+v does not say what happened", a.Kind, in)
					}
				}
			}
		})
	}
	for k := range kinds {
		if !shown[k] {
			t.Errorf("no forged history shows %v", k)
		}
	}
}

func TestWithoutOrderOfWrites(t *testing.T) {
	h := parseScript(t, `
		1 txn ok send a 0=10 b 1=20
		2 txn ok send a 1=11 b 0=21
		3 txn ok send c 1=30 d 0=40
		4 txn ok send c 0=31 poll d 0=40
		9 poll ok a 0=10 1=11 b 0=21 1=20 c 0=31 1=30 d 0=40`)
	if got := found(check(t, h, nil)); got != "G0 G1c-ww" {
		t.Errorf("with the order of writes: %q", got)
	}
	if got := found(check(t, h, &Options{NoWriteWrite: true})); got != "" {
		t.Errorf("without the order of writes: %q", got)
	}
}

func TestHistoriesThatNoRecorderMakes(t *testing.T) {
	for _, row := range []struct {
		name string
		h    History
	}{
		{"a value twice", parseScript(t, "1 send ok a 0=10\n2 send ok a 1=10")},
		{"an offset that is none", parseScript(t, "1 poll ok a ?=10")},
		{"a refused record of a transaction", parseScript(t, "1 txn ok send a x=10")},
		{"positions without a group", parseScript(t, "1 commit ok a 5")},
		{"no kind", History{{Outcome: OK}}},
		{"no outcome", History{{Kind: OpSend}}},
		{"not ended", History{{Kind: OpSend, Outcome: Begun}}},
		{"polls in a send", History{{Kind: OpSend, Outcome: OK, Polls: []Run{{}}}}},
	} {
		var bad *BadHistoryError
		if _, err := Check(row.h, nil); !errors.As(err, &bad) {
			t.Errorf("%s: error %v, want a *BadHistoryError", row.name, err)
		}
	}
}

func TestFigures(t *testing.T) {
	h := parseScript(t, `
		1 send ok a 0=10 1=11 !=12 x=13
		2 assign ok a
		2 poll ok a 0=10
		1 txn info send b ?=20
		1 txn fail send b 1=21
		3 poll ok b 0=20
		1 send ok retries a 2=14
		3 poll ok a 3=14
		1 crash ok
		4 poll ok final a 0=10 1=11 3=14
		4 final ok a`)
	r := check(t, h, nil)
	if got := found(r); got != "" {
		t.Errorf("found %q", got)
	}
	f := r.Figures
	for _, row := range []struct {
		name      string
		got, want any
	}{
		{"ops", f.Ops, Count{OK: 9, Fail: 1, Info: 1}},
		{"txns", f.Kinds[OpTxn], Count{Fail: 1, Info: 1}},
		{"crashes", f.Kinds[OpCrash], Count{OK: 1}},
		{"sent", f.Sent, Count{OK: 3, Fail: 2, Info: 2}},
		{"polled", []int{f.Polled, f.Final}, []int{6, 3}},
		{"proven and repeated", []int{f.Proven, f.Repeats}, []int{1, 1}},
		{"processes, keys, groups", []int{f.Processes, f.Keys, f.Groups}, []int{4, 2, 0}},
	} {
		if got, ok := row.got.([]int); ok {
			if !slices.Equal(got, row.want.([]int)) {
				t.Errorf("%s: %v, want %v", row.name, got, row.want)
			}
		} else if row.got != row.want {
			t.Errorf("%s: %v, want %v", row.name, row.got, row.want)
		}
	}
}

func TestInstancesAreBounded(t *testing.T) {
	var h History
	for i := range int64(100) {
		h = append(h, Op{Process: 1, Kind: OpSend, Outcome: OK, Sends: []Run{{Key{"a", 0}, []Record{{i, i}}}}})
	}
	h = append(h, Op{Process: 2, Kind: OpPoll, Outcome: OK, Polls: []Run{{Key{"a", 0}, []Record{{99, 99}}}}})
	r := check(t, h, &Options{Instances: 3})
	if len(r.Anomalies) != 1 || r.Anomalies[0].Count != 99 || len(r.Anomalies[0].First) != 3 {
		t.Fatalf("want 99 lost writes, 3 of them named:\n%v", r)
	}
}

func TestLag(t *testing.T) {
	for _, row := range []struct {
		name, script string
		want         time.Duration
	}{
		{"sees all there is", `
			1 send ok a 0=10 from=1 to=10
			2 poll ok a 0=10 from=20 to=30`, 0},
		{"asked after the next one was there", `
			1 send ok a 0=10 from=1 to=10
			2 poll ok a 0=10 from=20 to=30
			1 send ok a 1=11 from=31 to=40
			2 poll ok a from=47 to=50`, 7},
		{"asked before the next one was there", `
			1 send ok a 0=10 from=1 to=10
			2 poll ok a 0=10 from=20 to=30
			2 poll ok a from=32 to=50
			1 send ok a 1=11 from=31 to=40`, 0},
		{"since the first of those that it has not", `
			1 send ok a 0=10 from=1 to=10
			2 poll ok a 0=10 from=20 to=30
			1 send ok a 1=11 from=31 to=40
			1 send ok a 2=12 from=41 to=60
			2 poll ok a from=100 to=101`, 60},
		{"another reader proves that it is there", `
			1 send info a ?=10 ?=11 from=1 to=2
			2 poll ok a 0=10 from=5 to=6
			3 poll ok a 0=10 1=11 from=5 to=9
			2 poll ok a from=15 to=16`, 6},
		{"gave the key up", `
			1 send ok a 0=10 from=1 to=10
			2 poll ok a 0=10 from=20 to=30
			1 send ok a 1=11 from=31 to=40
			2 rebalance ok a
			2 poll ok a from=90 to=91`, 0},
		{"final reads are late by nature", `
			1 send ok a 0=10 from=1 to=10
			2 poll ok final a 0=10 from=20 to=30
			1 send ok a 1=11 from=31 to=40
			2 poll ok final a from=47 to=50`, 0},
	} {
		r := check(t, parseScript(t, row.script), nil)
		if r.Figures.Lag != row.want {
			t.Errorf("%s: lag %v, want %v", row.name, r.Figures.Lag, row.want)
		}
		if row.want > 0 && (r.Figures.LagKey != Key{"a", 0} || r.Figures.LagProcess != 2) {
			t.Errorf("%s: lag of process %d in %v", row.name, r.Figures.LagProcess, r.Figures.LagKey)
		}
	}
}
