// Package invariant checks what must always be true of our own state. A broken
// invariant is a bug of ours, never a caller's or a disk's, so it panics.
//
// The checks run in tests, under the race detector and with the build tag
// invariants; elsewhere On is a constant false and the compiler drops them.
package invariant
