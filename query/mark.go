package query

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/x/embedlog"
)

// mark says what the rows of a checkpoint, or of a store on disk, are of: one commit. It is written together with them. What came after it is in the
// changelogs, from the offsets on that it names; which rows those are does not count, because the latest record of a key does.
type mark struct {
	Format int    `json:"format"`
	Graph  string `json:"graph"`
	Task   int    `json:"task"`
	// Progress is the task's record in the graph's progress topic, whose id is ProgressID. Next is the offset behind it.
	Progress     string `json:"progress"`
	ProgressID   string `json:"progress_id"`
	ProgressNext int64  `json:"progress_next"`
	// Stores are all of the task's.
	Stores []storeMark `json:"stores"`
}

// storeMark is a store in a mark.
type storeMark struct {
	Name string `json:"name"`
	// ID is the changelog's; Next the offset from which on it has what is not among the rows.
	ID   string `json:"id"`
	Next int64  `json:"next"`
	// Rows is how many there are.
	Rows int64 `json:"rows"`
}

// markFormat is the version of checkpoints and of stores on disk. Those of another version are not used.
const markFormat = 1

// A row is kept as its value in the changelog with the headers before it:
//
//	uvarint  how many headers
//	each     uvarint length, name, uvarint length, value
//	the rest is the record's value
func appendRow(dst, value []byte, headers []embedlog.Header) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(headers)))
	for i := range headers {
		dst = appendPrefix(dst, rawOf(headers[i].Key))
		dst = appendPrefix(dst, headers[i].Value)
	}
	return append(dst, value...)
}

var errRow = errors.New("query: invalid encoding of a row")

// readRow makes a record of a row. What it has are parts of b; its headers are in the room of those that it had.
func readRow(rec *embedlog.Record, b []byte) error {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)) {
		return errRow
	}
	b, rec.Headers = b[size:], rec.Headers[:0]
	for range n {
		var key, value []byte
		var ok bool
		if key, b, ok = cutPrefixed(b); ok {
			value, b, ok = cutPrefixed(b)
		}
		if !ok {
			return errRow
		}
		rec.Headers = append(rec.Headers, embedlog.Header{Key: text(key), Value: value})
	}
	rec.Value = b[:len(b):len(b)]
	return nil
}

// cutPrefixed takes bytes with their length before them off the front.
func cutPrefixed(b []byte) (head, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}

// StateError says that a graph's changelogs do not have the rows that it has committed: somebody else has written to them, or deleted what
// was in them. Its views would be wrong without a sign. Graph.Rebuild, or a graph under another name, computes them anew.
type StateError struct {
	Graph, Store string
	// Rows is how many the changelog has, Want how many there were.
	Rows, Want int64
}

func (e *StateError) Error() string {
	return fmt.Sprintf("the changelog of store %s of view graph %s has %d rows and should have %d: Graph.Rebuild computes it anew, or start it under another name", e.Store, e.Graph, e.Rows, e.Want)
}

// Is matches ErrState.
func (e *StateError) Is(target error) bool { return target == ErrState }
