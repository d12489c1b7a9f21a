// Package nexmark is the events and the queries of Nexmark, an auction house, for package query.
//
// The model is that of Tucker, Tufte, Papadimos and Maier, "NEXMark - A Benchmark for Queries over Data Streams" (2002, 2008), with the
// proportions, hot keys and sizes that Apache Beam gave it, and the queries q0 to q23 as Beam and Flink's users know them. Generator, codecs
// and queries are written anew from these descriptions. What differs:
//
//   - All events are in one topic, in their order, as records of a key: a person's, an auction's id; a bid has its auction's.
//   - Bids are for auctions that exist, as in the paper; Beam lets some be for the next ten.
//   - Queries whose result is a stream of rows count them in a view, or append them to a topic: each says which. Windows show
//     their rows when they are over.
package nexmark
