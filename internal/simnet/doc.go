// Package simnet is a network in memory for tests in a testing/synctest bubble:
// hosts, listeners and connections as TCP has them, and what goes wrong with them,
// chosen by the test.
//
//	net := simnet.New()
//	a, b := net.Host("a"), net.Host("b")
//	ln, _ := b.Listen("b:1")
//	conn, _ := a.Dial(ctx, "b:1")
//	net.Cut("a", "b")          // what a sends does not arrive, until
//	net.Heal("a", "b")         // it does, in order, as TCP sends again
//
// A cut loses no bytes of a connection: they arrive when it heals, and so does the
// end of a connection that was closed meanwhile. A connection is given up by those who
// use it, with deadlines. Loss of packets is a stall of the direction.
//
// There are no sockets, no goroutines and no time but package time's. All methods
// may be called from several goroutines.
package simnet
