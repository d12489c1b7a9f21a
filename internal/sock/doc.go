// Package sock is how the command line talks to the program that holds a
// directory: the frames, what is in them, and the socket in the directory that
// carries them.
//
//	client                         server
//	  | hello: "ELSK" version        |
//	  |----------------------------->|
//	  |        hello: "ELSK" version |
//	  |<-----------------------------|
//	  | request                      |
//	  |----------------------------->|   one at a time
//	  |      progress, progress, ... |
//	  |               reply or error |
//	  |<-----------------------------|
//
// One connection is one session: a producer, a group consumer and a running
// backup live and die with it. While a request runs, the client may send a
// cancel frame, or hang up, which cancels too.
//
// A frame is drawn in docs/socket.md:
//
//	0  4  length of the payload, big-endian
//	4  1  kind: an Op from the client, a Kind from the server
//	5     payload: JSON, but records are binary (records.go)
//
// # Bounds
//
// A frame from a client holds at most MaxRequestBytes, one from a server
// MaxReplyBytes; memory is taken as bytes arrive, not as the length claims. JSON
// lets a newer client talk to an older program and the other way round: fields
// that one side does not know are left out.
package sock
