// Package soak lets Kafka clients work on a server that is killed again and again,
// records what they see, and asks internal/history whether a log may show that.
//
//	run (parent)                                     server (the same binary again)
//	 producers, transactions, readers, groups          embedlog.Open, kafka.Serve
//	   |          |                                          ^
//	   |          +--> relay, at one address ----------------+  a free port each time
//	   |                 cuts connections                    |
//	   +--> history.jsonl                                    |
//	 killer: SIGKILL every few seconds, and start again -----+
//	 in the end: final read, then history.Check
//
// Clients see one address for the whole run: that of the relay, which the server
// advertises as its own. What is on its way when a process dies or a connection is
// cut is what makes answers unknown; clients crash, too, in the middle of batches and
// transactions, and begin anew under the same names.
//
// A killed process loses nothing that it handed to the system, so topics of both
// levels, OS and Durable, are to keep all that was acknowledged.
//
// The server is this binary, or `embedlog serve` (Config.Binary). The package belongs
// to tests: nothing that ships imports it.
package soak
