// Package faultproc kills real processes that work on real files, and looks at
// what is left.
//
//	test                          child (the same binary, started again)
//	 |-- Spec in the environment --> works on a partition of the OS's files
//	 |<-- a line before and after ----- each append, deletion, truncation
//	 |       each operation                |
//	 |                                   SIGKILL: by strace at a system call, by
//	 |                                   itself at a file operation or inside a
//	 |                                   mapped store, by the test at any time
//	 |-- Journal.Check: opens the directory and compares
//
// A killed process loses nothing that it handed to the system, so every level
// keeps all that was acknowledged. What is checked, after one or more such lives:
//
//   - every acknowledged record is there, at its offset, once, in order;
//   - nothing is there that was not sent, or whose append failed cleanly, or that
//     a truncation had taken away;
//   - offsets follow each other without a gap; a batch is there whole or not at all;
//   - what was deleted stays deleted; no more than was asked for is deleted;
//   - opening reports no damage, and the partition takes appends.
//
// The package belongs to tests: nothing that ships imports it.
package faultproc
