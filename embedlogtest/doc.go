// Package embedlogtest is for the tests of programs that use embedlog: a database
// in memory whose power can be cut, whose disk fills up and fails by rule, and
// whose clock the test may hold.
//
//	db := embedlogtest.Open(t, nil)
//	db.Produce(...)                    // db is an *embedlog.DB
//	db.Crash()                         // the power goes and comes back: db is the database opened again
//
// When the test ends, every log is verified, the database is closed, and
// goroutines of embedlog that are still there fail the test.
//
// What a crash keeps of bytes that were not synced is chosen at random; the seed is
// in the test's log, and Options.Seed repeats it.
//
// example_test.go has short tests of each kind: a power cut, a full disk, a day that
// passes.
//
// Nothing here touches the disk. A DB belongs to one test; its methods Crash, Kill,
// Reopen and Advance are called by one goroutine at a time.
package embedlogtest
