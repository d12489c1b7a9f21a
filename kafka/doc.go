// Package kafka is the door for Kafka clients: a listener that speaks Kafka's
// protocol over the same engine that the Go door uses. A record that was produced
// at one door is the same record at the other.
//
//	listener --> conn: reader ---frames---> handler --> api table --> one file per API key
//	               |                          |             (00_produce.go, 01_fetch.go, ...)
//	             budget                     answers                       |
//	    (bytes are reserved before      in the order of                   v
//	     they are read)                    requests             internal/engine
//
// The package owns connections and translates; it has no state of topics, groups
// or transactions of its own. docs/kafka.md says what is spoken.
//
//	server, err := kafka.Serve(db, &kafka.Options{Listeners: []kafka.Listener{{Address: "localhost:9092"}}})
//	...
//	err = server.Shutdown(ctx)
//
// # What is always true
//
//   - Nothing listens unless Serve was called with an address, and outside of
//     loopback nothing without TLS and authentication unless Options.AllowInsecure
//     says so.
//   - Before a connection is authenticated nothing but ApiVersions, SaslHandshake
//     and SaslAuthenticate is parsed, and no frame above Limits.HandshakeFrameBytes is read.
//   - Requests of one connection are handled one after the other, and answered in
//     their order. Of those that wait for the disk the next are begun meanwhile; no
//     client can tell but by the time it takes (pipeline.go).
//   - A frame's bytes are reserved from the budgets of the connection and the server
//     before it is read. What its arrays claim is checked against the bytes that are
//     there before anything is allocated for them.
//   - When Shutdown or Close returns, no goroutine of the server is left.
//
// # How a handler is written
//
// A file NN_name.go has the versions it serves at its top and registers a function
// with register, which gets the request decoded by kmsg and returns the response.
// A []byte in a decoded request is a part of the frame, which is not used again for
// anything else. An error closes the connection; what a client should hear is an
// error code in the response, which codeOf finds for any error of the engine.
package kafka
