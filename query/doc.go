// Package query keeps views of topics up to date: tables that functions of the program compute from records, and that change with
// each record. A view is read like a map, its state survives by itself, and nothing is asked of the log when it is read.
//
//	spent, err := query.Aggregate(query.From(orders, codec.String, codec.JSON[Order]{}), "spent",
//		func(total int64, _ string, o Order) int64 { return total + o.Cents })
//	// ...
//	total, found, err := spent.Get(ctx, "ann") // with every record that was acknowledged before the call
//
// Streams and tables describe what is computed, and run nothing:
//
//	From ──> Stream ── Filter, Map, MapValues, FlatMap, Rekey, Branch, Merge ──> Stream
//	TableFrom ──> Table ── Filter, MapTable ──> Table           Table ── Changes ──> Stream
//	Stream, or GroupBy of either ── Count, Sum, Average, Min, Max, TopN, CountDistinct, Fold, Reduce ──> Table
//	Join, LeftJoin, OuterJoin, ForeignJoin of tables ──> Table    JoinTable, LeftJoinTable of a stream and a table ──> Stream
//	Windowed (Tumbling, Hopping, Sliding) of a stream ── any aggregate ──> Table of windows ── Final ──> Table    Late ──> Stream
//	FoldSessions, CountSessions of a stream ──> Table of windows    JoinStreams, LeftJoinStreams of streams, within a time ──> Stream
//	JoinGlobal, LeftJoinGlobal of a stream and a GlobalTable, which every task has whole ──> Stream
//	Process, ProcessValues of a stream, with KeyValueStore and Timers ──> Stream    StateTable of a store ──> Table
//
// A Graph runs them: views of tables (Add) and streams that are appended to topics (To), all at one version, with rows, positions and
// what is appended in one transaction. Materialize and Aggregate make a graph of one view.
//
// # Concurrency
//
// Descriptions are values. A graph has a goroutine for each of its tasks, which alone writes, and a lock that readers share; snapshots see
// one version while the task goes on. No goroutine is left after Graph.Close or DB.Close.
//
// docs/views.md says how it works, what it promises and what it does not do yet.
package query
