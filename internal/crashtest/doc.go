// Package crashtest stops a workload at each of its file operations, makes the
// states that a power cut or a kill could have left, opens what is there, and
// compares it with what had been promised.
//
//	run the workload on a vfs.Mem that crashes at operation k, byte b
//	      |                      Trace: sent, written, durable, truncated
//	frozen file system
//	      |-- AfterCrash(random) --> open, check, append, crash again, open, check
//	      |-- AfterKill ---------> the same, and a power cut while it recovers
//	      ...                      many states of each frozen file system
//
// What is checked, for a log or for a partition alike:
//
//   - every record that was acknowledged is there, at its offset, once, in order;
//   - nothing is there that was not sent, and nothing of an append that failed
//     cleanly;
//   - the log ends between two batches;
//   - opening reports no damage, for there was none;
//   - what one open has shown, the next one shows, whatever happens in between;
//   - the log takes appends, and closes so that the next open has nothing to do.
package crashtest
