// Package fuzz holds the fuzz targets that drive the system as a whole: bytes
// become a program of appends, crashes, damage and restarts, and whatever the
// program does, the promises of docs/durability.md have to hold. The target of a
// single decoder lies beside the decoder.
//
//	go test ./fuzz -fuzz FuzzPartition
//
// Inputs that once failed are kept in testdata and run with every go test.
package fuzz
