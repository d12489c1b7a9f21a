package kafka

import "time"

// Moved is what a request moved, for a Throttler.
type Moved struct {
	Principal     Principal
	ClientID      string
	ProducedBytes int64         // of record batches that came in
	FetchedBytes  int64         // of record batches that go out
	Partitions    int           // that were made or deleted
	Key           int16         // of the API
	Duration      time.Duration // that handling it took, without waiting for records or for other members of a group
}

// Throttler keeps clients within quotas. It is asked after each request, by several
// goroutines at once.
type Throttler interface {
	// Throttle notes what a request moved, and returns how long the client has to
	// wait. It is told so in the answer, and its next request is not looked at before.
	Throttle(m Moved) time.Duration
}
