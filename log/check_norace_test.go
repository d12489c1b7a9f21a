//go:build !race

package log

// underRace: see check_race_test.go.
const underRace = false
