// Package model is a naive log in memory that tests compare the real one with.
//
//	random operations ──┬──> the real log, partition, engine ──┐
//	                    └──> model.Log ────────────────────────┴─> same answers?
//
// It keeps every record in a slice and answers each question by looking through
// all of them, so that a reader can see it is right. It shares no code with what
// it judges, and imports nothing of this module. It is slow and not safe for
// concurrent use.
package model
