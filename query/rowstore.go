package query

// Stores opens stores of rows that are not in memory. Package query/disk has one, whose rows are in files.
type Stores interface {
	// OpenStore opens a store, and makes it where it is not there. Dir is the database's directory for it, empty where the database is in no
	// directory; name is the store's in it, a part of a file name. Nobody else has it open.
	OpenStore(dir, name string) (RowStore, error)
}

// RowStore is rows of bytes, in the order of the bytes of their keys. It need not keep what it was told last: the graph reads it again from its changelogs,
// from what the store has on. But it must not have a part of what Apply was given, nor anything without all that came before. When
// it has failed, or finds itself damaged, it should be empty when it is opened again, so that the graph begins with the changelogs.
//
// Get and Walk may be called by several goroutines, also beside Apply.
type RowStore interface {
	// Get appends a key's row to dst.
	Get(dst, key []byte) (row []byte, found bool, err error)
	// Walk calls f for the rows with from <= key < to, as they are when it is called, until f says false; backwards it begins with the last one. What f is
	// given is valid until it returns.
	Walk(from, to []byte, backwards bool, f func(key, row []byte) bool) error
	// Apply makes changes, all of them or none. It does not wait for the disk, and keeps nothing of what it is given.
	Apply(changes []RowChange) error
	// Clear removes all rows.
	Clear() error
	// Close closes the store. What was applied is there when it is opened again.
	Close() error
}

// RowChange sets a row, or deletes it.
type RowChange struct {
	Key, Row []byte
	Delete   bool
}
