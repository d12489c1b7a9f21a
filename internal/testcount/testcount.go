// Package testcount says how often a long test repeats itself.
//
// EMBEDLOG_COUNT_DIVISOR=n in the environment divides the counts by n: CI sets it
// to 10 under the race detector.
package testcount

import (
	"fmt"
	"os"
	"strconv"
	"sync"
)

var divisor = sync.OnceValue(func() int {
	text := os.Getenv("EMBEDLOG_COUNT_DIVISOR")
	if text == "" {
		return 1
	}
	d, err := strconv.Atoi(text)
	if err != nil || d < 1 {
		// A run that silently tests another amount than it was asked for is worse than none.
		panic(fmt.Sprintf("EMBEDLOG_COUNT_DIVISOR=%q: want a number from 1 on", text))
	}
	return d
})

// N is n divided by EMBEDLOG_COUNT_DIVISOR, at least 1.
func N(n int) int { return max(n/divisor(), 1) }
