//go:build race

package log

// underRace: there a sync.Pool drops what it is given at random, and some
// allocations that the compiler leaves out otherwise are made.
const underRace = true
