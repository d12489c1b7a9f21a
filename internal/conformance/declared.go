package main

// declared are the tests that are skipped, by suite, and why. docs/kafka.md has the
// same list.
var declared = map[string]map[string]string{}
