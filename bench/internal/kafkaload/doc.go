// Package kafkaload loads a server over loopback: what bench and bench/compare
// measure of the Kafka listener, the same for both.
//
//	client process                          server process (Child)
//	Produce, Consume, Latency  --TCP-->     a system: embedlog, a limit, another one
//	rusage, profiles           --pipe-->    Serve
//
// The server runs in a process of its own, so that what it takes of the processor
// can be told from what the clients take.
package kafkaload

import "time"

// Kind is what a load does.
type Kind string

// The kinds of a load.
const (
	Produce Kind = "produce" // all clients to one partition, a window of records outstanding
	Consume Kind = "consume" // each client reads the one partition from its start
	Latency Kind = "latency" // each client has a partition, and waits for each of its records
)

// Load is what the clients of one repetition do.
type Load struct {
	Kind    Kind
	Durable bool // the records survive a power cut when they are acknowledged, else a kill
	Clients int
	Bytes   int           // of a record's value; there is no key
	Time    time.Duration // how long it goes on
	Window  int           // records that are outstanding, of all clients together
	Fill    int64         // records that a consumer finds
	Chunk   int           // bytes of a request of the limit
}

// Topic is the name of the topic, stream or subject that the load is about.
const Topic = "load"

// Partitions is how many partitions the topic has.
func (l *Load) Partitions() int {
	if l.Kind == Latency {
		return l.Clients
	}
	return 1
}

// window is the part of one client.
func (l *Load) window() int { return max(l.Window/l.Clients, 1) }

// FetchBytes is how much a client asks for at once: what all of them hold stays the
// same.
func (l *Load) FetchBytes() int { return max(1<<20/l.Clients, 64<<10) }

// Result is what one repetition measured.
type Result struct {
	Records  int64
	Bytes    int64 // of values
	Elapsed  time.Duration
	CPU      time.Duration // of the server's process, in user and system mode
	P50, P99 time.Duration // Latency: from the call that produces to the record at the consumer
	// Requests is in how many batches the records went out, where that is known.
	Requests int64
}

// PerSecond is records a second.
func (r *Result) PerSecond() float64 { return float64(r.Records) / r.Elapsed.Seconds() }

// MBPerSecond is megabytes of values a second.
func (r *Result) MBPerSecond() float64 { return float64(r.Bytes) / 1e6 / r.Elapsed.Seconds() }

// CPUPerMB is what the server's process took for a megabyte of values.
func (r *Result) CPUPerMB() time.Duration {
	if r.Bytes == 0 {
		return 0
	}
	return time.Duration(float64(r.CPU) / (float64(r.Bytes) / 1e6))
}
