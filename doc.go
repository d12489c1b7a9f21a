// Package embedlog is a log of records like Kafka's inside a Go program: topics
// with partitions and offsets, consumer groups and transactions, in a directory and
// without a server.
//
//	DB ── Topic ── partition 0   record record record ... ──> Scan: a finite range
//	│              partition 1   record record ...
//	├─ Producer    batches, back-pressure, each record once
//	├─ Consumer    one of a group, each partition has one reader
//	└─ Txn         records and a group's offsets, all or none
//
// # Twenty lines
//
//	db, err := embedlog.Open("data", nil)
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 4})
//	if err != nil {
//		return err
//	}
//	if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte("ann"), Value: []byte("450")}); err != nil {
//		return err
//	}
//	billing, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}})
//	if err != nil {
//		return err
//	}
//	defer billing.Close()
//	for rec, err := range billing.Records(ctx) {
//		if err != nil {
//			return err
//		}
//		fmt.Printf("%s/%d@%d %s\n", rec.Topic, rec.Partition, rec.Offset, rec.Value)
//	}
//
// # Concepts
//
// A topic is a name for a number of partitions. A partition is an ordered log of
// records: each has the next offset, and keeps it. Records with the same key go to
// the same partition, so they stay in order. Reading deletes nothing; settings of
// the topic say how long records are kept ([TopicConfig]).
//
// A consumer group remembers, for each partition, the offset at which it goes on.
// Its consumers share the partitions among them.
//
// # Durability
//
// A call that produces returns when the record is as safe as the topic's
// [Durability] says. Durable, the default, means on the disk: it survives a power
// cut. Interval and OS acknowledge sooner and say what a power cut can then take;
// a killed process loses nothing at any level. An error that matches
// [ErrUnknownOutcome] is not a failure: the records may be there, now or after a
// restart. All others mean that nothing was written. [IsRetriable] says which calls
// may simply be made again.
//
// # What is not promised
//
// There is no order between partitions. One process has the directory open at a
// time; others get a [LockedError] that names it. A record that was acknowledged at
// a weaker level than Durable can be lost in a power cut, as that level says.
// Damage to the disk is found and reported, not hidden; it is mended only by an
// explicit repair.
//
// # A good guest
//
// The package prints nothing, exits nothing, handles no signal, listens to nothing
// unless asked, and has no global state. Memory, open files and goroutines are
// bounded however many partitions there are, and none are left after Close.
//
// Handles may be used by several goroutines unless their comment says otherwise.
package embedlog
