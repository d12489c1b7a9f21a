// Package disk keeps the rows of views in files, for views that are larger than memory. It is a module of its own, so that programs without it
// do not take on what it is made of: pebble, a log-structured merge tree in Go (github.com/cockroachdb/pebble).
//
//	stores := disk.New(nil)
//	g := query.NewGraph(db, "shop", &query.Options{Store: stores})
//
// Each task of a graph has a store, a directory below the database's directory "views". It is a copy: the truth is in the graph's changelogs. So
// it is written without a log of its own and without waiting for the disk; after a crash it is as it was at some earlier commit, and the graph
// reads what came after it from its changelogs. A store that cannot be opened, or that is damaged, is removed, and made again from them.
//
// What goes wrong with a store's files is a *StoreError, and ends neither the program nor a read that has a deadline. Without room the files stay, and the graph
// goes on by itself when there is some.
//
// What is on disk and what is in memory is the graph's affair: see docs/views.md.
package disk
